# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured in the test machine, with the package installed and real shortage.

Figures: locked memory of the core and memory of oomsliced; system calls of the core in a minute at rest; from trigger
to signal and to memory back, also while a user floods the bus with calls; from the death of the core until it is ready
again; with more and more units, how long `systemctl daemon-reload` takes, and from its end until the core has the new
plan. The machine is emulated: its times are some twenty times those of the processor below it. Nothing here has a bound
that a slow machine could reach.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench.figures import Figure, Report, say
from tests.vm.image import image
from tests.vm.lab import Lab
from tests.vm.machine import Machine, installed_disk, making, turn

PATIENCE = 1800.0
"""Seconds: for what must happen at some time. Reached only by something that hangs."""
HOG = "/opt/vmtest/hog 400 4000"
BATCH = 50
"""How many units are started in one go: each go is a line of progress."""
FLOOD = Path(__file__).parents[1] / "vm/programs/flood.py"
TEMPLATE = "/run/systemd/system/bench@.service"
RELOAD = """
busctl --system --json=short monitor \
    --match "type='signal',member='Reloading',path='/org/freedesktop/systemd1'" \
    --match "type='signal',member='PropertiesChanged',path='/org/oomslice1'" > /tmp/monitor & monitor=$!
sleep 3
echo $(date +%s%N); systemctl daemon-reload; echo $(date +%s%N)
# The daemon tells of each plan that the core has taken. The first one with the new priority is the one to wait for.
seen=0 plan=0
while [ $plan = 0 ]; do
    now=$(grep -c '"State"' /tmp/monitor)
    if [ "$now" -gt "$seen" ]; then
        seen=$now
        busctl --system call org.oomslice1 /org/oomslice1 org.oomslice1.Manager GetSlice s bench@1.service |
            grep -q '"Priority" i PRIORITY ' && plan=$now
    fi
    sleep 0.05
done
kill $monitor
grep -n '"member":"Reloading"' /tmp/monitor | tail -n 1
grep '"State"' /tmp/monitor | sed -n "${plan}p"
"""
"""Prints when daemon-reload was called and when it was over, systemd's last Reloading signal, that of the new plan."""


def sizes(machine: Machine) -> Iterator[Figure]:
    """What the two processes hold."""
    core = machine.main_pid("oomslice-core.service")
    status = machine.check(f"cat /proc/{core}/status")
    locked = int(re.findall(r"^VmLck:\s+(\d+)", status, re.M)[0]) / 1024
    reserve = int(Lab(machine).property("State")["ReserveBytes"]) / 2**20
    yield Figure("locked memory of oomslice-core, without the reserve", "MiB", (locked - reserve,), "at most 1.5")
    yield Figure("reserve of oomslice-core", "MiB", (reserve,))
    daemon = int(machine.check("cat /sys/fs/cgroup/oomslice.slice/oomsliced.service/memory.current")) / 2**20
    yield Figure("memory.current of oomsliced and its worker", "MiB", (daemon,))
    pids = machine.check("cat /sys/fs/cgroup/oomslice.slice/oomsliced.service/cgroup.procs").split()
    pss = sum(int(machine.check(f"awk '/^Pss:/{{print $2}}' /proc/{pid}/smaps_rollup")) for pid in pids) / 1024
    yield Figure("PSS of oomsliced and its worker", "MiB", (pss,))


def wakeups(machine: Machine) -> Iterator[Figure]:
    """System calls of all of the core's threads in a minute in which nothing happens."""
    say("a minute of rest")
    core = machine.main_pid("oomslice-core.service")
    machine.run("sync; sleep 20")
    # Attaching interrupts the calls that the threads are in, and the end does so again; what counts is between.
    before, _, trace = machine.check(
        f"strace -f -qq -o /tmp/rest -p {core} >/dev/null 2>&1 & tracer=$!; sleep 5; wc -c < /tmp/rest; sleep 60;"
        " cat /tmp/rest; kill $tracer",
        timeout=PATIENCE,
    ).partition("\n")
    calls = calls_since(int(before), trace)
    for call in calls:
        say(f"not at rest: {call}")
    if int(before):
        yield Figure("system calls of oomslice-core in a minute at rest", "", (float(len(calls)),), "0")
    else:
        say("strace did not see the core")
        yield Figure("system calls of oomslice-core in a minute at rest", "", ())


