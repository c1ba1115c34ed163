# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ladders are climbed while real stalls last, and what they did is undone. Without a memory controller here, steps that
write limits are unavailable; tests/vm has those."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oomslice._core import ffi, lib
from tests.core.plans import Domain
from tests.core.rig import Core, Records, Scene, Step, name, scenes, wait_until
from tests.core.test_core_pressure import SOME_STALL, Stallers, stallers

__all__ = ["stallers"]

SECOND = 1_000_000
DELAY = 2
"""Seconds between two steps: what the core may be late with one."""
COOLDOWN = 2
"""Seconds that busy.slice rests after an act."""
WARN, FREEZE = (lib.OOMSLICE_STEP_WARN, 0, 0, ""), (lib.OOMSLICE_STEP_FREEZE, 0, 0, "")
THROTTLE, TERMINATE = (lib.OOMSLICE_STEP_THROTTLE, 80, 0, ""), (lib.OOMSLICE_STEP_TERMINATE, 0, 0, "")
KILL = (lib.OOMSLICE_STEP_KILL, 0, 0, "")
START = (lib.OOMSLICE_STEP_START, 0, 0, "report.service")
CHECKPOINT = (lib.OOMSLICE_STEP_CHECKPOINT, 0, 0, "")


def after(seconds: float, step: Step) -> Step:
    """The same step with a delay."""
    return (step[0], step[1], int(seconds * SECOND), step[3])


@pytest.fixture
def scene(core: Core, mount: Path) -> Iterator[Scene]:
    """As the usual one, with this machine's own pressure files."""
    (core.meminfo.parent / "pressure").symlink_to("/proc/pressure")
    yield from scenes(core, mount)


def hand_over(scene: Scene, **fields: Any) -> Records:
    """A plan in which busy.slice, the first unit after the root, is a domain with a trigger."""
    domains = [Domain(0), Domain(1, trigger=SOME_STALL, cooldown_us=COOLDOWN * SECOND)]
    return scene.hand_over(domains=domains, **fields)


def steps(record: Any) -> list[tuple[int, int]]:
    """Kind and result of each step that was begun."""
    return [(step.kind, step.result) for step in record.steps[0 : record.steps_count]]


def frozen(unit: Path) -> bool:
    return "frozen 1" in (unit / "cgroup.events").read_text(encoding="ascii")


