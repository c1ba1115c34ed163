# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages of a bus: values into bytes and back. The only importer of dbus-next.

dbus-next 0.2.3 is used for what it does well: types, and turning values into messages and back. What it does badly is
said in transport.py; of what is here it keeps every type for ever that it has seen in a variant, and knows no body that
is encoded already.
"""

from __future__ import annotations

import io
import logging
import struct
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oomslice.bus.errors import InvalidArgumentsError
from oomslice.bus.frames import (
    ALIGNMENT,
    FIELD_DESTINATION,
    FIELD_ERROR_NAME,
    FIELD_INTERFACE,
    FIELD_MEMBER,
    FIELD_PATH,
    FIELD_REPLY_SERIAL,
    FIELD_SENDER,
    FIELD_SIGNATURE,
    usual_fields,
)

if not hasattr(typing, "no_type_check_decorator"):
    # Gone in Python 3.15; dbus-next imports it.
    typing.no_type_check_decorator = lambda decorator: decorator

from dbus_next import Message, Variant
from dbus_next import MessageFlag as MessageFlag
from dbus_next import MessageType as MessageType
from dbus_next._private.marshaller import Marshaller
from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.signature import SignatureTree

LOGGER = logging.getLogger(__name__)

DEPTH_MAX = 64
NO_REPLY_EXPECTED, MAY_INTERACT = 1, 4
HEADER_FIELDS = SignatureTree("a(yv)").types[0]


def typed(signature: str, value: Any) -> Any:
    """A value for a `v`: of this type and no other. Raises ValueError."""
    try:
        return Variant(signature, value)
    except Exception as error:  # its checks raise a dozen kinds
        raise ValueError(f"{value!r} is no {signature}: {error}") from error


@dataclass(frozen=True, slots=True)
class Encoded:
    """Arguments as they go over the wire, from the begin of a message's body."""

    data: bytes


def encoded(signature: str, arguments: Sequence[Any]) -> Encoded:
    """Arguments, once for many messages. Raises ValueError if they do not fit."""
    try:
        return Encoded(bytes(Marshaller(signature, list(arguments)).marshall()))
    except Exception as error:  # its checks raise a dozen kinds
        raise ValueError(f"values do not fit {signature!r}: {error}") from error


def array_of(entries: Sequence[Encoded]) -> Encoded:
    """One argument, an array of structures or dictionary entries, each encoded as if it were a body of its own."""
    body = bytearray(ALIGNMENT)
    for entry in entries:
        body += b"\0" * (-len(body) % ALIGNMENT)
        body += entry.data
    struct.pack_into("<I", body, 0, len(body) - ALIGNMENT)
    return Encoded(bytes(body))


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message from the bus. The body is decoded on request only: its type is the sender's choice."""

    kind: int
    flags: int
    serial: int
    sender: str
    path: str
    interface: str
    member: str
    error_name: str
    reply_serial: int
    signature: str
    data: bytes
    body_offset: int
    oversized: bool = False

    @property
    def interactive(self) -> bool:
        """True if the caller may be asked for a password."""
        return bool(self.flags & MAY_INTERACT)

    @property
    def reply_expected(self) -> bool:
        return not self.flags & NO_REPLY_EXPECTED

    def body(self) -> list[Any]:
        """The arguments as plain values; variants are replaced by what they hold. Raises InvalidArgumentsError."""
        try:
            decoder = Decoder(self.data, self.body_offset)
            return [decoder.read_argument(type_) for type_ in SignatureTree(self.signature).types]
        except Exception as error:  # malformed in any way
            raise InvalidArgumentsError(f"arguments of type {self.signature!r} cannot be read") from error


class Decoder(Unmarshaller):  # type: ignore[misc]
    """dbus-next's decoder over a whole message in memory."""

    def __init__(self, data: bytes | bytearray, offset: int) -> None:
        super().__init__(io.BytesIO())
        self.buf = bytearray(data)
        self.endian = data[0]
        self.offset = offset
        self.depth = 0

    def read_variant(self, _: Any = None) -> Any:
        # The original keeps every type it ever saw for ever: a peer could fill our memory with that.
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise ValueError("variants nested too deeply")
        types = SignatureTree(self.read_signature()).types
        if len(types) != 1:
            raise ValueError("a variant holds one value")
        value = self.read_argument(types[0])
        self.depth -= 1
        return value


def encode(**fields: Any) -> bytes:
    """A whole message, of the fields of dbus-next's own. Raises ValueError if values do not fit."""
    body = fields.get("body")
    try:
        if isinstance(body, Encoded):
            return _with_body(body.data, fields)
        return bytes(Message(**fields)._marshall())
    except Exception as error:  # its checks raise a dozen kinds
        raise ValueError(f"values do not fit {fields.get('signature', '')!r}: {error}") from error


def _with_body(body: bytes, fields: dict[str, Any]) -> bytes:
    """A message whose body is encoded already: dbus-next has no way for that."""
    numbers = {"path": (FIELD_PATH, "o"), "interface": (FIELD_INTERFACE, "s"), "member": (FIELD_MEMBER, "s")}
    numbers |= {"reply_serial": (FIELD_REPLY_SERIAL, "u"), "destination": (FIELD_DESTINATION, "s")}
    numbers["signature"] = (FIELD_SIGNATURE, "g")
    header = [[code, Variant(type_, fields[name])] for name, (code, type_) in numbers.items() if fields.get(name)]
    kind = fields["message_type"].value
    start = Marshaller("yyyyuua(yv)", [ord("l"), kind, 0, 1, len(body), fields["serial"], header])
    start.marshall()
    start.align(ALIGNMENT)
    return bytes(start.buffer) + body


def decode(frame: bytes, header: int, *, oversized: bool = False) -> Incoming | None:
    """A message of which the first `header` bytes are its header; None if that cannot be read."""
    try:
        order = "<" if frame[0] == ord("l") else ">"
        fields = usual_fields(frame, order)
        if fields is None:
            fields = dict(Decoder(frame[:header], 12).read_argument(HEADER_FIELDS))
        return Incoming(
            kind=frame[1],
            flags=frame[2],
            serial=struct.unpack_from(order + "I", frame, 8)[0],
            sender=_text(fields, FIELD_SENDER),
            path=_text(fields, FIELD_PATH),
            interface=_text(fields, FIELD_INTERFACE),
            member=_text(fields, FIELD_MEMBER),
            error_name=_text(fields, FIELD_ERROR_NAME),
            reply_serial=int(fields.get(FIELD_REPLY_SERIAL, 0)),
            signature=_text(fields, FIELD_SIGNATURE),
            data=b"" if oversized else frame,
            body_offset=header,
            oversized=oversized,
        )
    except Exception as error:  # malformed in any way; the bus checks what it forwards, so this is for a bus gone mad
        LOGGER.warning("a message was ignored, its header cannot be read: %s", error)
        return None


def _text(fields: dict[Any, Any], code: int) -> str:
    value = fields.get(code, "")
    if not isinstance(value, str):
        raise ValueError(f"header field {code} is no string")
    return value
