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
from collections.abc import Sequence
from typing import Any

from oomslice.bus.authority import Authority, Caller
from oomslice.bus.backend import Backend
from oomslice.bus.dispatch import Dispatcher, changed
from oomslice.bus.interface import BUS_NAME, MANAGER, OBJECT_PATH
from oomslice.bus.log_control import PATH as LOG_CONTROL_PATH
from oomslice.bus.log_control import LogControl
from oomslice.bus.manager import ManagerObject
from oomslice.bus.message import Incoming
from oomslice.bus.objects import ObjectTree
from oomslice.bus.transport import CONNECT_TIMEOUT_S, Connection
from oomslice.bus.values import text, unsigned
from oomslice.decisions.record import Decision
from oomslice.errors import BusError, OomsliceError

LOGGER = logging.getLogger(__name__)

BACK_OFF_FIRST_S = 0.25
BACK_OFF_MAX_S = 30.0
STEPS_KEPT = 64
"""Decisions that are not over: the ring has no room for more."""
NAME_DO_NOT_QUEUE = 4
NAME_IS_OURS = (1, 4)
"""RequestName's answers: primary owner, already owner."""
CHANGING_PROPERTIES = tuple(item.name for item in MANAGER.properties if item.emits_changed != "const")


class BusService:
    """Serves a backend under org.oomslice1, from `start` to `stop`, over restarts of the bus.

    `address` is a D-Bus address, by default the system bus.
    """

    def __init__(self, backend: Backend, *, address: str | None = None) -> None:
        self._backend = backend
        self._address = address
        self._connection: Connection | None = None
        self._authority: Authority | None = None
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._ready = asyncio.Event()
        self._signals_dropped = 0
        self._replies_dropped = 0
        self._stale = False
        self._last_error = ""
        self._manager = ManagerObject(backend, self._authorize).facet()
        self._objects = ObjectTree(backend)
        self._dispatcher = Dispatcher(
            {
                OBJECT_PATH: (self._manager, self._objects.manager()),
                LOG_CONTROL_PATH: (LogControl(self._check_root).facet(),),
            },
            self._objects,
        )
        self._news = asyncio.Event()
        self._steps: dict[str, int] = {}
        """decision -> how many of its steps were told"""
        self._carriers: dict[str, tuple[bool, str]] = {}

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
        """Tells listeners of a stored decision, which has an object from now on. Never waits."""
        self._objects.add(decision)
        self._news.set()
        self.steps(decision.id, decision.victim, [(step.step, step.result) for step in decision.steps])
        self._steps.pop(decision.id, None)
        self._emit("DecisionMade", [decision.id, decision.domain, decision.victim, decision.outcome])
        self._changed("State")

    def decision_undone(self, decision: Decision) -> None:
        """Tells listeners that what steps of a decision did was taken back. Never waits."""
        if self._connection is not None and self.connected:
            self._objects.undone(self._connection, decision)

    def pressure(self, domain: str, begins: bool) -> None:
        """Tells listeners that a domain is short of memory, or no longer. Never waits."""
        self._emit("PressureBegan" if begins else "PressureEnded", [domain])
        self._changed("State")

    def steps(self, decision: str, unit: str, steps: Sequence[tuple[str, str]]) -> None:
        """Tells listeners of the steps of a decision that are over, each once. Never waits."""
        told = self._steps.get(decision, 0)
        for step, result in steps[told:]:
            self._emit("StepTaken", [decision, unit, step, result])
        if len(steps) > told:
            self._steps[decision] = len(steps)
        while len(self._steps) > STEPS_KEPT:
            del self._steps[next(iter(self._steps))]

    def warn(self, decision: str, unit: str, domain: str, deadline_usec: int) -> bool:
        """Tells everybody that a unit is asked to give memory back; False if nobody could be told. Never waits."""
        return self._emit("Warning", [decision, unit, domain, deadline_usec])

    def carriers_changed(self) -> None:
        """As `state_changed`, for those who find out where nothing is awaited."""
        self._changed("State", "Carriers")
        self._tell_of_carriers()

    async def state_changed(self) -> None:
        """Tells listeners that State and Carriers are other ones, and what became of the units. Never waits."""
        self._changed("State", "Carriers")
        self._tell_of_carriers()
        self._news.set()

    async def configuration_changed(self) -> None:
        """Tells listeners that the configuration was read again. Never waits."""
        self._changed(*CHANGING_PROPERTIES)
        self._news.set()

    def _tell_of_carriers(self) -> None:
        before = self._carriers
        try:
            self._carriers = {
                str(carrier["Name"]): (bool(carrier["Active"]), str(carrier.get("Detail", "")))
                for carrier in self._backend.carriers()
            }
        except Exception:
            LOGGER.exception("the carriers cannot be told")
            return
        for name, (active, detail) in self._carriers.items():
            if name in before and before[name][0] != active:
                self._emit("CarrierChanged", [name, active, detail])

    def _emit(self, name: str, arguments: list[Any]) -> bool:
        """A signal of the manager. False if nobody could be told."""
        if self._connection is None or not self.connected:
            return False
        signal = MANAGER.signal(name)
        values = [
            text(value) if argument.signature == "s" else unsigned(value) if argument.signature == "t" else value
            for argument, value in zip(signal.arguments, arguments, strict=True)
        ]
        return self._connection.emit(OBJECT_PATH, MANAGER.name, signal.name, signal.signature, values)

    def _changed(self, *names: str) -> None:
        if self._connection is None or not self.connected:
            return
        if not changed(self._connection, OBJECT_PATH, self._manager, names):
            self._stale = True

    async def _tell_news(self, connection: Connection) -> None:
        """Objects that come, go and change, for as long as the connection lasts."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._objects.tell(connection)
            # What the bus did not take is told when it takes messages again.

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
            await self._objects.load()
            (answer,) = await connection.call_bus("RequestName", "su", [BUS_NAME, NAME_DO_NOT_QUEUE])
            if answer not in NAME_IS_OURS:
                raise BusError(f"the name {BUS_NAME} is owned by another process; is a second daemon running?")
            self._connection = connection
            self._authority = Authority(connection)
            self._ready.set()
            self._tried.set()
            self._last_error = ""
            LOGGER.info("serving %s as %s", BUS_NAME, connection.unique_name)
            self._objects.forget()
            self._tell_of_carriers()
            teller = asyncio.get_running_loop().create_task(self._tell_news(connection), name="bus news")
            try:
                await connection.wait_closed()
            finally:
                teller.cancel()
            self._report("the message bus closed the connection")
            return True
        finally:
            self._ready.clear()
            self._connection = self._authority = None
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
        self._news.set()
        if self._stale:
            self._stale = False
            LOGGER.warning("the message bus was stuck; %d signals were dropped", self.signals_dropped)
            self._changed(*CHANGING_PROPERTIES)

    async def _check_root(self, caller: Caller, what: str) -> None:
        if self._authority is None:
            raise BusError("the message bus closed the connection")
        await self._authority.check_root(caller, what)

    async def _authorize(self, caller: Caller, action: str, what: str) -> int:
        if self._authority is None:
            raise BusError("the message bus closed the connection")
        return await self._authority.check(caller, action, what)
