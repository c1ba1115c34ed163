# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hears what the daemon tells everybody: its signals, in order, and that it goes and comes. With asyncio; what an event
is, and from whom, says events.py."""

from __future__ import annotations

import asyncio
from types import TracebackType

from oomslice.bus.errors import BusUnreachableError, NotRunningError
from oomslice.bus.events import MATCHES, Ear, Event
from oomslice.bus.interface import BUS_NAME
from oomslice.bus.message import Incoming
from oomslice.bus.transport import Connection

WAITING_MAX = 10_000
"""Events that nobody has asked for yet; when there are more the oldest are dropped, and counted."""


class Listener:
    """For `async with`. Raises BusUnreachableError; a daemon that does not run is no error, it may come."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._connection: Connection | None = None
        self._ear = Ear()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.dropped = 0

    @property
    def running(self) -> bool:
        """Whether there is a daemon now."""
        return bool(self._ear.owner)

    async def __aenter__(self) -> Listener:
        connection = await Connection.open(self._address)
        connection.on_signal = self._heard
        self._connection = connection
        try:
            for match in MATCHES:
                await connection.call_bus("AddMatch", "s", [match])
            try:
                self._ear.owner = str((await connection.call_bus("GetNameOwner", "s", [BUS_NAME]))[0])
            except NotRunningError:
                self._ear.owner = ""
        except BaseException:
            connection.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def next(self) -> Event:
        """The next event. Raises BusUnreachableError when the bus has gone and all that came before was taken."""
        assert self._connection is not None
        if self._events.empty():
            closed = asyncio.ensure_future(self._connection.wait_closed())
            event = asyncio.ensure_future(self._events.get())
            try:
                await asyncio.wait((closed, event), return_when=asyncio.FIRST_COMPLETED)
                if event.done():
                    return event.result()
            finally:
                closed.cancel()
                event.cancel()
            if self._events.empty():
                raise BusUnreachableError("the message bus closed the connection")
        return self._events.get_nowait()

    def _heard(self, message: Incoming) -> None:
        """Raises InvalidArgumentsError for arguments that cannot be read; who calls us logs it."""
        for event in self._ear.hear(message):
            self._put(event)

    def _put(self, event: Event) -> None:
        if self._events.qsize() >= WAITING_MAX:
            self._events.get_nowait()
            self.dropped += 1
        self._events.put_nowait(event)
