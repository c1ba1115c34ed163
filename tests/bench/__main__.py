# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make bench`: builds the package, measures natively and in the emulated machine, prints tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench import machine_bench, native
from tests.bench.figures import markdown

REPOSITORY = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    """`arguments` go to machine_bench; `--native` measures on this machine only."""
    native_only = "--native" in arguments
    machine_bench.say("measuring the kill path on this machine")
    found = native.figures(runs=7)
    if found:
        print(markdown("oomslice-core on this machine, shortage simulated", found), flush=True)
    else:
        print("Not measured natively: there is no cgroup v2 mount here.\n")
    if native_only:
        return 0
    built = subprocess.run([REPOSITORY / "tools" / "build-deb"], check=True, stdout=subprocess.PIPE, text=True)
    package = built.stdout.splitlines()[-1]
    return machine_bench.main([package, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
