# SPDX-License-Identifier: LGPL-2.1-or-later
"""The extended part's end of the socket to the core; the protocol itself is described in core/channel.h."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from oomslice._core import ffi, lib
from oomslice.errors import ChannelError, PlanError, RefusedError

DEFAULT_SOCKET = "/run/oomslice/core.sock"
_MESSAGE_SIZE = ffi.sizeof("struct oomslice_message")
_DESCRIPTORS_MAX = int(lib.OOMSLICE_CHANNEL_DESCRIPTORS)


@dataclass(frozen=True, slots=True)
class CoreState:
    """What the core says of itself. Sizes in bytes."""

    generation: int
    features: tuple[str, ...]
    units: int
    domains: int
    watching: bool
    wakeups: int
    decisions: int
    dropped: int
    locked_bytes: int
    """Without the reserve."""
    reserve_bytes: int
    """What is held now; 0 from a decision until it has been calm for some seconds."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The core's greeting. The receiver owns the descriptors; `plan_fd` is -1 if the core has no plan."""

    generation: int
    ring_fd: int
    event_fd: int
    plan_fd: int


@dataclass(frozen=True, slots=True)
class _Message:
    type: int
    generation: int
    status: int
    detail: int
    size: int
    state: CoreState
    descriptors: tuple[int, ...]

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


