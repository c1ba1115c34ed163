# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the reserve is worth: storms in the test machine with reserves of several sizes.

`python -m tests.bench.reserve_bench PACKAGE --sizes 0 4 16 64` prints one table per size and kind of storm. The machine
has 2 GiB, no swap and a steady clock. A storm is a unit that grows as fast as it can: as one process, or as eight.
"late": limits are so low that the memory is gone when the decision is made; there the reserve is all that the kernel has
left.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.figures import Figure, markdown, say
from tests.bench.machine_bench import PATIENCE
from tests.vm.image import image
from tests.vm.lab import Lab
from tests.vm.machine import CommandError, Machine, installed_disk

MANAGER = "org.oomslice1 /org/oomslice1 org.oomslice1.Manager"
STORMS = {"one process": "/opt/vmtest/hog 0 4000", "eight processes": "/opt/vmtest/hog -c 8 0 4000"}
STORM_SECONDS = 120.0
"""When there was no decision by then, there will be none: the kernel has killed, or nobody was short of memory."""
LIMITS = {"default limits": "", "late": "machine:\n  available-min: 0.3%\n"}


def held(machine: Machine) -> int:
    """Bytes of the reserve that the core holds now."""
    out = machine.check(f"busctl --system get-property {MANAGER} State")
    match = re.search(r'"ReserveBytes" t (\d+)', out)
    return int(match[1]) if match else -1


def pressure(machine: Machine) -> float:
    """Milliseconds in which nothing went on for want of memory, since boot."""
    match = re.search(r"^full .*total=(\d+)", machine.check("cat /proc/pressure/memory"), re.M)
    assert match, "no full line"
    return int(match[1]) / 1000


def stalls(machine: Machine) -> int:
    """How often somebody had to reclaim memory himself, since boot."""
    return sum(int(count) for count in re.findall(r"^allocstall_\w+ (\d+)", machine.check("cat /proc/vmstat"), re.M))


def configure(machine: Machine, mebibytes: int, limits: str) -> None:
    text = f"limits:\n  reserve: {mebibytes}M\n{limits}"
    machine.put("/etc/oomslice/oomslice.yaml.d/50-reserve.yaml", text)
    machine.check("systemctl reload oomsliced.service", timeout=PATIENCE)
    machine.wait_for("the reserve", lambda: held(machine) == mebibytes << 20, PATIENCE, 0.5)


def storm(machine: Machine, command: str, mebibytes: int, samples: dict[str, list[float]]) -> None:
    lab = Lab(machine)
    lab.settle()
    machine.wait_for("the reserve", lambda: held(machine) == mebibytes << 20, PATIENCE, 0.5)
    before = pressure(machine), stalls(machine), machine.kernel_oom_kills()
    machine.start_service("hog", command, slice="low.slice")
    try:
        record = lab.decision_about("hog", timeout=STORM_SECONDS)
    except CommandError:
        say("not counted: nothing was decided")
        machine.run("systemctl stop hog.service; systemctl reset-failed hog.service", timeout=PATIENCE)
        return
    machine.run("systemctl reset-failed hog.service; sync", timeout=PATIENCE)
    samples.setdefault("kills by the kernel", []).append(machine.kernel_oom_kills() - before[2])
    samples.setdefault("memory full stall, ms", []).append(pressure(machine) - before[0])
    samples.setdefault("direct reclaims", []).append(stalls(machine) - before[1])
    if record["outcome"] != "freed":
        say(f"not counted: {record['victim']} {record['outcome']}")
        return
    for name, key in (("signal", "signal_usec"), ("death", "death_usec"), ("memory back", "memory_back_usec")):
        samples.setdefault(f"trigger to {name}, ms", []).append((record[key] - record["trigger_usec"]) / 1000)
    died = record["death_usec"] - record["signal_usec"]
    samples.setdefault("signal to death, ms", []).append(died / 1000)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="What the reserve is worth, in the test machine.")
    parser.add_argument("package", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=[0, 4, 16, 64], help="MiB")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limits", nargs="*", default=list(LIMITS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    base = image(say)
    disk = installed_disk(base, options.package, say)
    found: dict[str, dict[str, list[float]]] = {}
    with Machine(base, base.kernels[0], disk=disk, memory_mb=2048, steady=True) as machine:
        machine.put("/etc/systemd/system/low.slice.d/50-oomslice.conf", "[X-OOMSlice]\nPriority=-200\n")
        machine.check("systemctl daemon-reload")
        machine.wait_for("oomslice is armed", Lab(machine).armed, PATIENCE, 0.5)
        for limits in options.limits:
            for size in options.sizes:
                configure(machine, size, LIMITS[limits])
                for kind, command in STORMS.items():
                    title = f"{size} MiB, {limits}, {kind}"
                    samples = found.setdefault(title, {})
                    for run in range(options.runs):
                        say(f"{title}: storm {run + 1} of {options.runs}")
                        storm(machine, command, size, samples)
                    figures = [Figure(name, "", tuple(values)) for name, values in samples.items()]
                    print(markdown(title, figures), flush=True)
                    if options.json:
                        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
