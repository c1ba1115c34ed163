# SPDX-License-Identifier: LGPL-2.1-or-later
"""Asks the worker process for snapshots, without ever waiting long for it.

A worker that says nothing for `timeout` seconds is killed, whatever it hangs on: the bus, a stopped process, the disk.
The next question starts a new one. A worker that died between two questions is replaced without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import site
import sys
from collections.abc import Sequence
from pathlib import Path

import oomslice
from oomslice.errors import UnitsError
from oomslice.units import wire
from oomslice.units.model import UnitSnapshot

TOTAL_FACTOR = 12
"""How many timeouts one snapshot may take in all, as long as there are signs of life."""
START_FACTOR = 3
"""How many timeouts a new worker may take to its first word: it imports its modules, on a machine that may be busy."""


class UnitsClient:
    """One worker process, started when it is first needed. Use from one event loop."""

    def __init__(self, timeout: float = 10.0, command: Sequence[str] | None = None) -> None:
        self._timeout = timeout
        self._command = tuple(command) if command is not None else worker_command()
        self._process: asyncio.subprocess.Process | None = None
        self._number = 0
        self._lock = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Of the worker, or None if none runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def snapshot(self, *, full: bool = False) -> UnitSnapshot:
        """The units of PID 1 now. Raises UnitsError.

        Without `full` what cannot change without a daemon-reload is taken from the worker's memory.
        """
        async with self._lock:
            fresh = self.pid is None
            try:
                return await self._ask(full)
            except _WorkerDiedError as error:
                if fresh:
                    raise UnitsError(str(error)) from error
            try:
                return await self._ask(full)
            except _WorkerDiedError as error:
                raise UnitsError(str(error)) from error

    async def close(self) -> None:
        """Ends the worker. The client may be used again."""
        async with self._lock:
            await self._kill()

    async def _ask(self, full: bool) -> UnitSnapshot:
        patience = self._timeout * (START_FACTOR if self.pid is None else 1)
        process = await self._start()
        assert process.stdin is not None and process.stdout is not None
        self._number += 1
        try:
            async with asyncio.timeout(self._timeout * TOTAL_FACTOR) as total:
                process.stdin.write(wire.request_line(self._number, full=full))
                await asyncio.wait_for(process.stdin.drain(), self._timeout)
                while True:
                    line = await asyncio.wait_for(process.stdout.readline(), patience)
                    patience = self._timeout
                    if not line.endswith(b"\n"):
                        raise _WorkerDiedError(f"the units worker ended {await self._end()}")
                    answer = wire.parse_answer(line)
                    if answer.id != self._number:
                        continue  # of a question that nobody waits for any more
                    if answer.error is not None:
                        raise UnitsError(answer.error)
                    if answer.snapshot is not None:
                        return answer.snapshot
        except TimeoutError as error:
            await self._kill()
            said = (
                f"took more than {self._timeout * TOTAL_FACTOR:g} s"
                if total.expired()
                else f"said nothing for {patience:g} s"
            )
            raise UnitsError(f"the units worker {said} and was killed") from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise _WorkerDiedError(f"the units worker ended {await self._end()}") from error
        except UnitsError:  # it said that it cannot go on, or nothing that can be understood
            await self._end()
            raise
        except ValueError as error:  # a line longer than the limit
            await self._kill()
            raise UnitsError(f"the units worker said too much: {error}") from error

    async def _start(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        environment = {**os.environ, "SYSTEMD_BUS_TIMEOUT": "2"}
        root = Path(oomslice.__file__).resolve().parent.parent
        if os.fspath(root) not in site.getsitepackages():
            # Run from a source tree. Not set otherwise: it would put the distribution's modules before Python's own.
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (os.fspath(root), os.environ.get("PYTHONPATH"))))
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=wire.LINE_MAX,
                env=environment,
            )
        except OSError as error:
            raise UnitsError(f"the units worker cannot be started: {error}") from error
        return self._process

    async def _end(self) -> str:
        """Waits for a worker that is about to end, or kills it. Returns how it ended."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), 1)
        status = self._process.returncode
        await self._kill()
        if status is None:
            return "its output"
        return f"with signal {-status}" if status < 0 else f"with status {status}"

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class _WorkerDiedError(Exception):
    """The worker ended without an answer."""


def worker_command() -> tuple[str, ...]:
    """The command line of the worker; -P: nothing is imported from the working directory."""
    return (sys.executable, "-P", "-m", "oomslice.units.worker")
