# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ring through the binding: its order, its counters at their limits, and processes killed at each step.

Deaths at moments that nobody chose are tested by tests/core/prog_ring_death.c.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomslice._core import ffi, lib

SLOTS = lib.OOMSLICE_RING_SLOTS
LAST = (1 << 64) - 1


class Ring:
    """A ring in a memfd, as core and oomsliced map it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, lib.OOMSLICE_RING_SIZE)
        self.memory = mmap.mmap(self.fd, lib.OOMSLICE_RING_SIZE)
        self.map = ffi.from_buffer("char[]", self.memory)
        self.header = ffi.cast("struct oomslice_ring_header *", self.map)
        lib.oomslice_ring_init(self.map, 0x1234)

    def close(self) -> None:
        ffi.release(self.map)
        self.memory.close()
        os.close(self.fd)

    def take(self) -> Any:
        record = lib.oomslice_ring_take(self.map)
        return None if record == ffi.NULL else record

    def add(self, outcome: int = lib.OOMSLICE_OUTCOME_FREED) -> None:
        record = self.take()
        record.outcome = outcome
        lib.oomslice_ring_set_state(record, lib.OOMSLICE_RECORD_FINAL)

    def next(self) -> Any:
        record = lib.oomslice_ring_next(self.map)
        return None if record == ffi.NULL else record

    def release(self, sequence: int) -> None:
        lib.oomslice_ring_release(self.map, sequence)

    def recover(self) -> int:
        return lib.oomslice_ring_recover(self.map)

    def drain(self) -> list[tuple[int, int]]:
        """Sequence and outcome of all that can be read."""
        found = []
        while (record := self.next()) is not None:
            found.append((record.sequence, record.outcome))
            self.release(record.sequence)
        return found


@pytest.fixture
def ring() -> Iterator[Ring]:
    ring = Ring()
    yield ring
    ring.close()


def test_a_new_ring_is_good_and_empty(ring: Ring) -> None:
    assert lib.oomslice_ring_check(ring.map) == 0
    assert ring.header.ring_id == 0x1234
    assert ring.next() is None
    assert ring.recover() == 0


def test_zeroes_are_no_ring() -> None:
    assert lib.oomslice_ring_check(ffi.new("uint64_t[]", lib.OOMSLICE_RING_SIZE // 8)) < 0


@pytest.mark.parametrize(
    "field, value", [("version", lib.OOMSLICE_RING_VERSION + 1), ("slots", 31), ("slots", 0), ("magic", b"OOMSLPLN")]
)
def test_another_kind_of_ring_is_refused(ring: Ring, field: str, value: Any) -> None:
    setattr(ring.header, field, value)
    assert lib.oomslice_ring_check(ring.map) < 0


def test_a_record_is_read_once_it_is_final_and_until_it_is_released(ring: Ring) -> None:
    record = ring.take()
    assert (record.sequence, record.state) == (1, lib.OOMSLICE_RECORD_CHOSEN)
    assert ring.next() is None
    lib.oomslice_ring_set_state(record, lib.OOMSLICE_RECORD_SIGNALLED)
    assert ring.next() is None
    lib.oomslice_ring_set_state(record, lib.OOMSLICE_RECORD_FINAL)
    assert ring.next().sequence == 1
    assert ring.next().sequence == 1
    ring.release(1)
    assert ring.next() is None


def test_records_come_in_the_order_in_which_they_were_taken(ring: Ring) -> None:
    first, second = ring.take(), ring.take()
    lib.oomslice_ring_set_state(second, lib.OOMSLICE_RECORD_FINAL)
    assert ring.next() is None, "the first is still open"
    lib.oomslice_ring_set_state(first, lib.OOMSLICE_RECORD_FINAL)
    assert [sequence for sequence, _ in ring.drain()] == [1, 2]


def test_a_slot_is_clean_when_it_is_taken_again(ring: Ring) -> None:
    for _ in range(SLOTS + 1):
        record = ring.take()
        assert bytes(ffi.buffer(record))[8:12] == lib.OOMSLICE_RECORD_CHOSEN.to_bytes(4, sys.byteorder)
        assert not any(bytes(ffi.buffer(record))[12:])
        ffi.buffer(record)[12:] = b"\xff" * (ffi.sizeof("struct oomslice_record") - 12)
        lib.oomslice_ring_set_state(record, lib.OOMSLICE_RECORD_FINAL)
        ring.release(record.sequence)


def test_a_full_ring_drops_the_newest_and_counts_it(ring: Ring) -> None:
    for _ in range(SLOTS):
        ring.add()
    assert ring.take() is None
    assert ring.take() is None
    assert ring.header.dropped == 2
    ring.release(1)
    ring.add(lib.OOMSLICE_OUTCOME_DRY_RUN)
    assert ring.take() is None
    assert ring.header.dropped == 3
    drained = ring.drain()
    assert [sequence for sequence, _ in drained] == list(range(2, SLOTS + 2))
    assert drained[-1] == (SLOTS + 1, lib.OOMSLICE_OUTCOME_DRY_RUN)


@pytest.mark.parametrize("sequence", [0, 2, 3, SLOTS, LAST])
def test_only_the_oldest_record_can_be_released(ring: Ring, sequence: int) -> None:
    ring.add()
    ring.add()
    ring.release(sequence)
    assert ring.header.tail == 0
    assert [number for number, _ in ring.drain()] == [1, 2]


def test_a_record_that_is_not_final_cannot_be_released(ring: Ring) -> None:
    ring.take()
    ring.release(1)
    assert ring.header.tail == 0


@given(st.lists(st.sampled_from(["take", "finish", "release", "restart"]), max_size=200))
@settings(max_examples=100, deadline=None)
def test_whatever_the_course_of_events_each_record_is_read_once(events: list[str]) -> None:
    ring = Ring()
    taken = dropped = 0
    expected: dict[int, int] = {}
    read: list[tuple[int, int]] = []
    open_records: list[Any] = []
    for event in events:
        if event == "take":
            record = ring.take()
            if record is None:
                assert taken - len(read) == SLOTS
                dropped += 1
            else:
                taken += 1
                assert record.sequence == taken
                open_records.append(record)
        elif event == "finish" and open_records:
            record = open_records.pop(0)
            record.outcome = expected[record.sequence] = lib.OOMSLICE_OUTCOME_FREED
            lib.oomslice_ring_set_state(record, lib.OOMSLICE_RECORD_FINAL)
        elif event == "release" and (record := ring.next()) is not None:
            read.append((record.sequence, record.outcome))
            ring.release(record.sequence)
        elif event == "restart":
            assert ring.recover() == len(open_records)
            expected |= {record.sequence: lib.OOMSLICE_OUTCOME_INTERRUPTED for record in open_records}
            open_records = []
        assert lib.oomslice_ring_check(ring.map) == 0
    read += ring.drain()
    assert read == sorted(expected.items())[: len(read)]
    assert len(read) == taken - len(open_records)
    assert ring.header.dropped == dropped
    ring.close()


@pytest.mark.parametrize("head, tail", [(5, 6), (0, LAST), (33, 0), (LAST, 0), (0, 1), (1 << 63, (1 << 63) - 33)])
def test_counters_that_make_no_sense_are_like_a_full_ring(ring: Ring, head: int, tail: int) -> None:
    ring.header.head, ring.header.tail = head, tail
    before = bytes(ring.memory[lib.OOMSLICE_RING_HEADER_SIZE :])
    assert lib.oomslice_ring_check(ring.map) < 0
    assert ring.take() is None
    assert ring.header.dropped == 1
    assert ring.next() is None
    assert ring.recover() == 0
    ring.release((tail + 1) & LAST)
    assert (ring.header.head, ring.header.tail) == (head, tail)
    assert bytes(ring.memory[lib.OOMSLICE_RING_HEADER_SIZE :]) == before


def test_sequences_end_before_they_would_begin_anew(ring: Ring) -> None:
    ring.header.head = ring.header.tail = LAST - 2
    ring.add()
    ring.add()
    assert ring.take() is None, "the next one would be 0"
    assert [sequence for sequence, _ in ring.drain()] == [LAST - 1, LAST]
    assert ring.take() is None
    assert lib.oomslice_ring_check(ring.map) == 0


def test_the_middle_of_the_sequences_is_no_place_of_its_own(ring: Ring) -> None:
    ring.header.head = ring.header.tail = (1 << 63) - 2
    for _ in range(SLOTS):
        ring.add()
    assert ring.take() is None
    assert [sequence for sequence, _ in ring.drain()] == list(range((1 << 63) - 1, (1 << 63) - 1 + SLOTS))


def test_a_slot_with_a_foreign_sequence_does_not_stop_the_reader_for_ever(ring: Ring) -> None:
    ring.add()
    ring.add()
    record = ring.next()
    ffi.cast("struct oomslice_record *", record).sequence = 99
    assert ring.next() is None
    assert ring.recover() == 1
    assert ring.drain() == [(1, lib.OOMSLICE_OUTCOME_INTERRUPTED), (2, lib.OOMSLICE_OUTCOME_FREED)]


def test_a_ring_whose_core_died_while_it_cleared_a_slot_goes_on(ring: Ring) -> None:
    # Taken is what the head counts; what is in the slot beyond it does not matter.
    ring.add()
    slot = ring.map + lib.OOMSLICE_RING_HEADER_SIZE + lib.OOMSLICE_RECORD_SIZE
    ffi.buffer(slot, lib.OOMSLICE_RECORD_SIZE)[:] = b"\xa5" * lib.OOMSLICE_RECORD_SIZE
    assert ring.recover() == 0
    record = ring.take()
    assert (record.sequence, record.outcome, record.victim_cgroup_id) == (2, 0, 0)


STEPS: dict[str, tuple[str, list[tuple[int, int]]]] = {
    "before it takes a slot": ("", []),
    "with a slot that is empty": ("take()", [(2, lib.OOMSLICE_OUTCOME_INTERRUPTED)]),
    "before the kill": ("take(); record.victim_cgroup_id = 7", [(2, lib.OOMSLICE_OUTCOME_INTERRUPTED)]),
    "after the kill": (
        "take(); record.victim_cgroup_id = 7; state(lib.OOMSLICE_RECORD_SIGNALLED)",
        [(2, lib.OOMSLICE_OUTCOME_INTERRUPTED)],
    ),
    "with the outcome half written": (
        "take(); state(lib.OOMSLICE_RECORD_SIGNALLED); record.outcome = lib.OOMSLICE_OUTCOME_FREED",
        [(2, lib.OOMSLICE_OUTCOME_INTERRUPTED)],
    ),
    "after the record": (
        "take(); record.outcome = lib.OOMSLICE_OUTCOME_FREED; state(lib.OOMSLICE_RECORD_FINAL)",
        [(2, lib.OOMSLICE_OUTCOME_FREED)],
    ),
}

PROCESS = """
import mmap, signal, sys
from oomslice._core import ffi, lib
map = ffi.from_buffer("char[]", mmap.mmap(int(sys.argv[1]), lib.OOMSLICE_RING_SIZE))
def take():
    global record
    record = lib.oomslice_ring_take(map)
