# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomsliced's end of the socket to oomslice-actions.service. A service that cannot be started is an answer, at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import socket
import time

from oomslice.actions.messages import (
    DEFAULT_SOCKET,
    MESSAGE_MAX,
    ActionAnswer,
    ActionRequest,
    MessageError,
    decode_answer,
    encode,
)

IDLE_S = 60.0
"""The connection is given up after this long without a request, so that the service can end."""


class ActionsClient:
    """One connection, made with the first request. Methods are called in the event loop."""

    def __init__(self, path: str = DEFAULT_SOCKET, idle: float = IDLE_S) -> None:
        self._path = path
        self._idle = idle
        self._connection: socket.socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[ActionAnswer]] = {}
        self._numbers = itertools.count(1)
        self._hang_up: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Has systemd start the service, because a request may come soon. Never waits; failing is found out later."""
        with contextlib.suppress(OSError):
            self._connected()
            self._rest()

    async def ask(self, request: ActionRequest) -> ActionAnswer:
        """Has one request done. Always answers, at the latest at its deadline; its number is given here."""
        request = request._replace(number=next(self._numbers))
        try:
            data = encode(request)
        except MessageError as error:
            return ActionAnswer(request.number, "failed", errno.EMSGSIZE, detail=str(error))
        answer: asyncio.Future[ActionAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[request.number] = answer
        try:
            # A packet goes at once or not at all; one that does not is a service that takes no more.
            self._connected().send(data)
            async with asyncio.timeout(max(0.0, request.deadline_usec / 1e6 - time.monotonic())):
                return await answer
        except TimeoutError:
            return ActionAnswer(request.number, "late", errno.ETIME, detail="oomslice-actions did not answer in time")
        except OSError as error:
            reason = f"oomslice-actions cannot be reached: {error.strerror}"
            return ActionAnswer(request.number, "unavailable", error.errno or errno.EIO, detail=reason)
        finally:
            self._waiting.pop(request.number, None)
            self._rest()

    def close(self) -> None:
        """Ends the connection. Who waits is told that the service is gone."""
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._hang_up = None
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        waiting, self._waiting = self._waiting, {}
        for number, answer in waiting.items():
            if not answer.done():
                gone = ActionAnswer(number, "unavailable", errno.ECONNRESET, detail="oomslice-actions ended")
                answer.set_result(gone)

    def _connected(self) -> socket.socket:
        """The connection, made now if there is none. Never waits: systemd listens. Raises OSError."""
        if self._connection is None:
            flags = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            connection = socket.socket(socket.AF_UNIX, flags)
            try:
                connection.connect(self._path)
            except OSError:
                connection.close()
                raise
            self._connection = connection
            self._reader = asyncio.get_running_loop().create_task(self._read(connection), name="actions")
        return self._connection

    def _rest(self) -> None:
        """Puts off the end of the connection."""
        if self._hang_up is not None:
            self._hang_up.cancel()
        self._hang_up = asyncio.get_running_loop().call_later(self._idle, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self._waiting:
            self._rest()
        else:
            self.close()

    async def _read(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, MessageError):
            while data := await loop.sock_recv(connection, MESSAGE_MAX + 1):
                answer = decode_answer(data)
                future = self._waiting.pop(answer.number, None)
                if future is not None and not future.done():
                    future.set_result(answer)
        if self._connection is connection:
            self._reader = None
            self.close()
