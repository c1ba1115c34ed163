# SPDX-License-Identifier: LGPL-2.1-or-later
"""One object with one interface on a connection: finds the method, answers the standard interfaces, maps exceptions.

Handlers are plain or async functions; they get the sender's unique name and the arguments, and return the list of what
goes back. No exception leaves here as text: an OomsliceError is sent under its bus_name, all else is logged and
answered with a sentence that says nothing.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

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
    introspection,
)
from oomslice.bus.transport import Connection, Incoming, typed
from oomslice.errors import OomsliceError

LOGGER = logging.getLogger(__name__)

CALLS_MAX = 64
"""Calls that may be under way at once; more are refused."""
INTERNAL_ERROR = "internal error, see the journal"

Handler = Callable[..., "list[Any] | Awaitable[list[Any]]"]
Getter = Callable[[], Any]


class ObjectDispatcher:
    """Serves `interface` at `path` of a connection with these handlers by method name and getters by property name."""

    def __init__(
        self, path: str, interface: Interface, handlers: Mapping[str, Handler], getters: Mapping[str, Getter]
    ) -> None:
        assert {method.name for method in interface.methods} == set(handlers)
        assert {item.name for item in interface.properties} == set(getters)
        self.path = path
        self.interface = interface
        self._handlers = handlers
        self._getters = getters
        self._tasks: set[asyncio.Task[None]] = set()
        self._standard: dict[str, Handler] = {
            "Ping": lambda sender: [],
            "GetMachineId": lambda sender: [_machine_id()],
            "Get": self._get,
            "GetAll": self._get_all,
            "Set": self._set,
        }

    def serve(self, connection: Connection) -> None:
        """Answers the calls of this connection from now on."""
        connection.on_call = lambda call: self._start(connection, call)

    def changed(self, connection: Connection, *names: str) -> bool:
        """Tells listeners that these properties changed, each as its annotation says. False if that was dropped."""
        values: dict[str, Any] = {}
        invalidated = []
        for name in names:
            item = self.interface.property(name)
            assert item is not None
            if item.emits_changed == "true":
                try:
                    values[name] = typed(item.signature, self._getters[name]())
                    continue
                except Exception:
                    LOGGER.exception("property %s cannot be read", name)
            invalidated.append(name)
        signal = PROPERTIES.signal("PropertiesChanged")
        body = [self.interface.name, values, invalidated]
        return connection.emit(self.path, PROPERTIES.name, signal.name, signal.signature, body)

    def cancel(self) -> None:
        """Ends what is under way; nobody waits for an answer any more."""
        for task in self._tasks:
            task.cancel()

    def _start(self, connection: Connection, call: Incoming) -> None:
        if len(self._tasks) >= CALLS_MAX:
            connection.reply_error(call, LimitsExceededError.bus_name, "too many calls at once, try again")
            return
        task = asyncio.get_running_loop().create_task(self._serve(connection, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: Connection, call: Incoming) -> None:
        try:
            method, handler = self._find(call)
            result = handler(call.sender, *call.body())
            if isinstance(result, Awaitable):
                result = await result
            await connection.reply(call, method.out_signature, result)
        except OomsliceError as error:
            LOGGER.debug("%s of %s: %s", call.member, call.sender, error)
            connection.reply_error(call, error.bus_name, str(error))
        except Exception:
            LOGGER.exception("%s called by %s failed", call.member, call.sender)
            connection.reply_error(call, OomsliceError.bus_name, INTERNAL_ERROR)

    def _find(self, call: Incoming) -> tuple[Method, Handler]:
        """What answers this call. A call may leave out the interface. Raises BusError."""
        handlers: Mapping[str, Handler]
        for interface in (*STANDARD_INTERFACES, self.interface):
            if call.interface not in ("", interface.name):
                continue
            method = interface.method(call.member)
            if method is None:
                continue
            # The peer itself answers Ping at any path, introspection shows the way down to us.
            if interface is PEER:
                handlers = self._standard
            elif interface is INTROSPECTABLE:
                handlers = {"Introspect": functools.partial(self._introspect, call.path)}
            elif call.path != self.path:
                break
            else:
                handlers = self._standard if interface is PROPERTIES else self._handlers
            if call.signature != method.in_signature:
                raise InvalidArgumentsError(
                    f"{call.member} takes arguments of type {method.in_signature!r}, not {call.signature!r}"
                )
            return method, handlers[method.name]
        if call.path != self.path:
            raise UnknownObjectError(f"there is no object at {call.path}")
        if call.interface not in ("", self.interface.name, *(interface.name for interface in STANDARD_INTERFACES)):
            raise UnknownInterfaceError(f"{call.path} has no interface {call.interface}")
        raise UnknownMethodError(f"{call.path} has no method {call.member}")

    def _introspect(self, path: str, sender: str) -> list[Any]:
        if path == self.path:
            return [introspection((*STANDARD_INTERFACES, self.interface))]
        above = path.rstrip("/") + "/"
        if not self.path.startswith(above):
            raise UnknownObjectError(f"there is no object at {path}")
        return [introspection((PEER, INTROSPECTABLE), (self.path[len(above) :].split("/")[0],))]

    def _get(self, sender: str, interface: str, name: str) -> list[Any]:
        self._check_interface(interface)
        item = self.interface.property(name)
        if item is None:
            raise UnknownPropertyError(f"there is no property {name}")
        return [typed(item.signature, self._getters[name]())]

    def _get_all(self, sender: str, interface: str) -> list[Any]:
        if interface in (standard.name for standard in STANDARD_INTERFACES):
            return [{}]
        self._check_interface(interface)
        values = {}
        for item in self.interface.properties:
            try:
                values[item.name] = typed(item.signature, self._getters[item.name]())
            except Exception:
                # The others are still good; who wants this one alone gets the error.
                LOGGER.exception("property %s cannot be read", item.name)
        return [values]

    def _set(self, sender: str, interface: str, name: str, value: Any) -> list[Any]:
        self._check_interface(interface)
        if self.interface.property(name) is None:
            raise UnknownPropertyError(f"there is no property {name}")
        raise PropertyReadOnlyError(f"property {name} is read-only")

    def _check_interface(self, name: str) -> None:
        # The specification lets an empty name stand for any interface.
        if name not in ("", self.interface.name):
            raise UnknownInterfaceError(f"{self.path} has no interface {name}")


def _machine_id() -> str:
    return Path("/etc/machine-id").read_text(encoding="ascii").strip()
