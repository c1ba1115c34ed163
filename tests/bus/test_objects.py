# SPDX-License-Identifier: LGPL-2.1-or-later
"""The objects of units and decisions: found, listed, read and followed, by busctl and by a client that listens."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

import pytest

from oomslice.bus.interface import DECISION_SIGNATURES, MANAGER, OBJECT_MANAGER, PROPERTIES
from oomslice.bus.members import (
    DECISION,
    DECISIONS_RECENT,
    SLICE,
    SLICE_FIGURES,
    decision_path,
    escaped,
    property_name,
    slice_path,
)
from oomslice.bus.message import Incoming
from oomslice.bus.service import BusService
from oomslice.bus.transport import Connection
from oomslice.carriers.model import CarrierState
from oomslice.decisions.record import Decision
from tests.bus import rig
from tests.bus.rig import FixedBackend, PrivateBus, busctl

pytestmark = pytest.mark.bus
BATCH = "/org/oomslice1/slice/batch_2eslice"
SECOND = "/org/oomslice1/decision/_300000000000000aa_2d2"
HERE = ("org.oomslice1", "/org/oomslice1")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("ssh.service", "ssh_2eservice"),
        ("-.slice", "_2d_2eslice"),
        ("5a-1", "_35a_2d1"),
        ("", "_"),
        ("é", "_c3_a9"),
        ("a\udcff", "a_ff"),
        ("user@1000.service/app.slice", "user_401000_2eservice_2fapp_2eslice"),
    ],
)
def test_paths_are_escaped_as_systemd_does_it(text: str, part: str) -> None:
    assert escaped(text) == part


class Listener:
    """A client that hears all signals of the service; `seen` are (path, member, body)."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.seen: list[tuple[str, str, list[Any]]] = []
        connection.on_signal = self._heard

    def _heard(self, signal: Incoming) -> None:
        if signal.path.startswith("/org/oomslice1"):
            self.seen.append((signal.path, signal.member, signal.body()))

    async def until(self, member: str, count: int = 1) -> list[tuple[str, str, list[Any]]]:
        """All of this member, once there are so many."""
        async with asyncio.timeout(20):
            while len(found := [item for item in self.seen if item[1] == member]) < count:
                await asyncio.sleep(0.01)
        return found

    async def call(self, path: str, interface: str, member: str, signature: str = "", *arguments: Any) -> list[Any]:
        return await self.connection.call("org.oomslice1", path, interface, member, signature, arguments)


def run(bus: PrivateBus, backend: FixedBackend, body: Callable[[BusService, Listener], Awaitable[None]]) -> None:
    async def main() -> None:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        connection = await Connection.open(bus.address, maximum_message=32 << 20)
        await connection.call_bus("AddMatch", "s", ["type='signal',path_namespace='/org/oomslice1'"])
        try:
            await body(service, Listener(connection))
        finally:
            connection.close()
            await service.stop()

    asyncio.run(main())


def test_busctl_shows_the_tree_and_every_property_of_its_leaves(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService, listener: Listener) -> None:
        code, output, errors = await busctl(bus.address, "tree", "--list", "org.oomslice1")
        assert code == 0, errors
        assert {BATCH, SECOND, "/org/oomslice1/slice/_2d_2eslice"} <= set(output.split())
        for path, interface in ((BATCH, SLICE), (SECOND, DECISION)):
            code, output, errors = await busctl(bus.address, "introspect", "org.oomslice1", path, interface.name)
            assert code == 0, errors
            rows = {line.split()[0]: line.split() for line in output.splitlines() if line.startswith(".")}
            assert set(rows) == {f".{item.name}" for item in interface.properties}
            for item in interface.properties:
                assert rows[f".{item.name}"][1:3] == ["property", item.signature]
                flag = {"true": "emits-change", "const": "const", "false": "-"}[item.emits_changed]
                assert rows[f".{item.name}"][-1] == flag, item.name

    run(bus, backend, body)


