# SPDX-License-Identifier: LGPL-2.1-or-later
"""OnDecision=: which unit a decision has started, and that it is."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable

from oomslice.actions.client import ActionsClient
from oomslice.actions.messages import ActionRequest
from oomslice.decisions.record import Decision
from oomslice.policy.model import Policy

log = logging.getLogger("oomsliced")

START_SEC = 30.0
"""How long systemd has to accept the job. Nobody waits for this, and the machine has other worries."""
KNOWN_MAX = 4096
NOT_FOR = "dry-run"
"""The outcome after which nothing is started: nothing was done."""


class OnDecision:
    """Remembers what units that are gone asked for: by the time a decision is told, its victim is in no plan."""

    def __init__(self, actions: ActionsClient) -> None:
        self._actions = actions
        self._known: dict[int | str, str] = {}
        """by cgroup id and by name; the newest last"""

    def follow(self, policy: Policy) -> None:
        """Takes what the newest plan says; it replaces what older ones said of the same units."""
        for unit in policy.units:
            for key in (unit.cgroup_id, unit.name):
                self._known.pop(key, None)
                if unit.settings.on_decision:
                    self._known[key] = unit.settings.on_decision
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def unit_of(self, decision: Decision) -> str:
        """The unit to be started, empty if none is."""
        if decision.outcome == NOT_FOR or not decision.victim:
            return ""
        return self._known.get(decision.victim_cgroup_id) or self._known.get(decision.victim, "")

    def start(self, decision: Decision) -> Awaitable[None] | None:
        """What is to be waited for, None if nothing is started."""
        unit = self.unit_of(decision)
        return self._start(unit, decision) if unit else None

    async def _start(self, unit: str, decision: Decision) -> None:
        answer = await self._actions.ask(
            ActionRequest(
                number=0,
                kind="start",
                deadline_usec=int((time.monotonic() + START_SEC) * 1e6),
                decision=decision.id,
                unit=decision.victim,
                text=unit,
                outcome=decision.outcome,
                domain=decision.domain,
                step=decision.step,
            )
        )
        if answer.result not in ("done", "needless"):
            reason = answer.detail or os.strerror(answer.error)
            log.error("%s, OnDecision= of %s, was not started: %s", unit, decision.victim, reason)
