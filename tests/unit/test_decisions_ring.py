# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reader of the ring: every field arrives, nothing is lost or doubled when the reader is killed."""

from __future__ import annotations

import errno
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oomslice._core import ffi, lib
from oomslice.decisions.record import Candidate, Decision, StepTaken, Undo
from oomslice.decisions.ring import OUTCOMES, RESULTS, SCOPES, STEPS, TRIGGERS, Ring
from oomslice.decisions.store import DecisionStore
from oomslice.errors import ChannelError
from oomslice.settings import steps as settings_steps

ROOT = Path(__file__).parents[2]
RING_ID = 0xAB


class Core:
    """The writer's side, as the core uses it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, lib.OOMSLICE_RING_SIZE)
        self._map = mmap.mmap(self.fd, lib.OOMSLICE_RING_SIZE)
        self.data = ffi.from_buffer("char[]", self._map, require_writable=True)
        lib.oomslice_ring_init(self.data, RING_ID)

    def write(self, *, final: bool = True, **fields: Any) -> Any:
        record = lib.oomslice_ring_take(self.data)
        assert record != ffi.NULL
        for name, value in fields.items():
            setattr(record, name, value)
        if final:
            lib.oomslice_ring_set_state(record, lib.OOMSLICE_RECORD_FINAL)
        return record

    @property
    def free(self) -> int:
        header = ffi.cast("struct oomslice_ring_header *", self.data)
        return int(lib.OOMSLICE_RING_SLOTS - (header.head - header.tail))


@pytest.fixture
def core() -> Iterator[Core]:
    writer = Core()
    yield writer
    os.close(writer.fd)


def test_every_field_of_a_record_arrives(core: Core) -> None:
    record = core.write(
        final=False,
        outcome=lib.OOMSLICE_OUTCOME_DEADLINE,
        plan_generation=9,
        trigger_realtime_us=1_700_000_000_000_000,
        trigger_us=10,
        decision_us=11,
        signal_us=12,
        death_us=13,
        memory_back_us=14,
        trigger=lib.OOMSLICE_TRIGGER_PRESSURE,
        rank_by=lib.OOMSLICE_RANK_REFAULT,
        mem_total=100,
        mem_available=20,
        swap_total=30,
        swap_free=40,
        mem_available_limit=50,
        swap_free_limit=60,
        mem_available_after=70,
        domain_cgroup_id=1,
        victim_cgroup_id=2,
        victim_memory_before=1000,
        victim_memory_after=400,
        victim_metric=77,
        victim_priority=-200,
        error=-errno.EPERM,
        processes_total=80,
        pids_count=2,
        reaped_count=1,
        candidates_total=300,
        candidates_count=2,
    )
    record.pressure.kind = lib.OOMSLICE_PSI_SOME
    record.pressure.stall_us = 150_000
    record.pressure.window_us = 1_000_000
    record.pressure.some_avg10 = 1234
    record.pressure.full_avg10 = 55
    record.pressure.some_total_us = 5
    record.pressure.full_total_us = 6
    record.domain_name = b"batch.slice"
    record.victim_name = b"hog.service"
    record.pids[0], record.pids[1] = 4, 5
    record.candidates[0].cgroup_id = 2
    record.candidates[0].metric = 1 << 40
    record.candidates[0].priority = -200
    record.candidates[0].verdict = lib.OOMSLICE_VERDICT_CHOSEN
    record.candidates[1].cgroup_id = 3
    lib.oomslice_ring_set_state(record, lib.OOMSLICE_RECORD_FINAL)

    with Ring(core.fd) as ring:
        (decision,) = (ring.drain({2: "hog.service"}, "boot"),)
        made = next(decision)
        del decision
    assert made.id == "00000000000000ab-1" and made.boot_id == "boot" and made.carrier == "core"
    assert (made.trigger, made.domain, made.outcome, made.rank_by) == ("pressure", "batch.slice", "deadline", "refault")
    assert (made.trigger_usec, made.decision_usec, made.signal_usec, made.death_usec, made.memory_back_usec) == (
        10,
        11,
        12,
        13,
        14,
    )
    assert made.realtime_usec == 1_700_000_000_000_000 and made.plan_generation == 9
    assert (made.victim, made.victim_cgroup_id, made.victim_priority) == ("hog.service", 2, -200)
    assert (made.victim_memory_before, made.victim_memory_after, made.bytes_freed) == (1000, 400, 600)
    assert (made.processes, made.pids, made.reaped, made.error) == (80, (4, 5), 1, errno.EPERM)
    assert (made.memory_total, made.memory_available, made.memory_available_limit) == (100, 20, 50)
    assert (made.memory_available_after, made.swap_total, made.swap_free, made.swap_free_limit) == (70, 30, 40, 60)
    assert made.pressure == "some 150ms/1s"
    assert (made.pressure_some_avg10, made.pressure_full_avg10) == (12.34, 0.55)
    assert made.candidates == (
        Candidate("hog.service", 2, -200, 1 << 40, "chosen"),
        Candidate("cgroup:3", 3, 0, 0, "eligible"),
    )
    assert made.candidates_total == 300
    assert made.extra["victim_metric"] == 77 and made.extra["domain_cgroup_id"] == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (lib.OOMSLICE_OUTCOME_FREED, "freed"),
        (lib.OOMSLICE_OUTCOME_DEADLINE, "deadline"),
        (lib.OOMSLICE_OUTCOME_DRY_RUN, "dry-run"),
        (lib.OOMSLICE_OUTCOME_NO_CANDIDATE, "no-candidate"),
        (lib.OOMSLICE_OUTCOME_FAILED, "failed"),
        (lib.OOMSLICE_OUTCOME_GONE, "gone"),
        (lib.OOMSLICE_OUTCOME_INTERRUPTED, "interrupted"),
        (lib.OOMSLICE_OUTCOME_REFUSED, "refused"),
        (lib.OOMSLICE_OUTCOME_RELIEVED, "relieved"),
        (lib.OOMSLICE_OUTCOME_HELD, "held"),
        (lib.OOMSLICE_OUTCOME_KEPT, "kept"),
        (99, "outcome-99"),
    ],
)
def test_outcomes_have_their_words(core: Core, value: int, text: str) -> None:
    core.write(outcome=value)
    with Ring(core.fd) as ring:
        assert next(ring.drain({}, "boot")).outcome == text


def steps(record: Any, *taken: dict[str, int]) -> None:
    """Fills in the steps of a record."""
    record.steps_count = len(taken)
    for index, values in enumerate(taken):
        for name, value in values.items():
            setattr(record.steps[index], name, value)


def test_steps_scope_and_flags_of_a_record_arrive(core: Core) -> None:
    record = core.write(
        final=False,
        outcome=lib.OOMSLICE_OUTCOME_RELIEVED,
        trigger=lib.OOMSLICE_TRIGGER_LOW,
        victim_cgroup_id=2,
        kill_scope=lib.OOMSLICE_SCOPE_SUBTREE,
        flags=lib.OOMSLICE_RECORD_RESTARTING | lib.OOMSLICE_RECORD_WATCHDOG,
    )
    steps(
        record,
        {"kind": lib.OOMSLICE_STEP_RECLAIM, "result": lib.OOMSLICE_RESULT_DONE, "amount": 9, "begin_us": 3, "end_us": 4,
         "memory_before": 100, "memory_after": 70},
        {"kind": lib.OOMSLICE_STEP_PURGE, "result": lib.OOMSLICE_RESULT_FAILED, "error": -errno.EPERM},
        {"kind": lib.OOMSLICE_STEP_PURGE, "result": lib.OOMSLICE_RESULT_LATE, "memory_before": 70, "memory_after": 69},
        {"kind": lib.OOMSLICE_STEP_PURGE, "result": lib.OOMSLICE_RESULT_NEEDLESS, "memory_before": 5},
    )  # fmt: skip
    lib.oomslice_ring_set_state(record, lib.OOMSLICE_RECORD_FINAL)
    with Ring(core.fd) as ring:
        made = next(ring.drain({}, "boot", {2: {"purge": ["/run/a", "/run/b"]}, 3: {"purge": ["/x"]}}))
    assert isinstance(made, Decision)
    assert (made.trigger, made.outcome, made.kill_scope) == ("memory-low", "relieved", "subtree")
    assert made.flags == ("restarting", "watchdog")
    assert made.steps == (
        StepTaken("reclaim", "done", "", 9, 0, 3, 4, 100, 70),
        StepTaken("purge", "failed", "/run/a", error=errno.EPERM),
        StepTaken("purge", "late", "/run/b", memory_before=70, memory_after=69),
        StepTaken("purge", "needless", memory_before=5),
    )
    assert made.step == "purge", "the last one that acted"
    assert made.bytes_freed == 31, "what acted gave back"


def test_every_step_result_and_scope_of_the_core_has_a_word() -> None:
    def values(prefix: str) -> set[int]:
        return {getattr(lib, name) for name in dir(lib) if name.startswith(prefix)}

    assert set(STEPS) == values("OOMSLICE_STEP_")
    assert set(RESULTS) == values("OOMSLICE_RESULT_")
    assert set(SCOPES) == values("OOMSLICE_SCOPE_")
    assert set(TRIGGERS) == values("OOMSLICE_TRIGGER_") - {lib.OOMSLICE_TRIGGER_CALM}
    assert set(OUTCOMES) == values("OOMSLICE_OUTCOME_") - {lib.OOMSLICE_OUTCOME_PENDING, lib.OOMSLICE_OUTCOME_UNDONE}
    assert set(STEPS.values()) == set(settings_steps.STEPS)


def test_the_end_of_a_ladder_is_no_decision(core: Core) -> None:
    record = core.write(
        final=False,
        trigger=lib.OOMSLICE_TRIGGER_CALM,
        outcome=lib.OOMSLICE_OUTCOME_UNDONE,
        trigger_us=77,
        undoes_ring=0xCD,
        undoes_sequence=12,
    )
    steps(
        record,
        {"kind": lib.OOMSLICE_STEP_THROTTLE, "result": lib.OOMSLICE_RESULT_FAILED, "error": errno.ENODEV},
        {"kind": lib.OOMSLICE_STEP_FREEZE, "result": lib.OOMSLICE_RESULT_NEEDLESS},
    )
    lib.oomslice_ring_set_state(record, lib.OOMSLICE_RECORD_FINAL)
    core.write(trigger=lib.OOMSLICE_TRIGGER_CALM, outcome=lib.OOMSLICE_OUTCOME_UNDONE)
    core.write(trigger=lib.OOMSLICE_TRIGGER_CALM, outcome=lib.OOMSLICE_OUTCOME_INTERRUPTED)
    with Ring(core.fd) as ring:
        found = []
        for item in ring.drain({}, "boot"):
            assert isinstance(item, Undo)
            found.append(item)
            ring.release(item)
        assert ring.pending == 0
    assert found[0] == Undo("00000000000000ab-1", "00000000000000cd-12", 77, {"throttle": errno.ENODEV, "freeze": 0})
    assert found[1].errors == {"freeze": 0, "throttle": 0}, "without steps it is all that can be undone"
    assert found[2].errors == {}, "nobody knows"


def test_nothing_is_freed_by_what_was_not_signalled(core: Core) -> None:
    core.write(outcome=lib.OOMSLICE_OUTCOME_DRY_RUN, victim_memory_before=1000, victim_cgroup_id=2)
    with Ring(core.fd) as ring:
        assert next(ring.drain({}, "boot")).bytes_freed == 0


def test_no_candidate_has_no_victim(core: Core) -> None:
    core.write(outcome=lib.OOMSLICE_OUTCOME_NO_CANDIDATE)
    with Ring(core.fd) as ring:
        assert next(ring.drain({0: "x"}, "boot")).victim == ""


def test_a_victim_that_no_plan_knows_has_its_name_among_the_candidates_too(core: Core) -> None:
    record = core.write(final=False, victim_cgroup_id=77, victim_name=b"young.service", candidates_count=2)
    record.candidates[0].cgroup_id = 77
    record.candidates[1].cgroup_id = 78
    lib.oomslice_ring_set_state(record, lib.OOMSLICE_RECORD_FINAL)
    with Ring(core.fd) as ring:
        decision = next(ring.drain({}, "boot"))
    assert decision.victim == "young.service"
    assert [candidate.name for candidate in decision.candidates] == ["young.service", "cgroup:78"]


def test_a_damaged_record_gives_an_odd_decision_and_no_exception(core: Core) -> None:
    record = core.write(final=False)
    noise = ffi.buffer(record)
    sequence = record.sequence
    noise[:] = b"\xff" * len(noise)
    record.sequence = sequence
    lib.oomslice_ring_set_state(record, lib.OOMSLICE_RECORD_FINAL)
    with Ring(core.fd) as ring:
        made = next(ring.drain({}, "boot"))
        assert len(made.candidates) == lib.OOMSLICE_RECORD_CANDIDATES and len(made.pids) == lib.OOMSLICE_RECORD_PIDS
        assert isinstance(made, Decision)
        assert made.outcome == f"outcome-{2**32 - 1}"
        ring.release(made)
        assert ring.pending == 0


def test_open_records_wait_and_order_is_kept(core: Core) -> None:
    core.write()
    opened = core.write(final=False)
    core.write()
    with Ring(core.fd) as ring:
        assert [_released(ring, item) for item in ring.drain({}, "b")] == ["1"]
        assert list(ring.drain({}, "b")) == []
        lib.oomslice_ring_set_state(opened, lib.OOMSLICE_RECORD_FINAL)
        assert [_released(ring, item) for item in ring.drain({}, "b")] == ["2", "3"]
        assert ring.pending == 0


def _released(ring: Ring, decision: Any) -> str:
    ring.release(decision)
    return str(decision.id.partition("-")[2])


def test_what_is_not_released_is_offered_again(core: Core) -> None:
    core.write()
    core.write()
    with Ring(core.fd) as ring:
        assert [item.id for item in ring.drain({}, "b")] == ["00000000000000ab-1"]
        assert [item.id for item in ring.drain({}, "b")] == ["00000000000000ab-1"]
        assert ring.pending == 2


def test_a_decision_of_another_ring_is_not_released(core: Core) -> None:
    core.write()
    with Ring(core.fd) as ring:
        made = next(ring.drain({}, "b"))
        other = type(made).from_dict({**made.to_dict(), "id": "00000000000000ff-1"})
        with pytest.raises(ValueError, match="not of ring"):
            ring.release(other)
        assert ring.pending == 1


def test_a_closed_ring_is_not_touched(core: Core) -> None:
    core.write()
    ring = Ring(core.fd)
    iterator = ring.drain({}, "b")
    made = next(iterator)
    ring.close()
    with pytest.raises(ChannelError, match="closed"):
        ring.release(made)
    with pytest.raises(ChannelError, match="closed"):
        next(iterator)


def test_what_is_no_ring_is_refused(core: Core) -> None:
    empty = os.memfd_create("empty")
    with pytest.raises(ChannelError, match="cannot be mapped"):
        Ring(empty)
    os.ftruncate(empty, lib.OOMSLICE_RING_SIZE)
    with pytest.raises(ChannelError, match="damaged"):
        Ring(empty)
    os.close(empty)


READER = """
import sys, time
from pathlib import Path
from oomslice.decisions.ring import Ring
from oomslice.decisions.store import DecisionStore
ring = Ring(int(sys.argv[1]))
store = DecisionStore(Path(sys.argv[2]), 100_000)
print("ready", flush=True)
while True:
    for decision in ring.drain({}, "boot"):
        store.add(decision)
        ring.release(decision)
    time.sleep(0.001)