def test_introspection_lists_what_is_below(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService, listener: Listener) -> None:
        async def children(path: str) -> list[str | None]:
            (xml,) = await listener.call(path, "org.freedesktop.DBus.Introspectable", "Introspect")
            return [node.get("name") for node in ElementTree.fromstring(xml).findall("node")]

        assert await children("/") == ["org"]
        assert await children("/org") == ["freedesktop", "oomslice1"]
        assert await children("/org/oomslice1") == ["decision", "slice"]
        assert await children("/org/oomslice1/slice") == ["_2d_2eslice", "batch_2eslice"]
        assert len(await children("/org/oomslice1/decision")) == 2
        assert await children(BATCH) == []

    run(bus, backend, body)


def test_busctl_finds_its_way_also_where_there_is_nothing_yet(bus: PrivateBus, backend: FixedBackend) -> None:
    backend.stored, backend.known = [], {}

    async def body(service: BusService, listener: Listener) -> None:
        code, output, errors = await busctl(bus.address, "tree", "--list", "org.oomslice1")
        assert code == 0 and not errors, errors
        assert {"/org/oomslice1/slice", "/org/oomslice1/decision"} <= set(output.split())

    run(bus, backend, body)


def test_figures_are_of_now_and_the_rest_of_the_plan(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService, listener: Listener) -> None:
        (values,) = await listener.call(BATCH, PROPERTIES.name, "GetAll", "s", SLICE.name)
        assert set(values) == {item.name for item in SLICE.properties}
        assert (values["Name"], values["Priority"], values["MemoryReclaimable"]) == ("batch.slice", -200, 2048)
        assert await listener.call(BATCH, PROPERTIES.name, "Get", "ss", SLICE.name, "Refaults") == [7]
        code, output, _ = await busctl(
            bus.address, "--json=short", "get-property", "org.oomslice1", BATCH, SLICE.name, "CgroupId", "MemoryCurrent"
        )
        assert code == 0
        assert [json.loads(line) for line in output.splitlines()] == [
            {"type": "t", "data": 1234},
            {"type": "t", "data": 4096},
        ]

    run(bus, backend, body)


def test_a_decision_says_the_same_as_its_record(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService, listener: Listener) -> None:
        (values,) = await listener.call(SECOND, PROPERTIES.name, "GetAll", "s", DECISION.name)
        (record,) = await listener.call(*HERE[1:], MANAGER.name, "GetDecision", "s", "00000000000000aa-2")
        assert values == {property_name(name): value for name, value in record.items()}
        assert set(DECISION_SIGNATURES) == {field.name for field in fields(Decision)}

    run(bus, backend, body)


def test_managed_objects_are_all_that_are_below_with_what_does_not_change_all_the_time(
    bus: PrivateBus, backend: FixedBackend
) -> None:
    async def body(service: BusService, listener: Listener) -> None:
        for _ in range(2):
            (objects,) = await listener.call(HERE[1], OBJECT_MANAGER.name, "GetManagedObjects")
            assert list(objects) == [
                slice_path("-.slice"),
                BATCH,
                decision_path("00000000000000aa-1"),
                SECOND,
            ]
            assert set(objects[BATCH]) == {SLICE.name}
            assert set(objects[BATCH][SLICE.name]) == {item.name for item in SLICE.properties} - set(SLICE_FIGURES)
            (values,) = await listener.call(SECOND, PROPERTIES.name, "GetAll", "s", DECISION.name)
            assert objects[SECOND] == {DECISION.name: values}
        code, output, errors = await busctl(bus.address, "call", *HERE, OBJECT_MANAGER.name, "GetManagedObjects")
        assert code == 0 and output.startswith("a{oa{sa{sv}}} 4 "), errors

    run(bus, backend, body)


