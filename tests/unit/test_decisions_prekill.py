# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the BPF program prekill tells of its kills: read from its ring, one decision each, none lost and none twice."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from oomslice._core import ffi, lib
from oomslice.decisions import bpfkills, planned
from oomslice.decisions.bpfkills import BpfKills
from oomslice.decisions.prekill import PrekillFacts, judged, lives
from oomslice.decisions.record import Decision
from oomslice.decisions.sentence import sentence
from oomslice.decisions.store import DecisionStore
from oomslice.errors import StoreError
from tests.unit.kernel_facts import SIZE, RingFile
from tests.unit.policies import policy, unit

MIB = 1 << 20
BOOT = "0123456789abcdef0123456789abcdef"
WAY = [(11, "low.slice"), (12, "hog.service")]


class Ring(RingFile):
    """A ring with records as the program writes them."""

    def prekill(
        self,
        nsec: int,
        *,
        domain: int = lib.OOMSLICE_PREKILL_MACHINE,
        reason: int = lib.OOMSLICE_PREKILL_LAST,
        levels: Sequence[tuple[int, str]] = WAY,
        flags: int = lib.OOMSLICE_UNIT_CANDIDATE,
        scope: int = lib.OOMSLICE_SCOPE_UNIT,
        usage: int = 100 * MIB,
        pids: Sequence[int] = (71, 72),
    ) -> None:
        """Its KILL."""
        values = {
            "fact": {"kind": lib.OOMSLICE_PREKILL_KILL, "kill_nsec": nsec, "nsec": nsec},
            "signal_nsec": nsec + 2_000_000,
            "domain": domain,
            "victim": levels[-1][0],
            "usage": usage,
            "priority": -300,
            "scope": scope,
            "flags": flags,
            "reason": reason,
            "generation": 9,
            "available": 20 * MIB,
            "available_limit": 25 * MIB,
            "asked_nsec": nsec - 300_000_000,
            "beat_nsec": nsec - 900_000_000,
            "eligible": 4,
            "signalled": len(pids),
            "failed": 1,
            "asking_pid": 5,
            "asking_task": b"other",
            "pids_count": len(pids),
            "pids": list(pids),
            "depth": len(levels),
            "levels_count": len(levels),
            "levels": [{"id": id, "name": name.encode()} for id, name in levels],
        }
        self.add(bytes(ffi.buffer(ffi.new("struct oomslice_prekill_kill *", values))))

    def ended(self, nsec: int, *, after: int = 5_000_000, usage: int = 0, emptied: bool = True) -> None:
        """Its END."""
        how = lib.OOMSLICE_PREKILL_EMPTY if emptied else lib.OOMSLICE_PREKILL_DEADLINE
        fact = {"kind": lib.OOMSLICE_PREKILL_END, "kill_nsec": nsec, "nsec": nsec + after}
        values = {"fact": fact, "victim": 12, "how": how, "usage": usage}
        self.add(bytes(ffi.buffer(ffi.new("struct oomslice_prekill_ended *", values))))


@pytest.fixture
def ring() -> Ring:
    return Ring()


def named(id: int, path: str) -> str:
    return {1: "-.slice", 11: "low.slice", 12: "hog.service"}.get(id, path)


def reader(ring: Ring, name: object = named) -> PrekillFacts:
    """A reader of that ring, as oomsliced would have it."""

    class Fixed(PrekillFacts):
        never = os.eventfd(0)

        def follow(self) -> bool:
            return False

        def fileno(self) -> int:
            return self.never  # a file cannot be waited for

    facts = Fixed(BOOT, name, "/nonexistent")  # type: ignore[arg-type]
    facts.use(os.dup(ring.fd), SIZE)
    assert facts.open
    return facts


def one(ring: Ring, *, alive: bool = False) -> Decision:
    (told,), _, waiting = reader(ring).read()
    assert not waiting
    return judged(told, lambda decision: alive)


