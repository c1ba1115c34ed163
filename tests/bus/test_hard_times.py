# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bus that is frozen, restarted, gone or mad, and peers that mean no good: the service goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from oomslice.bus.errors import BusUnreachableError, InvalidArgumentsError, LimitsExceededError, NoReplyError
from oomslice.bus.message import Incoming
from oomslice.bus.service import BusService
from oomslice.bus.transport import MESSAGE_MAX, SIGNALS_WAITING_MAX, Connection
from tests.bus import rig
from tests.bus.rig import FixedBackend, PrivateBus, busctl, call

pytestmark = pytest.mark.bus
Behaviour = Callable[[socket.socket], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def serving(address: str, backend: FixedBackend) -> AsyncIterator[BusService]:
    service = BusService(backend, address=address)
    await service.start(5)
    try:
        yield service
    finally:
        await service.stop()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def test_a_frozen_bus_costs_signals_but_neither_memory_nor_the_connection(
    bus: PrivateBus, backend: FixedBackend
) -> None:
    async def main() -> None:
        async with serving(bus.address, backend) as service:
            assert service.connected
            connection = service._connection
            assert connection is not None
            made = rig.decision(1)
            bus.freeze()
            before = resident_bytes()
            for number in range(15_000):
                await service.decision_made(made)
                if number % 1000 == 0:
                    await asyncio.sleep(0)
            assert service.signals_dropped > 5_000
            assert connection.waiting_bytes < SIGNALS_WAITING_MAX + 4096
            assert resident_bytes() - before < 8 << 20
            await asyncio.sleep(0.3)
            assert service.connected and service._connection is connection
            bus.thaw()
            await eventually(lambda: connection.waiting_bytes == 0)
            assert len((await call(bus.address, "ListDecisions", "tu", "0", "0"))[0]) == 2
            dropped = service.signals_dropped
            await service.decision_made(made)
            assert service.signals_dropped == dropped and service._connection is connection

    asyncio.run(main())


def test_after_the_frost_listeners_are_told_that_things_changed(bus: PrivateBus, backend: FixedBackend) -> None:
    async def main() -> None:
        async with serving(bus.address, backend) as service:
            listener = await Connection.open(bus.address)
            seen: list[list[Any]] = []
            listener.on_signal = lambda signal: seen.append(signal.body()) if signal.signature == "sa{sv}as" else None
            await listener.call_bus("AddMatch", "s", ["path='/org/oomslice1',member='PropertiesChanged'"])
            bus.freeze()
            for number in range(12_000):
                await service.decision_made(rig.decision(number))
            backend.problems = []
            await service.configuration_changed()
            assert service.signals_dropped
            bus.thaw()
            await eventually(lambda: bool(seen) and "ConfigurationErrors" in seen[-1][1])
            assert seen[-1][1]["ConfigurationErrors"] == [] and seen[-1][2] == ["State"]
            listener.close()

    asyncio.run(main())


def test_calls_made_during_the_frost_are_answered_after_it(bus: PrivateBus, backend: FixedBackend) -> None:
    async def main() -> None:
        async with serving(bus.address, backend):
            client = await Connection.open(bus.address)
            bus.freeze()
            calls = [
                asyncio.create_task(client.call(*rig.MANAGER, "ListDecisions", "tu", [0, 0], timeout=20))
                for _ in range(50)
            ]
            await asyncio.sleep(0.5)
            assert not any(call.done() for call in calls)
            bus.thaw()
            for answer in await asyncio.gather(*calls):
                assert len(answer[0]) == 2
            client.close()

    asyncio.run(main())


def test_a_call_over_a_frozen_bus_times_out(bus: PrivateBus) -> None:
    async def main() -> None:
        client = await Connection.open(bus.address)
        bus.freeze()
        with pytest.raises(NoReplyError, match=r"did not answer GetId within 0\.2 s"):
            await client.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId", timeout=0.2)
        client.close()

    asyncio.run(main())


def test_the_service_comes_back_when_the_bus_is_restarted(bus: PrivateBus, backend: FixedBackend) -> None:
    async def main() -> None:
        async with serving(bus.address, backend) as service:
            for _ in range(2):
                assert service.connected
                bus.stop()
                await eventually(lambda: not service.connected)
                await service.decision_made(rig.decision(1))
                await service.configuration_changed()
                bus.start()
                await asyncio.wait_for(service.wait_ready(), 60)
                assert await call(bus.address, "ListSlices")

    asyncio.run(main())


def test_a_bus_that_comes_later_is_found(bus: PrivateBus, backend: FixedBackend) -> None:
    async def main() -> None:
        bus.stop()
        service = BusService(backend, address=bus.address)
        assert not await service.start()
        bus.start()
        await asyncio.wait_for(service.wait_ready(), 60)
        await service.stop()

    asyncio.run(main())


def test_a_second_daemon_waits_for_the_name(bus: PrivateBus, backend: FixedBackend) -> None:
    async def main() -> None:
        async with serving(bus.address, backend) as first:
            assert first.connected
            other = FixedBackend()
            other.version = "second"
            async with serving(bus.address, other) as second:
                assert not second.connected
                assert (await rig.get(bus.address, "Version"))["data"] == "1.2.3"
                await first.stop()
                await asyncio.wait_for(second.wait_ready(), 60)
                assert (await rig.get(bus.address, "Version"))["data"] == "second"

    asyncio.run(main())


@contextlib.asynccontextmanager
async def false_bus(directory: Path, behave: Behaviour) -> AsyncIterator[str]:
    """Something at a bus address that does not behave like one; takes connections until the end."""
    path = directory / "false"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(8)
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    tasks = set()

    async def accept() -> None:
        while True:
            peer, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(behave(peer))
            tasks.add(task)

    acceptor = asyncio.create_task(accept())
    try:
        yield f"unix:path={path}"
    finally:
        acceptor.cancel()
        for task in tasks:
            task.cancel()
        listener.close()


async def hang(peer: socket.socket) -> None:
    with contextlib.closing(peer):
        await asyncio.sleep(60)


async def slam(peer: socket.socket) -> None:
    peer.close()


async def slam_after_greeting(peer: socket.socket) -> None:
    await asyncio.get_running_loop().sock_recv(peer, 100)
    peer.close()


async def babble(peer: socket.socket) -> None:
    with contextlib.suppress(OSError), contextlib.closing(peer):
        while True:
            await asyncio.get_running_loop().sock_sendall(peer, b"x" * 4096)


async def refuse(peer: socket.socket) -> None:
    with contextlib.closing(peer):
        await asyncio.get_running_loop().sock_sendall(peer, b"REJECTED EXTERNAL\r\n")
        await asyncio.sleep(60)


async def lose_the_plot(peer: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.closing(peer):
        await loop.sock_sendall(peer, b"OK 0123\r\n")
        while b"Hello" not in await loop.sock_recv(peer, 4096):
            pass
        await loop.sock_sendall(peer, b"no D-Bus at all, sorry")
        await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("behave", "sentence"),
    [
        (hang, "does not answer"),
        (slam, "closed the connection|cannot be reached"),
        (slam_after_greeting, "closed the connection|cannot be reached"),
        (babble, "refused us"),
        (refuse, "refused us: 'REJECTED EXTERNAL'"),
        (lose_the_plot, "closed the connection"),
    ],
)
def test_a_false_bus_is_given_up_in_time(bus_directory: Path, behave: Behaviour, sentence: str) -> None:
    async def main() -> None:
        async with false_bus(bus_directory, behave) as address:
            used = time.process_time()
            with pytest.raises(BusUnreachableError, match=sentence):
                await Connection.open(address, timeout=1)
            assert time.process_time() - used < 0.5, "it must not spin"

    asyncio.run(main())


def test_connecting_never_holds_the_loop_even_if_the_backlog_is_full(bus_directory: Path) -> None:
    path = bus_directory / "full"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(0)
    clients: list[socket.socket] = []
    with contextlib.suppress(BlockingIOError):
        while len(clients) < 100:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            clients.append(client)
            client.connect(str(path))
    assert len(clients) < 100

    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticker = asyncio.create_task(tick())
        with pytest.raises(BusUnreachableError, match="does not answer"):
            await Connection.open(f"unix:path={path}", timeout=0.5)
        ticker.cancel()
        assert ticks > 5  # of fifty; none or one if the loop was held

    asyncio.run(main())
    for client in [*clients, listener]:
        client.close()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("unix:path=/nonexistent/bus", "No such file"),
        ("tcp:host=localhost,port=1", "names no Unix socket"),
        ("", "cannot be reached"),
        ("nonsense", "names no Unix socket"),
    ],
)
def test_a_bad_address_is_said_so(monkeypatch: pytest.MonkeyPatch, address: str, sentence: str) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/default")

    async def main() -> None:
        with pytest.raises(BusUnreachableError, match=sentence):
            await Connection.open(address)

    asyncio.run(main())


