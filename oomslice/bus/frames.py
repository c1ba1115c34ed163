# SPDX-License-Identifier: LGPL-2.1-or-later
"""The parts of D-Bus messages that are many in a flood of calls, read and written by hand because that is quicker than
dbus-next: headers as all clients write them, and errors. Source: D-Bus specification, "Message Protocol".
"""

from __future__ import annotations

import struct
from typing import Any

FIELD_PATH, FIELD_INTERFACE, FIELD_MEMBER, FIELD_ERROR_NAME, FIELD_REPLY_SERIAL = 1, 2, 3, 4, 5
FIELD_DESTINATION, FIELD_SENDER, FIELD_SIGNATURE = 6, 7, 8
ERROR = 3
ALIGNMENT = 8
"""Of structures, dictionary entries and messages: what begins at a multiple of it is the same bytes anywhere."""


def usual_fields(frame: bytes, order: str) -> dict[Any, Any] | None:
    """Header fields by code; None if there is one that is not as all are. Most of the time of a flood goes here, and
    this takes a fifth of what the general way does. Raises struct.error, IndexError, UnicodeDecodeError."""
    fields: dict[Any, Any] = {}
    (size,) = struct.unpack_from(order + "I", frame, 12)
    at, end = 16, 16 + size
    while at < end:
        at += -at % 8
        type_ = frame[at + 1 : at + 4]
        if type_ in (b"\x01s\0", b"\x01o\0"):
            begin = at + 8
            after = begin + int(struct.unpack_from(order + "I", frame, at + 4)[0]) + 1
            fields[frame[at]] = frame[begin : after - 1].decode()
        elif type_ == b"\x01g\0":
            begin = at + 5
            after = begin + frame[at + 4] + 1
            fields[frame[at]] = frame[begin : after - 1].decode()
        elif type_ == b"\x01u\0":
            after = at + 8
            (fields[frame[at]],) = struct.unpack_from(order + "I", frame, at + 4)
        else:
            return None
        if after > end:
            return None
        at = after
    return fields


def error_message(destination: str, reply_serial: int, name: str, text: bytes, serial: int) -> bytes:
    """By hand, because who floods us gets many: a fifth of the time that dbus-next takes."""
    fields = bytearray(struct.pack("<BBBBI", FIELD_REPLY_SERIAL, 1, ord("u"), 0, reply_serial))
    for code, value in ((FIELD_DESTINATION, destination.encode()), (FIELD_ERROR_NAME, name.encode())):
        fields += struct.pack("<BBBBI", code, 1, ord("s"), 0, len(value)) + value + b"\0"
        fields += bytes(-len(fields) % ALIGNMENT)
    fields += struct.pack("<BBBBB2s", FIELD_SIGNATURE, 1, ord("g"), 0, 1, b"s\0")
    body = struct.pack("<I", len(text)) + text + b"\0"
    start = struct.pack("<BBBBIII", ord("l"), ERROR, 0, 1, len(body), serial, len(fields))
    return start + bytes(fields) + bytes(-len(fields) % ALIGNMENT) + body