@contextlib.contextmanager
def deaf(scene: Scene, unit: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this unit that does not end when told to; it has to be killed in the end."""
    script = 'trap "" TERM; echo 0 >"$0/cgroup.procs"; while :; do sleep 0.1; done'
    with subprocess.Popen(["sh", "-c", script, unit]) as child:
        wait_until(lambda: scene.alive(unit) >= 1)
        yield child


def decisions(records: Records) -> Callable[[], Any]:
    """The next record that is a decision; ends of what was undone are passed over."""

    def next_decision() -> Any:
        while (record := records.wait(30)).trigger == lib.OOMSLICE_TRIGGER_CALM:
            pass
        return record

    return next_decision


def test_frozen_while_it_lasts_and_thawed_when_it_is_calm(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    unit = scene.add("busy.slice/a.service", parent=busy, ladder=(FREEZE, after(60, KILL)))
    records = hand_over(scene)
    stallers.start(unit)
    wait_until(lambda: frozen(unit), 20)
    record = records.wait(30)
    assert (record.trigger, record.outcome) == (lib.OOMSLICE_TRIGGER_PRESSURE, lib.OOMSLICE_OUTCOME_RELIEVED)
    assert steps(record) == [(lib.OOMSLICE_STEP_FREEZE, lib.OOMSLICE_RESULT_DONE)]
    assert record.trigger_us <= record.steps[0].begin_us <= record.steps[0].end_us
    assert frozen(unit), "thawed before it was calm"
    undone = records.wait(30)
    assert (undone.trigger, undone.outcome) == (lib.OOMSLICE_TRIGGER_CALM, lib.OOMSLICE_OUTCOME_UNDONE)
    assert undone.undoes_sequence == record.sequence and undone.undoes_ring != 0
    assert steps(undone) == [(lib.OOMSLICE_STEP_FREEZE, lib.OOMSLICE_RESULT_DONE)]
    assert undone.trigger_us - record.steps[0].end_us >= 2 * SECOND
    assert not frozen(unit) and scene.alive(unit) >= 1


def test_ladder_that_ends_in_freeze_holds_its_victim_and_goes_on_to_the_next(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    units = [
        scene.add("busy.slice/a.service", -10, parent=busy, processes=1, ladder=(FREEZE,)),
        scene.add("busy.slice/b.service", -5, parent=busy, processes=1, ladder=(FREEZE,)),
    ]
    third = scene.add("busy.slice/c.service", 10, parent=busy)
    records = hand_over(scene)
    stallers.start(third)
    held = [records.wait(20), records.wait(30)]
    assert [(name(record.victim_name), record.outcome) for record in held] == [
        ("a.service", lib.OOMSLICE_OUTCOME_HELD),
        ("b.service", lib.OOMSLICE_OUTCOME_HELD),
    ]
    assert all(frozen(unit) for unit in units)
    record = records.wait(30)
    assert (name(record.victim_name), record.outcome) == ("c.service", lib.OOMSLICE_OUTCOME_FREED)
    assert all(frozen(unit) and scene.alive(unit) == 1 for unit in units) and scene.alive(third) == 0
    # When it is calm the last comes first.
    undone = [records.wait(60), records.wait(10)]
    assert [record.undoes_sequence for record in undone] == [record.sequence for record in reversed(held)]
    assert undone[0].steps[0].end_us < undone[1].steps[0].end_us
    assert not any(frozen(unit) for unit in units)


def test_end_of_the_core_leaves_nobody_standing_still(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    unit = scene.add("busy.slice/a.service", parent=busy, ladder=(FREEZE, after(60, KILL)))
    hand_over(scene)
    stallers.start(unit)
    wait_until(lambda: frozen(unit), 20)
    scene.core.stop()
    assert not frozen(unit) and scene.alive(unit) >= 1
    scene.core.start()


def test_death_of_the_core_leaves_it_to_who_comes_after(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    held = scene.add("busy.slice/a.service", -10, parent=busy, processes=1, ladder=(FREEZE,))
    unit = scene.add("busy.slice/b.service", parent=busy, ladder=(FREEZE, after(60, KILL)))
    first = hand_over(scene)
    stallers.start(unit)
    decision = first.wait(20)
    assert (name(decision.victim_name), decision.outcome) == ("a.service", lib.OOMSLICE_OUTCOME_HELD)
    wait_until(lambda: frozen(unit), 20)
    scene.core.stop(signal.SIGKILL)
    assert frozen(held) and frozen(unit)
    command = [scene.core.program, "--cgroup-root", scene.core.mount, "--undo-file", scene.core.undo, "--release"]
    subprocess.run(command, check=True)
    assert not frozen(held) and not frozen(unit) and scene.alive(held) == 1 and scene.alive(unit) >= 1
    # Said in the ring by the next one, which is another ring here only if the manager has lost it.
    scene.core.start()
    with scene.core.client() as client:
        hello = client.hello()
        records = Records(hello.fds[0])
        for fd in hello.fds:
            os.close(fd)
    found = [records.wait(), records.wait(), records.wait()]
    interrupted, *undone = found
    assert interrupted.outcome == lib.OOMSLICE_OUTCOME_INTERRUPTED
    assert {record.outcome for record in undone} == {lib.OOMSLICE_OUTCOME_UNDONE}
    assert [record.undoes_sequence for record in undone] == [interrupted.sequence, decision.sequence]
    assert undone[0].steps[0].end_us < undone[1].steps[0].end_us, "the last comes first"


def test_terminated_and_killed_at_its_time_although_the_pressure_is_gone(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    unit = scene.add("busy.slice/deaf.service", -10, parent=busy, ladder=(TERMINATE, after(4, KILL)))
    with deaf(scene, unit) as child:
        other = scene.add("busy.slice/b.service", 10, parent=busy)
        records = hand_over(scene)
        stallers.start(other)
        record = records.wait(20)
        child.wait()
    assert (name(record.victim_name), record.outcome) == ("deaf.service", lib.OOMSLICE_OUTCOME_FREED)
    assert steps(record) == [
        (lib.OOMSLICE_STEP_TERMINATE, lib.OOMSLICE_RESULT_DONE),
        (lib.OOMSLICE_STEP_KILL, lib.OOMSLICE_RESULT_DONE),
    ]
    assert record.steps[1].begin_us - record.trigger_us >= 4 * SECOND
    assert child.returncode == -signal.SIGKILL


def test_who_ends_when_told_to_is_not_killed(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    unit = scene.add("busy.slice/a.service", parent=busy, ladder=(TERMINATE, after(20, KILL)))
    records = hand_over(scene)
    stallers.start(unit)
    record = records.wait(20)
    assert record.outcome == lib.OOMSLICE_OUTCOME_FREED
    assert steps(record) == [(lib.OOMSLICE_STEP_TERMINATE, lib.OOMSLICE_RESULT_DONE)]
    assert record.death_us > 0


def test_steps_of_the_extended_part_are_asked_for_and_their_answers_recorded(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    ladder = (WARN, after(DELAY, START), after(2 * DELAY, CHECKPOINT), after(3 * DELAY, KILL))
    unit = scene.add("busy.slice/a.service", parent=busy, ladder=ladder)
    records = hand_over(scene)
    request = ffi.new("struct oomslice_request *")
    with scene.core.client() as client:  # the extended part, as far as the core can tell
        client.state()
        for _ in range(3):
            stallers.start(unit)
        wait_until(lambda: lib.oomslice_ring_take_request(records.address, request) == 1, 20)
        assert (request.kind, name(request.victim)) == (lib.OOMSLICE_STEP_WARN, "a.service")
        lib.oomslice_ring_answer(records.address, request.serial, lib.OOMSLICE_RESULT_NEEDLESS, 0)
        wait_until(lambda: lib.oomslice_ring_take_request(records.address, request) == 1, 20)
        assert (request.kind, name(request.text)) == (lib.OOMSLICE_STEP_START, "report.service")
        lib.oomslice_ring_answer(records.address, request.serial, lib.OOMSLICE_RESULT_FAILED, 2)
        wait_until(lambda: lib.oomslice_ring_take_request(records.address, request) == 1, 20)
        assert request.kind == lib.OOMSLICE_STEP_CHECKPOINT
        # This one is never answered: the core goes on to the next step without it.
        record = records.wait(20)
    assert record.outcome == lib.OOMSLICE_OUTCOME_FREED
    assert steps(record) == [
        (lib.OOMSLICE_STEP_WARN, lib.OOMSLICE_RESULT_NEEDLESS),
        (lib.OOMSLICE_STEP_START, lib.OOMSLICE_RESULT_FAILED),
        (lib.OOMSLICE_STEP_CHECKPOINT, lib.OOMSLICE_RESULT_LATE),
        (lib.OOMSLICE_STEP_KILL, lib.OOMSLICE_RESULT_DONE),
    ]
    assert record.steps[1].error == 2
    for index, step in enumerate(record.steps[0 : record.steps_count]):
        # Each from the trigger, and not from the end of the step before.
        assert index * DELAY * SECOND <= step.begin_us - record.trigger_us < (index + 1) * DELAY * SECOND


def test_a_checkpoint_that_fails_is_followed_by_the_kill_that_ends_every_ladder(
    scene: Scene, stallers: Stallers
) -> None:
    busy = scene.add_slice("busy.slice")
    unit = scene.add("busy.slice/a.service", parent=busy, ladder=(CHECKPOINT,))
    records = hand_over(scene)
    request = ffi.new("struct oomslice_request *")
    with scene.core.client() as client:
        client.state()
        stallers.start(unit)
        wait_until(lambda: lib.oomslice_ring_take_request(records.address, request) == 1, 20)
        assert request.kind == lib.OOMSLICE_STEP_CHECKPOINT
        lib.oomslice_ring_answer(records.address, request.serial, lib.OOMSLICE_RESULT_FAILED, errno.EIO)
        record = records.wait(20)
    assert record.outcome == lib.OOMSLICE_OUTCOME_FREED
    assert steps(record) == [
        (lib.OOMSLICE_STEP_CHECKPOINT, lib.OOMSLICE_RESULT_FAILED),
        (lib.OOMSLICE_STEP_KILL, lib.OOMSLICE_RESULT_DONE),
    ]
    assert record.steps[0].error == errno.EIO
    assert scene.alive(unit) == 0


def test_without_the_extended_part_its_steps_are_passed_over_at_once(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    unit = scene.add("busy.slice/a.service", parent=busy, ladder=(WARN, START, THROTTLE, after(1, KILL)))
    records = hand_over(scene)
    time.sleep(0.2)
    stallers.start(unit)
    record = records.wait(20)
    assert record.outcome == lib.OOMSLICE_OUTCOME_FREED
    assert [result for _kind, result in steps(record)] == [lib.OOMSLICE_RESULT_UNAVAILABLE] * 3 + [
        lib.OOMSLICE_RESULT_DONE
    ]
    assert record.steps[3].begin_us - record.trigger_us >= SECOND


def test_at_the_limits_of_the_machine_nobody_waits(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    unit = scene.add("busy.slice/a.service", parent=busy, processes=2, ladder=(WARN, FREEZE, after(600, KILL)))
    records = hand_over(scene)
    scene.shortage()
    record = decisions(records)()
    assert (record.trigger, record.outcome) == (lib.OOMSLICE_TRIGGER_AVAILABLE, lib.OOMSLICE_OUTCOME_FREED)
    assert steps(record) == [(lib.OOMSLICE_STEP_KILL, lib.OOMSLICE_RESULT_DONE)]
    assert scene.alive(unit) == 0


def test_climb_is_cut_short_when_the_machine_comes_to_its_limits(scene: Scene, stallers: Stallers) -> None:
    unit = scene.add("a.service", ladder=(FREEZE, after(600, TERMINATE), after(601, KILL)))
    records = scene.hand_over(thrash=SOME_STALL)
    scene.core.set_memory(150, swap_total=4096, swap_free=4000)
    stallers.start(unit)
    wait_until(lambda: frozen(unit), 20)
    assert records.next() is None
    scene.shortage()
    record = decisions(records)()
    assert (record.trigger, record.outcome) == (lib.OOMSLICE_TRIGGER_THRASH, lib.OOMSLICE_OUTCOME_FREED)
    assert steps(record)[-1] == (lib.OOMSLICE_STEP_KILL, lib.OOMSLICE_RESULT_DONE)
    assert [kind for kind, _result in steps(record)] == [lib.OOMSLICE_STEP_FREEZE, lib.OOMSLICE_STEP_KILL]
    assert scene.alive(unit) == 0


def test_low_memory_is_answered_gently_and_only_where_the_ladder_begins_so(scene: Scene, stallers: Stallers) -> None:
    plain = scene.add("plain.service", -20, processes=1)
    records = scene.hand_over(sign=SOME_STALL, available_ladder=300 << 20, swap_free_ladder=100 << 20)
    scene.core.set_memory(250)
    other = scene.tree.make("other")
    stallers.start(other)
    time.sleep(5)
    assert records.next() is None and scene.alive(plain) == 1
    scene.tree.remove_processes(plain)
    gentle = scene.add("gentle.service", -20, processes=1, ladder=(FREEZE, after(1, TERMINATE), after(2, KILL)))
    records = scene.hand_over(sign=SOME_STALL, available_ladder=300 << 20, swap_free_ladder=100 << 20)
    wait_until(lambda: frozen(gentle), 20)
    time.sleep(4)
    assert scene.alive(gentle) == 1, "what cannot be undone waits for the limits"
    scene.core.set_memory(4096)
    record = records.wait(20)
    assert (record.trigger, record.outcome) == (lib.OOMSLICE_TRIGGER_LOW, lib.OOMSLICE_OUTCOME_RELIEVED)
    assert (record.mem_available_limit, record.swap_free_limit) == (300 << 20, 100 << 20)
    wait_until(lambda: not frozen(gentle), 20)


LOW_BY_SWAP = {"available_ladder": 300 << 20, "swap_free_ladder": 900 << 20}


def test_where_only_swap_is_left_a_ladder_begins_though_nobody_has_waited(scene: Scene) -> None:
    unit = scene.add("gentle.service", -20, processes=1, ladder=(FREEZE, after(60, KILL)))
    records = scene.hand_over(**LOW_BY_SWAP)
    for available, swap_free in ((150, 900), (90, 901)):  # in MiB: above the limit of memory; too much swap
        scene.core.set_memory(available, 1000, swap_free)
        scene.core.poke()
        time.sleep(2)
        assert records.next() is None and not frozen(unit)
    scene.core.set_memory(90, 1000, 900)
    wait_until(lambda: frozen(unit), 20)
    scene.core.set_memory(4096, 1000, 1000)
    record = records.wait(20)
    assert (record.trigger, record.outcome) == (lib.OOMSLICE_TRIGGER_LOW, lib.OOMSLICE_OUTCOME_RELIEVED)
    assert scene.alive(unit) == 1


def test_low_memory_does_not_kill_what_always_comes_back(scene: Scene) -> None:
    busy = scene.add_slice("busy.slice")
    scene.add("busy.slice/a.service", parent=busy, ladder=(FREEZE, after(60, KILL)))
    other = scene.add("busy.slice/b.service", parent=busy, ladder=(FREEZE, after(60, KILL)))
    records = scene.hand_over(domains=[Domain(0, cooldown_us=1000)], **LOW_BY_SWAP)
    for _ in range(3):
        unit = scene.tree.make("busy.slice/a.service")
        scene.tree.populate(unit, 1)
        scene.shortage()
        # Until there is memory again it says that there is nobody else.
        wait_until(lambda: (record := records.next()) and record.outcome == lib.OOMSLICE_OUTCOME_FREED, 40)
        scene.core.set_memory(4096, 1000, 1000)
        scene.core.poke()
        scene.tree.remove(unit)
    while records.next():
        pass
    unit = scene.tree.make("busy.slice/a.service")
    scene.tree.populate(unit, 1)
    scene.core.set_memory(90, 1000, 900)
    scene.core.poke()
    time.sleep(3)
    assert records.next() is None and scene.alive(unit) == 1 and not frozen(unit)
    # It was that unit's past that spared it.
    scene.tree.remove_processes(unit)
    scene.tree.populate(other, 1)
    wait_until(lambda: frozen(other), 20)


def test_largest_process_alone_is_killed_where_that_is_the_scope(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    unit = scene.add("busy.slice/a.service", parent=busy, processes=3, kill_scope=lib.OOMSLICE_SCOPE_PROCESS)
    sizes = dict(zip(scene.tree.pids(unit), (5, 700, 60), strict=True))
    for pid, size in sizes.items():
        directory = scene.core.meminfo.parent / str(pid)
        directory.mkdir()
        (directory / "status").write_text(f"VmRSS: 1000 kB\nRssAnon:\t {size} kB\nVmSwap:\t{size} kB\n")
    records = scene.hand_over(domains=[Domain(0), Domain(1, trigger=SOME_STALL, cooldown_us=60 * SECOND)])
    stallers.start(unit)
    record = records.wait(20)
    largest = max(sizes, key=lambda pid: sizes[pid])
    assert record.outcome == lib.OOMSLICE_OUTCOME_FREED
    assert (record.kill_scope, list(record.pids[0 : record.pids_count])) == (lib.OOMSLICE_SCOPE_PROCESS, [largest])
    assert set(scene.tree.pids(unit)) >= set(sizes) - {largest}
    assert largest not in scene.tree.pids(unit)


def test_unit_that_always_comes_back_loses_its_ladder(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    scene.add("busy.slice/a.service", parent=busy, ladder=(WARN, after(0.5, KILL)))
    records = hand_over(scene)
    flags = []
    over = []
    for relapses in range(4):
        unit = scene.tree.make("busy.slice/a.service")
        stallers.start(unit)
        record = records.wait(40)
        assert (name(record.victim_name), record.outcome) == ("a.service", lib.OOMSLICE_OUTCOME_FREED)
        # It rests after each, twice as long as after the one before.
        if over:
            assert record.decision_us - over[-1] >= (COOLDOWN << relapses - 1) * SECOND
        over.append(record.memory_back_us)
        flags.append((record.flags, record.steps_count))
        scene.tree.remove(unit)
    assert flags == [(0, 2)] * 3 + [(lib.OOMSLICE_RECORD_RESTARTING, 1)]


def test_protection_that_comes_during_a_climb_ends_it(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    unit = scene.add("busy.slice/a.service", parent=busy, ladder=(WARN, after(6, KILL)))
    records = hand_over(scene)
    stallers.start(unit)
    wait_until(lambda: records_pending(records), 20)
    scene.units[2].flags |= lib.OOMSLICE_UNIT_PROTECTED
    hand_over(scene)
    record = records.wait(20)
    assert record.outcome in (lib.OOMSLICE_OUTCOME_REFUSED, lib.OOMSLICE_OUTCOME_RELIEVED)
    assert scene.alive(unit) >= 1


def records_pending(records: Records) -> bool:
    """Whether a record was begun that is not complete."""
    header = ffi.cast("struct oomslice_ring_header *", records.address)
    return bool(header.head > header.tail)
