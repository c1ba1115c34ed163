# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hears what the daemon tells everybody: its signals, in order, and that it goes and comes.

Only what the owner of org.oomslice1 sends counts. Anybody may send a signal to anybody, so a name in a message proves
nothing; the bus says who owns the name, and says so before it delivers what the new owner sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from oomslice.bus.errors import BusUnreachableError, InvalidArgumentsError, NotRunningError
from oomslice.bus.interface import BUS_NAME, MANAGER, OBJECT_PATH, PROPERTIES
from oomslice.bus.transport import BUS, Connection, Incoming

STARTED, STOPPED = "DaemonStarted", "DaemonStopped"
MATCHES = (
    f"type='signal',sender='{BUS_NAME}',path='{OBJECT_PATH}',interface='{MANAGER.name}'",
    f"type='signal',sender='{BUS_NAME}',path='{OBJECT_PATH}',interface='{PROPERTIES.name}',arg0='{MANAGER.name}'",
    f"type='signal',sender='{BUS[0]}',interface='{BUS[2]}',member='NameOwnerChanged',arg0='{BUS_NAME}'",
)
WAITING_MAX = 10_000
"""Events that nobody has asked for yet; when there are more the oldest are dropped, and counted."""


@dataclass(frozen=True, slots=True)
class Event:
    """A signal of the manager by its name, or STARTED or STOPPED. Arguments have the names of the interface; of a
    signal that this version does not know they are called arg0, arg1, ..."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


class Listener:
    """For `async with`. Raises BusUnreachableError; a daemon that does not run is no error, it may come."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._connection: Connection | None = None
        self._owner = ""
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.dropped = 0

    @property
    def running(self) -> bool:
        """Whether there is a daemon now."""
        return bool(self._owner)

    async def __aenter__(self) -> Listener:
        connection = await Connection.open(self._address)
        connection.on_signal = self._heard
        self._connection = connection
        try:
            for match in MATCHES:
                await connection.call_bus("AddMatch", "s", [match])
            try:
                self._owner = str((await connection.call_bus("GetNameOwner", "s", [BUS_NAME]))[0])
            except NotRunningError:
                self._owner = ""
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
        if message.sender == BUS[0] and message.member == "NameOwnerChanged":
            name, before, after = message.body()
            if name == BUS_NAME:
                self._owner = str(after)
                if before:
                    self._put(Event(STOPPED))
                if after:
                    self._put(Event(STARTED))
            return
        from_it = self._owner and message.sender == self._owner and message.path == OBJECT_PATH
        if from_it and message.interface in (MANAGER.name, PROPERTIES.name):
            self._put(_event(message))

    def _put(self, event: Event) -> None:
        if self._events.qsize() >= WAITING_MAX:
            self._events.get_nowait()
            self.dropped += 1
        self._events.put_nowait(event)


def _event(message: Incoming) -> Event:
    """Raises InvalidArgumentsError for arguments that cannot be read; who calls us logs it."""
    interface = MANAGER if message.interface == MANAGER.name else PROPERTIES
    known = {signal.name: signal for signal in interface.signals}.get(message.member)
    body = message.body()
    if known is None:
        return Event(message.member, {f"arg{number}": value for number, value in enumerate(body)})
    if len(body) < len(known.arguments):
        raise InvalidArgumentsError(f"{message.member} has {len(body)} arguments")
    return Event(message.member, {argument.name: value for argument, value in zip(known.arguments, body, strict=False)})