def next():
    global record
    record = lib.oomslice_ring_next(map)
def state(value):
    lib.oomslice_ring_set_state(record, value)
def release():
    lib.oomslice_ring_release(map, record.sequence)
exec(sys.argv[2])
print(record.sequence if "record" in globals() else 0, flush=True)
signal.pause()
"""


@pytest.fixture
def dies(ring: Ring) -> Callable[[str], int]:
    """Runs some steps on the ring in a process of its own and kills that; gives the sequence it was at."""

    def run(steps: str) -> int:
        command = [sys.executable, "-c", PROCESS, str(ring.fd), steps]
        with subprocess.Popen(command, pass_fds=[ring.fd], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            sequence = int(process.stdout.readline())
            process.kill()
        return sequence

    return run


@pytest.mark.parametrize("moment", STEPS)
def test_a_core_killed_at_any_step_leaves_one_record_of_what_it_did(
    ring: Ring, dies: Callable[[str], int], moment: str
) -> None:
    steps, left = STEPS[moment]
    ring.add()
    dies(steps)
    assert ring.recover() == sum(outcome == lib.OOMSLICE_OUTCOME_INTERRUPTED for _, outcome in left)
    assert ring.recover() == 0
    if "victim" in steps:
        assert ring.header.head == 2
    assert ring.drain() == [(1, lib.OOMSLICE_OUTCOME_FREED), *left]
    ring.add()
    assert ring.drain() == [(2 + len(left), lib.OOMSLICE_OUTCOME_FREED)]


def test_a_core_that_died_leaves_what_it_had_written(ring: Ring, dies: Callable[[str], int]) -> None:
    dies("take(); record.victim_cgroup_id = 7; record.trigger_us = 5; state(lib.OOMSLICE_RECORD_SIGNALLED)")
    ring.recover()
    record = ring.next()
    assert (record.victim_cgroup_id, record.trigger_us) == (7, 5)


def test_a_reader_killed_between_storing_and_releasing_sees_the_record_again(
    ring: Ring, dies: Callable[[str], int]
) -> None:
    ring.add()
    ring.add()
    assert dies("next()") == 1
    assert dies("next()") == 1
    assert dies("next(); release()") == 1
    assert dies("next()") == 2
    assert [sequence for sequence, _ in ring.drain()] == [2]
