# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every member that is on the bus, by the tools that people have: called, read and heard by busctl and by gdbus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from oomslice.bus.interface import (
    BUS_NAME,
    INTROSPECTABLE,
    MANAGER,
    OBJECT_MANAGER,
    OBJECT_PATH,
    PEER,
    PROPERTIES,
    Interface,
)
from oomslice.bus.log_control import LOG_CONTROL
from oomslice.bus.log_control import PATH as LOG_PATH
from oomslice.bus.members import DECISION, SLICE, decision_path, slice_path
from oomslice.bus.service import BusService
from oomslice.carriers.model import CarrierState
from tests.bus import rig
from tests.bus.rig import FixedBackend, PrivateBus, busctl, ran

pytestmark = [pytest.mark.bus, pytest.mark.skipif(os.geteuid() != 0, reason="only root may act, and that is tried too")]
ID = "00000000000000aa-1"
OBJECTS = (OBJECT_PATH, slice_path("batch.slice"), decision_path(ID), LOG_PATH)
"""One of each kind."""


class Sample(NamedTuple):
    """How a method is called, and part of what is answered; empty: there is no answer."""

    busctl: tuple[str, ...] = ()
    """arguments as busctl(1) has them, after the signature"""
    gdbus: tuple[str, ...] = ()
    """the same as GVariant text"""
    said: str = ""
    """by busctl"""
    told: str = ""
    """by gdbus"""
    path: str = OBJECT_PATH


METHODS: Mapping[tuple[str, str], Sample] = {
    (MANAGER.name, "ListSlices"): Sample((), (), '"batch.slice" "/batch.slice" -200', "'/batch.slice', -200"),
    (MANAGER.name, "GetSlice"): Sample(("batch.slice",), ("batch.slice",), '"priority" i -200', "'priority': <-200>"),
    (MANAGER.name, "ListDecisions"): Sample(("0", "1"), ("0", "1"), f'1 "{ID[:-1]}2"', f"'{ID[:-1]}2', "),
    (MANAGER.name, "GetDecision"): Sample((ID,), (ID,), '"victim" s "hog1.service"', "'victim': <'hog1.service'>"),
    (MANAGER.name, "GetHistory"): Sample((ID,), (ID,), '"a.service" 5', "'a.service', uint64 5)"),
    (MANAGER.name, "GetStatistics"): Sample(
        (), (), '"hog.service" "kill" "core" "freed" 3', "'core', 'freed', uint64 3)"
    ),
    (MANAGER.name, "Explain"): Sample((), (), '"smallest priority"', "'smallest priority')"),
    (MANAGER.name, "Simulate"): Sample(
        ("1", "batch.slice", "1", "Priority", "s", "-5"),
        ("{'batch.slice': {'Priority': <'-5'>}}",),
        '"smallest priority"',
        "'smallest priority')",
    ),
    (MANAGER.name, "SetPriority"): Sample(
        ("batch.slice", "5", "true"), ("batch.slice", "5", "true"), "batch.slice.d/", "/batch.slice.d/"
    ),
    (MANAGER.name, "SetProperties"): Sample(
        ("batch.slice", "1", "Protect", "s", "yes", "false"),
        ("batch.slice", "{'Protect': <'yes'>}", "false"),
        "batch.slice.d/",
        "/batch.slice.d/",
    ),
    (MANAGER.name, "Act"): Sample(
        ("batch.slice", "freeze"), ("batch.slice", "freeze"), f'"{ID[:-1]}2"', f"('{ID[:-1]}2',)"
    ),
    (MANAGER.name, "Release"): Sample(("batch.slice",), ("batch.slice",)),
    (MANAGER.name, "Reload"): Sample(),
    (OBJECT_MANAGER.name, "GetManagedObjects"): Sample((), (), f'"{OBJECTS[1]}" 1', f"'{OBJECTS[2]}': {{"),
    (PROPERTIES.name, "Get"): Sample((MANAGER.name, "Version"), (MANAGER.name, "Version"), 's "1.2.3"', "(<'1.2.3'>,)"),
    (PROPERTIES.name, "GetAll"): Sample(
        (SLICE.name,), (SLICE.name,), '"Priority" i -200', "'Priority': <-200>", OBJECTS[1]
    ),
    (PROPERTIES.name, "Set"): Sample(
        (LOG_CONTROL.name, "LogLevel", "s", "err"), (LOG_CONTROL.name, "LogLevel", "<'err'>"), path=LOG_PATH
    ),
    (INTROSPECTABLE.name, "Introspect"): Sample((), (), "org.oomslice1.Manager", "org.oomslice1.Manager"),
    (PEER.name, "Ping"): Sample(),
    (PEER.name, "GetMachineId"): Sample((), (), 's "', "('"),
}
ASKED = [
    ("simulate", {"batch.slice": {"Priority": "-5"}}),
    ("batch.slice", {"Priority": "5"}, True, 0),
    ("batch.slice", {"Protect": "yes"}, False, 0),
    ("batch.slice", "freeze", 0),
    ("batch.slice", 0),
]
"""What the calls of METHODS ask the backend for, in their order."""

