# SPDX-License-Identifier: LGPL-2.1-or-later
"""What frames.py reads and writes by hand to be quick is what dbus-next reads and writes."""

from __future__ import annotations

import struct

from dbus_next import MessageType, Variant
from dbus_next._private.marshaller import Marshaller
from dbus_next._private.unmarshaller import Unmarshaller
from hypothesis import given
from hypothesis import strategies as st

from oomslice.bus.frames import error_message, usual_fields
from oomslice.bus.message import HEADER_FIELDS, Decoder, Incoming, decode

TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=30)
NAMES = st.from_regex(r"\A:1\.[0-9]{1,6}\Z")
MEMBERS = st.from_regex(r"\A[A-Z][A-Za-z]{0,20}\Z")


class _Stream:
    """As much of a file as dbus-next's reader needs."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        return taken


def header_of(frame: bytes) -> int:
    """Where the body begins."""
    (size,) = struct.unpack_from("<I", frame, 12)
    return 16 + (int(size) + 7) // 8 * 8


@given(destination=NAMES, text=TEXT, reply_serial=st.integers(1, 2**32 - 1), serial=st.integers(1, 2**32 - 1))
def test_errors_are_those_that_dbus_next_writes(destination: str, text: str, reply_serial: int, serial: int) -> None:
    name = "org.freedesktop.DBus.Error.LimitsExceeded"
    frame = error_message(destination, reply_serial, name, text.encode(), serial)
    read = Unmarshaller(_Stream(frame)).unmarshall()
    assert read is not None and read.message_type == MessageType.ERROR
    assert (read.destination, read.reply_serial, read.error_name) == (destination, reply_serial, name)
    assert (read.signature, read.body, read.serial) == ("s", [text], serial)


@given(sender=NAMES, member=MEMBERS, silent=st.booleans(), arguments=st.lists(TEXT, max_size=2))
def test_calls_are_read_as_they_were_written(sender: str, member: str, silent: bool, arguments: list[str]) -> None:
    signature = "s" * len(arguments)
    body = Marshaller(signature, arguments).marshall()
    texts = [(1, "o", "/org/oomslice1"), (2, "s", "org.oomslice1.Manager"), (3, "s", member), (7, "s", sender)]
    texts += [(6, "s", "org.oomslice1"), (8, "g", signature)]
    fields = [[code, Variant(type_, value)] for code, type_, value in texts]
    start = Marshaller("yyyyuua(yv)", [ord("l"), 1, int(silent), 1, len(body), 99, fields])
    start.marshall()
    start.align(8)
    frame = bytes(start.buffer) + bytes(body)
    incoming = decode(frame, header_of(frame))
    assert isinstance(incoming, Incoming)
    assert (incoming.sender, incoming.member, incoming.serial) == (sender, member, 99)
    assert (incoming.path, incoming.interface) == ("/org/oomslice1", "org.oomslice1.Manager")
    assert incoming.reply_expected is not silent
    assert incoming.body() == arguments


@given(st.binary(max_size=120), st.sampled_from(["<", ">"]))
def test_the_quick_way_never_says_what_the_general_one_does_not(data: bytes, order: str) -> None:
    start = (b"l" if order == "<" else b"B") + b"\1\0\1" + struct.pack(order + "III", 0, 1, len(data))
    frame = start + data + bytes(-len(data) % 8)
    try:
        quick = usual_fields(frame, order)
    except (struct.error, IndexError, UnicodeDecodeError):
        return
    if quick is None:
        return
    # It looks at no alignment byte and no trailing NUL, so it may read what the other refuses; never another value.
    try:
        general = dict(Decoder(frame, 12).read_argument(HEADER_FIELDS))
    except Exception:  # its checks raise a dozen kinds
        return
    assert quick == general


def test_what_is_not_as_usual_is_left_to_the_general_way() -> None:
    field = b"\x09\x01u\0\1\0\0\0" + b"\x01\x02ss\0"
    frame = b"l\1\0\1" + struct.pack("<III", 0, 1, len(field)) + field + bytes(8)
    assert usual_fields(frame, "<") is None
    # A text that would go beyond the header.
    field = b"\x07\x01s\0" + struct.pack("<I", 500) + b":1.5\0"
    frame = b"l\1\0\1" + struct.pack("<III", 0, 1, len(field)) + field + bytes(8)
    assert usual_fields(frame, "<") is None
    assert decode(frame, header_of(frame)) is None
