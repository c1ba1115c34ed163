# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sees that the BPF program `prekill` has killed, and has it stored. Costs no wakeup while it does not."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from oomslice.decisions.factring import PINS
from oomslice.decisions.planned import SOURCE, candidates
from oomslice.decisions.prekill import PrekillFacts, Told, judged, lives
from oomslice.decisions.record import Decision
from oomslice.decisions.store import DecisionStore
from oomslice.errors import StoreError
from oomslice.policy.model import Policy

LOGGER = logging.getLogger(__name__)

ROOT_SLICE = "-.slice"
SETTLE_S = 0.2
"""From a record to a look at it, and between looks while the end of a kill is waited for."""
RETRY_S = 5.0
"""After the store failed."""
UNIT_SUFFIXES = (".service", ".scope", ".slice", ".socket", ".mount", ".swap")
NAMES_MAX = 20_000
"""Of units that were ever in a plan: a kill may be told long after the plan that it was made by."""
PLANS_KEPT = 8
"""A kill is followed by a new plan without the victim before we hear of it; the one that it was made by is wanted."""


class BpfKills:
    """Follows the ring from the first `follow` on. Decisions go into `store`; `made` is then called in the loop with
    each new one. `root` is the cgroup root, `memory` says how much memory and swap the machine has, `generation` which
    plan the programs have."""

    def __init__(
        self,
        root: str,
        store: DecisionStore,
        boot_id: str,
        made: Callable[[Decision], object],
        memory: Callable[[], tuple[int, int]] = lambda: (0, 0),
        generation: Callable[[], int] = lambda: 0,
        *,
        pins: str = PINS,
        facts: PrekillFacts | None = None,
    ) -> None:
        self._root = root.rstrip("/")
        self._store = store
        self._made = made
        self._memory = memory
        self._generation = generation
        self._plans: deque[tuple[int, Policy]] = deque(maxlen=PLANS_KEPT)
        """the last ones, each with its generation"""
        self._names: dict[int, str] = {}
        self._facts = facts or PrekillFacts(boot_id, self.named, pins)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd = -1
        """what is waited for, -1 while what it told is looked at"""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._failed = False

    @property
    def error(self) -> str:
        """Why what the program tells cannot be read, though it is there; empty if it can or is not."""
        return self._facts.error

    def named(self, id: int, path: str) -> str:
        """What a cgroup is called: as a plan has it, else after the last part of its path that is a unit's."""
        if id in self._names:
            return self._names[id]
        units = [name for name in path.split("/") if name.endswith(UNIT_SUFFIXES)]
        return units[-1] if units else ROOT_SLICE

    def follow(self, policy: Policy) -> None:
        """Takes over the names of a new plan, and looks for a new ring: oomslice-bpf.service is a unit, so there is a
        new plan whenever it starts or stops. To be called in the loop."""
        self._loop = asyncio.get_running_loop()
        if len(self._names) > NAMES_MAX:
            self._names.clear()
        self._names.update({unit.cgroup_id: unit.name for unit in policy.units})
        self._plans.append((self._generation(), policy))
        self._look_after(0.0)

    def close(self) -> None:
        """Lets go of the ring; what is in it is read by the next one."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._wait(False)
        self._facts.close()

    def _wait(self, wanted: bool) -> None:
        """The ring is readable until what is in it is released, which is when it is stored."""
        if self._loop is None or self._loop.is_closed():
            return
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._fd = -1
        if wanted and self._facts.open:
            self._fd = self._facts.fileno()
            self._loop.add_reader(self._fd, self._told)

    def _told(self) -> None:
        self._wait(False)
        self._look_after(SETTLE_S)

    def _look_after(self, seconds: float) -> None:
        assert self._loop is not None
        due = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._start)

    def _start(self) -> None:
        assert self._loop is not None
        self._timer = None
        if self._task is not None and not self._task.done():
            self._look_after(SETTLE_S)
            return
        self._wait(False)
        self._facts.follow()
        self._task = self._loop.create_task(self._settle())

    async def _settle(self) -> None:
        told, position, waiting = self._facts.read()
        total, swap = self._memory() if told else (0, 0)
        decisions = [
            replace(
                self._with_candidates(one, judged(one, lambda decision: lives(self._root, decision))),
                memory_total=total,
                swap_total=swap,
            )
            for one in told
        ]
        try:
            new = await asyncio.to_thread(self._store_all, decisions)
            self._failed = False
        except StoreError as error:
            if not self._failed:
                LOGGER.error("kills by the BPF program cannot be stored, trying on: %s", error)
            self._failed = True
            self._look_after(RETRY_S)
            return
        self._facts.release(position)
        if waiting:
            self._look_after(SETTLE_S)
        else:
            self._wait(True)
        for decision in new:
            self._made(decision)

    def _with_candidates(self, told: Told, decision: Decision) -> Decision:
        """With what the plan said of each unit, if that plan was made while this process ran."""
        policy = dict(self._plans).get(decision.plan_generation) if decision.plan_generation else None
        if policy is None:
            return decision
        found = candidates(policy, told.domain, decision)
        if not found:
            return decision
        return replace(decision, candidates=found, extra={**decision.extra, "candidates_from": SOURCE})

    def _store_all(self, decisions: list[Decision]) -> list[Decision]:
        return [decision for decision in decisions if self._store.add(decision)]
