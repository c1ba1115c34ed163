# SPDX-License-Identifier: LGPL-2.1-or-later
"""A connection to a message bus for one question after another, or for one signal after another: what a command needs
that is to start at once.

Does the same as transport.py for whoever has nothing else to do meanwhile, without asyncio and dbus-next, whose import
takes longer than all the rest of a call. Every question has a timeout; a bus that talks nonsense is an error.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from oomslice.bus.address import DEFAULT_ADDRESS, socket_paths
from oomslice.bus.errors import BusUnreachableError, InvalidArgumentsError, LimitsExceededError, NoReplyError, error_of
from oomslice.bus.wire import Reader, Writer, single_types
from oomslice.errors import BusError

CONNECT_TIMEOUT_S = 10.0
BACKLOG_FULL_S = 0.1
LINE_MAX = 1024
HEADER_MAX = 1 << 16
PIECE = 1 << 18
METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_AUTOSTART, MAY_INTERACT = 2, 4
FIELDS = {"path": (1, "o"), "interface": (2, "s"), "member": (3, "s"), "destination": (6, "s"), "signature": (8, "g")}
"""Header field -> its number and type. Source: D-Bus specification."""
FIELD_ERROR_NAME, FIELD_REPLY_SERIAL, FIELD_SENDER, FIELD_SIGNATURE = 4, 5, 7, 8
BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class Heard(NamedTuple):
    """A signal. Its arguments are read on request only: their types are the sender's choice."""

    sender: str
    path: str
    interface: str
    member: str
    signature: str
    frame: bytes
    body_at: int

    def body(self) -> list[Any]:
        """The arguments as plain values. Raises InvalidArgumentsError."""
        try:
            reader = Reader(self.frame, self.body_at)
            return [reader.read(type_) for type_ in single_types(self.signature)]
        except ValueError as error:
            raise InvalidArgumentsError(f"arguments of {self.member} cannot be read: {error}") from error


class Questioner:
    """A connection, to be used in `with`. `address` is a D-Bus address, by default the system bus.

    `on_signal` gets every signal that comes, in order, while an answer or a signal is waited for.
    """

    def __init__(
        self, address: str | None = None, *, timeout: float = CONNECT_TIMEOUT_S, maximum_message: int = 1 << 20
    ) -> None:
        self._address = address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or DEFAULT_ADDRESS
        self._timeout = timeout
        self._maximum_message = maximum_message
        self._serial = 0
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self.on_signal: Callable[[Heard], None] | None = None

    def __enter__(self) -> Questioner:
        """Connects and says hello. Raises BusUnreachableError."""
        deadline = time.monotonic() + self._timeout
        try:
            self._socket = _connected(self._address, deadline)
            self._authenticate(deadline)
            self._call((*BUS, "Hello"), "", (), 0, deadline)
        except TimeoutError:
            self.close()
            raise BusUnreachableError(f"the message bus at {self._address} does not answer") from None
        except OSError as error:
            self.close()
            reason = error.strerror or str(error) or "connection closed"
            raise BusUnreachableError(f"the message bus at {self._address} cannot be reached: {reason}") from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        arguments: Sequence[Any] = (),
        *,
        timeout: float,
        interactive: bool = False,
    ) -> list[Any]:
        """Calls a method and returns what it returned, variants as plain values.

        Raises the exception that stands for the error it answered with; NoReplyError after `timeout` seconds,
        BusUnreachableError if the connection goes, ValueError if the arguments do not fit the signature.
        """
        flags = NO_AUTOSTART | (MAY_INTERACT if interactive else 0)
        to = (destination, path, interface, member)
        try:
            return self._call(to, signature, arguments, flags, time.monotonic() + timeout)
        except TimeoutError:
            raise NoReplyError(f"{destination} did not answer {member} within {timeout:g} s") from None
        except OSError as error:
            raise BusUnreachableError(f"the message bus closed the connection: {error.strerror or error}") from error

    def wait(self) -> None:
        """Waits for the next message, however long, and passes it on if it is a signal. Raises BusUnreachableError if
        the connection goes."""
        try:
            self._take(self._message(None))
        except OSError as error:
            raise BusUnreachableError(f"the message bus closed the connection: {error.strerror or error}") from error

    # The rest may raise TimeoutError and OSError as well.

    def _take(self, frame: bytes) -> tuple[int, dict[int, Any], int]:
        """A message's kind, header fields and where its body begins; signals are passed on."""
        kind, header, body_at = _header(frame)
        if kind == SIGNAL and self.on_signal is not None:
            sender, path, interface, member, signature = (
                str(header.get(field, "")) for field in (FIELD_SENDER, 1, 2, 3, FIELD_SIGNATURE)
            )
            self.on_signal(Heard(sender, path, interface, member, signature, frame, body_at))
        return kind, header, body_at

    def _call(
        self, to: tuple[str, str, str, str], signature: str, arguments: Sequence[Any], flags: int, deadline: float
    ) -> list[Any]:
        self._serial += 1
        data = _encoded(to, signature, arguments, flags, self._serial)
        self._connection(deadline).sendall(data)
        while True:
            frame = self._message(deadline)
            kind, header, body_at = self._take(frame)
            if kind in (METHOD_RETURN, ERROR) and header.get(FIELD_REPLY_SERIAL) == self._serial:
                break
        answer_signature = header.get(FIELD_SIGNATURE, "")
        try:
            reader = Reader(frame, body_at)
            answer = [reader.read(type_) for type_ in single_types(answer_signature)]
        except ValueError as error:
            raise InvalidArgumentsError(f"the answer to {to[3]} cannot be read: {error}") from error
        if kind == ERROR:
            raise error_of(str(header.get(FIELD_ERROR_NAME, "")), str(answer[0]) if answer else "")
        return answer

    def _connection(self, deadline: float | None) -> socket.socket:
        """The socket, good for what can be done by then."""
        if self._socket is None:
            raise BusUnreachableError("not connected")
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._socket

    def _more(self, deadline: float | None) -> None:
        data = self._connection(deadline).recv(PIECE)
        if not data:
            raise BusUnreachableError("the message bus closed the connection")
        self._buffer += data

    def _taken(self, size: int, deadline: float | None) -> bytes:
        while len(self._buffer) < size:
            self._more(deadline)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _authenticate(self, deadline: float) -> None:
        uid = str(os.getuid()).encode().hex().encode()
        self._connection(deadline).sendall(b"\0AUTH EXTERNAL " + uid + b"\r\n")
        while b"\r\n" not in self._buffer and len(self._buffer) <= LINE_MAX:
            self._more(deadline)
        line = self._taken(max(self._buffer.find(b"\r\n"), 0), deadline)
        if not line.startswith(b"OK "):
            raise BusUnreachableError(f"the message bus refused us: {line.decode('ascii', 'replace')!r}")
        self._taken(2, deadline)
        self._connection(deadline).sendall(b"BEGIN\r\n")

    def _message(self, deadline: float | None) -> bytes:
        """The next one, whole."""
        begin = self._taken(16, deadline)
        order = {ord("l"): "<", ord("B"): ">"}.get(begin[0])
        if order is None or begin[3] != 1:
            raise BusUnreachableError("the message bus does not speak D-Bus")
        body, _, fields = struct.unpack_from(order + "III", begin, 4)
        header = 16 + (fields + 7) // 8 * 8
        if header > HEADER_MAX:
            raise BusUnreachableError("the message bus does not speak D-Bus")
        if header + body > self._maximum_message:
            raise LimitsExceededError("the answer is too large")
        return begin + self._taken(header + body - 16, deadline)