def test_a_kill_is_told_with_whom_why_and_what_came_of_it(ring: Ring) -> None:
    ring.prekill(5_000_000_000, domain=11, reason=lib.OOMSLICE_PREKILL_LIMIT)
    ring.ended(5_000_000_000, usage=3 * MIB)
    said = one(ring)
    assert (said.id, said.boot_id, said.carrier) == ("0123456789abcdef-b5000000000", BOOT, "bpf")
    assert (said.trigger, said.domain, said.victim) == ("memory-limit", "low.slice", "hog.service")
    assert (said.outcome, said.victim_cgroup_id, said.victim_priority) == ("freed", 12, -300)
    assert (said.trigger_usec, said.signal_usec) == (5_000_000, 5_002_000)
    assert (said.death_usec, said.memory_back_usec) == (5_005_000, 5_005_000)
    assert (said.victim_memory_before, said.victim_memory_after, said.bytes_freed) == (100 * MIB, 3 * MIB, 97 * MIB)
    assert (said.processes, said.pids, said.candidates_total, said.plan_generation) == (2, (71, 72), 4, 9)
    assert (said.extra["cgroup"], said.extra["asking_task"]) == ("/low.slice/hog.service", "other")
    assert said.extra["not_signalled"] == 1
    text = sentence(said)
    assert text.startswith("oomslice killed from inside the kernel hog.service (priority -300, 100.0 MiB, 2 processes)")
    assert "for low.slice: its memory limit was reached" in text and "97.0 MiB back after 5 ms" in text


def test_what_made_it_act_for_the_machine_is_told(ring: Ring) -> None:
    ring.prekill(5_000_000_000, reason=lib.OOMSLICE_PREKILL_SILENT)
    ring.ended(5_000_000_000)
    said = one(ring)
    assert (said.trigger, said.domain) == ("memory-available", "-.slice")
    assert (said.extra["core_asked_usec"], said.extra["core_beat_usec"]) == (4_700_000, 4_100_000)
    assert "MemAvailable 20.0 MiB at or below the limit of 25.0 MiB, and oomslice-core did not answer" in sentence(said)
    last = Ring()
    last.prekill(6_000_000_000, reason=lib.OOMSLICE_PREKILL_LAST)
    last.ended(6_000_000_000)
    assert one(last).trigger == "last-moment"
    assert "the kernel would have killed next" in sentence(one(last))


@pytest.mark.parametrize(
    ("usage", "emptied", "scope", "outcome", "death"),
    [
        (0, True, lib.OOMSLICE_SCOPE_UNIT, "freed", 5_005_000),
        (90 * MIB, True, lib.OOMSLICE_SCOPE_UNIT, "kept", 5_005_000),
        (90 * MIB, True, lib.OOMSLICE_SCOPE_PROCESS, "freed", 5_005_000),
        (90 * MIB, False, lib.OOMSLICE_SCOPE_UNIT, "deadline", 0),
    ],
)
def test_the_outcome_is_what_the_end_says(
    ring: Ring, usage: int, emptied: bool, scope: int, outcome: str, death: int
) -> None:
    ring.prekill(5_000_000_000, scope=scope)
    ring.ended(5_000_000_000, usage=usage, emptied=emptied)
    said = one(ring)
    assert (said.outcome, said.death_usec, said.bytes_freed) == (outcome, death, 100 * MIB - usage)


def test_a_dry_run_is_complete_at_once_and_claims_no_signal(ring: Ring) -> None:
    ring.prekill(time.monotonic_ns(), flags=lib.OOMSLICE_UNIT_CANDIDATE | lib.OOMSLICE_UNIT_DRY_RUN, pids=())
    said = one(ring)
    assert (said.outcome, said.signal_usec, said.bytes_freed, said.pids) == ("dry-run", 0, 0, ())


def test_an_end_that_never_came_is_seen_from_the_cgroup(ring: Ring) -> None:
    ring.prekill(5_000_000_000)
    assert one(ring, alive=True).outcome == "deadline"
    said = one(ring, alive=False)
    assert (said.outcome, said.bytes_freed, said.death_usec) == ("freed", 100 * MIB, 0)