def test_of_several_addresses_the_first_that_works_is_taken(bus: PrivateBus) -> None:
    async def main() -> None:
        path = str(bus.socket).replace("b", "%62")
        connection = await Connection.open(f"unix:path=/nonexistent;unix:path={path},guid=00")
        assert connection.unique_name.startswith(":")
        connection.close()

    asyncio.run(main())


class Raw:
    """A peer on the bus that may send any bytes."""

    def __init__(self, bus: PrivateBus) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(str(bus.socket))
        uid = str(os.getuid()).encode().hex().encode()
        self.socket.sendall(b"\0AUTH EXTERNAL " + uid + b"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n")
        answer = b""
        while answer.count(b"\r\n") < 2:
            answer += self.socket.recv(1024)
        assert b"AGREE_UNIX_FD" in answer
        self.send(message(1, "org.freedesktop.DBus", "Hello", interface="org.freedesktop.DBus"))

    def send(self, data: bytes, fds: list[int] | None = None) -> None:
        if fds:
            socket.send_fds(self.socket, [data], fds)
        else:
            self.socket.sendall(data)

    def close(self) -> None:
        self.socket.close()


def message(
    serial: int,
    destination: str,
    member: str,
    *,
    interface: str = "org.oomslice1.Manager",
    signature: str = "",
    body: bytes = b"",
    more_fields: bytes = b"",
) -> bytes:
    """A method call, written without the code under test."""
    fields = b""
    for code, kind, value in (
        (1, b"o", "/org/oomslice1"),
        (2, b"s", interface),
        (3, b"s", member),
        (6, b"s", destination),
        (8, b"g", signature),
    ):
        if not value:
            continue
        fields += b"\0" * (-len(fields) % 8) + bytes([code, 1]) + kind + b"\0"
        if kind == b"g":
            fields += bytes([len(value)]) + value.encode() + b"\0"
        else:
            fields += struct.pack("<I", len(value)) + value.encode() + b"\0"
    if more_fields:
        fields += b"\0" * (-len(fields) % 8) + more_fields
    header = b"l\1\0\1" + struct.pack("<III", len(body), serial, len(fields)) + fields
    return header + b"\0" * (-len(header) % 8) + body


