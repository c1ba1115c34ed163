# SPDX-License-Identifier: LGPL-2.1-or-later
"""What callers of the bus have done: settings written by oomslice-actions, and in force when it is said."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from oomslice.actions.client import ActionsClient
from oomslice.actions.messages import TEXT_MAX, ActionRequest
from oomslice.decisions.record import Decision
from oomslice.errors import InvalidSettingError, NoSuchUnitError, OomsliceError
from oomslice.plan.encode import step_numbers
from oomslice.policy.model import PolicyUnit
from oomslice.settings.assign import check_assignments, check_unit
from oomslice.settings.model import Step
from oomslice.settings.steps import parse_actions
from oomslice.settings.values import BadValueError, shown

log = logging.getLogger("oomsliced")

ACT_SEC = 15.0
"""A step has ten seconds; a checkpoint takes longer, and is told of by DecisionMade."""
SET_SEC = 90.0
"""Systemd reads all its units again, which takes a while on a large machine."""


def check(unit: str, assignments: Mapping[str, str]) -> None:
    """Raises InvalidSettingError."""
    if "/" in unit:
        raise InvalidSettingError(
            f"{unit[:100]} belongs to a user's manager; its settings are in ~/.config/systemd/user or rules of the YAML"
        )
    check_unit(unit)
    check_assignments(assignments)


class Core(Protocol):
    """What of the core is asked here: see CoreLink."""

    async def act(self, cgroup_id: int, step: tuple[int, int, bytes], uid: int) -> str: ...

    async def release(self, cgroup_id: int) -> None: ...


class Commands:
    """`replan` makes a plan of what systemd says then, and `reload` reads the configuration as well; both return when
    it is in force, and raise PlanError if it is not."""

    def __init__(
        self,
        actions: ActionsClient,
        replan: Callable[[], Awaitable[None]],
        reload: Callable[[], Awaitable[None]],
        core: Callable[[], Core],
    ) -> None:
        self._core = core
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._decided: deque[str] = deque(maxlen=64)
        """ids of the last decisions: one may be stored before its id is known here"""
        self._actions = actions
        self._replan = replan
        self.reload = reload

    async def set_settings(self, unit: str, assignments: Mapping[str, str], runtime: bool, uid: int) -> str:
        """Returns the file that has them. Raises OomsliceError."""
        check(unit, assignments)
        text = "\n".join(f"{key}={value}" for key, value in assignments.items())
        if len(text) > TEXT_MAX:
            raise InvalidSettingError(f"these are {len(text)} characters; at most {TEXT_MAX} can be set at once")
        answer = await self._actions.ask(
            ActionRequest(
                number=0,
                kind="set",
                deadline_usec=int((time.monotonic() + SET_SEC) * 1e6),
                unit=unit,
                text=text,
                amount=int(runtime),
            )
        )
        if answer.result != "done":
            reason = answer.detail or os.strerror(answer.error)
            if answer.error == errno.ENOENT:
                raise NoSuchUnitError(reason)
            if answer.error == errno.EINVAL:
                raise InvalidSettingError(reason)
            raise OomsliceError(reason)
        log.info("user %d set %s for %s in %s", uid, text.replace("\n", " ") or "nothing more", unit, answer.detail)
        await self._replan()
        return answer.detail

    async def act(self, unit: PolicyUnit, step: Step, uid: int) -> str:
        """Has a step done to a unit; the decision's id, when that is stored. Raises RefusedError, ChannelError."""
        id = await self._core().act(unit.cgroup_id, step_numbers(step), uid)
        log.info("user %d asked for %s upon %s: %s", uid, step, unit.name, id)
        if id not in self._decided:
            self._waiting[id] = asyncio.get_running_loop().create_future()
            # Later than anybody should wait: the id is good all the same.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._waiting[id], ACT_SEC)
            del self._waiting[id]
        return id

    async def release(self, unit: PolicyUnit, uid: int) -> None:
        """Has it undone what steps did to a unit. Raises RefusedError, ChannelError."""
        await self._core().release(unit.cgroup_id)
        log.info("user %d released %s", uid, unit.name)

    def decided(self, decision: Decision) -> None:
        """A decision is stored and told."""
        self._decided.append(decision.id)
        waiting = self._waiting.get(decision.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


def asked_step(text: str) -> Step:
    """One step of Actions= by itself. Raises InvalidSettingError."""
    try:
        ladder = parse_actions(text)
    except BadValueError as error:
        raise InvalidSettingError(f"{shown(text)}: {error}") from None
    if len(ladder) != 1 or ladder[0].delay_usec:
        raise InvalidSettingError(f"{shown(text)}: is not one step without a delay, as freeze or throttle:50")
    return ladder[0]