def test_a_kill_waits_for_its_end_and_holds_its_place_in_the_ring(ring: Ring) -> None:
    now = time.monotonic_ns()
    ring.prekill(5_000_000_000)
    ring.ended(5_000_000_000)
    first = ring.produced
    ring.prekill(now)
    ring.prekill(now + 1, domain=11)
    ring.ended(now + 1)
    told, position, waiting = reader(ring).read()
    assert [one.nsec for one in told] == [5_000_000_000, now + 1]
    assert (position, waiting) == (first, True)
    ring.ended(now)
    told, position, waiting = reader(ring).read()
    assert len(told) == 3 and (position, waiting) == (ring.produced, False)


def test_ends_without_a_kill_and_rubbish_are_passed_over(ring: Ring) -> None:
    ring.add(b"x" * 3)
    ring.add(b"x" * 64)
    ring.ended(4_000_000_000)
    assert reader(ring).read() == ([], ring.produced, False)


def test_a_way_that_was_cut_still_names_the_units_that_it_has(ring: Ring, tmp_path: Path) -> None:
    store = DecisionStore(tmp_path / "store", 10)
    kills = BpfKills("/sys/fs/cgroup", store, BOOT, lambda decision: None)
    assert kills.named(77, "/a.slice/b.service/sub") == "b.service"
    assert kills.named(77, "/") == "-.slice"


def test_who_lives_is_asked_of_the_same_cgroup(tmp_path: Path, ring: Ring) -> None:
    ring.prekill(5_000_000_000)
    (told,), _, _ = reader(ring).read()
    directory = tmp_path / "low.slice" / "hog.service"
    assert not lives(str(tmp_path), told.decision)
    directory.mkdir(parents=True)
    (directory / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (directory / "cgroup.procs").write_text("3\n72\n")
    assert not lives(str(tmp_path), told.decision), "another cgroup of the same name"
    ring = Ring()
    ring.prekill(5_000_000_000, levels=[(11, "low.slice"), (directory.stat().st_ino, "hog.service")])
    (told,), _, _ = reader(ring).read()
    assert lives(str(tmp_path), told.decision)
    (directory / "cgroup.procs").write_text("3\n")
    assert not lives(str(tmp_path), told.decision)


class Scene:
    """A follower of a ring, with a store of its own."""

    def __init__(self, tmp_path: Path, ring: Ring) -> None:
        self.store = DecisionStore(tmp_path / "store", 10)
        self.made: list[Decision] = []
        self.kills = BpfKills(str(tmp_path), self.store, BOOT, self.made.append, lambda: (900 * MIB, 7))
        self.kills._facts = reader(ring, self.kills.named)

    async def until(self, count: int) -> None:
        for _ in range(1000):
            if len(self.made) >= count:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"{len(self.made)} of {count} decisions were made")


