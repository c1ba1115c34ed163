# SPDX-License-Identifier: LGPL-2.1-or-later
"""The connection for one question after another, against the real service, a frozen bus and false ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oomslice.bus.errors import BusUnreachableError, InvalidArgumentsError, LimitsExceededError, NoReplyError
from oomslice.bus.question import Questioner
from oomslice.bus.service import BusService
from oomslice.bus.transport import Connection
from oomslice.cli.ask import QuickManager, answered
from oomslice.errors import BusError, NoSuchDecisionError
from tests.bus import rig
from tests.bus.rig import FixedBackend, PrivateBus
from tests.bus.test_hard_times import (
    Behaviour,
    babble,
    false_bus,
    hang,
    lose_the_plot,
    refuse,
    slam,
    slam_after_greeting,
)

pytestmark = pytest.mark.bus
PING = ("org.freedesktop.DBus", "/", "org.freedesktop.DBus.Peer", "Ping")


def asked(bus: PrivateBus, backend: FixedBackend, body: Callable[[Questioner], Any]) -> Any:
    """What `body` returns, in a thread, while the service runs."""

    def inner() -> Any:
        with Questioner(bus.address, maximum_message=32 << 20) as questioner:
            return body(questioner)

    async def main() -> Any:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        try:
            return await asyncio.to_thread(inner)
        finally:
            await service.stop()

    return asyncio.run(main())


def test_answers_are_those_of_the_other_client(bus: PrivateBus, backend: FixedBackend) -> None:
    calls: list[tuple[str, str, tuple[Any, ...]]] = [
        ("ListSlices", "", ()),
        ("GetSlice", "s", ("batch.slice",)),
        ("ListDecisions", "tu", (0, 10)),
        ("GetDecision", "s", ("00000000000000aa-1",)),
        ("GetHistory", "s", ("00000000000000aa-1",)),
        ("GetStatistics", "", ()),
        ("Explain", "", ()),
    ]

    async def main() -> tuple[list[Any], list[Any]]:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        client = await Connection.open(bus.address)
        theirs = [await client.call(*rig.MANAGER, *call) for call in calls]

        def quick() -> list[Any]:
            with Questioner(bus.address) as questioner:
                return [questioner.call(*rig.MANAGER, *call, timeout=20) for call in calls]

        ours = await asyncio.to_thread(quick)
        client.close()
        await service.stop()
        return ours, theirs

    ours, theirs = asyncio.run(main())
    assert ours == theirs
    assert ours[0][0][1][0] == "batch.slice"


def test_errors_are_those_that_the_daemon_meant(bus: PrivateBus, backend: FixedBackend) -> None:
    def body(questioner: Questioner) -> None:
        with pytest.raises(NoSuchDecisionError, match="no decision 'nobody'"):
            questioner.call(*rig.MANAGER, "GetDecision", "s", ("nobody",), timeout=20)
        with pytest.raises(InvalidArgumentsError):
            questioner.call(*rig.MANAGER, "GetDecision", "i", (5,), timeout=20)
        with pytest.raises(ValueError, match="do not fit"):
            questioner.call(*rig.MANAGER, "GetDecision", "s", (), timeout=20)
        with pytest.raises(ValueError, match="no method Nonsense"):
            answered(QuickManager(questioner).rows("Nonsense"))
        assert questioner.call(*PING, timeout=20) == []

    asked(bus, backend, body)


def test_ten_thousand_decisions_and_no_more_than_wanted(bus: PrivateBus, backend: FixedBackend) -> None:
    backend.stored = [rig.decision(number) for number in range(10_000)]

    def body(questioner: Questioner) -> None:
        rows = answered(QuickManager(questioner).rows("ListDecisions", 0, 10_000))
        assert len(rows) == 10_000 and rows[0][0] == "00000000000000aa-9999"

    asked(bus, backend, body)

    def little(_: Questioner) -> None:
        with Questioner(bus.address, maximum_message=4096) as questioner, pytest.raises(LimitsExceededError):
            questioner.call(*rig.MANAGER, "ListDecisions", "tu", (0, 10_000), timeout=20)

    asked(bus, backend, little)


def test_a_call_over_a_frozen_bus_times_out(bus: PrivateBus) -> None:
    with Questioner(bus.address) as questioner:
        bus.freeze()
        with pytest.raises(NoReplyError, match=r"did not answer Ping within 0\.2 s"):
            questioner.call(*PING, timeout=0.2)
        bus.thaw()
        # The answer that came late belongs to nobody.
        assert questioner.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId", timeout=20)[0]


def test_a_bus_that_goes_away_during_a_call_is_said_so(bus: PrivateBus) -> None:
    with Questioner(bus.address) as questioner:
        bus.freeze()
        ending = threading.Timer(0.1, bus.stop)
        ending.start()
        with pytest.raises(BusUnreachableError, match="closed the connection"):
            questioner.call(*PING, timeout=20)
        ending.join()
        with pytest.raises(BusUnreachableError):
            questioner.call(*PING, timeout=20)
    with pytest.raises(BusUnreachableError, match="not connected"):
        questioner.call(*PING, timeout=20)
    bus.start()


@pytest.mark.parametrize(
    ("behave", "sentence"),
    [
        (hang, "does not answer"),
        (slam, "closed the connection|cannot be reached"),
        (slam_after_greeting, "closed the connection|cannot be reached"),
        (babble, "refused us"),
        (refuse, "refused us: 'REJECTED EXTERNAL'"),
        (lose_the_plot, "does not speak D-Bus"),
    ],
)
def test_a_false_bus_is_given_up_in_time(bus_directory: Path, behave: Behaviour, sentence: str) -> None:
    def connect(address: str) -> None:
        with Questioner(address, timeout=1):
            raise AssertionError("it is no bus")

    async def main() -> None:
        async with false_bus(bus_directory, behave) as address:
            with pytest.raises(BusUnreachableError, match=sentence):
                await asyncio.to_thread(connect, address)

    asyncio.run(main())


def hello(answer: bytes) -> Callable[[socket.socket], None]:
    """A bus that greets, and then answers with these bytes."""

    def behave(peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            peer.recv(4096)
            peer.sendall(b"OK 0123\r\n")
            seen = b""
            while b"Hello" not in seen:
                seen += peer.recv(4096)
            peer.sendall(answer)
            peer.recv(4096)

    return behave


def reply(signature: bytes, body: bytes, serial: int = 1, size: int | None = None) -> bytes:
    """A METHOD_RETURN, its parts as they are given."""
    fields = b"\5\1u\0" + struct.pack("<I", serial) + b"\x08\1g\0" + bytes([len(signature)]) + signature + b"\0"
    start = struct.pack("<cBBBIII", b"l", 2, 1, 1, len(body) if size is None else size, 9, len(fields))
    return start + fields + b"\0" * (-len(fields) % 8) + body


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"s", struct.pack("<I", 1 << 30)),
        reply(b"z", b""),
        reply(b"v" * 200, b"\1v\0" * 80),
        reply(b"as", struct.pack("<I", 1 << 26)),
        reply(b"s", b"", size=(1 << 31)),
        struct.pack("<cBBBIII", b"l", 2, 1, 1, 0, 9, 1 << 20),
        struct.pack("<cBBBIII", b"l", 2, 1, 1, 0, 9, 8) + b"\5\1\xff\0\1\0\0\0",
        b"",
        reply(b"s", b"") * 3 + b"l",
    ],
)
def test_nonsense_of_a_bus_is_an_error_and_nothing_else(bus_directory: Path, answer: bytes) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(bus_directory / "false"))
    listener.listen(1)

    def serve() -> None:
        peer, _ = listener.accept()
        hello(answer)(peer)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(BusError), Questioner(f"unix:path={bus_directory}/false", timeout=1) as questioner:
        questioner.call(*PING, timeout=1)
    thread.join(10)
    assert not thread.is_alive()
    listener.close()


def test_a_full_backlog_is_waited_for_and_then_given_up(bus_directory: Path) -> None:
    path = str(bus_directory / "full")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, contextlib.ExitStack() as open_ones:
        listener.bind(path)
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            for _ in range(100):
                client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                open_ones.enter_context(client)
                client.connect(path)
        used = time.process_time()
        with pytest.raises(BusUnreachableError, match="does not answer"):
            Questioner(f"unix:path={path}", timeout=0.4).__enter__()
        assert time.process_time() - used < 0.3, "it must not spin"


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
    with pytest.raises(BusUnreachableError, match=sentence):
        Questioner(address).__enter__()


def test_of_several_addresses_the_first_that_works_is_taken(bus: PrivateBus) -> None:
    path = str(bus.socket).replace("b", "%62")
    with Questioner(f"unix:path=/nonexistent;unix:path={path},guid=00") as questioner:
        assert questioner.call(*PING, timeout=20) == []


def test_a_question_that_waits_for_something_else_is_a_mistake() -> None:
    async def sleeps() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="something else"):
        answered(sleeps())


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_who_acts_may_be_asked_for_a_password(bus: PrivateBus, backend: FixedBackend) -> None:
    def body(questioner: Questioner) -> str:
        return str(answered(QuickManager(questioner).do("Act", "batch.slice", "freeze")))

    assert asked(bus, backend, body) == "00000000000000aa-2"
    assert backend.asked == [("batch.slice", "freeze", 0)]
