# SPDX-License-Identifier: LGPL-2.1-or-later
"""The watchdog acts when the deciding thread is stuck: wherever that is, for one victim, and not without need.

tests/core/stuck.c keeps the deciding thread in a call, as the kernel would.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oomslice._core import lib
from tests.core.bpf_maps import Pulse
from tests.core.client import message
from tests.core.rig import Core, Records, Scene, name, scenes, verdicts, wait_until

WATCHDOG = lib.OOMSLICE_RECORD_WATCHDOG
MISSED = 1.5
"""Seconds after which the watchdog has looked at least once."""


class Stuck:
    """Where the core under test gets stuck; see stuck.c."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(256))
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), 256)

    def at(self, *ends: str) -> None:
        """From now on in these files; "*" before one: not only the deciding thread."""
        self.map[8:] = "".join(f"{end}\n" for end in ends).encode().ljust(248, b"\0")
        self.map[0:4] = struct.pack("I", 1)

    def reached(self) -> int:
        return int(struct.unpack("I", self.map[4:8])[0])

    def release(self) -> None:
        self.map[0:4] = bytes(4)


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stuck:
    monkeypatch.setenv("OOMSLICE_TEST_STUCK", str(tmp_path / "stuck"))
    return Stuck(tmp_path / "stuck")


@pytest.fixture
def scene(programs: Callable[[str], Path], mount: Path, tmp_path: Path, stuck: Stuck) -> Iterator[Scene]:
    """A running core that gets stuck on demand."""
    core = Core(programs("stuck"), tmp_path, mount)
    for made in scenes(core, mount):
        yield made
        stuck.release()


@pytest.fixture
def guarded_scene(programs: Callable[[str], Path], mount: Path, tmp_path: Path, stuck: Stuck) -> Iterator[Scene]:
    """The same, and it ends when its heap, stdio or a path is used after it is armed."""
    for made in scenes(Core(programs("guarded-stuck"), tmp_path, mount), mount):
        yield made
        stuck.release()


def short(scene: Scene) -> None:
    """Memory is short, and the core is woken by somebody who does not wait for an answer."""
    scene.core.set_memory(50)
    with scene.core.client() as client:
        client.send(message(lib.OOMSLICE_MESSAGE_STATE))


def both_alive(scene: Scene) -> tuple[Path, Path, Records]:
    first = scene.add("a.service", -10, processes=3)
    second = scene.add("b.service", 10, processes=2)
    return first, second, scene.hand_over()


@pytest.mark.parametrize("where", ["b.service/cgroup.events", "a.service/cgroup.events", "a.service/cgroup.procs"])
def test_stuck_in_reading_a_candidate(scene: Scene, stuck: Stuck, where: str) -> None:
    first, second, records = both_alive(scene)
    stuck.at(where)
    short(scene)
    record = records.wait()
    scene.core.set_memory(8192)
    assert stuck.reached() == 1
    assert (name(record.victim_name), record.flags) == ("a.service", WATCHDOG)
    assert (record.outcome, record.trigger) == (lib.OOMSLICE_OUTCOME_FREED, lib.OOMSLICE_TRIGGER_AVAILABLE)
    assert verdicts(record) == {os.stat(first).st_ino: "chosen", os.stat(second).st_ino: "eligible"}
    assert record.processes_total == 3 and record.signal_us <= record.death_us
    assert (scene.alive(first), scene.alive(second)) == (0, 2)


def test_programs_get_no_answer_from_a_stuck_core_but_the_watchdogs_victim_has_its_time(
    scene: Scene, stuck: Stuck
) -> None:
    scene.add("a.service", -10, processes=100)  # dying takes them long enough to be seen
    scene.add("b.service", 10, processes=2)
    records = scene.hand_over(deadline_us=8_000_000)
    with Pulse() as pulse:
        with scene.core.client() as client:
            client.send(message(lib.OOMSLICE_MESSAGE_PROGRAMS, count=2), pulse.maps)
            assert client.receive().message.status == 0
        wait_until(lambda: pulse.beat > 0)
        stuck.at("b.service/cgroup.events")
        asked = pulse.ask()
        short(scene)
        longest = 0
        record = None
        while record is None:
            longest = max(longest, pulse.busy_until)
            record = records.next()
        assert record.flags == WATCHDOG
        assert longest > asked + 8_000_000_000
        assert pulse.beat < asked and pulse.busy_until == 0
        scene.core.set_memory(8192)
        stuck.release()
        wait_until(lambda: pulse.beat > asked)


def test_thread_that_comes_back_kills_nobody_more_and_goes_on(scene: Scene, stuck: Stuck) -> None:
    _first, second, records = both_alive(scene)
    stuck.at("b.service/cgroup.events")
    short(scene)
    assert records.wait().flags == WATCHDOG
    # It still believes what it has read before it got stuck.
    scene.core.set_memory(8192)
    stuck.release()
    wait_until(lambda: scene.core.poke().watching == 0)
    assert records.next() is None and scene.alive(second) == 2
    scene.shortage()
    record = records.wait()
    assert (name(record.victim_name), record.flags, record.outcome) == ("b.service", 0, lib.OOMSLICE_OUTCOME_FREED)
    assert scene.alive(second) == 0


def test_stuck_in_the_kill_itself_is_the_same_victim_by_other_means(scene: Scene, stuck: Stuck) -> None:
    first, second, records = both_alive(scene)
    stuck.at("a.service/cgroup.kill")
    short(scene)
    wait_until(lambda: scene.alive(first) == 0)
    scene.core.set_memory(8192)
    assert (stuck.reached(), scene.alive(second)) == (1, 2)
    stuck.release()
    record = records.wait()
    assert (name(record.victim_name), record.outcome, record.flags) == (
        "a.service",
        lib.OOMSLICE_OUTCOME_FREED,
        WATCHDOG,
    )
    time.sleep(0.2)
    assert records.next() is None and scene.alive(second) == 2