def _encoded(to: tuple[str, str, str, str], signature: str, arguments: Sequence[Any], flags: int, serial: int) -> bytes:
    """A call as bytes. Raises ValueError."""
    types = single_types(signature)
    if len(types) != len(arguments):
        raise ValueError(f"{len(arguments)} arguments do not fit {signature!r}")
    body = Writer()
    for type_, argument in zip(types, arguments, strict=True):
        body.write(type_, argument)
    destination, path, interface, member = to
    values = {"path": path, "interface": interface, "member": member, "destination": destination}
    if signature:
        values["signature"] = signature
    fields = Writer()
    for name, value in values.items():
        number, type_ = FIELDS[name]
        fields.data += b"\0" * (-len(fields.data) % 8)
        fields.write("y", number)
        fields.write("g", type_)
        fields.write(type_, value)
    start = struct.pack("<cBBBIII", b"l", METHOD_CALL, flags, 1, len(body.data), serial, len(fields.data))
    return start + fields.data + b"\0" * (-len(fields.data) % 8) + body.data


def _header(frame: bytes) -> tuple[int, dict[int, Any], int]:
    """Kind, header fields, and where the body begins. Raises BusError."""
    try:
        (size,) = struct.unpack_from((">" if frame[:1] == b"B" else "<") + "I", frame, 12)
        return frame[1], dict(Reader(frame, 12).read("a(yv)")), 16 + (size + 7) // 8 * 8
    except (ValueError, TypeError) as error:
        raise BusError(f"the message bus sent what cannot be read: {error}") from error


def _connected(address: str, deadline: float) -> socket.socket:
    """A socket to the first of the addresses that works. Raises OSError, BusError."""
    failure: OSError | None = None
    for path in socket_paths(address):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                try:
                    connection.connect(path)
                    return connection
                except BlockingIOError:
                    # The bus is frozen and its backlog full, which poll() cannot wait for.
                    time.sleep(min(BACKLOG_FULL_S, left))
        except TimeoutError:
            connection.close()
            raise
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
    if failure is None:
        raise BusUnreachableError(f"{address!r} names no Unix socket")
    raise failure
