# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real stalls fire real triggers: processes that read a file which does not fit into the memory they may use."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice._core import lib
from tests.core.plans import Domain
from tests.core.rig import Core, Scene, name, scenes, verdicts, wait_until

LIMIT = 24 << 20
SOME_STALL = (lib.OOMSLICE_PSI_SOME, 20_000, 2_000_000)
"""A window of 2 s needs no CAP_SYS_RESOURCE."""
READER = """
echo 0 >"$1/cgroup.procs"; echo 0 >"$2/cgroup.procs"
head -c 96M /dev/zero >"$3"
while :; do cat "$3" >/dev/null; done
"""


class Stallers:
    """Makes processes that stall. Their limit comes from the memory controller, wherever that is mounted."""

    def __init__(self, directory: Path, limit: Path) -> None:
        self.directory = directory
        self.limit = limit
        self.count = 0
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self, unit: Path) -> None:
        self.count += 1
        file = self.directory / f"file-{self.count}"
        self.children.append(subprocess.Popen(["sh", "-c", READER, "sh", self.limit, unit, file]))

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()


@pytest.fixture
def stallers(mount: Path) -> Iterator[Stallers]:
    limit = Path("/sys/fs/cgroup/memory") / f"oomslice-test-{os.getpid()}"
    if not (limit.parent / "memory.limit_in_bytes").exists():
        pytest.skip("needs a memory controller of cgroup v1 beside the cgroup v2 mount; tests/vm has the other case")
    limit.mkdir()
    (limit / "memory.limit_in_bytes").write_text(str(LIMIT), encoding="ascii")
    # Not in tmpfs, whose pages cannot be dropped.
    directory = Path("/var/tmp") / limit.name
    directory.mkdir()
    made = Stallers(directory, limit)
    yield made
    made.close()
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    wait_until(lambda: not (limit / "cgroup.procs").read_text(encoding="ascii"))
    limit.rmdir()


@pytest.fixture
def scene(core: Core, mount: Path) -> Iterator[Scene]:
    """As the usual one, with this machine's own pressure files."""
    (core.meminfo.parent / "pressure").symlink_to("/proc/pressure")
    yield from scenes(core, mount)


def test_stall_in_a_domain_takes_its_own_candidate_while_memory_is_plentiful(scene: Scene, stallers: Stallers) -> None:
    busy, calm = scene.add_slice("busy.slice"), scene.add_slice("calm.slice", -900)
    low = scene.add("busy.slice/low.service", -10, parent=busy)
    high = scene.add("busy.slice/high.service", 10, parent=busy, processes=1)
    other = scene.add("calm.slice/other.service", -900, parent=calm, processes=1)
    domains = [
        Domain(0),
        Domain(busy, trigger=SOME_STALL, cooldown_us=30_000_000),
        Domain(calm, trigger=SOME_STALL),
    ]
    records = scene.hand_over(domains=domains)
    stallers.start(low)
    record = records.wait(20)
    assert (record.trigger, record.outcome) == (lib.OOMSLICE_TRIGGER_PRESSURE, lib.OOMSLICE_OUTCOME_FREED)
    assert (name(record.domain_name), name(record.victim_name)) == ("busy.slice", "low.service")
    pressure = record.pressure
    assert (pressure.kind, pressure.stall_us, pressure.window_us) == SOME_STALL
    assert pressure.some_total_us >= pressure.full_total_us > 0
    assert (scene.alive(low), scene.alive(high), scene.alive(other)) == (0, 1, 1)

    # The domain rests now, whatever happens in it.
    stallers.start(high)
    time.sleep(6)
    assert records.next() is None and scene.alive(high) >= 1

    # A rest that has begun ends if it is made shorter.
    domains[1] = Domain(busy, trigger=SOME_STALL, cooldown_us=1_000_000)
    assert name(scene.hand_over(domains=domains).wait(20).victim_name) == "high.service"


def test_stalls_alone_are_no_shortage_of_the_machine(scene: Scene, stallers: Stallers) -> None:
    unit = scene.add("a.service")
    records = scene.hand_over(sign=SOME_STALL, thrash=SOME_STALL)
    before = scene.core.poke().wakeups
    stallers.start(unit)
    time.sleep(9)
    after = scene.core.poke()
    assert after.wakeups - before >= 3 + 2, "the triggers did fire: the questions account for three only"
    assert records.next() is None and scene.alive(unit) >= 1
    assert after.watching == 0


