# SPDX-License-Identifier: LGPL-2.1-or-later
"""Has the journal of a unit tell what was done to it. `journalctl -u UNIT` shows of what others say what root says, so
oomslice-actions says it. Done once and never waited for: oomsliced has told the journal already.

There is no hurry, and a service that has to be started takes memory. Where a death has brought none back (files on a
tmpfs), that might be what the next one dies for. So this waits until there is room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from oomslice.actions.client import ActionsClient
from oomslice.actions.messages import ActionRequest
from oomslice.decisions.journal import has_ladder
from oomslice.decisions.record import Decision, Undo
from oomslice.decisions.sentence import sentence, step_sentence, undo_sentence

log = logging.getLogger("oomsliced")

TELL_SEC = 30.0
ROOM_SEC = 2.0
"""Between two looks for room. Nobody looks when nothing is to be said."""
LINES_MAX = 64
"""Units whose journal is being told at one time; of more, nothing is told this way."""
LINE_MAX = 1500
"""Characters of a line: with room to spare below what a request may have."""


class UnitJournal:
    """Says of decisions, steps and what is undone in the journal of the victim."""

    def __init__(self, actions: ActionsClient, has_room: Callable[[], bool] = lambda: True) -> None:
        """`has_room` says whether the service that writes the lines may be started now."""
        self._actions = actions
        self._has_room = has_room
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        """lines are written in the order in which things happened, as far as that is known"""

    def decision(self, decision: Decision) -> None:
        """What was decided, after a line for each step of a ladder. Returns at once."""
        if not decision.victim:
            return
        lines = []
        if has_ladder(decision):
            lines = [("step", step.step, step_sentence(decision, number)) for number, step in enumerate(decision.steps)]
        self._say(decision, [*lines, (decision.outcome, decision.step, sentence(decision))])

    def undone(self, decision: Decision, undo: Undo) -> None:
        """What of it is as it was before. Returns at once."""
        if decision.victim:
            self._say(decision, [("undone", decision.step, undo_sentence(decision, undo))])

    def _say(self, decision: Decision, lines: Sequence[tuple[str, str, str]]) -> None:
        if len(self._tasks) >= LINES_MAX:
            log.debug("the journal of %s is not told of %s: too much at once", decision.victim, decision.id)
            return
        task = asyncio.get_running_loop().create_task(self._send(decision, lines), name="tell")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, decision: Decision, lines: Sequence[tuple[str, str, str]]) -> None:
        async with self._turn:
            while not self._has_room():
                await asyncio.sleep(ROOM_SEC)
            for outcome, step, line in lines:
                answer = await self._actions.ask(
                    ActionRequest(
                        number=0,
                        kind="tell",
                        deadline_usec=int((time.monotonic() + TELL_SEC) * 1e6),
                        decision=decision.id,
                        unit=decision.victim,
                        text=line[:LINE_MAX],
                        outcome=outcome,
                        domain=decision.domain,
                        step=step,
                    )
                )
                if answer.result != "done":
                    log.debug("the journal of %s was not told of %s: %s", decision.victim, decision.id, answer.detail)
                    return

    def close(self) -> None:
        """Leaves unsaid what is not said yet."""
        for task in self._tasks:
            task.cancel()