def test_write_that_does_not_come_back_is_followed_by_signals(scene: Scene, stuck: Stuck) -> None:
    first, _second, records = both_alive(scene)
    stuck.at("b.service/cgroup.events", "*a.service/cgroup.kill")
    short(scene)
    record = records.wait()
    assert (name(record.victim_name), record.flags, scene.alive(first)) == ("a.service", WATCHDOG, 0)
    assert stuck.reached() == 2


def test_stuck_in_taking_a_plan_goes_by_the_one_in_force(scene: Scene, stuck: Stuck) -> None:
    first, second, records = both_alive(scene)
    scene.add("c.service", -900)
    stuck.at("cgroup.procs")
    with scene.core.client() as client:
        client.hello()
        client.socket.settimeout(30)
        scene.core.set_memory(50)
        with pytest.raises(TimeoutError):
            client.socket.settimeout(1)
            client.send_plan(scene.plan(), scene.paths)
        record = records.wait()
        scene.core.set_memory(8192)
        assert (name(record.victim_name), record.plan_generation, record.flags) == ("a.service", 1, WATCHDOG)
        stuck.release()
        client.socket.settimeout(10)
        reply = client.receive().message
        assert (reply.status, reply.generation) == (0, 2)
    assert (scene.alive(first), scene.alive(second)) == (0, 2)


def test_nobody_is_killed_while_there_is_memory(scene: Scene, stuck: Stuck) -> None:
    first, second, records = both_alive(scene)
    scene.core.set_memory(900)
    stuck.at("proc/meminfo")
    with scene.core.client() as client:
        client.send(message(lib.OOMSLICE_MESSAGE_STATE))
    wait_until(lambda: stuck.reached() == 1)
    time.sleep(MISSED)
    assert records.next() is None and (scene.alive(first), scene.alive(second)) == (3, 2)


def test_victim_of_the_deciding_thread_has_its_time(scene: Scene, stuck: Stuck) -> None:
    first, second = scene.add("a.service", -10), scene.add("b.service", 10, processes=2)
    scene.tree.populate(scene.tree.make("a.service/inner"), 3)
    records = scene.hand_over(deadline_us=60_000_000)
    # The signal is out, and the thread gets stuck in looking below the unit for whom to reap.
    stuck.at("inner")
    short(scene)
    wait_until(lambda: stuck.reached() == 1 and scene.alive(first / "inner") == 0)
    time.sleep(MISSED)
    assert records.next() is None and scene.alive(second) == 2
    scene.core.set_memory(8192)
    stuck.release()
    record = records.wait()
    assert (name(record.victim_name), record.outcome, record.flags) == ("a.service", lib.OOMSLICE_OUTCOME_FREED, 0)


def test_dry_run_is_one_for_the_watchdog_too(scene: Scene, stuck: Stuck) -> None:
    scene.core.stop()
    scene.core.options = ["--dry-run"]
    scene.core.start()
    first, second, records = both_alive(scene)
    stuck.at("b.service/cgroup.events")
    short(scene)
    wait_until(lambda: stuck.reached() == 1)
    time.sleep(MISSED)
    assert records.next() is None and (scene.alive(first), scene.alive(second)) == (3, 2)


def test_exempt_units_are_never_chosen(scene: Scene, stuck: Stuck) -> None:
    flags = (lib.OOMSLICE_UNIT_PROTECTED, lib.OOMSLICE_UNIT_SELF, lib.OOMSLICE_UNIT_LEFT_TO_OOMD)
    exempt = [scene.add(f"{flag}.service", -1000, flag, processes=1) for flag in flags]
    still = scene.add("still.service", -900, processes=1)
    scene.units[-1].ladder = ((lib.OOMSLICE_STEP_FREEZE, 0, 0, ""),)
    scene.add("b.service", 10, processes=1)
    records = scene.hand_over()
    stuck.at("b.service/cgroup.events")
    short(scene)
    record = records.wait()
    assert (name(record.victim_name), record.flags) == ("b.service", WATCHDOG)
    time.sleep(MISSED)
    assert [scene.alive(directory) for directory in (*exempt, still)] == [1, 1, 1, 1]


def test_one_victim_follows_another_while_nobody_else_comes(scene: Scene, stuck: Stuck) -> None:
    first, second, records = both_alive(scene)
    stuck.at("b.service/cgroup.events")
    short(scene)
    assert [name(records.wait().victim_name) for _ in range(2)] == ["a.service", "b.service"]
    assert (scene.alive(first), scene.alive(second)) == (0, 0)


def test_no_heap_no_stdio_and_no_path_in_its_kills(guarded_scene: Scene, stuck: Stuck) -> None:
    scene = guarded_scene
    scene.add("a.service", -10, processes=80)
    scene.tree.populate(scene.tree.make("a.service/inner"))
    scene.add("b.service", processes=80)
    scene.tree.populate(scene.tree.make("b.service/inner"))
    last = scene.add("c.service", 10, processes=1)
    records = scene.hand_over(reserve=4 << 20)
    # The first by its hand; the second by signals, for the hand does not come back.
    stuck.at("c.service/cgroup.events", "*b.service/cgroup.kill")
    short(scene)
    decisions = [records.wait(20) for _ in range(2)]
    scene.core.set_memory(8192)
    assert [(name(record.victim_name), record.flags) for record in decisions] == [
        ("a.service", WATCHDOG),
        ("b.service", WATCHDOG),
    ]
    stuck.release()
    scene.core.poke()
    assert (scene.core.stop(), scene.alive(last)) == ((0, ""), 1)
    scene.core.start()
