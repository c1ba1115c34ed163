# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make bench`: boots the test machine with the package installed and measures there.

Figures: from trigger to signal and to memory back, locked memory of the core, memory of oomsliced, wakeups of the core
in a minute at rest, and from `systemctl daemon-reload` to the new plan with 50 and with 1000 more units. The machine is
emulated: its times are some twenty times those of the processor below it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.figures import Figure, markdown
from tests.vm.image import image
from tests.vm.machine import Machine, installed_disk

REPOSITORY = Path(__file__).resolve().parents[2]
MANAGER = "org.oomslice1 /org/oomslice1 org.oomslice1.Manager"
HOG = "/opt/vmtest/hog 400 4000"


def say(message: str) -> None:
    """Progress, on standard error."""
    print(f"bench: {message}", file=sys.stderr, flush=True)


def decisions(machine: Machine, runs: int) -> list[Figure]:
    """Kills the same hog again and again and reads the times from the records."""
    signal: list[float] = []
    back: list[float] = []
    for run in range(runs):
        say(f"storm {run + 1} of {runs}")
        before = len(_listed(machine))
        machine.start_service("hog", HOG, slice="low.slice")
        machine.wait_for("a decision", lambda before=before: len(_listed(machine)) > before, 120)  # type: ignore[misc]
        record = json.loads(machine.check("oomslicectl show --json"))
        if record["victim"] != "hog.service" or not record["memory_back_usec"]:
            say(f"not counted: {record['victim']} {record['outcome']}")
            continue
        signal.append((record["signal_usec"] - record["trigger_usec"]) / 1000)
        back.append((record["memory_back_usec"] - record["trigger_usec"]) / 1000)
        machine.run("systemctl reset-failed hog.service; sync; sleep 2")
    return [
        Figure("trigger to signal", "ms", tuple(signal)),
        Figure("trigger to memory back", "ms", tuple(back)),
    ]


def sizes(machine: Machine) -> list[Figure]:
    """What the two processes hold."""
    core = machine.main_pid("oomslice-core.service")
    status = machine.check(f"cat /proc/{core}/status")
    locked = int(re.findall(r"^VmLck:\s+(\d+)", status, re.M)[0]) / 1024
    daemon = int(machine.check("cat /sys/fs/cgroup/oomslice.slice/oomsliced.service/memory.current")) / 2**20
    pids = machine.check("cat /sys/fs/cgroup/oomslice.slice/oomsliced.service/cgroup.procs").split()
    pss = sum(int(machine.check(f"awk '/^Pss:/{{print $2}}' /proc/{pid}/smaps_rollup")) for pid in pids) / 1024
    return [
        Figure("locked memory of oomslice-core", "MiB", (locked,), "at most 1.5"),
        Figure("memory.current of oomsliced and its worker", "MiB", (daemon,)),
        Figure("PSS of oomsliced and its worker", "MiB", (pss,)),
    ]


def wakeups(machine: Machine) -> list[Figure]:
    """System calls of all of the core's threads in a minute in which nothing happens."""
    say("a minute of rest")
    core = machine.main_pid("oomslice-core.service")
    machine.run("sleep 20")
    trace = machine.run(
        f"timeout 60 strace -f -o /tmp/rest -e trace=all -p {core}; grep -c returned= /tmp/rest; cat /tmp/rest", 120
    )
    calls = [line for line in trace.out.splitlines() if re.match(r"\d+ +\w+\(.*\) += ", line)]
    return [Figure("system calls of oomslice-core in a minute at rest", "", (float(len(calls)),), "0")]


def reloads(machine: Machine, units: int, runs: int) -> list[Figure]:
    """From the call of daemon-reload until the core has the plan made after it."""
    say(f"{units} more units")
    machine.put(
        "/run/systemd/system/bench@.service",
        "[Service]\nExecStart=/usr/bin/sleep infinity\nSlice=bench.slice\n[X-OOMSlice]\nPriority=7\n",
    )
    machine.check(f"systemctl daemon-reload && systemctl start $(seq -f 'bench@%g.service' {units})", timeout=900)
    machine.run("sleep 15")
    times: list[float] = []
    for _ in range(runs):
        out = machine.check(
            "timeout 60 busctl --system --json=short monitor --match "
            "\"type='signal',path='/org/oomslice1',member='PropertiesChanged'\" > /tmp/monitor & sleep 3; "
            "date +%s%N; systemctl daemon-reload; for i in $(seq 100); do sleep 0.3; "
            "grep -q Carriers /tmp/monitor && break; done; kill %1; head -n 1 /tmp/monitor",
            timeout=120,
        )
        started, _, message = out.strip().partition("\n")
        if message:
            told = json.loads(message.splitlines()[0])["timestamp-realtime"] / 1000
            times.append(told - int(started) / 1e6)
        machine.run("sleep 5")
    machine.check("systemctl stop bench.slice", timeout=300)
    return [Figure(f"daemon-reload to the new plan, {units} more units", "ms", tuple(times))]


def _listed(machine: Machine) -> list[str]:
    out = machine.check(f"busctl --system --json=short call {MANAGER} ListDecisions tu 0 1000")
    return [row[0] for row in json.loads(out)["data"][0]]


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if every figure could be taken."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("package", type=Path, help="the .deb to measure")
    parser.add_argument("--runs", type=int, default=5, help="storms and reloads (default: %(default)s)")
    parser.add_argument("--kernel", help="short version (default: the oldest of the image)")
    parser.add_argument("--units", type=int, nargs="*", default=[50, 1000])
    parser.add_argument("--json", type=Path, help="write the samples there, too")
    options = parser.parse_args(arguments)
    base = image(say)
    kernel = options.kernel or base.kernels[0]
    disk = installed_disk(base, options.package, say)
    say("booting")
    with Machine(base, kernel, disk=disk, memory_mb=2048) as machine:
        machine.put("/etc/systemd/system/low.slice.d/50-oomslice.conf", "[X-OOMSlice]\nPriority=-200\n")
        machine.check("systemctl daemon-reload")
        figures = [*wakeups(machine), *sizes(machine), *decisions(machine, options.runs)]
        for units in options.units:
            figures += reloads(machine, units, options.runs)
        system = machine.check(
            ". /etc/os-release; "
            "echo $PRETTY_NAME, Linux $(uname -r), systemd $(systemctl --version | awk 'NR==1{print $2}')"
        )
    print(
        markdown(
            f"{options.package.name} in an emulated machine: {system.strip()}, 2 processors, 2 GiB, no swap", figures
        )
    )
    if options.json:
        samples = [{"name": figure.name, "unit": figure.unit, "samples": figure.samples} for figure in figures]
        options.json.write_text(json.dumps({"machine": system.strip(), "figures": samples}, indent=2) + "\n")
    return 0 if all(figure.samples for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