class CoreChannel:
    """One connection to the core. All methods raise ChannelError when the core is gone or breaks the protocol.

    `on_closed` is called once, from the event loop, when the core closes the connection.
    """

    def __init__(self, path: str = DEFAULT_SOCKET, *, timeout: float = 10.0) -> None:
        self._path = path
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._answer: asyncio.Future[_Message] | None = None
        self._turn = asyncio.Lock()
        self.on_closed: Callable[[], None] | None = None

    async def connect(self) -> Hello:
        """Connects and greets; waits as long as it takes for the core to accept (its socket outlives it)."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise ChannelError(f"cannot connect to the core at {self._path}: {error.strerror}") from error
        self._socket = connection
        asyncio.get_running_loop().add_reader(connection, self._readable)
        reply = await self._ask(int(lib.OOMSLICE_MESSAGE_HELLO), timeout=None)
        if reply.type != lib.OOMSLICE_MESSAGE_HELLO_REPLY or len(reply.descriptors) not in (2, 3):
            reply.close()
            self.close()
            raise ChannelError("the core does not speak this version of the protocol: restart oomslice-core.service")
        descriptors = (*reply.descriptors, -1)
        return Hello(reply.generation, descriptors[0], descriptors[1], descriptors[2])

    async def send_plan(self, plan_fd: int, size: int, generation: int, descriptors: Sequence[int]) -> None:
        """Hands over a sealed plan and one open cgroup directory per unit, in the plan's order.

        Raises PlanError if the core refuses it; the plan in force stays then.
        """
        async with self._turn:
            self._answer = asyncio.get_running_loop().create_future()
            begin = int(lib.OOMSLICE_MESSAGE_PLAN_BEGIN)
            await self._send(begin, generation=generation, size=size, count=len(descriptors), descriptors=[plan_fd])
            for first in range(0, len(descriptors), _DESCRIPTORS_MAX):
                batch = descriptors[first : first + _DESCRIPTORS_MAX]
                kind = int(lib.OOMSLICE_MESSAGE_PLAN_DESCRIPTORS)
                await self._send(kind, generation=generation, first=first, count=len(batch), descriptors=batch)
                if self._answer.done():
                    break
            else:
                await self._send(int(lib.OOMSLICE_MESSAGE_PLAN_COMMIT), generation=generation)
            reply = await self._wait_for_answer(self._timeout)
        reply.close()
        if reply.type != lib.OOMSLICE_MESSAGE_PLAN_REPLY or reply.generation != generation:
            raise ChannelError("the core answered a plan with something else")
        if reply.status != 0:
            text = (
                ffi.string(lib.oomslice_plan_result_text(reply.status)).decode()
                if reply.status > 0
                else os.strerror(-reply.status)
            )
            message = f"the core refused plan {generation}: {text} (index {reply.detail})"
            raise PlanError(message, reply.status, reply.detail)

    async def state(self) -> CoreState:
        """Asks the core how it is."""
        reply = await self._ask(int(lib.OOMSLICE_MESSAGE_STATE), timeout=self._timeout)
        reply.close()
        return reply.state

    async def act(self, cgroup_id: int, step: tuple[int, int, bytes], uid: int) -> int:
        """Has one step begun upon a unit of the plan in force; `step` is its kind, amount and text.

        Returns the sequence of its record. Raises RefusedError if the core does not touch this unit now.
        """
        kind, amount, text = step
        reply = await self._command(
            lib.OOMSLICE_MESSAGE_ACT, cgroup_id=cgroup_id, step=kind, amount=amount, text=text, user=uid
        )
        return reply.size

    async def release(self, cgroup_id: int) -> None:
        """Has it undone what steps did to a cgroup. Raises RefusedError if there is nothing to undo."""
        await self._command(lib.OOMSLICE_MESSAGE_RELEASE, cgroup_id=cgroup_id)

    async def send_programs(self, maps: Sequence[int]) -> None:
        """Tells it which maps it shares with the BPF programs that are loaded now, in core/channel.h's order. Empty:
        none is loaded. Raises RefusedError if it cannot use them."""
        await self._command(lib.OOMSLICE_MESSAGE_PROGRAMS, count=len(maps), descriptors=maps)

    async def _command(self, message: Any, **fields: Any) -> _Message:
        kind = int(message)
        reply = await self._ask(kind, timeout=self._timeout, **fields)
        reply.close()
        if reply.type != kind + 1:
            raise ChannelError("the core answered a command with something else")
        if reply.status < 0:
            raise RefusedError(REFUSALS.get(-reply.status, os.strerror(-reply.status)))
        return reply

    def close(self) -> None:
        """Closes the connection; `on_closed` is not called."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ChannelError("the connection to the core was closed"))
            # Who could not even ask does not wait for it, and asyncio would tell the journal of an error nobody saw.
            self._answer.exception()

    async def _ask(self, kind: int, *, timeout: float | None, **fields: Any) -> _Message:
        async with self._turn:
            self._answer = asyncio.get_running_loop().create_future()
            await self._send(kind, **fields)
            return await self._wait_for_answer(timeout)

    async def _wait_for_answer(self, timeout: float | None) -> _Message:
        assert self._answer is not None
        try:
            return await asyncio.wait_for(self._answer, timeout)
        except TimeoutError:
            # A late answer would be taken for the next question's, so this connection is of no more use.
            self._lost()
            raise ChannelError(f"the core did not answer within {timeout} s") from None
        finally:
            self._answer = None

    async def _send(
        self,
        kind: int,
        *,
        generation: int = 0,
        first: int = 0,
        count: int = 0,
        size: int = 0,
        descriptors: Sequence[int] = (),
        **more: Any,
    ) -> None:
        message = ffi.new("struct oomslice_message *")
        message.type = kind
        message.version = lib.OOMSLICE_CHANNEL_VERSION
        message.generation = generation
        message.first = first
        message.count = count
        message.size = size
        for name, value in more.items():
            setattr(message, name, value)
        payload = bytes(ffi.buffer(message))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        while True:
            if self._socket is None:
                raise ChannelError("there is no connection to the core")
            try:
                self._socket.sendmsg([payload], rights, socket.MSG_NOSIGNAL)
                return
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                self._lost()
                raise ChannelError(f"cannot send to the core: {error.strerror}") from error

    async def _writable(self) -> None:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        writable: asyncio.Future[None] = loop.create_future()
        connection = self._socket
        loop.add_writer(connection, _resolve, writable)
        try:
            await asyncio.wait_for(writable, self._timeout)
        except TimeoutError:
            self._lost()
            raise ChannelError(f"the core took nothing for {self._timeout} s") from None
        finally:
            if connection.fileno() >= 0:
                loop.remove_writer(connection)

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            payload, descriptors, flags, _ = socket.recv_fds(
                self._socket, _MESSAGE_SIZE + 1, _DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        if len(payload) != _MESSAGE_SIZE or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            for descriptor in descriptors:
                os.close(descriptor)
            self._lost()
            return
        message = _decode(payload, tuple(descriptors))
        if self._answer is None or self._answer.done():
            message.close()
        else:
            self._answer.set_result(message)

    def _lost(self) -> None:
        if self._socket is None:
            return
        self.close()
        if self.on_closed is not None:
            self.on_closed()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _decode(payload: bytes, descriptors: tuple[int, ...]) -> _Message:
    message = ffi.new("struct oomslice_message *")
    ffi.buffer(message)[:] = payload
    features = tuple(name for name, bit in FEATURES.items() if message.state.features & bit)
    state = CoreState(
        generation=int(message.generation),
        features=features,
        units=int(message.state.units),
        domains=int(message.state.domains),
        watching=bool(message.state.watching),
        wakeups=int(message.state.wakeups),
        decisions=int(message.state.decisions),
        dropped=int(message.state.dropped),
        locked_bytes=int(message.state.locked_bytes),
        reserve_bytes=int(message.state.reserve_bytes),
    )
    return _Message(
        int(message.type),
        int(message.generation),
        int(message.status),
        int(message.detail),
        int(message.size),
        state,
        descriptors,
    )


REFUSALS: dict[int, str] = {
    errno.ESRCH: "the unit has no process, or is not in the plan",
    errno.EPERM: "the unit is protected, or holds a process that is never touched",
    errno.EISDIR: "the unit holds other units, or goes with one that does; name the one that holds processes",
    errno.EBUSY: "the unit is being acted upon, or too many are; try again",
    errno.ENOBUFS: "it could not be recorded, so it was not done",
    errno.EINVAL: "the core knows no such step",
    errno.EBADMSG: "what it was handed is not a map of this version's programs",
    errno.ENODATA: "nothing that oomslice did to the unit is in force",
}
"""Why the core does not do what it is asked to (core/asked.h)."""

FEATURES: dict[str, int] = {
    "locked": int(lib.OOMSLICE_FEATURE_LOCKED),
    "realtime": int(lib.OOMSLICE_FEATURE_REALTIME),
    "cgroup-kill": int(lib.OOMSLICE_FEATURE_CGROUP_KILL),
    "mrelease": int(lib.OOMSLICE_FEATURE_MRELEASE),
    "psi-machine": int(lib.OOMSLICE_FEATURE_PSI_MACHINE),
    "psi-domains": int(lib.OOMSLICE_FEATURE_PSI_DOMAINS),
    "memory": int(lib.OOMSLICE_FEATURE_MEMORY),
    "page-faults": int(lib.OOMSLICE_FEATURE_FAULTS),
    "pulse": int(lib.OOMSLICE_FEATURE_PULSE),
}
"""Name in `State` -> enum oomslice_core_feature."""
