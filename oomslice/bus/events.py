# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon tells everybody, as events: which signals those are, and from whom they count. Hears nothing itself:
listener.py does with asyncio, hearing.py for whoever waits for nothing else.

Only what the owner of org.oomslice1 sends counts. Anybody may send a signal to anybody, so a name in a message proves
nothing; the bus says who owns the name, and says so before it delivers what the new owner sends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from oomslice.bus.errors import InvalidArgumentsError
from oomslice.bus.interface import BUS_NAME, MANAGER, OBJECT_PATH, PROPERTIES

BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
STARTED, STOPPED = "DaemonStarted", "DaemonStopped"
MATCHES = (
    f"type='signal',sender='{BUS_NAME}',path='{OBJECT_PATH}',interface='{MANAGER.name}'",
    f"type='signal',sender='{BUS_NAME}',path='{OBJECT_PATH}',interface='{PROPERTIES.name}',arg0='{MANAGER.name}'",
    f"type='signal',sender='{BUS[0]}',interface='{BUS[2]}',member='NameOwnerChanged',arg0='{BUS_NAME}'",
)
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Event(NamedTuple):
    """A signal of the manager by its name, or STARTED or STOPPED. Arguments have the names of the interface; of a
    signal that this version does not know they are called arg0, arg1, ..."""

    name: str
    arguments: Mapping[str, Any] = _NOTHING


class Message(Protocol):
    """A signal as it came."""

    @property
    def sender(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def interface(self) -> str: ...
    @property
    def member(self) -> str: ...

    def body(self) -> Sequence[Any]:
        """Raises InvalidArgumentsError."""


class Ear:
    """Knows who the daemon is, and so what is an event."""

    def __init__(self) -> None:
        self.owner = ""
        """its unique name; empty while it does not run"""

    def hear(self, message: Message) -> list[Event]:
        """The events that a signal is, none or more. Raises InvalidArgumentsError."""
        if message.sender == BUS[0] and message.member == "NameOwnerChanged":
            name, before, after = message.body()
            if name != BUS_NAME:
                return []
            self.owner = str(after)
            return [*([Event(STOPPED)] if before else []), *([Event(STARTED)] if after else [])]
        from_it = self.owner and message.sender == self.owner and message.path == OBJECT_PATH
        return [_event(message)] if from_it and message.interface in (MANAGER.name, PROPERTIES.name) else []


def _event(message: Message) -> Event:
    interface = MANAGER if message.interface == MANAGER.name else PROPERTIES
    known = {signal.name: signal for signal in interface.signals}.get(message.member)
    body = message.body()
    if known is None:
        return Event(message.member, {f"arg{number}": value for number, value in enumerate(body)})
    if len(body) < len(known.arguments):
        raise InvalidArgumentsError(f"{message.member} has {len(body)} arguments")
    return Event(message.member, {argument.name: value for argument, value in zip(known.arguments, body, strict=False)})