"""


def test_killing_the_reader_at_any_moment_loses_and_doubles_nothing(core: Core, tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    chance = random.Random(1)
    written = kills = 0
    # On a busy machine a reader may be killed before it has done anything.
    while kills < 25 or (written <= 100 and kills < 250):
        kills += 1
        reader = subprocess.Popen(
            [sys.executable, "-c", READER, str(core.fd), str(path)],
            pass_fds=[core.fd],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert reader.stdout is not None and reader.stdout.readline() == b"ready\n"
        end = time.monotonic() + chance.uniform(0, 0.03)
        while time.monotonic() < end:
            while core.free:
                core.write(processes_total=written + 1, outcome=lib.OOMSLICE_OUTCOME_FREED)
                written += 1
            time.sleep(chance.uniform(0, 0.002))
        reader.send_signal(signal.SIGKILL)
        reader.wait()
        reader.stdout.close()

    with Ring(core.fd) as ring, DecisionStore(path, 100_000) as store:
        before = store.count()
        assert before + ring.pending in (written, written + 1), "stored, waiting, or stored and not yet released"
        for decision in ring.drain({}, "boot"):
            store.add(decision)
            ring.release(decision)
        assert not store.problems
        stored = {decision.id: decision.processes for decision in store.list(0, 1 << 31)}
        assert stored == {f"00000000000000ab-{number}": number for number in range(1, written + 1)}
        assert store.count() == written > 100 and before > 25
