# SPDX-License-Identifier: LGPL-2.1-or-later
"""What busctl sees of org.oomslice1: introspection, methods, properties, signals, errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import fields
from typing import Any

import pytest

from oomslice.bus.interface import DECISION_SIGNATURES, MANAGER
from oomslice.bus.service import BusService
from oomslice.carriers.model import CarrierState
from oomslice.decisions.record import Decision, StepTaken
from oomslice.settings.model import Problem, Source
from tests.bus import rig
from tests.bus.rig import FixedBackend, PrivateBus, busctl, call, get

pytestmark = pytest.mark.bus
NOBODY = 65534


@contextlib.asynccontextmanager
async def serving(bus: PrivateBus, backend: FixedBackend) -> AsyncIterator[BusService]:
    service = BusService(backend, address=bus.address)
    assert await service.start()
    try:
        yield service
    finally:
        await service.stop()


def run(bus: PrivateBus, backend: FixedBackend, body: Callable[[BusService], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(bus, backend) as service:
            await body(service)

    asyncio.run(main())


def run_call(bus: PrivateBus, backend: FixedBackend, method: str, *arguments: str) -> Any:
    results = []

    async def body(service: BusService) -> None:
        results.append(await call(bus.address, method, *arguments))

    run(bus, backend, body)
    return results[0]


def run_error(bus: PrivateBus, backend: FixedBackend, *arguments: str) -> str:
    results = []

    async def body(service: BusService) -> None:
        code, _, errors = await busctl(bus.address, *arguments)
        assert code != 0
        results.append(errors)

    run(bus, backend, body)
    return results[0]


def test_introspect_shows_every_member_with_argument_names_and_types(bus: PrivateBus, backend: FixedBackend) -> None:
    seen: list[str] = []

    async def body(service: BusService) -> None:
        for options in (["--xml-interface", "introspect"], ["introspect"]):
            code, output, errors = await busctl(bus.address, *options, "org.oomslice1", "/org/oomslice1")
            assert code == 0, errors
            seen.append(output)

    run(bus, backend, body)
    tree = ElementTree.fromstring(seen[0])
    manager = next(item for item in tree.findall("interface") if item.get("name") == MANAGER.name)
    methods = {
        item.get("name"): [(arg.get("name"), arg.get("type"), arg.get("direction")) for arg in item.findall("arg")]
        for item in manager.findall("method")
    }
    assert methods == {
        "ListSlices": [("slices", "a(ssibbss)", "out")],
        "GetSlice": [("name", "s", "in"), ("settings", "a{sv}", "out")],
        "ListDecisions": [
            ("since_usec", "t", "in"),
            ("limit", "u", "in"),
            ("decisions", "a(stssss)", "out"),
        ],
        "GetDecision": [("id", "s", "in"), ("decision", "a{sv}", "out")],
        "GetHistory": [("id", "s", "in"), ("samples", "a(ttttt)", "out"), ("units", "a(tst)", "out")],
        "GetStatistics": [
            ("decisions", "a(sssst)", "out"),
            ("latencies", "a(sa(dt)td)", "out"),
            ("figures", "a{sv}", "out"),
        ],
        "Explain": [("domains", "a(sa(sitsss))", "out")],
        "Simulate": [("settings", "a{sa{sv}}", "in"), ("domains", "a(sa(sitsss))", "out")],
        "SetPriority": [("name", "s", "in"), ("priority", "i", "in"), ("runtime", "b", "in"), ("file", "s", "out")],
        "SetProperties": [
            ("name", "s", "in"),
            ("properties", "a{sv}", "in"),
            ("runtime", "b", "in"),
            ("file", "s", "out"),
        ],
        "Act": [("name", "s", "in"), ("step", "s", "in"), ("decision", "s", "out")],
        "Release": [("name", "s", "in")],
        "Reload": [],
    }
    signals = {
        item.get("name"): [(arg.get("name"), arg.get("type")) for arg in item.findall("arg")]
        for item in manager.findall("signal")
    }
    assert signals == {
        "DecisionMade": [("id", "s"), ("domain", "s"), ("victim", "s"), ("outcome", "s")],
        "Warning": [("decision", "s"), ("unit", "s"), ("domain", "s"), ("deadline_usec", "t")],
        "StepTaken": [("decision", "s"), ("unit", "s"), ("step", "s"), ("result", "s")],
        "PressureBegan": [("domain", "s")],
        "PressureEnded": [("domain", "s")],
        "CarrierChanged": [("name", "s"), ("active", "b"), ("detail", "s")],
    }
    assert {item.get("name") for item in tree.findall("interface")} == {
        "org.freedesktop.DBus.Peer",
        "org.freedesktop.DBus.Introspectable",
        "org.freedesktop.DBus.Properties",
        "org.freedesktop.DBus.ObjectManager",
        MANAGER.name,
    }
    rows = {line.split()[0]: line.split()[1:] for line in seen[1].splitlines() if line.startswith(".")}
    assert rows[".ListDecisions"][:3] == ["method", "tu", "a(stssss)"]
    assert rows[".Version"] == ["property", "s", '"1.2.3"', "const"]
    assert rows[".State"][1] == "a{sv}" and rows[".State"][-1] == "emits-invalidation"
    assert rows[".Carriers"][1] == "aa{sv}" and rows[".Carriers"][-1] == "emits-change"
    assert rows[".ConfigurationErrors"][1] == "a(susss)" and rows[".ConfigurationErrors"][-1] == "emits-change"


def test_tree_leads_from_the_root_to_the_object(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService) -> None:
        code, output, errors = await busctl(bus.address, "tree", "--list", "org.oomslice1")
        assert code == 0, errors
        assert "/org/oomslice1" in output.split()

    run(bus, backend, body)


def test_list_slices(bus: PrivateBus, backend: FixedBackend) -> None:
    assert run_call(bus, backend, "ListSlices") == [
        [
            ["-.slice", "/", 0, False, False, "default", "kill"],
            ["batch.slice", "/batch.slice", -200, True, True, "own", "warn kill@2s"],
        ]
    ]


def test_get_slice_has_true_types(bus: PrivateBus, backend: FixedBackend) -> None:
    assert run_call(bus, backend, "GetSlice", "s", "batch.slice") == [
        {
            "priority": {"type": "i", "data": -200},
            "protect": {"type": "b", "data": True},
            "cgroup_id": {"type": "t", "data": 1234},
            "actions": {"type": "as", "data": ["warn", "kill@15s"]},
        }
    ]


def test_list_decisions_is_newest_first_and_bounded(bus: PrivateBus, backend: FixedBackend) -> None:
    first = ["00000000000000aa-1", 1_000_000, "-.slice", "memory-available", "hog1.service", "freed"]
    second = ["00000000000000aa-2", 2_000_000, "-.slice", "memory-available", "hog2.service", "freed"]

    async def body(service: BusService) -> None:
        assert await call(bus.address, "ListDecisions", "tu", "0", "0") == [[second, first]]
        assert await call(bus.address, "ListDecisions", "tu", "0", "1") == [[second]]
        assert await call(bus.address, "ListDecisions", "tu", "2000000", "10") == [[second]]
        assert await call(bus.address, "ListDecisions", "tu", str(2**64 - 1), str(2**32 - 1)) == [[]]

    run(bus, backend, body)


def test_limit_zero_means_a_hundred(bus: PrivateBus, backend: FixedBackend) -> None:
    backend.stored = [rig.decision(number) for number in range(150)]
    assert len(run_call(bus, backend, "ListDecisions", "tu", "0", "0")[0]) == 100


def test_get_decision_has_every_field_in_its_type(bus: PrivateBus, backend: FixedBackend) -> None:
    (values,) = run_call(bus, backend, "GetDecision", "s", "00000000000000aa-2")
    assert list(values) == [field.name for field in fields(Decision)]
    assert {name: value["type"] for name, value in values.items()} == dict(DECISION_SIGNATURES)
    assert values["victim"]["data"] == "hog2.service"
    assert values["victim_memory_before"]["data"] == 1 << 40
    assert values["pids"]["data"] == [11, 12]
    assert values["candidates"]["data"] == [
        ["hog.service", 99, -200, 1 << 33, "chosen"],
        ["web.service", 7, 5, 1, "eligible"],
    ]
    assert values["flags"]["data"] == ["restarting"] and values["kill_scope"]["data"] == "unit"
    freeze, kill = values["steps"]["data"]
    assert list(freeze) == [field.name for field in fields(StepTaken)]
    assert {name: (value["type"], value["data"]) for name, value in freeze.items()} == {
        "step": ("s", "freeze"), "result": ("s", "done"), "argument": ("s", ""), "amount": ("t", 0), "error": ("i", 0),
        "begin_usec": ("t", 11), "end_usec": ("t", 12), "memory_before": ("t", 1 << 40), "memory_after": ("t", 5),
        "undone_usec": ("t", 99), "undo_error": ("i", 0),
    }  # fmt: skip
    assert kill["step"]["data"] == "kill"
    assert values["extra"]["data"]["victim_metric"] == {"type": "x", "data": 5}
    assert values["extra"]["data"]["list"] == {"type": "ax", "data": [1, 2]}


def test_get_statistics_has_counts_latencies_and_memory(bus: PrivateBus, backend: FixedBackend) -> None:
    decisions, latencies, figures = run_call(bus, backend, "GetStatistics")
    assert decisions[0] == ["hog.service", "kill", "core", "freed", 3]
    name, buckets, count, total = latencies[0]
    assert (name, count, total) == ("trigger_to_signal", 2, 70.004)
    assert buckets[:3] == [[0.001, 0], [0.0025, 0], [0.005, 1]] and buckets[-1] == [60.0, 1]
    assert figures["MemoryAvailableLimit"] == {"type": "t", "data": 2**30}


def test_get_history_has_the_figures_of_the_machine_and_of_units(bus: PrivateBus, backend: FixedBackend) -> None:
    assert run_call(bus, backend, "GetHistory", "s", "00000000000000aa-2") == [
        [[10, 2**40, 0, 30, 20], [11, 4096, 0, 0, 0]],
        [[10, "a.service", 5]],
    ]
    assert "there is no decision" in run_error(bus, backend, "call", *rig.MANAGER, "GetHistory", "s", "x")


def test_explain(bus: PrivateBus, backend: FixedBackend) -> None:
    assert run_call(bus, backend, "Explain") == [
        [["-.slice", [["batch.slice", -200, 4096, "eligible", "own", "smallest priority"]]]]
    ]


def test_reload_by_root(bus: PrivateBus, backend: FixedBackend) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may call Reload")
    assert run_call(bus, backend, "Reload") is None
    assert backend.reloads == 1


def test_a_failed_reload_says_why(bus: PrivateBus, backend: FixedBackend) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may call Reload")
    backend.fail["reload"] = rig.bad_reload()
    errors = run_error(bus, backend, "call", *rig.MANAGER, "Reload")
    assert "oomslice.yaml:3: no such tier" in errors


async def reload_by_nobody(bus: PrivateBus) -> str:
    """What dbus-send says: busctl shows no text with this error, and the text tells who refused, bus or service."""
    process = await asyncio.create_subprocess_exec(
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "dbus-send"),
        *(f"--bus={bus.address}", "--print-reply", "--dest=org.oomslice1"),
        *("/org/oomslice1", "org.oomslice1.Manager.Reload"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    return errors.decode()


def test_others_may_read_but_not_reload(bus: PrivateBus, backend: FixedBackend) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")

    async def body(service: BusService) -> None:
        for method, *arguments in (
            ["ListSlices"],
            ["GetSlice", "s", "batch.slice"],
            ["ListDecisions", "tu", "0", "0"],
            ["GetDecision", "s", "00000000000000aa-1"],
            ["GetHistory", "s", "00000000000000aa-1"],
            ["GetStatistics"],
            ["Explain"],
        ):
            assert await call(bus.address, method, *arguments, uid=NOBODY)
        code, _, errors = await busctl(bus.address, "introspect", "org.oomslice1", "/org/oomslice1", uid=NOBODY)
        assert code == 0, errors
        assert "AccessDenied: only root may reload" in await reload_by_nobody(bus)

    run(bus, backend, body)
    assert backend.reloads == 0


def test_others_may_not_own_the_name(bus: PrivateBus, backend: FixedBackend) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")

    async def main() -> None:
        code, _, errors = await busctl(
            bus.address,
            *("call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"),
            *("RequestName", "su", "org.oomslice1", "0"),
            uid=NOBODY,
        )
        assert code != 0 and "Access denied" in errors

    asyncio.run(main())


def test_properties_have_true_types(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService) -> None:
        assert await get(bus.address, "Version") == {"type": "s", "data": "1.2.3"}
        assert await get(bus.address, "State") == {
            "type": "a{sv}",
            "data": {
                "core_running": {"type": "b", "data": True},
                "plan_generation": {"type": "t", "data": 7},
                "plan_made_usec": {"type": "t", "data": 1_700_000_000_000_000},
                "machine": {"type": "s", "data": "-.slice"},
                "load": {"type": "d", "data": 0.5},
                "others": {"type": "as", "data": ["systemd-oomd.service"]},
            },
        }
        carriers = await get(bus.address, "Carriers")
        assert carriers["type"] == "aa{sv}"
        assert carriers["data"][1] == {
            "Name": {"type": "s", "data": "bpf"},
            "Active": {"type": "b", "data": False},
            "Acts": {"type": "b", "data": True},
            "Detail": {"type": "s", "data": "not built"},
            "Hits": {"type": "t", "data": 0},
            "Missed": {"type": "t", "data": 2},
            "LastError": {"type": "s", "data": "no BTF"},
        }
        assert await get(bus.address, "ConfigurationErrors") == {
            "type": "a(susss)",
            "data": [["/etc/batch.conf", 3, "Priority", "high", "no number"]],
        }

    run(bus, backend, body)


def test_one_raising_property_does_not_break_get_all(bus: PrivateBus, backend: FixedBackend) -> None:
    backend.fail["carriers"] = ZeroDivisionError("secret")

    async def body(service: BusService) -> None:
        arguments = ("org.oomslice1", "/org/oomslice1", "org.freedesktop.DBus.Properties")
        code, output, errors = await busctl(
            bus.address, "--json=short", "call", *arguments, "GetAll", "s", MANAGER.name
        )
        assert code == 0, errors
        assert set(json.loads(output)["data"][0]) == {"Version", "State", "ConfigurationErrors"}
        code, _, errors = await busctl(bus.address, "get-property", *rig.MANAGER, "Carriers")
        assert code != 0 and "internal error, see the journal" in errors and "secret" not in errors

    run(bus, backend, body)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["call", *rig.MANAGER, "GetSlice", "s", "nope.slice"], "no unit 'nope.slice' is known"),
        (["call", *rig.MANAGER, "GetDecision", "s", "x"], "there is no decision 'x'"),
        (["call", *rig.MANAGER, "GetDecision", "u", "1"], "takes arguments of type 's', not 'u'"),
        (["call", *rig.MANAGER, "ListDecisions", "ut", "1", "1"], "takes arguments of type 'tu', not 'ut'"),
        (["call", *rig.MANAGER, "Explain", "v", "s", "x"], "takes arguments of type '', not 'v'"),
        (["call", *rig.MANAGER, "Nope"], "has no method Nope"),
        (["call", "org.oomslice1", "/org/other", "org.oomslice1.Manager", "Explain"], "no object at /org/other"),
        (["call", "org.oomslice1", "/org/oomslice1", "org.oomslice1.Nope", "Explain"], "no interface"),
        (["get-property", *rig.MANAGER, "Nope"], "no property Nope"),
        (["set-property", *rig.MANAGER, "Version", "s", "9"], "read-only"),
        (["introspect", "org.oomslice1", "/nowhere"], "no object at /nowhere"),
    ],
)
def test_errors_are_sentences(bus: PrivateBus, backend: FixedBackend, arguments: list[str], sentence: str) -> None:
    if "org.oomslice1.Nope" in arguments and os.geteuid() != 0:
        pytest.skip("the bus policy lets only root call unknown interfaces")
    assert sentence in run_error(bus, backend, *arguments)


def test_an_unexpected_exception_shows_nothing_of_itself(bus: PrivateBus, backend: FixedBackend) -> None:
    backend.fail["explain"] = RuntimeError("secret /path")
    errors = run_error(bus, backend, "call", *rig.MANAGER, "Explain")
    assert "internal error, see the journal" in errors
    assert "secret" not in errors and "Traceback" not in errors


def test_values_that_do_not_fit_are_an_internal_error(bus: PrivateBus, backend: FixedBackend) -> None:
    backend.fail["slices"] = ValueError("x")
    assert "internal error" in run_error(bus, backend, "call", *rig.MANAGER, "ListSlices")
    backend.fail.clear()
    backend.slices = lambda: [  # type: ignore[method-assign]
        {
            "name": "a",
            "cgroup": "b",
            "priority": 1 << 40,
            "protected": False,
            "candidate": True,
            "priority_origin": "",
            "actions": "",
        }
    ]
    assert "internal error" in run_error(bus, backend, "call", *rig.MANAGER, "ListSlices")


def test_strings_that_dbus_cannot_carry_are_mended(bus: PrivateBus, backend: FixedBackend) -> None:
    backend.problems = [Problem(Source("/etc/\udcff.conf", -1), "", "a\0b", "\ud800", "ä")]

    async def body(service: BusService) -> None:
        assert (await get(bus.address, "ConfigurationErrors"))["data"] == [["/etc/?.conf", 0, "a b", "?", "ä"]]

    run(bus, backend, body)


def test_figures_out_of_range_are_clamped(bus: PrivateBus, backend: FixedBackend) -> None:
    import dataclasses

    odd = dataclasses.replace(
        rig.decision(3), realtime_usec=1 << 70, signal_usec=-1, processes=1 << 40, extra={"big_bytes": 1 << 80, "n": -5}
    )
    backend.stored = [odd]
    (values,) = run_call(bus, backend, "GetDecision", "s", odd.id)
    assert values["realtime_usec"]["data"] == 2**64 - 1
    assert values["signal_usec"]["data"] == 0
    assert values["processes"]["data"] == 2**32 - 1
    assert values["extra"]["data"] == {
        "big_bytes": {"type": "t", "data": 2**64 - 1},
        "n": {"type": "x", "data": -5},
    }


async def monitored(bus: PrivateBus, act: Callable[[], Awaitable[None]], *until: str) -> list[dict[str, Any]]:
    """What busctl monitor shows of the manager's signals while `act` runs, until all these members were seen."""
    process = await asyncio.create_subprocess_exec(
        *("busctl", f"--address={bus.address}", "--json=short", "monitor"),
        "--match=type='signal',path='/org/oomslice1'",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout
    # Newer busctl does not say when it has begun: it has, once it shows a signal that is sent until it does.
    async with asyncio.timeout(20):
        first = asyncio.ensure_future(process.stdout.readline())
        while not first.done():
            assert await busctl(bus.address, "emit", "/org/oomslice1", "org.oomslice1.Probe", "Begun") == (0, "", "")
            await asyncio.wait([first], timeout=0.2)
    await act()
    seen: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while [message["member"] for message in seen] != list(until):
            message = json.loads(await process.stdout.readline())
            if message["interface"] != "org.oomslice1.Probe":
                seen.append(message)
    process.kill()
    await process.communicate()
    return seen


def test_decision_made_is_signalled_and_state_invalidated(bus: PrivateBus, backend: FixedBackend) -> None:
    if os.geteuid() != 0:
        pytest.skip("monitoring a bus needs root")

    async def body(service: BusService) -> None:
        made = rig.decision(5)
        signals = await monitored(
            bus,
            lambda: service.decision_made(made),
            *("StepTaken", "StepTaken", "DecisionMade", "PropertiesChanged", "InterfacesAdded"),
        )
        assert signals[2]["payload"] == {"type": "ssss", "data": [made.id, "-.slice", "hog5.service", "freed"]}
        assert signals[3]["payload"]["data"] == [MANAGER.name, {}, ["State"]]

    run(bus, backend, body)


def test_a_changed_configuration_is_signalled_with_its_errors(bus: PrivateBus, backend: FixedBackend) -> None:
    if os.geteuid() != 0:
        pytest.skip("monitoring a bus needs root")

    async def body(service: BusService) -> None:
        backend.problems = []
        (signal,) = await monitored(bus, service.configuration_changed, "PropertiesChanged")
        interface, changed, invalidated = signal["payload"]["data"]
        assert interface == MANAGER.name and invalidated == ["State"]
        assert changed["ConfigurationErrors"] == {"type": "a(susss)", "data": []}
        assert changed["Carriers"]["type"] == "aa{sv}"

    run(bus, backend, body)


def test_carriers_are_signalled_with_their_new_values(bus: PrivateBus, backend: FixedBackend) -> None:
    if os.geteuid() != 0:
        pytest.skip("monitoring a bus needs root")

    async def body(service: BusService) -> None:
        async def acted() -> None:
            backend.carrier_states[0] = CarrierState("core", True, True, "armed", hits=4)
            service.carriers_changed()

        (signal,) = await monitored(bus, acted, "PropertiesChanged")
        _, changed, invalidated = signal["payload"]["data"]
        assert invalidated == ["State"] and set(changed) == {"Carriers"}
        assert changed["Carriers"]["data"][0]["Hits"] == {"type": "t", "data": 4}

    run(bus, backend, body)


def test_everybody_hears_that_a_unit_is_warned(bus: PrivateBus, backend: FixedBackend) -> None:
    if os.geteuid() != 0:
        pytest.skip("monitoring a bus needs root")

    async def body(service: BusService) -> None:
        async def warn() -> None:
            assert service.warn("00000000000000aa-1", "hog.service", "batch.slice", (1 << 63) + 5)

        (signal,) = await monitored(bus, warn, "Warning")
        assert (signal["path"], signal["interface"]) == ("/org/oomslice1", MANAGER.name)
        assert signal["payload"]["type"] == "ssst"
        assert signal["payload"]["data"] == ["00000000000000aa-1", "hog.service", "batch.slice", (1 << 63) + 5]

    run(bus, backend, body)


def test_a_warning_without_a_bus_says_that_nobody_heard_it(backend: FixedBackend) -> None:
    assert BusService(backend).warn("", "hog.service", "-.slice", 1) is False


def test_ten_thousand_decisions_in_one_answer(bus: PrivateBus, backend: FixedBackend) -> None:
    backend.stored = [rig.decision(number) for number in range(10_000)]
    (rows,) = run_call(bus, backend, "ListDecisions", "tu", "0", "20000")
    assert len(rows) == 10_000 and rows[0][0].endswith("-9999") and rows[-1][0].endswith("-0")
