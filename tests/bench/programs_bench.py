# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the BPF programs cost, by the kernel's own run statistics, in the test machine with its newest kernel.

Figures, each for every program that ran: its runs and the time of a run in a minute at rest, while page cache is
reclaimed, and during a kill by `prekill` with core and daemon stopped; beside them programs that do nothing on hooks of
the same kinds (empty.bpf.c), which cost what the statistics do. The memory that the kernel charges for each, and for
the maps. From a sign of the programs to the look of the core that it woke. A choice among more and more units. The
machine is emulated: its times are some twenty times those of the processor below it.

Programs whose names differ by a number alone are one, with their runs added up.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import Figure, Report, say
from tests.bench.machine_bench import PATIENCE, booted, take_parts
from tests.vm.lab import Lab
from tests.vm.machine import Machine
from tests.vm.pulse import Look, only_signs, watcher
from tests.vm.test_bpf import OOMSLICE_BPF, status
from tests.vm.test_prekill import nobody_else, wait_emptied

EMPTY = Path(__file__).with_name("empty.bpf.c")
PINS = "/run/oomslice/bpf"
EMPTY_PINS = "/sys/fs/bpf/empty"
REST_SECONDS = 60
SIGNS = 10
"""At least so many, or the figure could not be taken."""
SIGNS_ROUNDS = 15
UNITS = (10, 100, 1000)
CHOICES = 100
"""How often each choice is made for one sample."""
FILE_MB, LIMITED_MB, LIMIT_MB = 1500, 300, 60
"""What is read: more than the machine has, and in a unit at its limit more than that."""

LIST_PINS = f"""
for pin in {PINS}/*/link-* {EMPTY_PINS}/*; do
    echo "$pin $(bpftool --json link show pinned $pin | tr -d '\\n')"
done
for pin in {PINS}/*/program-*; do
    echo "$pin $(bpftool --json prog show pinned $pin | tr -d '\\n')"
done
"""
LIST_MAPS = f"for pin in {PINS}/*/map-*; do bpftool --json map show pinned $pin | tr -d '\\n'; echo; done"
POPULATE = """
for number in $(seq FIRST LAST); do
    cgroup=/sys/fs/cgroup/many.slice/many-$number.service
    mkdir $cgroup
    setsid sleep infinity </dev/null >/dev/null 2>&1 & echo $! >$cgroup/cgroup.procs
done
"""
"""Units younger than the plan, which have what their slice hands down: systemd itself would take minutes for these."""


@dataclass(frozen=True, slots=True)
class Runs:
    """How often a program ran, or several did, and for how long together."""

    count: int = 0
    nsec: int = 0

    def __add__(self, other: Runs) -> Runs:
        return Runs(self.count + other.count, self.nsec + other.nsec)

    def __sub__(self, other: Runs) -> Runs:
        return Runs(self.count - other.count, self.nsec - other.nsec)


def pinned_programs(listing: str) -> dict[int, str]:
    """Id of a program -> CARRIER/NAME, without the number at its end, of what LIST_PINS prints."""
    names = {}
    for line in listing.splitlines():
        path, said = line.split(" ", 1)
        link = json.loads(said)
        carrier, pin = path.split("/")[-2:]
        name = re.sub(r"_\d+$", "", re.sub("^(link|program)-", "", pin))
        names[int(link.get("prog_id", link["id"]))] = f"{carrier}/{name}"
    return names


def runs_of(listing: str, names: dict[int, str]) -> dict[str, Runs]:
    """Name -> runs since statistics are kept, of what `bpftool --json prog show` prints."""
    found = dict.fromkeys(names.values(), Runs())
    for program in json.loads(listing):
        if name := names.get(program["id"]):
            # bpftool leaves both out as long as there are none.
            found[name] += Runs(program.get("run_cnt", 0), program.get("run_time_ns", 0))
    return found


def memory_of(listing: str, names: dict[int, str]) -> dict[str, list[float]]:
    """Name -> KiB of each program of that name, of the same."""
    found: dict[str, list[float]] = {name: [] for name in sorted(names.values())}
    for program in json.loads(listing):
        if name := names.get(program["id"]):
            found[name].append(program["bytes_memlock"] / 1024)
    return found


def maps_memory(listing: str) -> float:
    """KiB of all maps, each once, of what LIST_MAPS prints."""
    sizes: dict[int, int] = {one["id"]: one["bytes_memlock"] for one in map(json.loads, listing.splitlines())}
    return sum(sizes.values()) / 1024


def compile_empty(directory: Path) -> Path | None:
    """The object of EMPTY; None without a compiler for it."""
    if shutil.which("clang") is None:
        say("programs that do nothing are not measured: clang is not installed")
        return None
    target = directory / "empty.bpf.o"
    flags = ("-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror")
    subprocess.run(["clang", *flags, "-c", EMPTY, "-o", target], check=True)
    return target