def test_units_that_come_change_and_go_are_told_and_nothing_else(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService, listener: Listener) -> None:
        root = backend.known["-.slice"]
        backend.known = {
            "-.slice": root,
            "batch.slice": rig.unit("batch.slice", Priority=5),
            "new.service": rig.unit("new.service"),
        }
        await service.state_changed()
        await listener.until("InterfacesAdded")
        backend.known = {"-.slice": rig.unit("-.slice"), "batch.slice": backend.known["batch.slice"]}
        await service.state_changed()
        await listener.until("InterfacesRemoved")
        told = [item for item in listener.seen if item[0] != HERE[1] or item[1] != "PropertiesChanged"]
        assert [item[:2] for item in told] == [
            (BATCH, "PropertiesChanged"),
            (HERE[1], "InterfacesAdded"),
            (HERE[1], "InterfacesRemoved"),
        ]
        assert told[0][2] == [SLICE.name, {"Priority": 5}, []], "only what is another"
        assert told[1][2][0] == slice_path("new.service") and told[1][2][1][SLICE.name]["Name"] == "new.service"
        assert told[2][2] == [slice_path("new.service"), [SLICE.name]]
        (objects,) = await listener.call(HERE[1], OBJECT_MANAGER.name, "GetManagedObjects")
        assert objects[BATCH][SLICE.name]["Priority"] == 5 and slice_path("new.service") not in objects

    run(bus, backend, body)


def test_decisions_come_with_all_they_are_and_the_oldest_goes(bus: PrivateBus, backend: FixedBackend) -> None:
    backend.stored = [rig.decision(number) for number in range(DECISIONS_RECENT + 10)]

    async def body(service: BusService, listener: Listener) -> None:
        made = rig.decision(500)
        backend.stored.append(made)
        await service.decision_made(made)
        ((_, _, added),) = await listener.until("InterfacesAdded")
        assert added[0] == decision_path(made.id) and added[1][DECISION.name]["Victim"] == "hog500.service"
        ((_, _, removed),) = await listener.until("InterfacesRemoved")
        assert removed == [decision_path(rig.decision(10).id), [DECISION.name]]
        (objects,) = await listener.call(HERE[1], OBJECT_MANAGER.name, "GetManagedObjects")
        assert len([path for path in objects if "/decision/" in path]) == DECISIONS_RECENT
        await service.decision_made(made)
        undone = dataclasses.replace(made, steps=(dataclasses.replace(made.steps[0], undone_usec=123),))
        backend.stored[-1] = undone
        service.decision_undone(undone)
        changed = [item for item in await listener.until("PropertiesChanged", 3) if item[0] == decision_path(made.id)]
        assert changed[0][2][0] == DECISION.name and changed[0][2][1]["Steps"][0]["undone_usec"] == 123
        assert len(await listener.until("InterfacesAdded")) == 1, "the same decision twice is one object"

    run(bus, backend, body)


def test_a_carrier_that_stops_is_told(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService, listener: Listener) -> None:
        await service.state_changed()
        backend.carrier_states = [CarrierState("core", False, True, "not running"), backend.carrier_states[1]]
        await service.state_changed()
        ((path, _, arguments),) = await listener.until("CarrierChanged")
        assert (path, arguments) == (HERE[1], ["core", False, "not running"])

    run(bus, backend, body)


def test_steps_are_told_when_they_are_over_and_each_once(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService, listener: Listener) -> None:
        made = rig.decision(7)
        service.pressure("-.slice", True)
        service.steps(made.id, made.victim, [])
        service.steps(made.id, made.victim, [("freeze", "done")])
        service.steps(made.id, made.victim, [("freeze", "done")])
        await service.decision_made(made)
        service.pressure("-.slice", False)
        await listener.until("PressureEnded")
        told = [(member, *body) for path, member, body in listener.seen if path == HERE[1] and "Prop" not in member]
        assert [item for item in told if item[0] != "InterfacesAdded"] == [
            ("PressureBegan", "-.slice"),
            ("StepTaken", made.id, "hog7.service", "freeze", "done"),
            ("StepTaken", made.id, "hog7.service", "kill", "done"),
            ("DecisionMade", made.id, "-.slice", "hog7.service", "freed"),
            ("PressureEnded", "-.slice"),
        ]

    run(bus, backend, body)


