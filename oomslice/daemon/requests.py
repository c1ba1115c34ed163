# SPDX-License-Identifier: LGPL-2.1-or-later
"""Steps that the core asks for: taken out of the ring, told to everybody or handed on, answered in time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable

from oomslice._core import lib
from oomslice.actions.client import ActionsClient
from oomslice.actions.messages import RESULTS, ActionAnswer, ActionRequest
from oomslice.decisions.ring import Ring, StepRequest
from oomslice.errors import ChannelError

log = logging.getLogger("oomsliced")

KINDS = {
    lib.OOMSLICE_STEP_WARN: "warn",
    lib.OOMSLICE_STEP_PURGE: "purge",
    lib.OOMSLICE_STEP_CHECKPOINT: "checkpoint",
    lib.OOMSLICE_STEP_START: "start",
}
"""Steps that are the extended part's; the core does the others itself."""
RESULT_NUMBERS = {word: int(getattr(lib, f"OOMSLICE_RESULT_{word.upper()}")) for word in RESULTS}


class RequestHandler:
    """Serves one ring after another.

    `warn(decision, unit, domain, deadline_usec)` tells the bus; `path_of(cgroup_id)` is a cgroup's path, or empty.
    """

    def __init__(
        self,
        actions: ActionsClient,
        warn: Callable[[str, str, str, int], bool],
        path_of: Callable[[int], str],
    ) -> None:
        self._actions = actions
        self._warn = warn
        self._path_of = path_of
        self._ring: Ring | None = None
        self._tasks: dict[tuple[int, int], asyncio.Task[None]] = {}

    def adopt(self, ring: Ring) -> None:
        """The ring from now on. What an oomsliced before us began is answered as failed: it is not done twice."""
        self._ring = ring
        own = [serial for ring_id, serial in self._tasks if ring_id == ring.id]
        for serial in ring.abandoned(own):
            log.warning("request %d of the core was interrupted", serial)
            ring.answer(serial, lib.OOMSLICE_RESULT_FAILED, errno.EINTR)
        self.serve()

    def drop(self) -> None:
        """The ring is about to be closed. What was begun goes on, and is answered if the ring comes back."""
        self._ring = None

    def serve(self) -> None:
        """Begins all that is asked for."""
        while self._ring is not None and (request := self._ring.take_request()) is not None:
            # The first sign of a climb: the next steps find the service running.
            self._actions.wake()
            key = (self._ring.id, request.serial)
            task = asyncio.get_running_loop().create_task(self._carry_out(key, request), name=f"request {key[1]}")
            self._tasks[key] = task
            task.add_done_callback(lambda done, key=key: self._tasks.pop(key, None))  # type: ignore[misc]

    def close(self) -> None:
        """Gives up what is under way; the next oomsliced answers for it."""
        self._ring = None
        for task in self._tasks.values():
            task.cancel()

    async def _carry_out(self, key: tuple[int, int], request: StepRequest) -> None:
        kind = KINDS.get(request.kind)
        if kind is None:
            answer = ActionAnswer(0, "unavailable", errno.EOPNOTSUPP)
        else:
            if kind == "warn":
                self._warn(request.decision, request.victim, request.domain, request.deadline_usec)
            answer = await self._actions.ask(
                ActionRequest(
                    number=0,
                    kind=kind,
                    deadline_usec=request.deadline_usec,
                    decision=request.decision,
                    unit=request.victim,
                    cgroup=self._path_of(request.cgroup_id),
                    cgroup_id=request.cgroup_id,
                    text=request.text,
                    amount=request.amount,
                    domain=request.domain,
                )
            )
        if self._ring is not None and self._ring.id == key[0]:
            with contextlib.suppress(ChannelError):
                self._ring.answer(request.serial, RESULT_NUMBERS[answer.result], answer.error)
        log.info("%s", told(kind or f"step {request.kind}", request, answer))


def told(kind: str, request: StepRequest, answer: ActionAnswer) -> str:
    """A line for the log."""
    reason = answer.detail or (os.strerror(answer.error) if answer.error else "")
    argument = f":{request.text}" if request.text else ""
    return f"{request.decision}: {kind}{argument} for {request.victim}: {answer.result}" + (
        f" ({reason})" if reason else ""
    )
