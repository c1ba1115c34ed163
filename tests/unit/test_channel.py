# SPDX-License-Identifier: LGPL-2.1-or-later
"""The channel's client against a scripted core: the real core is on the other end in tests/core and tests/vm."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from oomslice._core import ffi, lib
from oomslice.errors import ChannelError, PlanError
from oomslice.plan.channel import CoreChannel

SIZE = ffi.sizeof("struct oomslice_message")


class ScriptedCore:
    """Accepts one connection and runs `script` on it in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.path)
        self._listener.listen(1)
        self._thread: Thread | None = None
        self.received: list[tuple[int, int, int]] = []

    def run(self, script: Callable[[socket.socket], None]) -> None:
        def serve() -> None:
            connection, _ = self._listener.accept()
            with connection:
                script(connection)

        self._thread = Thread(target=serve)
        self._thread.start()

    def take(self, connection: socket.socket) -> Any:
        payload, descriptors, _, _ = socket.recv_fds(connection, SIZE, 253)
        for descriptor in descriptors:
            os.close(descriptor)
        message = ffi.new("struct oomslice_message *")
        ffi.buffer(message)[:] = payload
        self.received.append((int(message.type), int(message.count), len(descriptors)))
        return message

    def close(self) -> None:
        self._listener.close()
        if self._thread is not None:
            self._thread.join(10)


def answer(connection: socket.socket, kind: int, descriptors: list[int] | None = None, **fields: int) -> None:
    message = ffi.new("struct oomslice_message *")
    message.type = kind
    message.version = lib.OOMSLICE_CHANNEL_VERSION
    for name, value in fields.items():
        setattr(message, name, value)
    if descriptors:
        socket.send_fds(connection, [bytes(ffi.buffer(message))], descriptors)
    else:
        connection.send(bytes(ffi.buffer(message)))


@pytest.fixture
def core(tmp_path: Path) -> Iterator[ScriptedCore]:
    core = ScriptedCore(tmp_path / "core.sock")
    yield core
    core.close()


def greet(core: ScriptedCore, connection: socket.socket) -> None:
    assert core.take(connection).type == lib.OOMSLICE_MESSAGE_HELLO
    with open(os.devnull, "rb") as null:
        answer(connection, lib.OOMSLICE_MESSAGE_HELLO_REPLY, [null.fileno(), null.fileno()], generation=7)


def hand_over(core: ScriptedCore, count: int, **reply: int) -> BaseException | None:
    def script(connection: socket.socket) -> None:
        greet(core, connection)
        while core.take(connection).type != lib.OOMSLICE_MESSAGE_PLAN_COMMIT:
            pass
        answer(connection, lib.OOMSLICE_MESSAGE_PLAN_REPLY, **reply)

    async def client() -> BaseException | None:
        channel = CoreChannel(core.path, timeout=60)
        hello = await channel.connect()
        assert (hello.generation, hello.plan_fd) == (7, -1)
        os.close(hello.ring_fd)
        os.close(hello.event_fd)
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            await channel.send_plan(null, 4096, 8, [null] * count)
        except (PlanError, ChannelError) as error:
            return error
        finally:
            os.close(null)
            channel.close()
        return None

    core.run(script)
    return asyncio.run(client())


def test_a_plan_is_handed_over_in_batches_that_the_kernel_accepts(core: ScriptedCore) -> None:
    assert hand_over(core, 500, generation=8) is None
    batches = [(count, sent) for kind, count, sent in core.received if kind == lib.OOMSLICE_MESSAGE_PLAN_DESCRIPTORS]
    assert batches == [(240, 240), (240, 240), (20, 20)]


def test_a_refused_plan_says_why_and_where(core: ScriptedCore) -> None:
    error = hand_over(core, 1, generation=8, status=lib.OOMSLICE_PLAN_E_CGROUP, detail=3)
    assert isinstance(error, PlanError)
    assert (error.result, error.detail) == (lib.OOMSLICE_PLAN_E_CGROUP, 3)
    assert "index 3" in str(error)


def test_an_answer_to_another_plan_is_not_taken_for_ours(core: ScriptedCore) -> None:
    error = hand_over(core, 1, generation=5)
    assert isinstance(error, ChannelError)


def test_no_core_is_an_error_that_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match=r"core\.sock"):
        asyncio.run(CoreChannel(str(tmp_path / "core.sock")).connect())


def test_a_core_that_dies_is_noticed_without_asking(core: ScriptedCore) -> None:
    async def client() -> bool:
        channel = CoreChannel(core.path)
        closed = asyncio.Event()
        channel.on_closed = closed.set
        hello = await channel.connect()
        os.close(hello.ring_fd)
        os.close(hello.event_fd)
        await asyncio.wait_for(closed.wait(), 60)
        with pytest.raises(ChannelError):
            await channel.state()
        return True

    core.run(lambda connection: greet(core, connection))
    assert asyncio.run(client())


def test_what_cannot_be_asked_is_one_error_and_no_more(core: ScriptedCore) -> None:
    unseen: list[dict[str, Any]] = []

    async def client() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unseen.append(context))
        channel = CoreChannel(core.path)
        hello = await channel.connect()
        os.close(hello.ring_fd)
        os.close(hello.event_fd)
        core.close()  # it has ended, and nobody has looked yet
        with pytest.raises(ChannelError, match="cannot send"):
            await channel.state()
        del channel
        gc.collect()

    core.run(lambda connection: greet(core, connection))
    asyncio.run(client())
    assert unseen == []


def test_a_packet_of_the_wrong_size_ends_the_connection(core: ScriptedCore) -> None:
    def script(connection: socket.socket) -> None:
        core.take(connection)
        connection.send(b"short")

    async def client() -> None:
        await CoreChannel(core.path).connect()

    core.run(script)
    with pytest.raises(ChannelError):
        asyncio.run(client())


def test_a_core_that_does_not_answer_is_given_up(core: ScriptedCore) -> None:
    def script(connection: socket.socket) -> None:
        greet(core, connection)
        core.take(connection)
        connection.recv(1)

    async def client() -> None:
        channel = CoreChannel(core.path, timeout=0.2)
        hello = await channel.connect()
        os.close(hello.ring_fd)
        os.close(hello.event_fd)
        await channel.state()

    core.run(script)
    with pytest.raises(ChannelError, match="did not answer"):
        asyncio.run(client())
