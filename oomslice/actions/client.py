# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomsliced's end of the socket to oomslice-actions.service. A service that cannot be started is an answer, at once.

No request is lost because the service ends just then, and none is done twice: it is asked again of the next one only
if it never left here, or if the one that is ending says that it has not begun it.
"""

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
    NOT_BEGUN,
    ActionAnswer,
    ActionRequest,
    MessageError,
    decode_answer,
    encode,
)

IDLE_S = 60.0
"""The connection is given up after this long without a request, so that the service can end."""
ASKED_AGAIN_MAX = 3
"""Services that end one after another are none."""


class _Link:
    """One connection, and who waits for an answer on it."""

    def __init__(self, path: str) -> None:
        """Never waits: systemd listens. Raises OSError. To be called in the event loop."""
        flags = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.socket = socket.socket(socket.AF_UNIX, flags)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self.waiting: dict[int, asyncio.Future[ActionAnswer]] = {}
        self.ended = False
        self._reader = asyncio.get_running_loop().create_task(self._read(), name="actions")

    def end(self) -> None:
        """Closes it. Who waits is told that the service is gone."""
        self.ended = True
        self._reader.cancel()
        self.socket.close()
        waiting, self.waiting = self.waiting, {}
        for number, answer in waiting.items():
            if not answer.done():
                gone = ActionAnswer(number, "unavailable", errno.ECONNRESET, detail="oomslice-actions ended")
                answer.set_result(gone)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, MessageError):
            while data := await loop.sock_recv(self.socket, MESSAGE_MAX + 1):
                answer = decode_answer(data)
                future = self.waiting.pop(answer.number, None)
                if future is not None and not future.done():
                    future.set_result(answer)
        self.end()


class ActionsClient:
    """One connection, made with the first request. Methods are called in the event loop."""

    def __init__(self, path: str = DEFAULT_SOCKET, idle: float = IDLE_S) -> None:
        self._path = path
        self._idle = idle
        self._link: _Link | None = None
        self._leaving: set[_Link] = set()
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
        answer = ActionAnswer(request.number, "unavailable", NOT_BEGUN)
        try:
            async with asyncio.timeout(max(0.0, request.deadline_usec / 1e6 - time.monotonic())):
                for _ in range(ASKED_AGAIN_MAX):
                    link = self._connected()
                    answer = await self._ask_once(link, request.number, data)
                    if answer.error != NOT_BEGUN:
                        break
                    self._leave(link)
                return answer
        except TimeoutError:
            return ActionAnswer(request.number, "late", errno.ETIME, detail="oomslice-actions did not answer in time")
        except OSError as error:
            reason = f"oomslice-actions cannot be reached: {error.strerror}"
            return ActionAnswer(request.number, "unavailable", error.errno or errno.EIO, detail=reason)
        finally:
            self._rest()

    async def _ask_once(self, link: _Link, number: int, data: bytes) -> ActionAnswer:
        """NOT_BEGUN if nothing came of it and the next service may be asked. Raises OSError."""
        answer: asyncio.Future[ActionAnswer] = asyncio.get_running_loop().create_future()
        link.waiting[number] = answer
        try:
            # A packet goes at once or not at all; one that does not is a service that takes no more.
            link.socket.send(data)
            return await answer
        except (BrokenPipeError, ConnectionResetError):
            return ActionAnswer(number, "unavailable", NOT_BEGUN, detail="oomslice-actions ended")
        finally:
            link.waiting.pop(number, None)

    def close(self) -> None:
        """Ends the connection. Who waits is told that the service is gone."""
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._hang_up = None
        links = self._leaving | ({self._link} if self._link is not None else set())
        self._link, self._leaving = None, set()
        for link in links:
            link.end()

    def _connected(self) -> _Link:
        """The connection, made now if there is none. Raises OSError."""
        if self._link is None or self._link.ended:
            self._link = _Link(self._path)
        return self._link

    def _leave(self, link: _Link) -> None:
        """Asks nothing more of a service that is ending; what it has begun is still waited for."""
        if self._link is link:
            self._link = None
        self._leaving = {old for old in self._leaving | {link} if not old.ended}

    def _rest(self) -> None:
        """Puts off the end of the connection."""
        if self._hang_up is not None:
            self._hang_up.cancel()
        self._hang_up = asyncio.get_running_loop().call_later(self._idle, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if any(link.waiting for link in self._leaving) or (self._link is not None and self._link.waiting):
            self._rest()
        else:
            self.close()
