# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of the core's socket that can also do what no client should. See core/channel.h."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oomslice._core import ffi, lib
from tests.core.plans import Plan, memfd

MESSAGE_SIZE = ffi.sizeof("struct oomslice_message")


def message(kind: int, **fields: int) -> bytes:
    """The bytes of one message."""
    data = ffi.new("struct oomslice_message *", {"type": kind, "version": lib.OOMSLICE_CHANNEL_VERSION})
    for name, value in fields.items():
        setattr(data, name, value)
    return bytes(ffi.buffer(data))


class Reply:
    """One answer, with the descriptors that came with it."""

    def __init__(self, data: bytes, fds: list[int]) -> None:
        assert len(data) == MESSAGE_SIZE
        self.fds = fds
        self.message: Any = ffi.new("struct oomslice_message *")
        ffi.memmove(self.message, data, len(data))

    @property
    def state(self) -> Any:
        """A copy, because a part of a cffi struct does not keep the whole alive."""
        state = ffi.new("struct oomslice_core_state *")
        state[0] = self.message.state
        return state


class Client:
    """A connection; blocking, with a timeout of 10 s."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.socket.connect(str(path))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *unused: object) -> None:
        self.socket.close()

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([data], control)

    def receive(self) -> Reply:
        data, control, _flags, _address = self.socket.recvmsg(MESSAGE_SIZE, socket.CMSG_SPACE(16 * 4))
        if not data:
            raise ConnectionResetError("the core has closed the connection")
        fds = array.array("i")
        for level, kind, payload in control:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            fds.frombytes(payload[: len(payload) // 4 * 4])
        return Reply(data, list(fds))

    def ask(self, kind: int, **fields: int) -> Reply:
        self.send(message(kind, **fields))
        return self.receive()

    def hello(self) -> Reply:
        return self.ask(lib.OOMSLICE_MESSAGE_HELLO)

    def state(self) -> Any:
        return self.ask(lib.OOMSLICE_MESSAGE_STATE).state

    def begin(self, plan_fd: int, generation: int = 1) -> None:
        self.send(message(lib.OOMSLICE_MESSAGE_PLAN_BEGIN, generation=generation), [plan_fd])

    def descriptors(self, first: int, fds: Sequence[int], generation: int = 1) -> None:
        kind = lib.OOMSLICE_MESSAGE_PLAN_DESCRIPTORS
        self.send(message(kind, generation=generation, first=first, count=len(fds)), fds)

    def commit(self, generation: int = 1) -> Reply:
        return self.ask(lib.OOMSLICE_MESSAGE_PLAN_COMMIT, generation=generation)

    def send_plan(self, plan: Plan, directories: Sequence[Path]) -> Any:
        """Hands over a plan in the regular way; the answer's message."""
        plan_fd = memfd(plan.encode())
        self.begin(plan_fd, plan.generation)
        os.close(plan_fd)
        for first in range(0, len(directories), lib.OOMSLICE_CHANNEL_DESCRIPTORS):
            batch = directories[first : first + lib.OOMSLICE_CHANNEL_DESCRIPTORS]
            fds = [os.open(directory, os.O_RDONLY | os.O_DIRECTORY) for directory in batch]
            self.descriptors(first, fds, plan.generation)
            for fd in fds:
                os.close(fd)
        return self.commit(plan.generation).message
