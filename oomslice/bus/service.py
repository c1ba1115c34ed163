# SPDX-License-Identifier: LGPL-2.1-or-later
"""org.oomslice1 on the bus: the backend's answers in D-Bus types, signals, and staying there.

A bus that is away, frozen or restarted is the bus's trouble: the service goes on trying in the background, drops
what cannot be sent, and never makes the daemon wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from oomslice.bus.backend import Backend
from oomslice.bus.dispatch import ObjectDispatcher
from oomslice.bus.errors import AccessDeniedError
from oomslice.bus.interface import BUS_NAME, DECISION_SIGNATURES, MANAGER, OBJECT_PATH, key_signature
from oomslice.bus.transport import CONNECT_TIMEOUT_S, Connection, Incoming, typed
from oomslice.decisions.record import Decision
from oomslice.errors import BusError, OomsliceError

LOGGER = logging.getLogger(__name__)

BACK_OFF_FIRST_S = 0.25
BACK_OFF_MAX_S = 30.0
NAME_DO_NOT_QUEUE = 4
NAME_IS_OURS = (1, 4)
"""RequestName's answers: primary owner, already owner."""
DEFAULT_DECISIONS = 100
CHANGING_PROPERTIES = tuple(item.name for item in MANAGER.properties if item.emits_changed != "const")
UINT32_MAX = (1 << 32) - 1
INT64_MAX = (1 << 63) - 1
UINT64_MAX = (1 << 64) - 1