def test_what_a_frozen_bus_did_not_take_is_told_when_it_thaws(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService, listener: Listener) -> None:
        bus.freeze()
        backend.known = {
            name: rig.unit(name, ControlGroup="/x" * 500) for name in map("u{}.service".format, range(1500))
        }
        await service.state_changed()
        while not service.signals_dropped:
            await asyncio.sleep(0.05)
        bus.thaw()
        added = await listener.until("InterfacesAdded", 1500)
        assert {item[2][0] for item in added} == {slice_path(f"u{number}.service") for number in range(1500)}
        assert len(await listener.until("InterfacesRemoved", 2)) == 2

    run(bus, backend, body)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["get-property", "org.oomslice1", BATCH, SLICE.name, "Nope"], "no property Nope"),
        (["get-property", "org.oomslice1", BATCH, DECISION.name, "Id"], "no interface"),
        (["get-property", "org.oomslice1", BATCH + "x", SLICE.name, "Name"], "no object at"),
        (["get-property", "org.oomslice1", BATCH + "/x", SLICE.name, "Name"], "no object at"),
        (["set-property", "org.oomslice1", BATCH, SLICE.name, "Priority", "i", "1"], "read-only"),
        (["call", "org.oomslice1", BATCH, OBJECT_MANAGER.name, "GetManagedObjects"], "no interface"),
        (["call", "org.oomslice1", SECOND, SLICE.name, "Name"], "no interface"),
        (["introspect", "org.oomslice1", "/org/oomslice1/decision/nope"], "no object at"),
    ],
)
def test_errors_are_sentences(bus: PrivateBus, backend: FixedBackend, arguments: list[str], sentence: str) -> None:
    async def body(service: BusService, listener: Listener) -> None:
        code, _, errors = await busctl(bus.address, *arguments)
        assert code != 0 and sentence in errors, errors

    run(bus, backend, body)


def test_everybody_may_read_the_objects(bus: PrivateBus, backend: FixedBackend) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")

    async def body(service: BusService, listener: Listener) -> None:
        for arguments in (
            ("call", *HERE, OBJECT_MANAGER.name, "GetManagedObjects"),
            ("get-property", "org.oomslice1", BATCH, SLICE.name, "Priority"),
            ("introspect", "org.oomslice1", SECOND),
        ):
            code, output, errors = await busctl(bus.address, *arguments, uid=65534)
            assert code == 0 and output, errors

    run(bus, backend, body)


def test_a_thousand_units_hold_up_nobody(bus: PrivateBus, backend: FixedBackend) -> None:
    """The loop has its turn all the time, and the second question costs next to nothing: counted, not timed."""
    backend.known = {name: rig.unit(name) for name in map("unit-{}.service".format, range(1000))}
    described = 0
    original = backend.described

    def counted(unit: object) -> Any:
        nonlocal described
        described += 1
        return original(unit)

    backend.described = counted  # type: ignore[method-assign]

    async def body(service: BusService, listener: Listener) -> None:
        pings = 0
        asked = asyncio.ensure_future(listener.call(HERE[1], OBJECT_MANAGER.name, "GetManagedObjects"))
        other = await Connection.open(bus.address)
        while not asked.done():
            await other.call("org.oomslice1", HERE[1], "org.freedesktop.DBus.Peer", "Ping")
            pings += 1
        assert len((await asked)[0]) == 1002 and described == 1000
        assert pings > 10
        begin = time.perf_counter()
        for _ in range(3):
            assert len((await listener.call(HERE[1], OBJECT_MANAGER.name, "GetManagedObjects"))[0]) == 1002
        print(f"GetManagedObjects of 1000 units: {(time.perf_counter() - begin) / 3 * 1000:.0f} ms with decoding")
        assert described == 1000
        # A plan that says the same of all but one.
        backend.known = {
            **{name: rig.unit(name) for name in backend.known},
            "unit-5.service": rig.unit("x", Priority=1),
        }
        await service.state_changed()
        await listener.until("PropertiesChanged", 2)
        assert described <= 1004
        other.close()

    run(bus, backend, body)
