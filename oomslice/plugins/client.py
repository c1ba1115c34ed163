# SPDX-License-Identifier: LGPL-2.1-or-later
"""Asks a policy, for a limited time. One that fails is left alone for a while, the longer the more often it did."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from oomslice import child
from oomslice.plugins import wire
from oomslice.plugins.wire import PolicyError
from oomslice.policy.model import RankedUnit

ANSWER_SEC = 1.0
"""How long one answer may take: so long does a new plan wait at most. The last one is in force meanwhile."""
START_SEC = 5.0
"""How long loading it may take, once."""
PAUSE_FIRST_SEC = 10.0
PAUSE_MAX_SEC = 3600.0


class PolicyClient:
    """The process of one policy, started when it is first asked. Use from one event loop, one question at a time."""

    def __init__(
        self,
        name: str,
        *,
        answer_sec: float = ANSWER_SEC,
        start_sec: float = START_SEC,
        clock: Callable[[], float] = time.monotonic,
        path: Sequence[str] = (),
    ) -> None:
        """`path` are folders in which packages are looked for besides the usual places."""
        self.name = name
        self._answer_sec = answer_sec
        self._start_sec = start_sec
        self._clock = clock
        self._path = tuple(path)
        self._process: asyncio.subprocess.Process | None = None
        self._failures = 0
        self._not_before = 0.0
        self._last_error = ""

    @property
    def pause_sec(self) -> float:
        """How long it is still left alone, 0 if it may be asked."""
        return max(0.0, self._not_before - self._clock())

    async def priorities(self, ranking: Sequence[RankedUnit]) -> Mapping[str, int]:
        """Cgroup path -> priority, for those units that are to have another one. Raises PolicyError."""
        if self._clock() < self._not_before:
            raise PolicyError(self._last_error)
        try:
            answer = await self._ask(ranking)
        except PolicyError as error:
            await self.close()
            self._last_error = str(error)
            self._not_before = self._clock() + min(PAUSE_FIRST_SEC * 2**self._failures, PAUSE_MAX_SEC)
            self._failures = min(self._failures + 1, 16)
            raise
        self._failures = 0
        return answer

    async def close(self) -> None:
        """Ends the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            await child.end(process)

    async def _ask(self, ranking: Sequence[RankedUnit]) -> Mapping[str, int]:
        if self._process is None or self._process.returncode is not None:
            await self._start()
        assert self._process is not None and self._process.stdin is not None
        try:
            async with asyncio.timeout(self._answer_sec):
                self._process.stdin.write(wire.request_line(ranking))
                await self._process.stdin.drain()
                answer = await self._answer()
        except TimeoutError:
            raise PolicyError(f"it gave no answer within {self._answer_sec:g} s and was ended") from None
        except (BrokenPipeError, ConnectionResetError):
            raise PolicyError("its process ended") from None
        if answer is None:
            raise PolicyError("it said something that is no answer")
        return answer

    async def _answer(self) -> dict[str, int] | None:
        assert self._process is not None and self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
        except ValueError:
            raise PolicyError("it said too much") from None
        if not line.endswith(b"\n"):
            raise PolicyError("its process ended")
        return wire.parse_answer(line)

    async def _start(self) -> None:
        folders = [*self._path, *filter(None, (child.source_folder(),))]
        environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
        if folders:
            environment["PYTHONPATH"] = os.pathsep.join(folders)
        try:
            # -P: nothing is imported from the working directory.
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "oomslice.plugins.worker", self.name),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=wire.LINE_MAX,
                env=environment,
            )
        except OSError as error:
            raise PolicyError(f"its process cannot be started: {error.strerror}") from None
        try:
            async with asyncio.timeout(self._start_sec):
                await self._answer()
        except TimeoutError:
            raise PolicyError(f"it was not loaded within {self._start_sec:g} s and was ended") from None
