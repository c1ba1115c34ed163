# SPDX-License-Identifier: LGPL-2.1-or-later
"""A connection to a message bus that a bad bus or a bad peer cannot take down.

Messages are dbus-next's (message.py). Its connection is not used, because under memory pressure, which is when oomslice
matters, it fails: a full socket is fatal to its writer, a bus that closes during the handshake makes it spin, its
constructor blocks, an unknown header field from any peer ends the connection, received descriptors leak, exceptions go
out with traceback. Here instead:

- asyncio's transport writes, so a full socket means waiting; what waits is bounded, the rest is dropped and counted;
- nothing is read while much is unwritten, messages larger than a limit are skipped, not stored;
- descriptors are not negotiated, so the bus refuses to deliver any, and the kernel discards what came all the same;
- a message that cannot be decoded is answered with an error and forgotten;
- connecting never blocks the loop, and everything has a timeout.

It knows nothing of oomslice's objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Sequence, Sized
from typing import Any

from oomslice.bus.address import DEFAULT_ADDRESS, socket_paths
from oomslice.bus.errors import BusUnreachableError, LimitsExceededError, NoReplyError, error_of
from oomslice.bus.frames import error_message
from oomslice.bus.message import Encoded, Incoming, MessageFlag, MessageType, decode, encode
from oomslice.errors import BusError

LOGGER = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 25.0
SIGNALS_WAITING_MAX = 1 << 20
"""Bytes that wait to be written, from which on signals are dropped. Reading stops at a quarter of it."""
REPLIES_WAITING_MAX = 16 << 20
"""The same for replies and calls."""
MESSAGE_MAX = 1 << 20
"""Bytes of a message that is accepted by default. The bus itself allows 32 MiB."""
ERROR_MAX = 2000
"""Characters of a message that goes with an error: it may quote what was sent."""
LARGE_ANSWER = 200
"""Rows of an answer from which on it is put together in a thread."""
HEADER_MAX = 1 << 16
AUTHENTICATION_LINE_MAX = 1024

BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class Connection(asyncio.Protocol):
    """One connection, from `open` to `close` or until the bus goes.

    `on_call` gets every method call, `on_signal` every signal, both in the loop and expected not to wait; `on_writable`
    is called when the bus takes messages again after a time in which it did not.
    """

    def __init__(self, maximum_message: int = MESSAGE_MAX) -> None:
        self.unique_name = ""
        self.signals_dropped = 0
        self.replies_dropped = 0
        self.on_call: Callable[[Incoming], None] | None = None
        self.on_signal: Callable[[Incoming], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self._maximum_message = maximum_message
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._skip = 0
        self._corked: list[bytes] | None = None
        self._corked_bytes = 0
        self._authenticating: asyncio.Future[None] | None = None
        self._serial = 0
        self._calls: dict[int, asyncio.Future[Incoming]] = {}
        self._large_answers = asyncio.Lock()
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(
        cls, address: str | None = None, *, timeout: float = CONNECT_TIMEOUT_S, maximum_message: int = MESSAGE_MAX
    ) -> Connection:
        """Connects and says hello. Raises BusUnreachableError.

        `address` is a D-Bus address, by default the system bus.
        """
        address = address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or DEFAULT_ADDRESS
        connection = cls(maximum_message)
        try:
            async with asyncio.timeout(timeout):
                await connection._connect(address)
        except TimeoutError:
            connection.close()
            raise BusUnreachableError(f"the message bus at {address} does not answer") from None
        except OSError as error:
            connection.close()
            reason = error.strerror or str(error) or "connection closed"
            raise BusUnreachableError(f"the message bus at {address} cannot be reached: {reason}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def connected(self) -> bool:
        return self._transport is not None and not self._closed.done()

    @property
    def waiting_bytes(self) -> int:
        """How much waits to be written."""
        return self._transport.get_write_buffer_size() + self._corked_bytes if self._transport else 0

    async def wait_closed(self) -> None:
        """Returns when the connection is gone."""
        await asyncio.shield(self._closed)

    def close(self) -> None:
        """Drops the connection at once, with what waits to be written."""
        if self._transport is not None:
            self._transport.abort()
        elif not self._closed.done():
            self._closed.set_result(None)

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        arguments: Sequence[Any] = (),
        *,
        timeout: float = CALL_TIMEOUT_S,
        start_service: bool = False,
        interactive: bool = False,
    ) -> list[Any]:
        """Calls a method and returns what it returned, variants as plain values.

        Raises the exception that stands for the error it answered with; NoReplyError after `timeout` seconds,
        BusUnreachableError if the connection goes, ValueError if the arguments do not fit the signature.
        """
        serial = self._next_serial()
        data = encode(
            message_type=MessageType.METHOD_CALL,
            flags=(MessageFlag.NONE if start_service else MessageFlag.NO_AUTOSTART)
            | (MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE),
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(arguments),
            serial=serial,
        )
        future: asyncio.Future[Incoming] = asyncio.get_running_loop().create_future()
        self._calls[serial] = future
        try:
            if not self._takes(REPLIES_WAITING_MAX):
                raise BusUnreachableError("the message bus takes no more messages")
            self._write(data)
            async with asyncio.timeout(timeout):
                answer = await future
        except TimeoutError:
            raise NoReplyError(f"{destination} did not answer {member} within {timeout:g} s") from None
        finally:
            del self._calls[serial]
        if answer.oversized:
            raise LimitsExceededError(f"the answer to {member} is too large")
        if answer.error_name:
            raise error_of(answer.error_name, _error_text(answer))
        return answer.body()

    async def call_bus(self, member: str, signature: str = "", arguments: Sequence[Any] = ()) -> list[Any]:
        """Calls a method of the bus itself. Raises as `call`."""
        return await self.call(*BUS, member, signature, arguments)

    def emit(self, path: str, interface: str, member: str, signature: str, arguments: Sequence[Any] | Encoded) -> bool:
        """Sends a signal to whoever listens. False if it was dropped, because the bus takes none or is gone."""
        if not self._takes(SIGNALS_WAITING_MAX):
            self.signals_dropped += 1
            return False
        self._write(
            encode(
                message_type=MessageType.SIGNAL,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=arguments if isinstance(arguments, Encoded) else list(arguments),
                serial=self._next_serial(),
            )
        )
        return True

    async def reply(self, call: Incoming, signature: str, arguments: Sequence[Any] | Encoded) -> bool:
        """Answers a call. False if the answer was dropped. Raises ValueError if the values do not fit."""
        if not call.reply_expected:
            return True
        fields: dict[str, Any] = {
            "message_type": MessageType.METHOD_RETURN,
            "destination": call.sender,
            "reply_serial": call.serial,
            "signature": signature,
            "body": arguments if isinstance(arguments, Encoded) else list(arguments),
            "serial": self._next_serial(),
        }
        if isinstance(arguments, Encoded) or not any(
            isinstance(argument, Sized) and len(argument) > LARGE_ANSWER for argument in arguments
        ):
            return self._send_reply(encode(**fields))
        # Seconds of work, if a caller asks for enough: not in the loop, and one at a time.
        async with self._large_answers:
            data = await asyncio.to_thread(encode, **fields)
        return self._send_reply(data)

    def reply_error(self, call: Incoming, name: str, message: str) -> bool:
        """Answers a call with an error. False if the answer was dropped."""
        if not call.reply_expected:
            return True
        text = message[:ERROR_MAX].replace("\0", " ").encode("utf-8", "replace")
        return self._send_reply(error_message(call.sender, call.serial, name, text, self._next_serial()))

    # asyncio.Protocol, called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=SIGNALS_WAITING_MAX // 4)

    def connection_lost(self, exc: Exception | None) -> None:
        error = BusUnreachableError("the message bus closed the connection" + (f": {exc}" if exc else ""))
        if self._authenticating is not None and not self._authenticating.done():
            self._authenticating.set_exception(error)
        for future in self._calls.values():
            if not future.done():
                future.set_exception(error)
        self._buffer.clear()
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        # Whoever makes us write must wait too: what a caller asks for is read once the bus took our answers.
        assert self._transport is not None
        if self._authenticating is None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.resume_reading()
            if self.on_writable:
                self.on_writable()

    def data_received(self, data: bytes) -> None:
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._buffer += data
        if self._authenticating is not None:
            self._authentication_line()
            return
        # What is answered at once goes out at once, instead of a system call for each answer.
        self._corked = []
        try:
            self._messages()
        finally:
            corked, self._corked, self._corked_bytes = self._corked, None, 0
            if corked and self._transport is not None and not self._transport.is_closing():
                self._transport.write(b"".join(corked))

    # The rest is not public.

    async def _connect(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        sock = await _connected_socket(address)
        try:
            self._authenticating = loop.create_future()
            await loop.create_unix_connection(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            raise
        assert self._transport is not None
        uid = str(os.getuid()).encode().hex().encode()
        self._transport.write(b"\0AUTH EXTERNAL " + uid + b"\r\n")
        await self._authenticating
        self._authenticating = None
        self._transport.write(b"BEGIN\r\n")
        self.unique_name = str((await self.call_bus("Hello"))[0])

    def _authentication_line(self) -> None:
        assert self._authenticating is not None
        end = self._buffer.find(b"\r\n")
        if end < 0 and len(self._buffer) <= AUTHENTICATION_LINE_MAX:
            return
        line = bytes(self._buffer[: max(end, 0)])
        del self._buffer[: end + 2]
        if self._authenticating.done():
            return
        if line.startswith(b"OK "):
            self._authenticating.set_result(None)
        else:
            text = line.decode("ascii", "replace")
            self._authenticating.set_exception(BusUnreachableError(f"the message bus refused us: {text!r}"))

    def _messages(self) -> None:
        while len(self._buffer) >= 16 and not self._closed.done():
            order = {ord("l"): "<", ord("B"): ">"}.get(self._buffer[0])
            if order is None or self._buffer[3] != 1:
                LOGGER.error("the message bus does not speak D-Bus any more; connection dropped")
                self.close()
                return
            body, _, fields = struct.unpack_from(order + "III", self._buffer, 4)
            header = 16 + (fields + 7) // 8 * 8
            size = header + body
            if size > self._maximum_message or header > HEADER_MAX:
                if header <= HEADER_MAX and len(self._buffer) < header:
                    return
                self._oversized(header)
                if size > len(self._buffer):
                    self._skip = size - len(self._buffer)
                del self._buffer[:size]
                continue
            if len(self._buffer) < size:
                return
            frame = bytes(self._buffer[:size])
            del self._buffer[:size]
            message = decode(frame, header)
            if message is not None:
                self._received(message)

    def _oversized(self, header: int) -> None:
        if header > HEADER_MAX:
            return
        message = decode(bytes(self._buffer[:header]), header, oversized=True)
        if message is None:
            return
        if message.kind == MessageType.METHOD_CALL.value:
            self.reply_error(message, LimitsExceededError.bus_name, "this message is too large")
        elif message.reply_serial:
            self._received(message)

    def _received(self, message: Incoming) -> None:
        if message.reply_serial and message.kind in (MessageType.METHOD_RETURN.value, MessageType.ERROR.value):
            future = self._calls.get(message.reply_serial)
            if future is not None and not future.done():
                future.set_result(message)
        elif message.kind == MessageType.METHOD_CALL.value and self.on_call:
            self._guarded(self.on_call, message)
        elif message.kind == MessageType.SIGNAL.value and self.on_signal:
            self._guarded(self.on_signal, message)

    def _guarded(self, handler: Callable[[Incoming], None], message: Incoming) -> None:
        try:
            handler(message)
        except Exception:
            # asyncio would end the connection over it.
            LOGGER.exception("a message from %s could not be handled", message.sender)

    def _send_reply(self, data: bytes) -> bool:
        if not self._takes(REPLIES_WAITING_MAX):
            self.replies_dropped += 1
            return False
        self._write(data)
        return True

    def _takes(self, waiting_max: int) -> bool:
        return self._transport is not None and not self._transport.is_closing() and self.waiting_bytes <= waiting_max

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        if self._corked is not None:
            self._corked.append(data)
            self._corked_bytes += len(data)
        else:
            self._transport.write(data)

    def _next_serial(self) -> int:
        self._serial = self._serial % 0xFFFFFFFF + 1
        return self._serial


def _error_text(message: Incoming) -> str:
    with contextlib.suppress(BusError):
        if message.signature.startswith("s"):
            return str(message.body()[0])
    return ""


async def _connected_socket(address: str) -> socket.socket:
    """A connected, non-blocking socket to the first of the addresses that works. Raises OSError, BusError."""
    failure: OSError | None = None
    for path in socket_paths(address):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            while True:
                try:
                    sock.connect(path)
                    return sock
                except BlockingIOError:
                    # The bus is frozen and its backlog full. A Unix socket cannot be waited for in that state, and
                    # asyncio would take it for connected.
                    await asyncio.sleep(0.1)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    if failure is None:
        raise BusUnreachableError(f"{address!r} names no Unix socket")
    raise failure