def string(value: bytes) -> bytes:
    return struct.pack("<I", len(value)) + value + b"\0"


def nested_variant(depth: int) -> bytes:
    return b"\1v\0" * depth + b"\1y\0\7"


MALICE: dict[str, Callable[[int], bytes]] = {
    "a header field that nobody knows": lambda serial: message(
        serial, "org.oomslice1", "Explain", more_fields=bytes([77, 1]) + b"s\0" + string(b"x")
    ),
    "a type that nobody asked for": lambda serial: message(
        serial, "org.oomslice1", "GetSlice", signature="v", body=nested_variant(3)
    ),
    "variants in variants": lambda serial: message(
        serial,
        "org.oomslice1",
        "Set",
        interface="org.freedesktop.DBus.Properties",
        signature="ssv",
        body=string(b"org.oomslice1.Manager") + b"\0" * 2 + string(b"Version") + nested_variant(40),
    ),
    "an array of many": lambda serial: message(
        serial, "org.oomslice1", "GetSlice", signature="ay", body=struct.pack("<I", 900_000) + b"x" * 900_000
    ),
    "a message that is too large": lambda serial: message(
        serial, "org.oomslice1", "GetSlice", signature="s", body=string(b"x" * (MESSAGE_MAX + 5))
    ),
    "a name of a megabyte": lambda serial: message(
        serial, "org.oomslice1", "GetSlice", signature="s", body=string(b"x" * 1_000_000)
    ),
    "bytes that are no UTF-8": lambda serial: message(
        serial, "org.oomslice1", "GetSlice", signature="s", body=string(b"\xff\xfe")
    ),
    "a body that is too short": lambda serial: message(
        serial, "org.oomslice1", "ListDecisions", signature="tu", body=b"\0" * 8
    ),
    "a member of a megabyte": lambda serial: message(serial, "org.oomslice1", "x" * 200, signature="s"),
}


@pytest.mark.parametrize("name", MALICE)
def test_a_malicious_peer_harms_only_itself(bus: PrivateBus, backend: FixedBackend, name: str) -> None:
    async def main() -> None:
        async with serving(bus.address, backend) as service:
            connection = service._connection
            for _ in range(3):
                peer = Raw(bus)
                with contextlib.suppress(OSError):
                    # The bus ends the connection of whoever sends what it finds malformed.
                    for serial in range(2, 8):
                        await asyncio.to_thread(peer.send, MALICE[name](serial))
                assert await call(bus.address, "ListSlices")
                peer.close()
            assert service.connected and service._connection is connection

    asyncio.run(main())


