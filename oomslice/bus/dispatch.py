# SPDX-License-Identifier: LGPL-2.1-or-later
"""Objects with interfaces on a connection: finds the method, answers the standard interfaces, maps exceptions.

Handlers are plain or async functions; they get the caller and the arguments, and return the list of what goes back, or
that as an `Encoded`. No exception leaves here as text: an OomsliceError is sent under its bus_name, all
else is logged and answered with a sentence that says nothing.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from oomslice.bus.authority import Caller
from oomslice.bus.errors import (
    InvalidArgumentsError,
    LimitsExceededError,
    PropertyReadOnlyError,
    UnknownInterfaceError,
    UnknownMethodError,
    UnknownObjectError,
    UnknownPropertyError,
)
from oomslice.bus.interface import (
    INTROSPECTABLE,
    PEER,
    PROPERTIES,
    STANDARD_INTERFACES,
    Interface,
    Method,
    Property,
    introspection,
)
from oomslice.bus.message import Encoded, Incoming
from oomslice.bus.quota import Quota
from oomslice.bus.transport import Connection
from oomslice.errors import OomsliceError

LOGGER = logging.getLogger(__name__)

INTERNAL_ERROR = "internal error, see the journal"

Answer = list[Any] | Encoded
Handler = Callable[..., "Answer | Awaitable[Answer]"]
Getter = Callable[[], Any]
"""Returns a value that is `typed` already."""
Setter = Callable[[Caller, Any], "Awaitable[None] | None"]


@dataclass(frozen=True, slots=True)
class Facet:
    """One interface of one object: handlers by method, getters by property, setters (caller, value) of some."""

    interface: Interface
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    getters: Mapping[str, Getter] = field(default_factory=dict)
    setters: Mapping[str, Setter] = field(default_factory=dict)

    def complete(self) -> Facet:
        """Itself, checked to leave out nothing of the interface."""
        assert {method.name for method in self.interface.methods} == set(self.handlers)
        assert {item.name for item in self.interface.properties} == set(self.getters)
        assert {item.name for item in self.interface.properties if item.writable} == set(self.setters)
        return self

    def value(self, item: Property) -> Any:
        """Of a property, typed. Raises what its getter does."""
        return self.getters[item.name]()


class Tree(Protocol):
    """Objects that come and go."""

    async def facets(self, path: str) -> Sequence[Facet]:
        """Of the object at this path; none if there is no object."""

    def children(self, path: str) -> Sequence[str] | None:
        """Last parts of the paths right below this one; None if there is no such path."""


class Dispatcher:
    """Serves fixed objects by path, and those of `tree`."""

    def __init__(self, fixed: Mapping[str, Sequence[Facet]], tree: Tree) -> None:
        self._fixed = fixed
        self._tree = tree
        self._tasks: set[asyncio.Task[None]] = set()
        self._quota = Quota()

    def serve(self, connection: Connection) -> None:
        """Answers the calls of this connection from now on."""
        self._quota.attach(connection)
        connection.on_call = lambda call: self._start(connection, call)

    def cancel(self) -> None:
        """Ends what is under way; nobody waits for an answer any more."""
        self._quota.cancel()
        for task in self._tasks:
            task.cancel()

    def _start(self, connection: Connection, call: Incoming) -> None:
        account = self._quota.account(call.sender)
        refusal = self._quota.refusal(account)
        if refusal:
            connection.reply_error(call, LimitsExceededError.bus_name, refusal)
            return
        task = asyncio.get_running_loop().create_task(self._serve(connection, call))
        self._tasks.add(task)
        self._quota.begin(account)
        task.add_done_callback(functools.partial(self._done, account))

    def _done(self, account: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._quota.end(account)

    async def _serve(self, connection: Connection, call: Incoming) -> None:
        try:
            method, handler = await self._find(call)
            if not call.reply_expected and method.outputs and not method.action:
                return  # it only reads, and nobody is told what
            result = handler(Caller(call.sender, call.interactive), *call.body())
            if isinstance(result, Awaitable):
                result = await result
            await connection.reply(call, method.out_signature, result)
        except OomsliceError as error:
            LOGGER.debug("%s of %s: %s", call.member, call.sender, error)
            connection.reply_error(call, error.bus_name, str(error))
        except Exception:
            LOGGER.exception("%s called by %s failed", call.member, call.sender)
            connection.reply_error(call, OomsliceError.bus_name, INTERNAL_ERROR)

    async def _find(self, call: Incoming) -> tuple[Method, Handler]:
        """What answers this call. A call may leave out the interface. Raises BusError."""
        # The peer itself answers Ping at any path, introspection shows the way down to the objects.
        facets = self._fixed.get(call.path)
        if facets is None:
            facets = await self._tree.facets(call.path)
        for interface in (*STANDARD_INTERFACES, *(facet.interface for facet in facets)):
            if call.interface not in ("", interface.name):
                continue
            method = interface.method(call.member)
            if method is None:
                continue
            if not facets and interface not in (PEER, INTROSPECTABLE):
                break
            if call.signature != method.in_signature:
                raise InvalidArgumentsError(
                    f"{call.member} takes arguments of type {method.in_signature!r}, not {call.signature!r}"
                )
            return method, self._handler(interface, method, call.path, facets)
        if not facets:
            raise UnknownObjectError(f"there is no object at {call.path}")
        known = {interface.name for interface in (*STANDARD_INTERFACES, *(facet.interface for facet in facets))}
        if call.interface and call.interface not in known:
            raise UnknownInterfaceError(f"{call.path} has no interface {call.interface}")
        raise UnknownMethodError(f"{call.path} has no method {call.member}")

    def _handler(self, interface: Interface, method: Method, path: str, facets: Sequence[Facet]) -> Handler:
        if interface is PEER:
            return _ping if method.name == "Ping" else _get_machine_id
        if interface is INTROSPECTABLE:
            return lambda caller: self._introspect(path, facets)
        if interface is PROPERTIES:
            properties = _Properties(path, facets)
            handlers: Mapping[str, Handler] = {
                "Get": properties.get,
                "GetAll": properties.get_all,
                "Set": properties.set,
            }
            return handlers[method.name]
        return next(facet for facet in facets if facet.interface is interface).handlers[method.name]

    def _introspect(self, path: str, facets: Sequence[Facet]) -> list[Any]:
        above = path.rstrip("/") + "/"
        below = {fixed[len(above) :].split("/")[0] for fixed in self._fixed if fixed.startswith(above)}
        grown = self._tree.children(path)
        children = [*sorted(below), *(child for child in grown or () if child not in below)]
        if facets:
            return [introspection((*STANDARD_INTERFACES, *(facet.interface for facet in facets)), tuple(children))]
        if not below and grown is None:
            raise UnknownObjectError(f"there is no object at {path}")
        return [introspection((PEER, INTROSPECTABLE), tuple(children))]


class _Properties:
    """org.freedesktop.DBus.Properties of one object."""

    def __init__(self, path: str, facets: Sequence[Facet]) -> None:
        self._path = path
        self._facets = facets

    def get(self, caller: Caller, interface: str, name: str) -> list[Any]:
        facet, item = self._property(interface, name)
        return [facet.value(item)]

    def get_all(self, caller: Caller, interface: str) -> list[Any]:
        values: dict[str, Any] = {}
        for facet in self._of(interface):
            values.update(readable(facet, facet.interface.properties))
        return [values]

    async def set(self, caller: Caller, interface: str, name: str, value: Any) -> list[Any]:
        facet, item = self._property(interface, name)
        if not item.writable:
            raise PropertyReadOnlyError(f"property {name} is read-only")
        result = facet.setters[name](caller, value)
        if isinstance(result, Awaitable):
            await result
        return []

    def _property(self, interface: str, name: str) -> tuple[Facet, Property]:
        for facet in self._of(interface):
            item = facet.interface.property(name)
            if item is not None:
                return facet, item
        raise UnknownPropertyError(f"there is no property {name}")

    def _of(self, interface: str) -> list[Facet]:
        # The specification lets an empty name stand for any interface.
        if interface in (standard.name for standard in STANDARD_INTERFACES):
            return []
        found = [facet for facet in self._facets if interface in ("", facet.interface.name)]
        if not found:
            raise UnknownInterfaceError(f"{self._path} has no interface {interface}")
        return found


def readable(facet: Facet, properties: Sequence[Property]) -> dict[str, Any]:
    """These properties, typed. One that cannot be read is left out: who wants it alone gets the error."""
    values = {}
    for item in properties:
        try:
            values[item.name] = facet.value(item)
        except Exception:
            LOGGER.exception("property %s cannot be read", item.name)
    return values


def changed(connection: Connection, path: str, facet: Facet, names: Sequence[str]) -> bool:
    """Tells listeners that these properties changed, each as its annotation says. False if that was dropped."""
    items = [item for item in facet.interface.properties if item.name in names]
    values = readable(facet, [item for item in items if item.emits_changed == "true"])
    invalidated = [item.name for item in items if item.name not in values]
    signal = PROPERTIES.signal("PropertiesChanged")
    return connection.emit(
        path, PROPERTIES.name, signal.name, signal.signature, [facet.interface.name, values, invalidated]
    )


def _ping(caller: Caller) -> list[Any]:
    return []


def _get_machine_id(caller: Caller) -> list[Any]:
    return [Path("/etc/machine-id").read_text(encoding="ascii").strip()]