class BusService:
    """Serves a backend under org.oomslice1, from `start` to `stop`, over restarts of the bus.

    `address` is a D-Bus address, by default the system bus.
    """

    def __init__(self, backend: Backend, *, address: str | None = None) -> None:
        self._backend = backend
        self._address = address
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._ready = asyncio.Event()
        self._signals_dropped = 0
        self._replies_dropped = 0
        self._stale = False
        self._last_error = ""
        self._dispatcher = ObjectDispatcher(
            OBJECT_PATH,
            MANAGER,
            {
                "ListSlices": self._list_slices,
                "GetSlice": self._get_slice,
                "ListDecisions": self._list_decisions,
                "GetDecision": self._get_decision,
                "Explain": self._explain,
                "Reload": self._reload,
            },
            {
                "Version": lambda: self._backend.version,
                "State": lambda: mapping(self._backend.state()),
                "Carriers": lambda: [mapping(carrier) for carrier in self._backend.carriers()],
                "ConfigurationErrors": self._configuration_errors,
            },
        )

    @property
    def connected(self) -> bool:
        """True while the name is ours."""
        return self._ready.is_set()

    @property
    def signals_dropped(self) -> int:
        """Signals that could not be sent since the start: the bus was frozen. Not those of times without a bus."""
        return self._signals_dropped + (self._connection.signals_dropped if self._connection else 0)

    @property
    def replies_dropped(self) -> int:
        """Answers that could not be sent since the start."""
        return self._replies_dropped + (self._connection.replies_dropped if self._connection else 0)

    async def start(self, timeout: float = CONNECT_TIMEOUT_S) -> bool:
        """Starts serving; returns whether the name is ours after the first attempt, or after `timeout` seconds.

        If it is not, attempts go on in the background.
        """
        assert self._task is None
        self._task = asyncio.get_running_loop().create_task(self._stay(), name="bus")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._tried.wait()
        return self.connected

    async def wait_ready(self) -> None:
        """Returns when the name is ours."""
        await self._ready.wait()

    async def stop(self) -> None:
        """Leaves the bus."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def decision_made(self, decision: Decision) -> None:
        """Tells listeners of a stored decision. Never waits."""
        if self._connection is None or not self.connected:
            return
        signal = MANAGER.signal("DecisionMade")
        arguments = [text(getattr(decision, argument.name)) for argument in signal.arguments]
        self._connection.emit(OBJECT_PATH, MANAGER.name, signal.name, signal.signature, arguments)
        self._changed("State")

    def warn(self, decision: str, unit: str, domain: str, deadline_usec: int) -> bool:
        """Tells everybody that a unit is asked to give memory back; False if nobody could be told. Never waits."""
        if self._connection is None or not self.connected:
            return False
        signal = MANAGER.signal("Warning")
        arguments = [text(decision), text(unit), text(domain), unsigned(deadline_usec)]
        return self._connection.emit(OBJECT_PATH, MANAGER.name, signal.name, signal.signature, arguments)

    async def state_changed(self) -> None:
        """Tells listeners that State and Carriers are other ones. Never waits."""
        self._changed("State", "Carriers")

    async def configuration_changed(self) -> None:
        """Tells listeners that the configuration was read again. Never waits."""
        self._changed(*CHANGING_PROPERTIES)

    def _changed(self, *names: str) -> None:
        if self._connection is not None and self.connected and not self._dispatcher.changed(self._connection, *names):
            self._stale = True

    async def _stay(self) -> None:
        delay = BACK_OFF_FIRST_S
        while True:
            try:
                if await self._serve_once():
                    delay = BACK_OFF_FIRST_S
            except OomsliceError as error:
                self._report(str(error))
            except Exception:
                LOGGER.exception("the bus service failed and is tried again")
            self._tried.set()
            # Not all daemons of a machine at the same moment.
            await asyncio.sleep(delay * random.uniform(0.75, 1.25))
            delay = min(delay * 2, BACK_OFF_MAX_S)

    async def _serve_once(self) -> bool:
        """Connects and serves until the connection is gone. True if the name was ours. Raises BusError."""
        connection = await Connection.open(self._address)
        try:
            connection.on_signal = lambda signal: self._on_bus_signal(connection, signal)
            connection.on_writable = self._on_writable
            self._dispatcher.serve(connection)
            (answer,) = await connection.call_bus("RequestName", "su", [BUS_NAME, NAME_DO_NOT_QUEUE])
            if answer not in NAME_IS_OURS:
                raise BusError(f"the name {BUS_NAME} is owned by another process; is a second daemon running?")
            self._connection = connection
            self._ready.set()
            self._tried.set()
            self._last_error = ""
            LOGGER.info("serving %s as %s", BUS_NAME, connection.unique_name)
            await connection.wait_closed()
            self._report("the message bus closed the connection")
            return True
        finally:
            self._ready.clear()
            self._connection = None
            self._signals_dropped += connection.signals_dropped
            self._replies_dropped += connection.replies_dropped
            self._dispatcher.cancel()
            connection.close()

    def _report(self, message: str) -> None:
        # Once, not with every attempt.
        if message != self._last_error:
            LOGGER.warning("%s; trying on", message)
            self._last_error = message

    def _on_bus_signal(self, connection: Connection, signal: Incoming) -> None:
        if (
            signal.sender == "org.freedesktop.DBus"
            and signal.member == "NameLost"
            and signal.signature == "s"
            and signal.body() == [BUS_NAME]
        ):
            LOGGER.warning("the name %s was taken from us", BUS_NAME)
            connection.close()

    def _on_writable(self) -> None:
        """The bus was frozen and goes on: who missed a change is told that there was one."""
        if self._stale:
            self._stale = False
            LOGGER.warning("the message bus was stuck; %d signals were dropped", self.signals_dropped)
            self._changed(*CHANGING_PROPERTIES)

    # The methods and properties, in the order of the interface

    def _list_slices(self, sender: str) -> list[Any]:
        return [
            [
                [
                    text(row["name"]),
                    text(row["cgroup"]),
                    int(row["priority"]),
                    bool(row["protected"]),
                    bool(row["candidate"]),
                    text(row["priority_origin"]),
                    text(row["actions"]),
                ]
                for row in self._backend.slices()
            ]
        ]

    def _get_slice(self, sender: str, name: str) -> list[Any]:
        return [mapping(self._backend.slice(name))]

    async def _list_decisions(self, sender: str, since_usec: int, limit: int) -> list[Any]:
        # The store waits for the disk; the loop does not.
        decisions = await asyncio.to_thread(self._backend.decisions, since_usec, limit or DEFAULT_DECISIONS)
        return [
            [
                [
                    text(decision.id),
                    unsigned(decision.realtime_usec),
                    text(decision.domain),
                    text(decision.trigger),
                    text(decision.victim),
                    text(decision.outcome),
                ]
                for decision in decisions
            ]
        ]

    async def _get_decision(self, sender: str, id: str) -> list[Any]:
        return [decision_values(await asyncio.to_thread(self._backend.decision, id))]

    def _explain(self, sender: str) -> list[Any]:
        return [
            [
                [
                    text(domain["domain"]),
                    [
                        [
                            text(candidate["name"]),
                            int(candidate["priority"]),
                            unsigned(candidate["metric"]),
                            text(candidate["verdict"]),
                            text(candidate["priority_origin"]),
                            text(candidate["reason"]),
                        ]
                        for candidate in domain["candidates"]
                    ],
                ]
                for domain in self._backend.explain()
            ]
        ]

    async def _reload(self, sender: str) -> list[Any]:
        # The bus policy refuses others already; this holds if an administrator loosened it by accident.
        if await self._uid(sender) != 0:
            raise AccessDeniedError("only root may reload the configuration")
        await self._backend.reload()
        return []

    def _configuration_errors(self) -> list[Any]:
        return [
            [
                text(problem.source.file),
                min(max(problem.source.line, 0), UINT32_MAX),
                text(problem.key),
                text(problem.value),
                text(problem.message),
            ]
            for problem in self._backend.configuration_errors()
        ]

    async def _uid(self, sender: str) -> int:
        """Of a peer, as the bus knows it from the socket: no race with its process. Raises BusError."""
        if self._connection is None:
            raise BusError("the message bus closed the connection")
        (credentials,) = await self._connection.call_bus("GetConnectionCredentials", "s", [sender])
        uid = credentials.get("UnixUserID")
        if not isinstance(uid, int):
            raise AccessDeniedError("the message bus does not say who is calling")
        return uid


def decision_values(decision: Decision) -> dict[str, Any]:
    """A decision as GetDecision's a{sv}."""
    values = {}
    for name, signature in DECISION_SIGNATURES.items():
        value = getattr(decision, name)
        if name == "candidates":
            value = [
                [
                    text(candidate.name),
                    unsigned(candidate.cgroup_id),
                    candidate.priority,
                    unsigned(candidate.metric),
                    text(candidate.verdict),
                ]
                for candidate in value
            ]
        elif name == "steps":
            value = [mapping(asdict(step)) for step in value]
        elif signature == "as":
            value = [text(item) for item in value]
        elif name == "extra":
            value = mapping(value)
        elif signature == "s":
            value = text(value)
        elif signature == "t":
            value = unsigned(value)
        elif signature == "u":
            value = min(max(value, 0), UINT32_MAX)
        elif signature == "ai":
            value = list(value)
        elif signature == "d":
            value = float(value)
        values[name] = typed(signature, value)
    return values


