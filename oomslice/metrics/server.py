# SPDX-License-Identifier: LGPL-2.1-or-later
"""Answers scrapes over HTTP on a socket that systemd hands over, and ends when nobody has asked for a while.

Understands one request on a connection, GET or HEAD of /metrics, and nothing else of HTTP. What a stranger sends is
bounded in size, time and number.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from oomslice.metrics.exposition import CONTENT_TYPE

IDLE_SEC = 600.0
REQUEST_MAX = 8192
REQUEST_SEC = 5.0
ANSWER_SEC = 30.0
CONNECTIONS_MAX = 16
ROOT_PAGE = "oomslice: /metrics\n"


class Server:
    """Serves what `text()` returns."""

    def __init__(self, text: Callable[[], Awaitable[str]], idle: float = IDLE_SEC) -> None:
        self._text = text
        self._idle = idle
        self._open = 0
        self._asked = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    async def run(self, listener: socket.socket) -> None:
        """Returns when nobody has asked for `idle` seconds."""
        server = await asyncio.start_server(self._connected, sock=listener, limit=REQUEST_MAX)
        async with server:
            with contextlib.suppress(TimeoutError):
                while True:
                    self._asked.clear()
                    await asyncio.wait_for(self._asked.wait(), self._idle)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._asked.set()
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                with contextlib.suppress(TimeoutError, OSError):
                    await asyncio.wait_for(self._serve(reader, writer), ANSWER_SEC)
        finally:
            self._open -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), REQUEST_SEC)
        except asyncio.LimitOverrunError:
            await _answer(writer, "431 Request Header Fields Too Large", "the request is too long\n")
            return
        except asyncio.IncompleteReadError:
            return
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            await _answer(writer, "400 Bad Request", "no request\n")
        elif words[0] not in (b"GET", b"HEAD"):
            await _answer(writer, "405 Method Not Allowed", "only GET\n", "Allow: GET, HEAD\r\n")
        else:
            path = words[1].split(b"?", 1)[0]
            body = words[0] == b"GET"
            if path == b"/metrics":
                # Who scrapes twice at once waits: the daemon is asked once at a time.
                async with self._one_at_a_time:
                    text = await self._text()
                await _answer(writer, "200 OK", text, kind=CONTENT_TYPE, body=body)
            elif path == b"/":
                await _answer(writer, "200 OK", ROOT_PAGE, body=body)
            else:
                await _answer(writer, "404 Not Found", ROOT_PAGE, body=body)


async def _answer(
    writer: asyncio.StreamWriter,
    status: str,
    text: str,
    headers: str = "",
    kind: str = "text/plain; charset=utf-8",
    body: bool = True,
) -> None:
    data = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{headers}"
        "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + (data if body else b""))
    await writer.drain()
