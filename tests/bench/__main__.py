# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make bench`: measures on this machine and in the emulated one; prints each figure when it has it, tables at the end.

Exit status 0 only if every figure could be taken. A run takes about forty minutes, most of it for 1000 units under
emulation; `--native`, `--programs`, `--units 50` or `--runs 1` shorten it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench import machine_bench, native, programs_bench
from tests.bench.figures import Report, markdown, say

REPOSITORY = Path(__file__).resolve().parents[2]


def built_package() -> Path:
    """The package of this tree."""
    built = subprocess.run([REPOSITORY / "tools" / "build-deb"], check=True, stdout=subprocess.PIPE, text=True)
    return Path(built.stdout.splitlines()[-1])


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if every figure could be taken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--native", action="store_true", help="on this machine only")
    where.add_argument("--machine", action="store_true", help="in the emulated machines only")
    where.add_argument("--programs", action="store_true", help="the BPF programs only, in an emulated machine")
    parser.add_argument("--package", type=Path, help="the .deb to measure (default: built from this tree)")
    parser.add_argument("--runs", type=int, default=5, help="how often what can be repeated is (default: %(default)s)")
    parser.add_argument(
        "--kernel",
        help="of the emulated machine, short version (default: the oldest of the image; for BPF programs the newest)",
    )
    parser.add_argument(
        "--units", type=int, nargs="*", default=[50, 1000], help="numbers of units for daemon-reload, ascending"
    )
    parser.add_argument("--json", type=Path, help="write all samples there, after each figure's part")
    options = parser.parse_args(arguments)
    reports: list[Report] = []

    def write_json() -> None:
        if options.json:
            options.json.write_text(json.dumps([report.plain() for report in reports], indent=2) + "\n")

    if not (options.machine or options.programs):
        say("the kill path on this machine, with the shortage simulated")
        reports.append(Report("oomslice-core on this machine, shortage simulated", []))
        reports[-1].take(native.figures(options.runs))
        if not reports[-1].figures:
            print("Not measured natively: there is no cgroup v2 mount here.", flush=True)
        write_json()
    if not options.native:
        package = options.package or built_package()
        if not options.programs:
            reports.append(Report("", []))
            units = sorted(options.units)
            machine_bench.measure(reports[-1], package, options.kernel, options.runs, units, write_json)
        reports.append(Report("", []))
        programs_bench.measure(reports[-1], package, options.kernel, options.runs, write_json)
        write_json()
    print()
    for report in reports:
        if report.figures:
            print(markdown(report.title, report.figures), flush=True)
    return 0 if all(report.complete() for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