class Programs:
    """The programs of oomslice in the machine, and those that do nothing, while the kernel counts their runs."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        with tempfile.TemporaryDirectory() as directory:
            if empty := compile_empty(Path(directory)):
                machine.put("/root/empty.bpf.o", empty.read_bytes())
                machine.check(f"bpftool prog loadall /root/empty.bpf.o {EMPTY_PINS} autoattach", timeout=PATIENCE)
        self.names = pinned_programs(machine.check(LIST_PINS, timeout=PATIENCE))

    def listing(self) -> str:
        """What the kernel says of all programs."""
        return self.machine.check("bpftool --json prog show", timeout=PATIENCE)

    @contextlib.contextmanager
    def counted(self) -> Iterator[dict[str, Runs]]:
        """Empty at first; after the block it has the runs in it."""
        found: dict[str, Runs] = {}
        before = runs_of(self.listing(), self.names)
        yield found
        after = runs_of(self.listing(), self.names)
        found.update({name: after[name] - before[name] for name in after})


@contextlib.contextmanager
def statistics(machine: Machine) -> Iterator[None]:
    """The kernel counts runs, until the end of the block."""
    before = machine.check("sysctl -n kernel.bpf_stats_enabled").strip()
    machine.check("sysctl -qw kernel.bpf_stats_enabled=1")
    try:
        yield
    finally:
        machine.run(f"sysctl -qw kernel.bpf_stats_enabled={before}")


def run_figures(samples: list[dict[str, Runs]], during: str) -> Iterator[Figure]:
    """Of each program that ran in some sample: how often, and for how long a run took in those in which it did."""
    for name in sorted({name for sample in samples for name, runs in sample.items() if runs.count}):
        runs = [sample[name] for sample in samples]
        yield Figure(f"{name} {during}, runs", "", tuple(one.count for one in runs))
        each = tuple(one.nsec / one.count / 1000 for one in runs if one.count)
        yield Figure(f"{name} {during}, a run", "us", each)


def runs_of_ours(found: dict[str, Runs]) -> int:
    """Of all but those that do nothing."""
    return sum(runs.count for name, runs in found.items() if not name.startswith("empty/"))


def rest(programs: Programs) -> Iterator[Figure]:
    """A minute in which nothing happens. To ask for figures takes processes, and a program sees each that begins: what
    asking takes is told apart by doing no more than that."""
    say("a minute of rest")
    machine = programs.machine
    machine.run("sync; sleep 20", timeout=PATIENCE)
    with programs.counted() as asking:
        machine.check("sleep 0", timeout=PATIENCE)
    with programs.counted() as found:
        machine.check(f"sleep {REST_SECONDS}", timeout=PATIENCE)
    yield Figure("runs of all programs when they are asked for", "", (runs_of_ours(asking),))
    yield Figure(f"the same with {REST_SECONDS} s at rest between", "", (runs_of_ours(found),), "the same")
    yield from run_figures([found], "at rest")


def memory(programs: Programs) -> Iterator[Figure]:
    """What the kernel charges for instructions, by the page, and for maps."""
    total = 0.0
    for name, pages in memory_of(programs.listing(), programs.names).items():
        if not name.startswith("empty/"):
            yield Figure(f"memory of {name}", "KiB", tuple(pages), "at most 4")
            total += sum(pages)
    yield Figure("memory of all programs", "KiB", (total,))
    yield Figure("memory of all maps", "KiB", (maps_memory(programs.machine.check(LIST_MAPS, timeout=PATIENCE)),))


def reclaim(programs: Programs, runs: int) -> Iterator[Figure]:
    """Files larger than the memory are read again and again, one by a unit that has far less."""
    machine = programs.machine
    machine.check(f"truncate -s {FILE_MB}M /var/tmp/read; truncate -s {LIMITED_MB}M /var/tmp/limited")
    limits = f"-p MemoryMax={LIMIT_MB}M -p MemorySwapMax=0"
    limited = f"systemd-run --quiet --wait {limits} -- sh -c 'cat /var/tmp/limited >/dev/null'"
    samples = []
    machine.check("cat /var/tmp/read >/dev/null", timeout=PATIENCE)
    for run in range(runs):
        say(f"reading {run + 1} of {runs}")
        with programs.counted() as found:
            machine.check(f"{limited} & cat /var/tmp/read >/dev/null; wait", timeout=PATIENCE)
        samples.append(found)
    machine.check("rm /var/tmp/read /var/tmp/limited; sync")
    yield from run_figures(samples, "while reclaiming")


def kills(programs: Programs, lab: Lab, runs: int) -> Iterator[Figure]:
    """A hog is killed by `prekill`, since nobody else runs."""
    if not status(lab)["prekill"]["active"]:
        say(f"no kill is measured: {status(lab)['prekill']['why']}")
        return
    samples = []
    for run in range(runs):
        say(f"kill {run + 1} of {runs}")
        name = f"hog-{run}"
        lab.settle()
        lab.drop_in(f"{name}.service", "Priority=-100")
        lab.start_hog(name, rate=60, wait_for=name)
        lab.wait_planned(**{name: -100})
        with nobody_else(lab), programs.counted() as found:
            lab.go(name)
            wait_emptied(lab, name)
        decision = lab.decision_about(name, timeout=PATIENCE)
        lab.machine.run(f"systemctl reset-failed {name}.service; sync")
        if decision["carrier"] != "bpf":
            say(f"not counted: {decision['victim']} was killed by {decision['carrier']}")
            continue
        samples.append(found)
    if not samples:
        yield Figure("kill by prekill", "", ())
    yield from run_figures(samples, "during a kill")


def signs(lab: Lab) -> Iterator[Figure]:
    """A unit grows into page cache until the core would look, again and again, and goes before it would act."""
    machine = lab.machine
    looks: list[Look] = []
    lab.settle()
    total = int(machine.check("awk '/^MemTotal/{print $2}' /proc/meminfo")) >> 10
    with only_signs(lab), watcher(lab) as watch:
        machine.check(f"truncate -s {FILE_MB}M /var/tmp/read")
        lab.start_service("balloon", machine.available_mb() - total * 40 // 100)
        for number in range(SIGNS_ROUNDS):
            machine.check("cat /var/tmp/read >/dev/null", timeout=PATIENCE)
            more = max(0, machine.available_mb() - total * 15 // 100)
            lab.start_hog(f"more-{number}", rate=200, max_mb=more, ahead=0)
            machine.run("sleep 3", timeout=PATIENCE)
            machine.check(f"systemctl kill -s KILL more-{number}.service; sleep 1", timeout=PATIENCE)
            looks = watch.looks()
            say(f"growth {number + 1}: {len(looks)} signs")
            if len(looks) >= SIGNS:
                break
        machine.run("rm /var/tmp/read; systemctl stop balloon.service", timeout=PATIENCE)
    if unanswered := sum(not look.looked_nsec for look in looks):
        say(f"{unanswered} signs that the core did not look after")
    if len(looks) < SIGNS or unanswered:
        looks = []
    delays = tuple(look.delay_nsec / 1e6 for look in looks)
    yield Figure("sign of a BPF program to the look of the core", "ms", delays, "at most 1")
    # The machine may have been held up for so long, and the watcher with it: then the first may be that much too large.
    unseen = tuple(look.unseen_nsec / 1e6 for look in looks)
    yield Figure("between the readings by which that was seen", "ms", unseen)


def choices(lab: Lab, runs: int) -> Iterator[Figure]:
    """How long the choice inside the kernel takes, as natively (native.py)."""
    machine = lab.machine
    lab.drop_in("many.slice", "Priority=-10")
    lab.start("first", "sleep infinity", slice="many.slice")
    lab.wait_planned(**{"many.slice": -10})
    last = 1
    for units in UNITS:
        say(f"a choice among {units} units")
        populate = POPULATE.replace("FIRST", str(last + 1)).replace("LAST", str(units))
        machine.check(populate, timeout=PATIENCE)
        last = units
        samples = []
        for _ in range(runs):
            asked = f"{OOMSLICE_BPF} --json --runs={CHOICES} choose /many.slice"
            answer = json.loads(machine.check(asked, timeout=PATIENCE))
            assert answer["eligible"] == units, answer
            samples.append(answer["nsec_per_run"])
        yield Figure(f"choice inside the kernel, {units} units", "us", tuple(nsec / 1000 for nsec in samples))
        each = tuple(nsec / units for nsec in samples)
        yield Figure(f"choice inside the kernel, each of {units} units", "ns", each)


def measure(report: Report, package: Path, kernel: str | None, runs: int, taken: Callable[[], None]) -> None:
    """All figures into `report`; calls `taken` after each part. `kernel` is a short version, None for the newest."""
    with booted(report, package, kernel, newest=True) as machine, statistics(machine):
        lab = Lab(machine)
        lab.settle()
        programs = Programs(machine)
        parts = {
            "rest": rest(programs),
            "memory": memory(programs),
            "reclaim": reclaim(programs, runs),
            "kills": kills(programs, lab, runs),
            "signs": signs(lab),
            "choices": choices(lab, runs),
        }
        take_parts(report, parts, taken)
