# SPDX-License-Identifier: LGPL-2.1-or-later
"""The figures around a decision: from the core's memory to the store, in order, bounded, and never a torn one."""

from __future__ import annotations

import mmap
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice._core import ffi, lib
from oomslice.decisions import store as decision_store
from oomslice.decisions.history import SAMPLES_MAX, UNITS_MAX, History, MachineSample, UnitSample
from oomslice.decisions.record import Decision
from oomslice.decisions.ring import Ring
from oomslice.decisions.store import DecisionStore
from oomslice.errors import NoSuchDecisionError

PLACES = int(lib.OOMSLICE_HISTORY_SAMPLES)


class Core:
    """The writer's side."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, lib.OOMSLICE_RING_SIZE)
        self._map = mmap.mmap(self.fd, lib.OOMSLICE_RING_SIZE)
        self.data = ffi.from_buffer("char[]", self._map, require_writable=True)
        lib.oomslice_ring_init(self.data, 0xAB)

    def sample(self, at: int) -> None:
        lib.oomslice_history_add_sample(
            self.data, ffi.new("struct oomslice_history_sample *", [at, at + 1, at + 2, at + 3, at + 4])
        )

    def unit(self, at: int, cgroup_id: int) -> None:
        lib.oomslice_history_add_unit(self.data, ffi.new("struct oomslice_history_unit *", [at, cgroup_id, at * 2]))


@pytest.fixture
def core() -> Iterator[Core]:
    writer = Core()
    yield writer
    os.close(writer.fd)


def test_every_figure_arrives_in_order_and_from_the_moment_that_was_asked_for(core: Core) -> None:
    with Ring(core.fd) as ring:
        assert ring.history(0, {}) == History()
        for at in (10, 20, 30):
            core.sample(at)
            core.unit(at, 7)
            core.unit(at, 8)
        history = ring.history(20, {7: "a.service"})
        assert history.samples == (MachineSample(20, 21, 22, 23, 24), MachineSample(30, 31, 32, 33, 34))
        assert history.units == (UnitSample(20, "a.service", 40), UnitSample(30, "a.service", 60))
        assert len(ring.history(-5, {}).samples) == 3


def test_the_newest_goes_over_the_oldest(core: Core) -> None:
    with Ring(core.fd) as ring:
        for at in range(1, 2 * PLACES + 100):
            core.sample(at)
        # The place of the one that may be written now is left out.
        assert [sample.usec for sample in ring.history(0, {}).samples] == list(range(PLACES + 101, 2 * PLACES + 100))


def test_counters_that_make_no_sense_give_odd_figures_and_nothing_else(core: Core) -> None:
    header = ffi.cast("struct oomslice_ring_header *", core.data)
    with Ring(core.fd) as ring:
        for made in (2**64 - 1, 2**64 - PLACES, PLACES - 1, 2**63):
            header.samples_made = header.units_made = made
            core.sample(5)
            core.unit(5, 7)
            assert len(ring.history(0, {7: "a.service"}).samples) < PLACES


WRITER = """
import mmap, sys
from oomslice._core import ffi, lib
map = ffi.from_buffer("char[]", mmap.mmap(int(sys.argv[1]), lib.OOMSLICE_RING_SIZE), require_writable=True)
sample = ffi.new("struct oomslice_history_sample *")
at = 0
while True:
    at += 1
    sample.at_us = sample.available = sample.swap_free = sample.some_total_us = sample.full_total_us = at
    lib.oomslice_history_add_sample(map, sample)
"""


def test_a_reader_beside_the_writer_sees_whole_entries_only(core: Core) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(core.fd)], pass_fds=[core.fd])
    try:
        with Ring(core.fd) as ring:
            looks = newest = 0
            while looks < 300 or newest < 4 * PLACES:
                samples = ring.history(0, {}).samples
                for sample in samples:
                    assert len({sample.usec, sample.memory_available, sample.swap_free, sample.full_usec}) == 1
                assert [sample.usec for sample in samples] == list(
                    range(samples[0].usec, samples[0].usec + len(samples)) if samples else ()
                )
                newest, looks = samples[-1].usec if samples else newest, looks + 1
    finally:
        writer.kill()
        writer.wait()


def long_history(samples: int, moments: int, units: int) -> History:
    return History(
        tuple(MachineSample(usec, usec, 0, 0, 0) for usec in range(samples)),
        tuple(UnitSample(usec, f"{unit}.service", usec) for usec in range(moments) for unit in range(units)),
    )


def test_what_is_stored_is_no_more_than_a_picture_can_show() -> None:
    history = long_history(5000, 300, 20).thinned()
    assert len(history.samples) == SAMPLES_MAX and len(history.units) <= UNITS_MAX
    assert (history.samples[0].usec, history.samples[-1].usec) == (0, 4999)
    assert [sample.usec for sample in history.samples] == sorted({sample.usec for sample in history.samples})
    moments = [sample.usec for sample in history.units]
    assert (moments[0], moments[-1]) == (0, 299)
    assert all(moments.count(moment) == 20 for moment in set(moments)), "the units of one moment belong together"
    small = long_history(10, 2, 3)
    assert small.thinned() == small


def test_bytes_and_back() -> None:
    history = long_history(20, 5, 3)
    assert History.from_bytes(history.to_bytes()) == history
    assert History.from_bytes(History().to_bytes()) == History()
    for damaged in (b"", b"x", history.to_bytes()[:-9]):
        with pytest.raises(ValueError, match="not a history"):
            History.from_bytes(damaged)


def decision(number: int) -> Decision:
    return Decision(f"a-{number}", "b", "core", "memory-available", "-.slice", "freed", number)


def test_the_store_keeps_the_figures_of_the_newest_decisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_store, "HISTORIES_MAX", 3)
    history = long_history(20, 5, 3)
    with DecisionStore(tmp_path / "decisions.sqlite", 4) as store:
        assert not store.add_history("a-1", history), "there is no such decision"
        for number in range(1, 7):
            store.add(decision(number))
            assert store.add_history(f"a-{number}", history)
        kept = [store.history(item.id) == history for item in store.list()]
        assert kept == [True, True, True, False]
        store.add_history("a-6", History())
        assert store.history("a-6") == History()
        with pytest.raises(NoSuchDecisionError):
            store.history("a-1")


def test_a_store_from_before_and_damaged_figures_are_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    with DecisionStore(path, 10) as store:
        store.add(decision(1))
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE histories")
    with DecisionStore(path, 10) as store:
        assert store.history("a-1") == History() and store.add_history("a-1", long_history(3, 1, 1))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE histories SET data = 'no blob'")
    with DecisionStore(path, 10) as store:
        assert store.history("a-1") == History() and not store.problems
