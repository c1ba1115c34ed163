# SPDX-License-Identifier: LGPL-2.1-or-later
"""org.freedesktop.LogControl1: how much the daemon says, and where, for `systemctl service-log-level`.

Source: org.freedesktop.LogControl1(5).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable

from oomslice.bus.authority import Caller
from oomslice.bus.dispatch import Facet
from oomslice.bus.errors import InvalidArgumentsError
from oomslice.bus.interface import Interface, Property
from oomslice.bus.message import typed

PATH = "/org/freedesktop/LogControl1"
LOG_CONTROL = Interface(
    "org.freedesktop.LogControl1",
    properties=(
        Property("LogLevel", "s", "false", writable=True),
        Property("LogTarget", "s", "false", writable=True),
        Property("SyslogIdentifier", "s", "const"),
    ),
)
IDENTIFIER = "oomsliced"
LEVELS = {
    "emerg": logging.CRITICAL,
    "alert": logging.CRITICAL,
    "crit": logging.CRITICAL,
    "err": logging.ERROR,
    "warning": logging.WARNING,
    "notice": logging.INFO,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
"""Names of syslog(3) -> how much is said; there is no level of our own between a warning and an information."""
NAMES = {logging.CRITICAL: "crit", logging.ERROR: "err", logging.WARNING: "warning", logging.INFO: "info"}


class LogControl:
    """Of the root logger. `check_root` raises AccessDeniedError for everybody else."""

    def __init__(self, check_root: Callable[[Caller, str], Awaitable[None]]) -> None:
        self._check_root = check_root

    def facet(self) -> Facet:
        """To be served at PATH."""
        return Facet(
            LOG_CONTROL,
            getters={
                "LogLevel": lambda: typed("s", NAMES.get(logging.getLogger().level, "debug")),
                "LogTarget": lambda: typed("s", self._target()),
                "SyslogIdentifier": lambda: typed("s", IDENTIFIER),
            },
            setters={"LogLevel": self._set_level, "LogTarget": self._set_target},
        ).complete()

    @staticmethod
    def _target() -> str:
        if logging.root.manager.disable >= logging.CRITICAL:
            return "null"
        # The standard error; systemd has connected it with the journal, or it is a terminal.
        return "journal" if "JOURNAL_STREAM" in os.environ else "console"

    async def _set_level(self, caller: Caller, value: object) -> None:
        await self._check_root(caller, "set the log level")
        level = LEVELS.get(value) if isinstance(value, str) else None
        if level is None:
            raise InvalidArgumentsError(f"LogLevel is one of {', '.join(LEVELS)}")
        logging.getLogger().setLevel(level)

    async def _set_target(self, caller: Caller, value: object) -> None:
        await self._check_root(caller, "set the log target")
        logging.disable(logging.NOTSET)
        if value not in ("auto", self._target(), "null"):
            raise InvalidArgumentsError(f"LogTarget is auto, {self._target()} or null: the log goes to standard error")
        if value == "null":
            logging.disable(logging.CRITICAL)