def test_kills_are_stored_once_whoever_reads_them(tmp_path: Path, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpfkills, "SETTLE_S", 0.01)
    plan = policy(unit("-.slice", 1, parent=-1), unit("hog.service", 12))

    async def run() -> None:
        # Before anybody looked.
        ring.prekill(5_000_000_000)
        ring.ended(5_000_000_000)
        scene = Scene(tmp_path, ring)
        scene.kills.follow(plan)
        await scene.until(1)
        assert scene.made[0].victim == "hog.service"
        assert (scene.made[0].memory_total, scene.made[0].swap_total) == (900 * MIB, 7)
        assert ring.consumed == ring.produced
        # One whose end has not come, and a reader that dies before it does.
        now = time.monotonic_ns()
        ring.prekill(now)
        scene.kills.follow(plan)
        await asyncio.sleep(0.1)
        assert len(scene.made) == 1 and ring.consumed < ring.produced
        scene.kills.close()
        other = Scene(tmp_path, ring)
        other.kills.follow(plan)
        ring.ended(now)
        await other.until(1)
        assert [kill.trigger_usec for kill in other.made] == [now // 1000]
        assert other.store.count() == 2
        other.kills.close()

    asyncio.run(run())


def test_candidates_are_those_of_the_plan_that_the_program_had(
    tmp_path: Path, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpfkills, "SETTLE_S", 0.01)
    old = policy(
        unit("low.slice", 11),
        unit("hog.service", 12, parent=1, priority=-300),
        unit("dear.service", 13, priority=300),
        unit("spared.service", 14, priority=-500, protected=True),
        unit("init.scope", 15, self_=True),
        unit("left.scope", 16, left_to_oomd=True),
        unit("cheap.service", 17, parent=1, priority=-400),
    )
    new = policy(unit("young.service", 18))
    generations = iter((9, 10, 10))

    async def run() -> None:
        scene = Scene(tmp_path, ring)
        monkeypatch.setattr(scene.kills, "_generation", lambda: next(generations))
        scene.kills.follow(old)
        await asyncio.sleep(0.05)
        # Of the plan before this one, as is usual: a kill makes a new one.
        scene.kills.follow(new)
        ring.prekill(5_000_000_000)
        ring.ended(5_000_000_000)
        ring.prekill(6_000_000_000, domain=11, reason=lib.OOMSLICE_PREKILL_LIMIT)
        ring.ended(6_000_000_000)
        scene.kills.follow(new)
        await scene.until(2)
        machine, limit = scene.made
        assert machine.extra["candidates_from"] == "plan" and machine.plan_generation == 9
        assert [(one.name, one.priority, one.metric, one.verdict) for one in machine.candidates] == [
            ("hog.service", -300, 100 * MIB, "chosen"),
            # That it comes first and was not chosen is for the reader: it may have had no process.
            ("cheap.service", -400, 0, "planned"),
            ("dear.service", 300, 0, "planned"),
            ("spared.service", -500, 0, "protected"),
            ("-.slice", 0, 0, "container"),
            ("init.scope", 0, 0, "self"),
            ("left.scope", 0, 0, "left-to-oomd"),
            ("low.slice", 0, 0, "container"),
        ]
        assert machine.candidates_total == 4, "what the program counted stays"
        assert [one.name for one in limit.candidates] == ["hog.service", "cheap.service", "low.slice"]
        scene.kills.close()

    asyncio.run(run())


def test_nothing_is_said_of_candidates_where_the_plan_is_not_known(tmp_path: Path, ring: Ring) -> None:
    plan = policy(unit("hog.service", 12))
    ring.prekill(5_000_000_000)
    ring.ended(5_000_000_000)
    (told,), _, _ = reader(ring).read()
    store = DecisionStore(tmp_path / "store", 10)
    kills = BpfKills(str(tmp_path), store, BOOT, lambda decision: None)
    for generation, known in ((9, True), (8, False)):
        kills._plans.clear()
        kills._plans.append((generation, plan))
        said = kills._with_candidates(told, told.decision)
        assert (bool(said.candidates), "candidates_from" in said.extra) == (known, known)
    assert planned.candidates(plan, 99, told.decision) == ()
    # One that is younger than the plan was killed all the same.
    young = planned.candidates(policy(unit("dear.service", 13)), lib.OOMSLICE_PREKILL_MACHINE, told.decision)
    assert [(one.name, one.verdict) for one in young] == [
        ("hog.service", "chosen"),
        ("dear.service", "planned"),
        ("-.slice", "container"),
    ]


def test_what_could_not_be_stored_stays_in_the_ring(
    tmp_path: Path, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpfkills, "RETRY_S", 0.05)

    async def run() -> None:
        scene = Scene(tmp_path, ring)
        ring.prekill(5_000_000_000)
        ring.ended(5_000_000_000)
        add = scene.store.add

        def fail(decision: Decision) -> bool:
            scene.store.add = add  # type: ignore[method-assign]
            raise StoreError("the disk is full")

        scene.store.add = fail  # type: ignore[method-assign]
        scene.kills.follow(policy())
        await asyncio.sleep(0.02)
        assert not scene.made and ring.consumed == 0
        await scene.until(1)
        scene.kills.close()

    asyncio.run(run())
