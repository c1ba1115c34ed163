# SPDX-License-Identifier: LGPL-2.1-or-later
"""Callers that mean no good: every member with every wrong type, huge arguments, floods, and listeners that sleep."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from oomslice.bus.errors import InvalidArgumentsError, LimitsExceededError, UnknownMethodError
from oomslice.bus.interface import MANAGER, OBJECT_MANAGER, OBJECT_PATH, PROPERTIES
from oomslice.bus.log_control import LOG_CONTROL
from oomslice.bus.log_control import PATH as LOG_PATH
from oomslice.bus.members import DECISION, SLICE
from oomslice.bus.message import typed
from oomslice.bus.service import BusService
from oomslice.bus.transport import SIGNALS_WAITING_MAX, Connection
from oomslice.errors import OomsliceError
from tests.bus import rig
from tests.bus.rig import FixedBackend, PrivateBus, busctl
from tests.bus.test_hard_times import Raw, message, resident_bytes, string

pytestmark = pytest.mark.bus
OBJECTS = {
    OBJECT_PATH: (MANAGER, OBJECT_MANAGER, PROPERTIES),
    "/org/oomslice1/slice/batch_2eslice": (SLICE, PROPERTIES),
    "/org/oomslice1/decision/_300000000000000aa_2d1": (DECISION, PROPERTIES),
    LOG_PATH: (LOG_CONTROL, PROPERTIES),
}
HUGE = "x" * 900_000
WRONG: tuple[tuple[str, list[Any]], ...] = (
    ("", []),
    ("s", [HUGE]),
    ("v", [typed("aav", [[]])]),
    ("ay", [b"\xff" * 500_000]),
    ("sa{sv}b", [HUGE, {HUGE: typed("s", "x")}, True]),
    ("sa{sv}b", ["batch.slice", {f"Key{number}": typed("u", number) for number in range(5000)}, False]),
    ("sa{sv}b", ["batch.slice", {"Actions": typed("as", ["kill"] * 20_000)}, False]),
    ("sib", ["../../etc", -(1 << 31), True]),
    ("ss", ["a\nb", "kill"]),
    ("a{sa{sv}}", [{f"u{number}.service": {"Priority": typed("i", 1)} for number in range(1000)}]),
    ("a{sa{sv}}", [{"batch.slice": {"Priority": typed("aas", [[HUGE]])}}]),
    ("tu", [2**64 - 1, 2**32 - 1]),
    ("ssv", [HUGE[:1000], "Version", typed("s", HUGE)]),
)


def run(bus: PrivateBus, backend: FixedBackend, body: Callable[[BusService, Connection], Awaitable[None]]) -> None:
    async def main() -> None:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        client = await Connection.open(bus.address, maximum_message=32 << 20)
        try:
            await body(service, client)
            assert service.connected
            assert (await client.call(*rig.MANAGER, "ListSlices"))[0]
        finally:
            client.close()
            await service.stop()

    asyncio.run(main())


def test_every_member_with_every_wrong_argument_is_an_answer_or_an_error(
    bus: PrivateBus, backend: FixedBackend
) -> None:
    async def body(service: BusService, client: Connection) -> None:
        calls = refused = 0
        for path, interfaces in OBJECTS.items():
            for interface in interfaces:
                for method in interface.methods:
                    for signature, arguments in WRONG:
                        calls += 1
                        try:
                            await client.call("org.oomslice1", path, interface.name, method.name, signature, arguments)
                            assert signature == method.in_signature
                        except OomsliceError as error:
                            assert len(str(error)) < 3000, "what was sent does not come back as a whole"
                            refused += signature != method.in_signature and isinstance(error, InvalidArgumentsError)
                with pytest.raises(UnknownMethodError):
                    await client.call("org.oomslice1", path, interface.name, "Nope")
        assert calls > 150 and refused > calls * 0.7
        assert all(asked[0] == "batch.slice" for asked in backend.asked if len(asked) == 4), "nothing else was set"

    run(bus, backend, body)


def test_gdbus_reads_every_object(bus: PrivateBus, backend: FixedBackend) -> None:
    if shutil.which("gdbus") is None:
        pytest.skip("gdbus is not installed: apt install libglib2.0-bin")

    async def body(service: BusService, client: Connection) -> None:
        for path, interfaces in OBJECTS.items():
            process = await asyncio.create_subprocess_exec(
                *("gdbus", "introspect", "--address", bus.address, "--dest", "org.oomslice1", "--object-path", path),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            assert process.returncode == 0, output.decode()
            for interface in interfaces:
                assert f"interface {interface.name}".encode() in output
                for item in interface.properties:
                    assert f" {item.name} = ".encode() in output, f"{item.name} has no value"

    run(bus, backend, body)


def test_who_calls_too_often_is_refused_and_others_are_not(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService, client: Connection) -> None:
        other = await Connection.open(bus.address)
        good = refused = 0
        for _ in range(60):
            answers = await asyncio.gather(
                *(client.call("org.oomslice1", OBJECT_PATH, "org.freedesktop.DBus.Peer", "Ping") for _ in range(60)),
                return_exceptions=True,
            )
            good += sum(isinstance(answer, list) for answer in answers)
            refused += sum(isinstance(answer, LimitsExceededError) for answer in answers)
            assert (await other.call(*rig.MANAGER, "ListSlices"))[0]
        assert good + refused == 3600 and good >= 1000
        other.close()
        # Or the last call of `run` would be refused as well.
        with contextlib.suppress(LimitsExceededError):
            await asyncio.sleep(1.1)

    run(bus, backend, body)


def test_a_listener_that_does_not_read_costs_us_nothing(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(service: BusService, client: Connection) -> None:
        rule = b"type='signal',path_namespace='/org/oomslice1'"
        frozen = [Raw(bus) for _ in range(3)]
        for peer in frozen:
            peer.send(
                message(
                    2,
                    "org.freedesktop.DBus",
                    "AddMatch",
                    interface="org.freedesktop.DBus",
                    signature="s",
                    body=string(rule),
                )
            )
        connection = service._connection
        assert connection is not None
        before = resident_bytes()
        for number in range(4000):
            await service.decision_made(rig.decision(number))
            if number % 100 == 0:
                assert (await client.call(*rig.MANAGER, "ListSlices"))[0]
        assert connection.waiting_bytes < SIGNALS_WAITING_MAX + (1 << 16)
        assert resident_bytes() - before < 24 << 20
        for peer in frozen:
            peer.close()

    run(bus, backend, body)


def test_busctl_calls_every_method_that_only_reads(bus: PrivateBus, backend: FixedBackend) -> None:
    samples = {"s": "batch.slice", "t": "0", "u": "0", "a{sa{sv}}": "0"}

    async def body(service: BusService, client: Connection) -> None:
        for method in MANAGER.methods:
            if method.action:
                continue
            arguments = [
                "00000000000000aa-1" if argument.name == "id" else samples[argument.signature]
                for argument in method.inputs
            ]
            signature = [method.in_signature] if method.in_signature else []
            code, output, errors = await busctl(bus.address, "call", *rig.MANAGER, method.name, *signature, *arguments)
            assert code == 0 and output, f"{method.name}: {errors}"

    run(bus, backend, body)
