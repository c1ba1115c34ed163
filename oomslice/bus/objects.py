# SPDX-License-Identifier: LGPL-2.1-or-later
"""The objects below the manager: one for each unit of the plan, one for each recent decision; and who is told of them.

None of them is kept in any form but what the daemon has anyway: properties are made when they are asked for, and the
encoded form of an object, which GetManagedObjects() and InterfacesAdded() both consist of, is kept until it changes.
Listeners are told by comparing what they were told last with what is: a frozen bus costs them nothing but time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oomslice.bus.authority import Caller
from oomslice.bus.backend import Backend
from oomslice.bus.dispatch import Facet, changed, readable
from oomslice.bus.interface import OBJECT_MANAGER, OBJECT_PATH, Property
from oomslice.bus.members import (
    DECISION,
    DECISION_PROPERTIES,
    DECISIONS_PATH,
    DECISIONS_RECENT,
    SLICE,
    SLICE_FIGURES,
    SLICES_PATH,
    decision_path,
    escaped,
    slice_path,
)
from oomslice.bus.message import Encoded, array_of, encoded
from oomslice.bus.transport import Connection
from oomslice.bus.values import decision_value, fitting
from oomslice.decisions.record import Decision
from oomslice.errors import NoSuchDecisionError, StoreError

LOGGER = logging.getLogger(__name__)

BURST = 20
"""Signals that are sent until others have their turn."""
ENTRY = "oa{sa{sv}}"
LASTING = tuple(item for item in SLICE.properties if item.name not in SLICE_FIGURES)


class ObjectTree:
    """Implements dispatch.Tree, and tells a connection what came, went and changed."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._encoded: dict[str, Encoded] = {}
        """of decisions"""
        self._made: dict[str, tuple[object, Encoded]] = {}
        """of units, and what each was made from"""
        self._encoding = asyncio.Lock()
        self._names: tuple[object, dict[str, str]] = (None, {})
        """the units as they were when the paths were made, and path -> id"""
        self._units: dict[str, tuple[str, object]] = {}
        """path -> id of the unit and what listeners were told of it"""
        self._decisions: dict[str, str] = {}
        """path -> id, oldest first"""
        self._gone: list[str] = []
        """paths of decisions whose end is still to be told"""
        self._came: list[str] = []

    # What a caller sees

    async def facets(self, path: str) -> Sequence[Facet]:
        """Of the object at this path; none if there is none."""
        above = path.rpartition("/")[0]
        if above == SLICES_PATH:
            unit = self._unit_at(path)
            return (self._slice(unit),) if unit is not None else ()
        if above == DECISIONS_PATH and path in self._decisions:
            try:
                # The store waits for the disk; the loop does not.
                return (_decision(await asyncio.to_thread(self._backend.decision, self._decisions[path])),)
            except NoSuchDecisionError:
                pass
        return ()

    def children(self, path: str) -> Sequence[str] | None:
        """Last parts of the paths right below; none, if there is no such path."""
        match path:
            case "/":
                return (OBJECT_PATH.split("/")[1],)
            case _ if path == OBJECT_PATH:
                return tuple(part.rpartition("/")[2] for part in (DECISIONS_PATH, SLICES_PATH))
            case _ if path == SLICES_PATH:
                return sorted(escaped(id) for id in self._backend.units())
            case _ if path == DECISIONS_PATH:
                return sorted(decision.rpartition("/")[2] for decision in self._decisions)
        return None

    def manager(self) -> Facet:
        """org.freedesktop.DBus.ObjectManager of the object above all these."""
        return Facet(OBJECT_MANAGER, {"GetManagedObjects": self._managed}).complete()

    async def _managed(self, caller: Caller) -> Encoded:
        # Units that nobody asked for before take a while: others have their turn in between, and two who ask at once
        # do not both have them made.
        async with self._encoding:
            entries = []
            for number, id in enumerate(tuple(self._backend.units())):
                if number % BURST == 0:
                    await asyncio.sleep(0)
                entries.append(self._entry_of_unit(id))
            missing = {path: id for path, id in self._decisions.items() if path not in self._encoded}
            if missing:
                self._encoded.update(await asyncio.to_thread(self._entries_of, missing))
        entries += [self._encoded.get(path) for path in self._decisions]
        return array_of([entry for entry in entries if entry is not None])

    # What listeners are told

    def forget(self) -> None:
        """A new connection: whoever listens there asks first, and is told of changes from now on."""
        self._units = {slice_path(id): (id, unit) for id, unit in self._backend.units().items()}
        self._came, self._gone = [], []

    async def load(self) -> None:
        """Takes the recent decisions from the store."""
        try:
            stored = await asyncio.to_thread(self._backend.decisions, 0, DECISIONS_RECENT)
        except StoreError as error:
            LOGGER.warning("there are no objects of earlier decisions: %s", error)
            return
        known = {decision_path(decision.id): decision.id for decision in reversed(stored)}
        self._decisions = {**known, **{path: id for path, id in self._decisions.items() if path not in known}}

    def add(self, decision: Decision) -> None:
        """A decision was made. `tell` says so."""
        path = decision_path(decision.id)
        if path in self._decisions:
            return
        self._decisions[path] = decision.id
        self._encoded[path] = _entry(path, _decision(decision))
        self._came.append(path)
        while len(self._decisions) > DECISIONS_RECENT:
            oldest = next(iter(self._decisions))
            del self._decisions[oldest]
            self._encoded.pop(oldest, None)
            if oldest in self._came:
                self._came.remove(oldest)
            else:
                self._gone.append(oldest)

    def undone(self, connection: Connection, decision: Decision) -> bool:
        """What steps of a decision did was taken back. False if nobody could be told."""
        path = decision_path(decision.id)
        if path not in self._decisions:
            return True
        self._encoded.pop(path, None)
        return path in self._came or changed(connection, path, _decision(decision), ["Steps"])

    async def tell(self, connection: Connection) -> bool:
        """Tells of all that came, went or changed since. False if the bus does not take it: to be called again."""
        for said, emit in enumerate(self._news(connection), 1):
            if not emit():
                return False
            if said % BURST == 0:
                await asyncio.sleep(0)
        return True

    def _news(self, connection: Connection) -> Sequence[Callable[[], bool]]:
        units = {slice_path(id): (id, unit) for id, unit in self._backend.units().items()}
        news: list[Callable[[], bool]] = []
        for path in [path for path in self._units if path not in units]:
            news.append(functools.partial(self._tell_removed, connection, path, SLICE.name))
        for path, (id, unit) in units.items():
            told = self._units.get(path)
            if told is None or told[1] != unit:
                news.append(functools.partial(self._tell_unit, connection, path, id))
            else:
                # The same, and the older one need not be kept.
                self._units[path] = (id, unit)
        news += [functools.partial(self._tell_removed, connection, path, DECISION.name) for path in self._gone]
        news += [functools.partial(self._tell_decision, connection, path) for path in self._came]
        return news

    def _tell_unit(self, connection: Connection, path: str, id: str) -> bool:
        unit, told = self._backend.units().get(id), self._units.get(path)
        if unit is None:
            return True  # gone again: the next round says so
        if told is None:
            entry = self._entry_of_unit(id)
            if entry is not None and not _tell_added(connection, entry):
                return False
        else:
            before, now = self._backend.described(told[1]), self._backend.described(unit)
            names = [item.name for item in LASTING if before.get(item.name) != now.get(item.name)]
            if names and not changed(connection, path, self._slice(unit), names):
                return False
        self._units[path] = (id, unit)
        return True

    def _tell_decision(self, connection: Connection, path: str) -> bool:
        if path in self._encoded and not _tell_added(connection, self._encoded[path]):
            return False
        if path in self._came:
            self._came.remove(path)
        return True

    def _tell_removed(self, connection: Connection, path: str, interface: str) -> bool:
        signal = OBJECT_MANAGER.signal("InterfacesRemoved")
        told = connection.emit(OBJECT_PATH, OBJECT_MANAGER.name, signal.name, signal.signature, [path, [interface]])
        if told:
            self._units.pop(path, None)
            self._made.pop(path, None)
            if path in self._gone:
                self._gone.remove(path)
        return told

    # How objects are made

    def _unit_at(self, path: str) -> object | None:
        units = self._backend.units()
        if self._names[0] is not units:
            self._names = (units, {slice_path(id): id for id in units})
        id = self._names[1].get(path)
        return None if id is None else units[id]

    def _slice(self, unit: object) -> Facet:
        values = self._backend.described(unit)
        getters: dict[str, Callable[[], Any]] = {
            item.name: functools.partial(_lasting, item, values) for item in LASTING
        }
        # One look at its files for all of them.
        figures = functools.cache(functools.partial(self._backend.figures, unit))
        getters |= {name: functools.partial(_figure, figures, name) for name in SLICE_FIGURES}
        return Facet(SLICE, getters=getters)

    def _entry_of_unit(self, id: str) -> Encoded | None:
        unit, path = self._backend.units().get(id), slice_path(id)
        if unit is None:
            return None
        made = self._made.get(path)
        if made is None or made[0] is not unit:
            if made is not None and made[0] == unit:
                made = (unit, made[1])
            else:
                made = (unit, _entry(path, self._slice(unit), LASTING))
            self._made[path] = made
        return made[1]

    def _entries_of(self, decisions: dict[str, str]) -> dict[str, Encoded]:
        entries = {}
        for path, id in decisions.items():
            with contextlib.suppress(NoSuchDecisionError):
                entries[path] = _entry(path, _decision(self._backend.decision(id)))
        return entries


def _lasting(item: Property, values: Mapping[str, Any]) -> Any:
    return fitting(item.signature, values[item.name])


def _figure(figures: Callable[[], Mapping[str, int]], name: str) -> Any:
    return fitting("t", figures()[name])


def _decision(decision: Decision) -> Facet:
    return Facet(
        DECISION,
        getters={
            name: functools.partial(decision_value, decision, field) for name, field in DECISION_PROPERTIES.items()
        },
    )


def _entry(path: str, facet: Facet, properties: Sequence[Property] = ()) -> Encoded:
    """An object as InterfacesAdded() carries it, and GetManagedObjects() one after the other."""
    values = readable(facet, properties or facet.interface.properties)
    return encoded(ENTRY, [path, {facet.interface.name: values}])


def _tell_added(connection: Connection, entry: Encoded) -> bool:
    signal = OBJECT_MANAGER.signal("InterfacesAdded")
    return connection.emit(OBJECT_PATH, OBJECT_MANAGER.name, signal.name, signal.signature, entry)