def feed(service_side: Connection, data: bytes, piece: int) -> None:
    for offset in range(0, len(data), piece):
        service_side.data_received(data[offset : offset + piece])


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", MALICE)
def test_malice_that_a_bus_let_through_ends_nothing(name: str, piece: int) -> None:
    """The same without a bus that checks, in pieces of any size; a good call afterwards must arrive."""
    if piece < 100 and len(MALICE[name](1)) > 10_000:
        piece *= 5000

    async def main() -> None:
        connection = Connection()
        got: list[str] = []
        errors: list[str] = []

        def on_call(incoming: Incoming) -> None:
            got.append(incoming.member)
            with contextlib.suppress(InvalidArgumentsError):
                incoming.body()

        connection.on_call = on_call

        def reply_error(call: Incoming, name: str, message: str) -> bool:
            errors.append(name)
            return True

        connection.reply_error = reply_error  # type: ignore[method-assign]
        feed(connection, MALICE[name](1) + message(2, "org.oomslice1", "Good"), piece)
        assert got[-1] == "Good" and not connection._buffer
        if name == "a message that is too large":
            assert got == ["Good"] and errors == [LimitsExceededError.bus_name]

    asyncio.run(main())


def test_many_types_of_variants_do_not_fill_memory() -> None:
    from dbus_next.signature import SignatureTree

    async def main() -> None:
        connection = Connection()
        seen: list[list[Any]] = []
        connection.on_call = lambda incoming: seen.append(incoming.body())
        before = len(SignatureTree._cache)
        letters = "ybnqiuxtdsg"
        for number in range(500):
            inner = "(" + "".join(letters[(number >> shift) % 8] for shift in range(0, 12, 3)) + ")"
            signature = "a" + inner
            body = bytes([len(signature)]) + signature.encode() + b"\0"
            body += b"\0" * (-len(body) % 4) + struct.pack("<I", 0)
            body += b"\0" * (-len(body) % 8)
            connection.data_received(message(number + 1, "x.y", "Z", signature="v", body=body))
        assert len(seen) == 500 and len(SignatureTree._cache) - before < 10

    asyncio.run(main())


def test_descriptors_sent_to_us_are_never_ours(bus: PrivateBus, backend: FixedBackend) -> None:
    async def main() -> None:
        async with serving(bus.address, backend) as service:
            before = sorted(os.listdir("/proc/self/fd"))
            peer = Raw(bus)
            reader, writer = os.pipe()
            for serial in range(2, 52):
                with_fds = message(
                    serial, "org.oomslice1", "ListSlices", more_fields=bytes([9, 1]) + b"u\0" + struct.pack("<I", 2)
                )
                await asyncio.to_thread(peer.send, with_fds, [reader, writer])
            assert await call(bus.address, "ListSlices")
            peer.close()
            os.close(reader)
            os.close(writer)
            assert len(os.listdir("/proc/self/fd")) <= len(before)
            assert service.connected

    asyncio.run(main())


def test_a_flood_of_calls_is_answered_or_refused(bus: PrivateBus, backend: FixedBackend) -> None:
    async def main() -> None:
        async with serving(bus.address, backend) as service:
            client = await Connection.open(bus.address)
            answers = await asyncio.gather(
                *(client.call(*rig.MANAGER, "ListDecisions", "tu", [0, 0]) for _ in range(500)),
                return_exceptions=True,
            )
            good = [answer for answer in answers if isinstance(answer, list)]
            refused = [answer for answer in answers if isinstance(answer, LimitsExceededError)]
            assert len(good) + len(refused) == 500 and len(good) >= 64
            assert len((await client.call(*rig.MANAGER, "ListDecisions", "tu", [0, 0]))[0]) == 2
            assert service.connected
            client.close()

    asyncio.run(main())


def test_a_peer_that_never_reads_does_not_stop_the_others(bus: PrivateBus, backend: FixedBackend) -> None:
    async def main() -> None:
        backend.stored = [rig.decision(number) for number in range(2000)]
        async with serving(bus.address, backend) as service:
            peer = Raw(bus)
            body = struct.pack("<QI", 0, 2000)
            for serial in range(2, 62):
                await asyncio.to_thread(
                    peer.send, message(serial, "org.oomslice1", "ListDecisions", signature="tu", body=body)
                )
            assert await call(bus.address, "ListSlices")
            peer.close()
            assert service.connected

    asyncio.run(main())


def test_busctl_gets_an_error_for_a_malformed_call(bus: PrivateBus, backend: FixedBackend) -> None:
    async def main() -> None:
        async with serving(bus.address, backend):
            code, _, errors = await busctl(bus.address, "call", *rig.MANAGER, "GetSlice", "s", "x" * 100_000)
            assert code != 0 and "no unit" in errors

    asyncio.run(main())