def calls_since(size: int, trace: str) -> list[str]:
    """What strace began to write after so many characters.

    It ends the line of the call that it saw last only when another one comes: at rest, one line has no end.
    """
    before = trace[:size]
    begun = before.count("\n") + (not before.endswith("\n"))
    return trace.split("\n")[begun:-1]


def storms(
    machine: Machine,
    runs: int,
    during: str = "",
    meanwhile: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Iterator[Figure]:
    """Kills the same hog again and again and reads the times from the records. `during` says what else goes on, and
    `meanwhile` begins and ends that."""
    signal: list[float] = []
    back: list[float] = []
    for run in range(runs):
        say(f"storm {run + 1} of {runs}")
        lab = Lab(machine)
        lab.settle()
        with meanwhile():
            machine.start_service("hog", HOG, slice="low.slice")
            lab.wait_until_dead("hog", timeout=PATIENCE)
        record = lab.decision_about("hog", timeout=PATIENCE)
        machine.run("systemctl reset-failed hog.service; sync")
        if record["outcome"] != "freed":
            say(f"not counted: {record['victim']} {record['outcome']}")
            continue
        signal.append((record["signal_usec"] - record["trigger_usec"]) / 1000)
        back.append((record["memory_back_usec"] - record["trigger_usec"]) / 1000)
    yield Figure(f"trigger to signal{during}", "ms", tuple(signal), "at most 5")
    yield Figure(f"trigger to memory back{during}", "ms", tuple(back))


def flooded(machine: Machine, runs: int) -> Iterator[Figure]:
    """The same while a user calls the daemon as often as the bus lets him; and how often that is.

    He stands still between the storms: on an emulated machine he keeps the bus so busy that our own questions take
    minutes.
    """
    counters = "/run/bench-flood"
    machine.put("/opt/flood.py", FLOOD.read_text())
    machine.check(f"install -d -m 777 {counters}")
    machine.start_service("flood", f"/usr/bin/python3 /opt/flood.py {counters}/of", User="tester")
    try:
        machine.wait_for("calls are made", lambda: machine.run(f"ls {counters}/of.3").rc == 0, PATIENCE, 0.5)
        machine.check("systemctl kill -s STOP flood.service", timeout=PATIENCE)
        rates: list[float] = []

        def counted() -> tuple[float, int]:
            words = machine.check(f"cut -d' ' -f1 /proc/uptime; cat {counters}/of.?", timeout=PATIENCE).split()
            return float(words[0]), sum(int(word) for word in words[1::3])

        @contextlib.contextmanager
        def flood() -> Iterator[None]:
            machine.check("systemctl kill -s CONT flood.service; sleep 2", timeout=PATIENCE)
            began, before = counted()
            yield
            ended, after = counted()
            rates.append((after - before) / (ended - began))
            machine.check("systemctl kill -s STOP flood.service", timeout=PATIENCE)

        yield from storms(machine, runs, ", during a flood of calls", flood)
        yield Figure("calls in a second", "1/s", tuple(rates))
    finally:
        machine.run(f"systemctl kill -s KILL flood.service; systemctl stop flood.service; rm -r {counters}")


def restarts(machine: Machine, runs: int) -> Iterator[Figure]:
    """From SIGKILL for the core until it says that its plan is in force and its triggers are armed."""
    say("the core dies and comes back")
    seconds: list[float] = []
    for _ in range(runs):
        out = machine.check(
            "core=$(systemctl show -P MainPID oomslice-core.service); cut -d' ' -f1 /proc/uptime; kill -KILL $core;"
            " until [ $(systemctl show -P MainPID oomslice-core.service) != $core ] &&"
            " systemctl is-active --quiet oomslice-core.service; do sleep 0.2; done;"
            " systemctl show -P ActiveEnterTimestampMonotonic oomslice-core.service",
            timeout=PATIENCE,
        )
        killed, ready = out.split()
        seconds.append(int(ready) / 1e6 - float(killed))
        machine.wait_for("oomslice is armed", Lab(machine).armed, PATIENCE, 0.5)
    yield Figure("core killed to core ready with its plan", "s", tuple(seconds), "at most 1")


def reloads(machine: Machine, units: int, running: int, runs: int) -> Iterator[Figure]:
    """How long daemon-reload takes with so many units more than the machine's own, and from its end to the new plan."""
    _set_priority(machine, 0)
    for first in range(running + 1, units + 1, BATCH):
        last = min(first + BATCH - 1, units)
        say(f"starting units {first} to {last} of {units}")
        machine.check(f"systemctl start $(seq -f 'bench@%g.service' {first} {last})", timeout=PATIENCE)
    reload: list[float] = []
    planned: list[float] = []
    for run in range(runs):
        priority = run + (501 if running else 1)  # another one than any before
        _set_priority(machine, priority)
        machine.wait_for("oomslice is armed", Lab(machine).armed, PATIENCE, 1)
        machine.run("sleep 10")
        out = machine.check(RELOAD.replace("PRIORITY", str(priority)), timeout=PATIENCE).splitlines()
        told = [json.loads(line[line.index("{") :])["timestamp-realtime"] * 1000 for line in out[2:4]]
        if len(told) < 2:
            say(f"not counted: {out}")
            continue
        called, returned = int(out[0]), int(out[1])
        reload.append((returned - called) / 1e6)
        planned.append((told[1] - told[0]) / 1e6)
        say(f"reload {run + 1} of {runs}: {reload[-1]:.0f} ms, then {planned[-1]:.0f} ms to the new plan")
    yield Figure(f"systemctl daemon-reload by itself, {units} more units", "ms", tuple(reload))
    yield Figure(f"end of daemon-reload to the new plan in force, {units} more units", "ms", tuple(planned))


def _set_priority(machine: Machine, priority: int) -> None:
    machine.put(
        TEMPLATE,
        f"[Service]\nExecStart=/usr/bin/sleep infinity\nSlice=bench.slice\n[X-OOMSlice]\nPriority={priority}\n",
    )


@contextlib.contextmanager
def booted(
    report: Report, package: Path, kernel: str | None, *, memory_mb: int = 1024, newest: bool = False
) -> Iterator[Machine]:
    """A machine with the package, by which the report is called. `kernel` is a short version; None is the oldest, or
    the newest."""
    with turn(), making():
        base = image(say)
        disk = installed_disk(base, package, say)
    say("booting (after whoever has the machine now)")
    with Machine(base, kernel or base.kernels[-1 if newest else 0], disk=disk, memory_mb=memory_mb) as machine:
        system = machine.check(
            ". /etc/os-release; "
            "echo $PRETTY_NAME, Linux $(uname -r), systemd $(systemctl --version | awk 'NR==1{print $2}')"
        ).strip()
        size = f"{memory_mb / 1024:g} GiB"
        report.title = f"{package.name} in an emulated machine: {system}, 2 processors, {size}, no swap"
        say(report.title)
        yield machine


def take_parts(report: Report, parts: Mapping[str, Iterator[Figure]], taken: Callable[[], None]) -> None:
    """The figures of all parts into `report`; calls `taken` after each."""
    for name, part in parts.items():
        try:
            report.take(part)
        except AssertionError as error:  # CommandError is one
            # The other figures are worth having all the same.
            say(str(error))
            report.take([Figure(f"(broken off: {name})", "", ())])
        taken()


def measure(
    report: Report, package: Path, kernel: str | None, runs: int, units: Sequence[int], taken: Callable[[], None]
) -> None:
    """All figures into `report`; calls `taken` after each part. `kernel` is a short version, None for the oldest."""
    with booted(report, package, kernel, memory_mb=2048) as machine:
        machine.put("/etc/systemd/system/low.slice.d/50-oomslice.conf", "[X-OOMSlice]\nPriority=-200\n")
        machine.check("systemctl daemon-reload", timeout=PATIENCE)
        parts = {
            "rest": wakeups(machine),
            "sizes": sizes(machine),
            "storms": storms(machine, runs),
            "flood": flooded(machine, runs),
            "restarts": restarts(machine, runs),
        }
        for before, more in zip([0, *units], units, strict=False):
            parts[f"reloads with {more} units"] = reloads(machine, more, before, runs)
        take_parts(report, parts, taken)
