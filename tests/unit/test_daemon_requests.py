# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the core asks for in a real ring, and what it is answered: in time, once, and by whoever is there."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oomslice._core import ffi, lib
from oomslice.actions.messages import ActionAnswer, ActionRequest
from oomslice.daemon.collector import Collector
from oomslice.daemon.on_decision import OnDecision
from oomslice.daemon.requests import KINDS, RESULT_NUMBERS, RequestHandler
from oomslice.decisions.record import Decision
from oomslice.decisions.ring import Ring
from oomslice.decisions.store import DecisionStore
from oomslice.policy.model import Policy, PolicyUnit
from oomslice.settings.model import MachineTriggers, UnitSettings


class Core:
    """The core's side of a ring."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, lib.OOMSLICE_RING_SIZE)
        self.map = ffi.from_buffer("char[]", mmap.mmap(self.fd, lib.OOMSLICE_RING_SIZE), require_writable=True)
        lib.oomslice_ring_init(self.map, 0xAB)
        record = lib.oomslice_ring_take(self.map)
        record.domain_name = b"batch.slice"

    def ask(self, kind: int, text: bytes = b"", seconds: float = 60) -> int:
        request = ffi.new("struct oomslice_request *")
        request.kind = kind
        request.sequence = 1
        request.deadline_us = int((time.monotonic() + seconds) * 1e6)
        request.cgroup_id = 77
        request.amount = 4096
        request.victim = b"hog.service"
        request.text = text
        return int(lib.oomslice_ring_ask(self.map, request))

    def answer(self, serial: int) -> tuple[int, int] | None:
        result, error = ffi.new("uint32_t *"), ffi.new("int32_t *")
        if not lib.oomslice_ring_answered(self.map, serial, result, error):
            return None
        return int(result[0]), int(error[0])


@pytest.fixture
def core() -> Iterator[Core]:
    core = Core()
    yield core
    os.close(core.fd)


class Actions:
    """The service, answering as it is told; None: never."""

    def __init__(self, answer: ActionAnswer | None = None) -> None:
        self.answer = answer
        self.asked: list[ActionRequest] = []
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    async def ask(self, request: ActionRequest) -> ActionAnswer:
        self.asked.append(request)
        if self.answer is None:
            await asyncio.Event().wait()
        assert self.answer is not None
        return self.answer


def handler(actions: Actions, warnings: list[Any] | None = None) -> RequestHandler:
    def warn(*arguments: Any) -> bool:
        if warnings is not None:
            warnings.append(arguments)
        return True

    return RequestHandler(actions, warn, lambda id: f"/batch.slice/{id}")  # type: ignore[arg-type]


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    asyncio.run(main())


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_every_step_of_the_extended_part_is_handed_on_with_all_that_it_needs(core: Core) -> None:
    actions, warnings = Actions(ActionAnswer(0, "done")), list[Any]()

    async def body() -> None:
        requests = handler(actions, warnings)
        with Ring(core.fd) as ring:
            requests.adopt(ring)
            serials = [core.ask(kind, b"/run/cache") for kind in KINDS]
            requests.serve()
            await settled()
            assert [core.answer(serial) for serial in serials] == [(lib.OOMSLICE_RESULT_DONE, 0)] * len(KINDS)
            requests.drop()

    run(body)
    assert [request.kind for request in actions.asked] == list(KINDS.values())
    purge = next(request for request in actions.asked if request.kind == "purge")
    assert (purge.decision, purge.unit, purge.cgroup, purge.cgroup_id) == (
        "00000000000000ab-1", "hog.service", "/batch.slice/77", 77,
    )  # fmt: skip
    assert (purge.text, purge.amount, purge.domain) == ("/run/cache", 4096, "batch.slice")
    assert actions.woken == len(KINDS)
    ((decision, unit, domain, deadline),) = warnings
    assert (decision, unit, domain) == ("00000000000000ab-1", "hog.service", "batch.slice")
    assert deadline == next(request.deadline_usec for request in actions.asked if request.kind == "warn")


@pytest.mark.parametrize("result", sorted(RESULT_NUMBERS))
def test_results_reach_the_core_with_their_errno(core: Core, result: str) -> None:
    async def body() -> None:
        requests = handler(Actions(ActionAnswer(0, result, errno.ENOSPC)))
        serial = core.ask(lib.OOMSLICE_STEP_CHECKPOINT)
        with Ring(core.fd) as ring:
            requests.adopt(ring)
            await settled()
            assert core.answer(serial) == (RESULT_NUMBERS[result], errno.ENOSPC)

    run(body)


def test_a_step_that_nobody_knows_is_unavailable(core: Core) -> None:
    async def body() -> None:
        actions = Actions()
        requests = handler(actions)
        serial = core.ask(lib.OOMSLICE_STEP_KILL)
        with Ring(core.fd) as ring:
            requests.adopt(ring)
            await settled()
            assert core.answer(serial) == (lib.OOMSLICE_RESULT_UNAVAILABLE, errno.EOPNOTSUPP)
            assert actions.asked == []

    run(body)


def test_what_a_dead_oomsliced_had_begun_is_answered_and_not_done_again(core: Core) -> None:
    async def body() -> None:
        first, second = Actions(), Actions(ActionAnswer(0, "done"))
        begun = core.ask(lib.OOMSLICE_STEP_START, b"a.service")
        with Ring(core.fd) as ring:
            dying = handler(first)
            dying.adopt(ring)
            await settled()
            dying.close()
            await settled()
        assert core.answer(begun) is None
        fresh = core.ask(lib.OOMSLICE_STEP_START, b"b.service")
        with Ring(core.fd) as ring:
            handler(second).adopt(ring)
            await settled()
        assert core.answer(begun) == (lib.OOMSLICE_RESULT_FAILED, errno.EINTR)
        assert core.answer(fresh) == (lib.OOMSLICE_RESULT_DONE, 0)
        assert [request.text for request in second.asked] == ["b.service"]

    run(body)


def test_a_connection_that_breaks_and_comes_back_loses_no_answer(core: Core) -> None:
    async def body() -> None:
        actions = Actions()
        requests = handler(actions)
        answered = asyncio.get_running_loop().create_future()

        async def ask(request: ActionRequest) -> ActionAnswer:
            await answered
            return ActionAnswer(0, "done")

        actions.ask = ask  # type: ignore[method-assign]
        serial = core.ask(lib.OOMSLICE_STEP_PURGE)
        with Ring(core.fd) as ring:
            requests.adopt(ring)
            await settled()
            requests.drop()
        with Ring(core.fd) as ring:
            requests.adopt(ring)
            assert core.answer(serial) is None, "it is still being done"
            answered.set_result(None)
            await settled()
            assert core.answer(serial) == (lib.OOMSLICE_RESULT_DONE, 0)

    run(body)


def test_an_answer_that_comes_after_the_core_gave_up_touches_nothing(core: Core) -> None:
    async def body() -> None:
        answered = asyncio.get_running_loop().create_future()
        actions = Actions()

        async def ask(request: ActionRequest) -> ActionAnswer:
            if request.text == "late":
                await answered
                return ActionAnswer(0, "failed", errno.EIO)
            await asyncio.Event().wait()
            raise AssertionError

        actions.ask = ask  # type: ignore[method-assign]
        requests = handler(actions)
        with Ring(core.fd) as ring:
            late = core.ask(lib.OOMSLICE_STEP_PURGE, b"late")
            requests.adopt(ring)
            await settled()
            lib.oomslice_ring_forget(core.map, late)
            newer = core.ask(lib.OOMSLICE_STEP_PURGE, b"newer")
            requests.serve()
            answered.set_result(None)
            await settled()
            assert core.answer(newer) is None
            requests.close()
            await settled()

    run(body)


# OnDecision=


def policy(**on_decision: str | None) -> Policy:
    units = tuple(
        PolicyUnit(
            name=f"{name}.service",
            path=f"/{name}.service",
            cgroup_id=number,
            parent=-1,
            priority=0,
            priority_origin="default",
            candidate=True,
            settings=UnitSettings(on_decision=unit),
        )
        for number, (name, unit) in enumerate(on_decision.items(), start=10)
    )
    return Policy(units, (), MachineTriggers(), 0)


def decision(victim: str, cgroup_id: int, outcome: str = "freed") -> Decision:
    return Decision(
        id=f"ab-{cgroup_id}", boot_id="b", carrier="core", trigger="pressure", domain="-.slice", outcome=outcome,
        realtime_usec=1, victim=victim, victim_cgroup_id=cgroup_id,
    )  # fmt: skip


def test_the_unit_is_the_one_of_the_plan_in_which_the_victim_was() -> None:
    on_decision = OnDecision(Actions())  # type: ignore[arg-type]
    on_decision.follow(policy(a="tell@.service", b=None))
    on_decision.follow(policy())
    assert on_decision.unit_of(decision("a.service", 10)) == "tell@.service"
    assert on_decision.unit_of(decision("a.service", 99)) == "tell@.service", "by name where the id is another"
    assert on_decision.unit_of(decision("b.service", 11)) == ""
    assert on_decision.unit_of(decision("", 0)) == ""
    on_decision.follow(policy(a=None))
    assert on_decision.unit_of(decision("a.service", 10)) == "", "it was taken out"


@pytest.mark.parametrize(("outcome", "started"), [("freed", 1), ("held", 1), ("relieved", 1), ("dry-run", 0)])
def test_nothing_is_started_where_nothing_was_done(outcome: str, started: int) -> None:
    actions = Actions(ActionAnswer(0, "done"))
    on_decision = OnDecision(actions)  # type: ignore[arg-type]
    on_decision.follow(policy(a="tell.service"))

    async def body() -> None:
        if (work := on_decision.start(decision("a.service", 10, outcome))) is not None:
            await work

    run(body)
    assert len(actions.asked) == started
    if started:
        (request,) = actions.asked
        assert (request.kind, request.text, request.decision, request.outcome) == (
            "start", "tell.service", "ab-10", outcome,
        )  # fmt: skip


def test_a_decision_is_announced_only_when_its_unit_was_started_and_others_do_not_wait(tmp_path: Path) -> None:
    store = DecisionStore(tmp_path / "decisions.sqlite", 10)
    store.add(decision("a.service", 10))
    store.add(decision("b.service", 11))
    told: list[str] = []

    class Journal:
        def send(self, decision: Decision) -> bool:
            told.append(decision.id)
            return True

    async def body() -> None:
        started = asyncio.get_running_loop().create_future()

        async def emit(decision: Decision) -> None:
            pass

        def start(decision: Decision) -> Awaitable[None] | None:
            return started if decision.victim == "a.service" else None

        collector = Collector(store, Journal(), "b", emit, start)  # type: ignore[arg-type]
        assert await collector.announce()
        assert await collector.announce()
        assert told == ["ab-10", "ab-11"]
        assert [item.id for item in store.unannounced()] == ["ab-10"]
        started.set_result(None)
        await settled()
        assert store.unannounced() == []

    run(body)
    store.close()


def test_a_death_before_the_unit_was_started_leaves_the_decision_to_be_told_again(tmp_path: Path) -> None:
    store = DecisionStore(tmp_path / "decisions.sqlite", 10)
    store.add(decision("a.service", 10))

    class Journal:
        def send(self, decision: Decision) -> bool:
            return True

    async def body() -> None:
        async def emit(decision: Decision) -> None:
            pass

        async def never() -> None:
            await asyncio.Event().wait()

        collector = Collector(store, Journal(), "b", emit, lambda decision: never())  # type: ignore[arg-type]
        assert await collector.announce()
        await settled()
        collector.close()
        await settled()
        assert [item.id for item in store.unannounced()] == ["ab-10"]

    run(body)
    store.close()
