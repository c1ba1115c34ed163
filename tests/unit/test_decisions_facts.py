# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the BPF program tells of the kernel's kills: read from its ring, and one decision each with log and counters."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from oomslice.decisions import facts as facts_module
from oomslice.decisions.facts import PAGE, Facts
from oomslice.errors import StoreError
from tests.unit.kernel_facts import BUSY, DISCARD, SIZE, RingFile
from tests.unit.test_decisions_kernel import GLOBAL, GLOBAL_KILLED, Machine, machine

__all__ = ["machine"]
HOG = "/low.slice/hog.service"


@pytest.fixture
def ring() -> RingFile:
    return RingFile()


def reader(ring: RingFile) -> Facts:
    """A reader of that ring, as oomsliced would have it."""

    class Fixed(Facts):
        def follow(self) -> bool:
            return False

    facts = Fixed("/nonexistent")
    facts.use(os.dup(ring.fd), SIZE)
    assert facts.open
    return facts


def test_a_kill_is_told_with_where_and_who(ring: RingFile) -> None:
    ring.kill(5_000_000, [(11, "low.slice"), (12, "hog.service"), (13, "sub")], pid=71, limited=11)
    (told,) = reader(ring).read()
    kill = told.kill
    assert told.complete
    assert (kill.sequence, kill.usec, kill.source) == (5_000_000, 5000, "bpf")
    assert (kill.memcg, kill.constraint, kill.limited_id) == (True, "CONSTRAINT_MEMCG", 11)
    assert (kill.oom_memcg, kill.task_memcg) == ("/low.slice", "/low.slice/hog.service/sub")
    assert kill.cgroup_ids == (11, 12, 13)
    assert (kill.points, kill.total_pages, kill.lines) == (2000, 10000, 1)
    process = kill.processes[71]
    assert (process.task, process.uid, process.score_adjustment) == ("hog", 7, -5)
    assert (process.anonymous, process.file, process.shared) == (256 * PAGE, 2 * PAGE, PAGE)


def test_a_kill_stays_until_it_is_released_also_for_the_next_reader(ring: RingFile) -> None:
    ring.kill(1_000, [(11, "a.service")], pid=1)
    ring.kill(2_000, [(12, "b.service")], pid=2)
    first = reader(ring)
    assert [told.kill.sequence for told in first.read()] == [1_000, 2_000]
    assert [told.kill.sequence for told in first.read()] == [1_000, 2_000]
    first.release(first.read()[0].position)
    first.close()
    second = reader(ring)
    (left,) = second.read()
    assert left.kill.sequence == 2_000
    second.release(left.position)
    assert second.read() == [] and ring.consumed == ring.produced


def test_what_is_being_written_is_waited_for_and_what_was_dropped_is_passed(ring: RingFile) -> None:
    ring.add(b"x" * 24, DISCARD)
    ring.kill(1_000, [(11, "a.service")], pid=1)
    ring.add(b"x" * 24, BUSY)
    ring.kill(2_000, [(12, "b.service")], pid=2)
    assert [told.kill.sequence for told in reader(ring).read()] == [1_000]


def test_a_length_that_cannot_be_is_no_record(ring: RingFile) -> None:
    ring.add(b"")
    ring.memory[2 * PAGE : 2 * PAGE + 4] = (SIZE * 2).to_bytes(4, "little")
    facts = reader(ring)
    assert facts.read() == []
    assert "Bad message" in facts.error


def test_short_and_unknown_records_do_no_harm(ring: RingFile) -> None:
    ring.add(b"\x01\0\0\0")
    ring.add(b"\x01" + b"\0" * 23)
    ring.add(b"\x63" + b"\0" * 23)
    assert all(not told.kill.processes for told in reader(ring).read())


def test_a_kill_without_its_end_is_complete_after_a_while_or_when_the_next_begins(
    ring: RingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring.kill(1_000, [(11, "a.service")], pid=1, end=False)
    monkeypatch.setattr(facts_module.time, "monotonic_ns", lambda: 1_500_000_000)
    assert [told.complete for told in reader(ring).read()] == [False]
    monkeypatch.setattr(facts_module.time, "monotonic_ns", lambda: 2_500_000_000)
    assert [told.complete for told in reader(ring).read()] == [True]
    monkeypatch.setattr(facts_module.time, "monotonic_ns", lambda: 1_500_000_000)
    ring.kill(2_000, [(11, "a.service")], pid=1, end=False)
    assert [told.complete for told in reader(ring).read()] == [True, False]


def test_a_file_that_is_no_ring_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "observe").mkdir()
    (tmp_path / "observe" / "map-facts").write_text("x")
    facts = Facts(str(tmp_path))
    assert facts.follow() and not facts.open
    assert facts.error.startswith(f"{tmp_path}/observe/map-facts: ")
    # It is tried once, not with each plan.
    assert not facts.follow()
    (tmp_path / "observe" / "map-facts").unlink()
    facts.follow()
    assert facts.error == ""


# With log and counters


class Told(Machine):
    """The machine of the other tests, with a ring."""

    def use(self, ring: RingFile) -> None:
        self.ring = ring
        self.ledger._facts = reader(ring)

    def levels(self, path: str = HOG) -> list[tuple[int, str]]:
        parts = path[1:].split("/")
        paths = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        return [((self.root / one).stat().st_ino, one.rpartition("/")[2]) for one in paths]

    def bpf(self, pid: int = 71, path: str = HOG) -> None:
        """What comes before the kernel counts and logs, and its end, which comes after."""
        self.count(path)
        self.ring.kill(int(self.clock.now * 1e9), self.levels(path), pid=pid)