def mapping(values: Mapping[str, Any]) -> dict[str, Any]:
    """Free keys as a{sv}; None leaves a key out."""
    return {text(key): variant(key, value) for key, value in values.items() if value is not None}


def variant(key: str, value: Any) -> Any:
    """A plain value in its D-Bus type. That of a whole number depends on its key, never on the number."""
    match value:
        case bool():
            return typed("b", value)
        case int():
            signature = key_signature(key)
            low, high = {
                "i": (-(1 << 31), (1 << 31) - 1),
                "u": (0, UINT32_MAX),
                "t": (0, UINT64_MAX),
                "x": (-INT64_MAX, INT64_MAX),
            }[signature]
            return typed(signature, min(max(value, low), high))
        case float():
            return typed("d", value)
        case Mapping():
            return typed("a{sv}", mapping(value))
        case list() | tuple():
            if value and all(isinstance(item, Mapping) for item in value):
                return typed("aa{sv}", [mapping(item) for item in value])
            if value and all(isinstance(item, int) for item in value):
                return typed("ax", [min(max(item, -INT64_MAX), INT64_MAX) for item in value])
            return typed("as", [text(item) for item in value])
        case _:
            return typed("s", text(value))


def text(value: Any) -> str:
    """As D-Bus can carry it: file names may hold bytes that are no UTF-8, and no string holds a NUL."""
    return str(value).replace("\0", " ").encode("utf-8", "replace").decode()


def unsigned(value: int) -> int:
    """Within 64 bits."""
    return min(max(int(value), 0), UINT64_MAX)