SIGNALS: Mapping[tuple[str, str], str] = {
    (MANAGER.name, "DecisionMade"): f"('{ID[:-1]}5', '-.slice', 'hog5.service', 'freed')",
    (MANAGER.name, "Warning"): f"('{ID}', 'hog.service', 'batch.slice', uint64 7)",
    (MANAGER.name, "StepTaken"): "('aa-9', 'hog.service', 'freeze', 'done')",
    (MANAGER.name, "PressureBegan"): "('batch.slice',)",
    (MANAGER.name, "PressureEnded"): "('batch.slice',)",
    (MANAGER.name, "CarrierChanged"): "('core', false, 'not running')",
    (OBJECT_MANAGER.name, "InterfacesAdded"): f"(objectpath '{decision_path(ID[:-1] + '5')}', {{",
    (OBJECT_MANAGER.name, "InterfacesRemoved"): f"(objectpath '{slice_path('-.slice')}', ['{SLICE.name}'])",
    (PROPERTIES.name, "PropertiesChanged"): f"('{MANAGER.name}', ",
}
"""What gdbus prints of each signal when `happen` has run."""


async def happen(service: BusService, backend: FixedBackend) -> None:
    """Everything that is told."""
    await service.state_changed()
    backend.carrier_states[0] = CarrierState("core", False, True, "not running")
    backend.stored.append(rig.decision(5))
    await service.decision_made(rig.decision(5))
    assert service.warn(ID, "hog.service", "batch.slice", 7)
    service.steps("aa-9", "hog.service", [("freeze", "done")])
    service.pressure("batch.slice", True)
    service.pressure("batch.slice", False)
    backend.known = {"batch.slice": backend.known["batch.slice"]}
    await service.state_changed()


@pytest.fixture(autouse=True)
def tools_are_there() -> Iterator[None]:
    if shutil.which("gdbus") is None:
        pytest.skip("gdbus is missing: apt install libglib2.0-bin")
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


def run(bus: PrivateBus, backend: FixedBackend, body: Callable[[BusService], Any]) -> None:
    async def main() -> None:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        try:
            await body(service)
        finally:
            await service.stop()

    asyncio.run(main())


async def gdbus(address: str, path: str, method: str, *arguments: str) -> tuple[int, str, str]:
    """gdbus call: exit status, output, errors."""
    where = ("--address", address, "--dest", BUS_NAME, "--object-path", path)
    return await ran("gdbus", "call", *where, "--method", method, "--", *arguments)


async def introspected(address: str) -> Mapping[str, ElementTree.Element]:
    """Every interface that an object of ours has, by what the service says of itself."""
    found: dict[str, ElementTree.Element] = {}
    for path in OBJECTS:
        code, output, errors = await busctl(address, "--xml-interface", "introspect", BUS_NAME, path)
        assert code == 0, errors
        found |= {str(item.get("name")): item for item in ElementTree.fromstring(output).findall("interface")}
    return found


def of(interfaces: Mapping[str, ElementTree.Element], kind: str) -> set[tuple[str, str]]:
    """All members of that kind, with their interfaces."""
    return {(name, str(item.get("name"))) for name, xml in interfaces.items() for item in xml.findall(kind)}


def signature(interfaces: Mapping[str, ElementTree.Element], interface: str, member: str, kind: str = "method") -> str:
    """The types that a method takes, or that a signal has."""
    (found,) = (item for item in interfaces[interface].findall(kind) if item.get("name") == member)
    return "".join(str(item.get("type")) for item in found.findall("arg") if item.get("direction") != "out")


def test_busctl_and_gdbus_call_every_method(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService) -> None:
        interfaces = await introspected(bus.address)
        assert set(METHODS) == of(interfaces, "method"), "a sample call for each method, and for no other"
        for (interface, method), sample in METHODS.items():
            types = signature(interfaces, interface, method)
            words = (BUS_NAME, sample.path, interface, method, *((types, *sample.busctl) if types else ()))
            code, output, errors = await busctl(bus.address, "call", "--", *words)
            assert code == 0 and sample.said in output, f"busctl {method}: {output}{errors}"
            assert bool(output.strip()) == bool(sample.said), f"busctl {method}: {output}"
        assert (backend.asked, backend.reloads) == (ASKED, 1)
        for (interface, method), sample in METHODS.items():
            code, output, errors = await gdbus(bus.address, sample.path, f"{interface}.{method}", *sample.gdbus)
            assert code == 0 and sample.told in output, f"gdbus {method}: {output}{errors}"
            assert (output.strip() == "()") == (sample.told == ""), f"gdbus {method}: {output}"
        assert (backend.asked, backend.reloads) == (ASKED * 2, 2)

    run(bus, backend, body)