@pytest.fixture
def told(machine: Machine, ring: RingFile, monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(facts_module, "time", machine.clock)
    machine.__class__ = Told
    assert isinstance(machine, Told)
    machine.use(ring)
    return machine


def test_a_kill_that_all_three_tell_is_one_decision(told: Told) -> None:
    told.bpf()
    told.log(GLOBAL, GLOBAL_KILLED)
    (decision,) = told.settle_all()
    assert decision.extra["source"] == "bpf"
    assert (decision.victim, decision.pids, decision.processes) == ("hog.service", (71,), 1)
    assert decision.victim_cgroup_id == told.levels()[-1][0]
    assert decision.trigger_usec == decision.extra["kernel_sequence"] // 1000
    assert decision.id.endswith(f"-kb{decision.extra['kernel_sequence']}")
    assert told.ring.consumed == told.ring.produced
    told.clock.now += 100
    assert told.settle_all() == []


def test_a_line_that_comes_long_after_is_no_second_decision(told: Told) -> None:
    told.bpf()
    assert len(told.settle_all()) == 1
    told.clock.now += 3
    told.log(GLOBAL, GLOBAL_KILLED)
    assert told.settle_all() == []


def test_a_line_before_the_end_of_what_bpf_tells_waits_for_it(told: Told) -> None:
    told.count(HOG)
    told.ring.kill(int(told.clock.now * 1e9), told.levels(), pid=71, end=False)
    told.log(GLOBAL, GLOBAL_KILLED)
    assert told.settle() == []
    assert told.settle(0.3) == []
    told.ring.kill(int((told.clock.now + 1) * 1e9), told.levels(), pid=99)
    decisions = told.settle(1.0)
    assert [one.pids for one in decisions] == [(71,), (99,)]
    assert all(one.extra["source"] == "bpf" for one in decisions)


def test_two_kills_of_one_number_are_two_decisions(told: Told) -> None:
    told.bpf()
    told.log(GLOBAL, GLOBAL_KILLED)
    told.settle_all()
    told.clock.now += 1
    # The same number again, and this time BPF did not see it.
    told.count(HOG)
    told.log(GLOBAL, GLOBAL_KILLED)
    (decision,) = told.settle_all()
    assert decision.extra["source"] == "kernel-log"


def test_what_bpf_does_not_tell_the_log_does(told: Told) -> None:
    told.count(HOG)
    told.log(GLOBAL, GLOBAL_KILLED)
    (decision,) = told.settle_all()
    assert decision.extra["source"] == "kernel-log"


def test_a_death_of_the_daemon_doubles_nothing(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told.bpf()
    told.log(GLOBAL, GLOBAL_KILLED)
    # It dies after the decision was stored and before the ring knows.
    with monkeypatch.context() as patch:
        patch.setattr(Facts, "release", lambda self, position: None)
        assert len(told.settle()) == 1
    told.restart()
    told.use(told.ring)
    assert told.settle_all() == []
    assert told.store.count() == 1
    assert told.ring.consumed == told.ring.produced


def test_a_store_that_fails_is_tried_again_with_the_same_kill(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told.bpf()

    def fail(*_: object) -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(told.store, "add_kernel_kills", fail)
        with pytest.raises(StoreError):
            told.settle()
    assert told.ring.consumed == 0
    assert [one.pids for one in told.settle_all()] == [(71,)]
    assert told.ring.consumed == told.ring.produced


def test_a_unit_is_known_by_id_even_if_its_name_was_cut(told: Told) -> None:
    id = told.add_unit("/low.slice/" + "x" * 150 + ".service")
    told.settle()
    told.bpf(path=told.units[id].path)
    (decision,) = told.settle_all()
    assert (decision.victim, decision.victim_cgroup_id) == (told.units[id].name, id)


def test_a_unit_that_is_gone_by_now_is_known_by_the_id_that_was_told(told: Told) -> None:
    levels = [*told.levels("/low.slice"), (987654, "gone.service"), (987655, "sub")]
    told.count("/low.slice")
    told.ring.kill(int(told.clock.now * 1e9), levels, pid=71)
    (decision,) = told.settle_all()
    assert (decision.victim, decision.victim_cgroup_id) == ("gone.service", 987654)


def test_a_kill_of_nobody_is_no_decision(told: Told) -> None:
    # The one that was chosen was dying already.
    told.ring.kill(int(told.clock.now * 1e9), told.levels(), pid=71, victims=None)
    assert told.settle_all() == []
    assert told.ring.consumed == told.ring.produced


def test_the_limit_names_the_domain(told: Told) -> None:
    levels = told.levels()
    told.count(HOG)
    told.ring.kill(int(told.clock.now * 1e9), levels, pid=71, limited=levels[0][0])
    (decision,) = told.settle_all()
    assert (decision.domain, decision.extra["oom_memcg"]) == ("low.slice", "/low.slice")
    assert decision.victim_memory_before == 259 * PAGE


def test_no_ring_no_socket(ring: RingFile) -> None:
    with socket.socket() as other:
        facts = Facts("/nonexistent")
        facts.use(os.dup(other.fileno()), SIZE)
        assert not facts.open and facts.error
