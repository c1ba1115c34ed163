# SPDX-License-Identifier: LGPL-2.1-or-later
"""Units that ladders and OnDecision= start: whether there are any of their names.

systemd is asked beside the plan, never before it: the core waits for no answer of this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from oomslice.actions.checks import CheckError, check_unit_exists
from oomslice.actions.verify import start_problems, started
from oomslice.settings.model import Problem, UnitSettings

log = logging.getLogger("oomsliced")

Written: TypeAlias = tuple[UnitSettings, str, Mapping[str, str]]
"""Settings as they are written somewhere, with the section there and the names of the keys."""


class StartedUnits:
    """`problems` is what systemd said of the names in the settings it was last asked about."""

    def __init__(
        self, changed: Callable[[], Awaitable[None]], unit_exists: Callable[[str], None] = check_unit_exists
    ) -> None:
        self._changed = changed
        self._unit_exists = unit_exists
        self._names: frozenset[str] = frozenset()
        self._task: asyncio.Task[None] | None = None
        self.problems: tuple[Problem, ...] = ()

    def follow(self, settings: Sequence[Written], *, full: bool) -> None:
        """Asks if there are other names than before, or `full`: units may have come or gone."""
        names = frozenset[str]().union(*(started(one) for one, _, _ in settings))
        if names == self._names and not (full and names):
            return
        self.close()
        self._names = names
        self._task = asyncio.get_running_loop().create_task(self._look_up(names, settings))

    async def _look_up(self, names: Iterable[str], settings: Sequence[Written]) -> None:
        refused: dict[str, CheckError] = {}
        for name in sorted(names):
            try:
                await asyncio.to_thread(self._unit_exists, name)
            except CheckError as error:
                refused[name] = error

        def answer(name: str) -> None:
            if name in refused:
                raise refused[name]

        found = dict.fromkeys(
            problem for one, section, keys in settings for problem in start_problems(one, section, keys, answer)
        )
        before, self.problems = self.problems, tuple(found)
        for problem in self.problems:
            if problem not in before:
                log.warning("%s", problem)
        if self.problems != before:
            await self._changed()

    def close(self) -> None:
        """Waits for no answer any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
