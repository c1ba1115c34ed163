# SPDX-License-Identifier: LGPL-2.1-or-later
"""How much of the service each caller gets, so that nobody who only wants to know something is kept out by others.

Users are told apart by what the bus knows of them, whatever connections they open; root, who can do worse than call
often, by his connections. Until the bus has said whose a connection is, it is counted by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter

from oomslice.bus.transport import Connection
from oomslice.errors import BusError

CALLS_MAX = 256
"""Calls that may be under way at once; of who has FEW or more of them, further ones are refused then."""
FEW = 4
CALLER_CALLS_MAX = 64
"""Calls of one user that may be under way at once."""
CALLS_PER_S = 1000
"""More of one user in one second are refused: nobody needs them, and each costs a tenth of a millisecond or more."""
KNOWN_MAX = 4096
"""Connections whose user is remembered."""
ASKED_MAX = 32
"""Connections whose user is being asked for at once."""


class Quota:
    """Counts for one dispatcher."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._users: dict[str, int] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._second = 0
        self._this_second: Counter[str] = Counter()
        self._under_way: Counter[str] = Counter()

    def attach(self, connection: Connection) -> None:
        """Senders are names on this bus from now on."""
        self._connection = connection
        self._users.clear()

    def account(self, sender: str) -> str:
        """Under which name a sender is counted."""
        user = self._users.get(sender)
        if user is None:
            self._ask(sender)
        return f"user {user}" if user else sender

    def refusal(self, account: str) -> str:
        """Why a call of this account is refused, "" if it is not. Counts it."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._this_second = second, Counter()
        self._this_second[account] += 1
        if self._this_second[account] > CALLS_PER_S:
            return "too many calls in one second, try again"
        own = self._under_way[account]
        if own >= CALLER_CALLS_MAX or (own >= FEW and self._under_way.total() >= CALLS_MAX):
            return "too many calls at once, try again"
        return ""

    def begin(self, account: str) -> None:
        """A call is under way."""
        self._under_way[account] += 1

    def end(self, account: str) -> None:
        """It is no longer."""
        self._under_way[account] -= 1
        if not self._under_way[account]:
            del self._under_way[account]

    def cancel(self) -> None:
        """Asks no more."""
        for task in self._asking.values():
            task.cancel()

    def _ask(self, sender: str) -> None:
        if sender in self._asking or len(self._asking) >= ASKED_MAX or self._connection is None:
            return
        task = asyncio.get_running_loop().create_task(self._learn(self._connection, sender), name="caller")
        self._asking[sender] = task
        task.add_done_callback(lambda _: self._asking.pop(sender, None))

    async def _learn(self, connection: Connection, sender: str) -> None:
        with contextlib.suppress(BusError, ValueError):
            (user,) = await connection.call_bus("GetConnectionUnixUser", "s", [sender])
            if connection is self._connection:
                if len(self._users) >= KNOWN_MAX:
                    # Names are never used again: the oldest are most likely gone.
                    for name in list(self._users)[: KNOWN_MAX // 2]:
                        del self._users[name]
                self._users[sender] = int(user)
