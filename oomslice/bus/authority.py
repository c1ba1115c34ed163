# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may act: root, and whom polkit lets. Without polkit on the machine, root alone.

The caller is known to polkit by his name on the bus, never by a process number, which may be another's by then.
"""

from __future__ import annotations

from dataclasses import dataclass

from oomslice.bus.errors import (
    AccessDeniedError,
    InteractionRequiredError,
    LimitsExceededError,
    NotRunningError,
    UnknownMethodError,
)
from oomslice.bus.message import typed
from oomslice.bus.transport import Connection
from oomslice.errors import BusError

ACTION_PREFIX = "org.oomslice1."
POLKIT = ("org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority")
ALLOW_INTERACTION = 1
"""Of CheckAuthorizationFlags. Source: PolicyKit1's interface description."""
ANSWER_S = 10.0
INTERACTIVE_ANSWER_S = 120.0
"""Somebody types a password."""
ASKED_MAX = 8
"""Callers that polkit is asked about at once: passwords are typed slowly, and those who only read must not wait."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a message, by his unique name, and whether he may be asked for a password."""

    name: str
    interactive: bool = False


class Authority:
    """Decides for one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asked: set[str] = set()

    async def uid(self, caller: Caller) -> int:
        """Of a peer, as the bus knows it from the socket: no race with its process. Raises BusError."""
        (credentials,) = await self._connection.call_bus("GetConnectionCredentials", "s", [caller.name])
        uid = credentials.get("UnixUserID")
        if not isinstance(uid, int):
            raise AccessDeniedError("the message bus does not say who is calling")
        return uid

    async def check_root(self, caller: Caller, what: str) -> None:
        """Returns if it is root. Raises AccessDeniedError."""
        if await self.uid(caller) != 0:
            raise AccessDeniedError(f"only root may {what}")

    async def check(self, caller: Caller, action: str, what: str) -> int:
        """The user of a caller who may do it. `action` is the last part of polkit's name for it. Raises BusError."""
        uid = await self.uid(caller)
        if uid == 0:
            return uid
        # One question at a time for each caller: each may be a window on somebody's screen.
        if caller.name in self._asked or len(self._asked) >= ASKED_MAX:
            raise LimitsExceededError("others are being asked for permission, try again")
        self._asked.add(caller.name)
        try:
            allowed, challenge = await self._ask_polkit(caller, action, what)
        finally:
            self._asked.discard(caller.name)
        if allowed:
            return uid
        if challenge and not caller.interactive:
            raise InteractionRequiredError(f"to {what} needs authorization ({ACTION_PREFIX}{action}), interactively")
        raise AccessDeniedError(f"not authorized to {what} ({ACTION_PREFIX}{action})")

    async def _ask_polkit(self, caller: Caller, action: str, what: str) -> tuple[bool, bool]:
        subject = ["system-bus-name", {"name": typed("s", caller.name)}]
        flags = ALLOW_INTERACTION if caller.interactive else 0
        try:
            (answer,) = await self._connection.call(
                *POLKIT,
                "CheckAuthorization",
                "(sa{sv})sa{ss}us",
                [subject, f"{ACTION_PREFIX}{action}", {}, flags, ""],
                timeout=INTERACTIVE_ANSWER_S if caller.interactive else ANSWER_S,
                start_service=True,
            )
            return answer[0] is True, answer[1] is True
        except (NotRunningError, UnknownMethodError):
            raise AccessDeniedError(f"only root may {what}: this machine has no polkit to ask about others") from None
        except BusError as error:
            raise AccessDeniedError(f"only root may {what}: polkit cannot be asked: {error}") from None