def test_stall_with_little_memory_is_thrashing(scene: Scene, stallers: Stallers) -> None:
    unit = scene.add("a.service")
    records = scene.hand_over(thrash=SOME_STALL)
    scene.core.set_memory(150, swap_total=4096, swap_free=4000)
    stallers.start(unit)
    record = records.wait(20)
    assert (record.trigger, record.outcome) == (lib.OOMSLICE_TRIGGER_THRASH, lib.OOMSLICE_OUTCOME_FREED)
    assert record.mem_available_limit == 200 << 20
    assert (record.pressure.kind, record.pressure.stall_us) == SOME_STALL[:2]


def test_first_sign_is_enough_to_act_at_once(scene: Scene, stallers: Stallers) -> None:
    unit = scene.add("a.service")
    records = scene.hand_over(sign=SOME_STALL)
    time.sleep(0.2)
    scene.core.set_memory(50)  # nobody tells the core
    stallers.start(unit)
    record = records.wait(20)
    assert (record.trigger, record.outcome) == (lib.OOMSLICE_TRIGGER_AVAILABLE, lib.OOMSLICE_OUTCOME_FREED)


def test_stalls_from_before_a_trigger_was_made_fire_nothing(scene: Scene, stallers: Stallers) -> None:
    # Without CAP_SYS_RESOURCE the kernel counts from an old sum: such a trigger fires at its first looks.
    busy = scene.add_slice("busy.slice")
    unit = scene.add("busy.slice/a.service", parent=busy)
    pressure = scene.paths[busy] / "memory.pressure"

    def stalled() -> int:
        return int(pressure.read_text(encoding="ascii").splitlines()[0].rpartition("total=")[2])

    scene.hand_over()
    stallers.start(unit)
    wait_until(lambda: stalled() > 200_000, 20)
    scene.tree.remove_processes(unit)
    scene.tree.populate(unit)
    before = stalled()
    records = scene.hand_over(domains=[Domain(0), Domain(busy, trigger=SOME_STALL)])
    wakeups = scene.core.poke().wakeups
    time.sleep(5)
    assert stalled() - before < SOME_STALL[1], "it is calm"
    assert scene.core.poke().wakeups - wakeups > 3, "the kernel fired it"
    assert records.next() is None and scene.alive(unit) == 1

    # And what is real counts.
    stallers.start(unit)
    assert records.wait(20).trigger == lib.OOMSLICE_TRIGGER_PRESSURE


def test_stall_of_a_unit_that_matters_is_paid_for_by_smaller_priorities_elsewhere(
    scene: Scene, stallers: Stallers
) -> None:
    services = scene.add_slice("services.slice", 500)
    database = scene.add("services.slice/database.service", 500, parent=services)
    idle = scene.add("services.slice/idle.service", -900, parent=services, processes=1)
    equal = scene.add("equal.service", 500, processes=1)
    other = scene.add("other.service", -800, processes=1)
    domains = [
        Domain(0),
        Domain(services + 1, flags=lib.OOMSLICE_DOMAIN_LOWER, trigger=SOME_STALL, cooldown_us=30_000_000),
    ]
    scene.core.set_memory(4096)
    records = scene.hand_over(domains=domains)
    stallers.start(database)
    time.sleep(5)
    assert records.next() is None, "the machine has memory: it stalls at a limit of its own"

    scene.core.set_memory(150, swap_total=4096, swap_free=4000)  # available_thrash is 200
    record = records.wait(20)
    assert (record.trigger, record.outcome) == (lib.OOMSLICE_TRIGGER_PRESSURE, lib.OOMSLICE_OUTCOME_FREED)
    assert (name(record.domain_name), name(record.victim_name)) == ("database.service", "idle.service")
    assert verdicts(record) == {os.stat(idle).st_ino: "chosen", os.stat(other).st_ino: "eligible"}
    assert [scene.alive(path) for path in (idle, equal, other)] == [0, 1, 1]
    assert scene.alive(database) >= 1
