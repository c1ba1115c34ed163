# SPDX-License-Identifier: LGPL-2.1-or-later
"""A terminal of a given size: tmux on a server of its own, with what stands on it as text."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

DEADLINE_S = 30


class Terminal:
    """For `async with`: runs `command` in a window of this size."""

    def __init__(
        self, directory: Path, command: list[str], width: int, height: int, environment: Mapping[str, str]
    ) -> None:
        self._socket = str(directory / "tmux")
        words = shlex.join(command)
        # What the command leaves on the screen, its exit code too, can be looked at afterwards.
        self._command = f"{words}; echo ended with $?; sleep 600"
        self._size = (str(width), str(height))
        self._environment = {**os.environ, "LC_ALL": "C.UTF-8", **environment}

    async def __aenter__(self) -> Terminal:
        width, height = self._size
        await self.tmux("-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, self._command)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.tmux("kill-server")

    async def tmux(self, *arguments: str) -> str:
        """What a command of tmux prints."""
        process = await asyncio.create_subprocess_exec(
            "tmux",
            "-u",
            "-S",
            self._socket,
            *arguments,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    async def type(self, *keys: str) -> None:
        """Presses keys, by their tmux names."""
        await self.tmux("send-keys", *keys)

    async def resize(self, width: int, height: int) -> None:
        await self.tmux("resize-window", "-x", str(width), "-y", str(height))

    async def screen(self) -> list[str]:
        """The lines that stand there now, without blanks at their ends."""
        return [line.rstrip() for line in (await self.tmux("capture-pane", "-p")).split("\n")][:-1]

    async def alternate(self) -> bool:
        """Whether the alternate screen is shown."""
        return (await self.tmux("display-message", "-p", "#{alternate_on}")).strip() == "1"

    async def shows(self, what: str | Callable[[list[str]], bool]) -> list[str]:
        """Waits until the screen has this text, or is as the function wants it. Returns the lines."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                lines = await self.screen()
                if what(lines) if callable(what) else any(what in line for line in lines):
                    return lines
                await asyncio.sleep(0.1)