def as_gvariant(type_: str, data: Any) -> str | None:
    """Simple values as gdbus prints them; None for others."""
    if type_ == "s" and isinstance(data, str) and not re.search(r"['\\]", data):
        return f"'{data}'"
    if type_ == "b":
        return str(data).lower()
    return {"i": f"{data}", "u": f"uint32 {data}", "t": f"uint64 {data}", "d": f"{data}"}.get(type_)


@pytest.mark.parametrize(
    ("path", "interface"),
    list(zip(OBJECTS, (MANAGER, SLICE, DECISION, LOG_CONTROL), strict=True)),
    ids=lambda item: item.name if isinstance(item, Interface) else "",
)
def test_busctl_and_gdbus_read_the_same_of_every_property(
    bus: PrivateBus, backend: FixedBackend, path: str, interface: Interface
) -> None:
    async def body(service: BusService) -> None:
        interfaces = await introspected(bus.address)
        there = {
            str(item.get("name")): str(item.get("type")) for item in interfaces[interface.name].findall("property")
        }
        assert there == {item.name: item.signature for item in interface.properties}
        code, output, errors = await busctl(
            bus.address, "--json=short", "get-property", BUS_NAME, path, interface.name, *there
        )
        assert code == 0, errors
        read = [json.loads(line) for line in output.splitlines()]
        assert [value["type"] for value in read] == list(there.values())
        for name, value in zip(there, read, strict=True):
            code, output, errors = await gdbus(bus.address, path, f"{PROPERTIES.name}.Get", interface.name, name)
            assert code == 0, f"{name}: {errors}"
            printed = re.fullmatch(r"\(<(.*)>,\)\n", output)
            assert printed, output
            expected = as_gvariant(value["type"], value["data"])
            if expected is None:
                assert printed[1].startswith(("[", "{", "@")), output
            else:
                assert printed[1] == expected, name

    run(bus, backend, body)


def test_no_interface_has_properties_that_are_not_read_here(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService) -> None:
        owners = {interface for interface, _ in of(await introspected(bus.address), "property")}
        assert owners == {MANAGER.name, SLICE.name, DECISION.name, LOG_CONTROL.name}

    run(bus, backend, body)


@contextlib.asynccontextmanager
async def listening(service: BusService, *command: str) -> AsyncIterator[asyncio.StreamReader]:
    """The output of a monitor, which listens already."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        limit=1 << 20,
    )
    assert process.stdout
    try:
        async with asyncio.timeout(60):
            # None says when it has begun: it has, once it shows a signal that is sent until it does.
            first = asyncio.ensure_future(process.stdout.readuntil(b"probe.slice"))
            while not first.done():
                service.pressure("probe.slice", True)
                await asyncio.wait([first], timeout=0.2)
            await first
            await process.stdout.readline()
            yield process.stdout
    finally:
        process.kill()
        await process.communicate()


async def listed(address: str) -> None:
    """Objects are told of only to who could have asked for them: so somebody asks."""
    words = (BUS_NAME, OBJECT_PATH, OBJECT_MANAGER.name, "GetManagedObjects")
    code, _, errors = await busctl(address, "call", *words)
    assert code == 0, errors


def test_gdbus_hears_every_signal(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService) -> None:
        assert set(SIGNALS) == of(await introspected(bus.address), "signal"), "a sample for each signal"
        await listed(bus.address)
        missing = {f": {interface}.{name} {said}" for (interface, name), said in SIGNALS.items()}
        command = ("gdbus", "monitor", "--address", bus.address, "--dest", BUS_NAME)
        async with listening(service, *command) as lines:
            await happen(service, backend)
            while missing:
                line = (await lines.readline()).decode()
                assert line, f"gdbus ended and had not heard {missing}"
                missing -= {part for part in missing if part in line}

    run(bus, backend, body)


def test_busctl_hears_every_signal_with_the_types_that_are_announced(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService) -> None:
        missing = of(interfaces := await introspected(bus.address), "signal")
        await listed(bus.address)
        command = ("busctl", f"--address={bus.address}", "--json=short", "monitor", BUS_NAME)
        async with listening(service, *command) as lines:
            await happen(service, backend)
            while missing:
                heard = json.loads(await lines.readline())
                if heard["type"] == "signal" and (member := (heard["interface"], heard["member"])) in missing:
                    assert heard["payload"]["type"] == signature(interfaces, *member, kind="signal")
                    missing.discard(member)

    run(bus, backend, body)
