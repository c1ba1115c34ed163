# SPDX-License-Identifier: LGPL-2.1-or-later
"""Values as D-Bus writes them: the same bytes as dbus-next makes, and an error for whatever else there may be."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from dbus_next import Message, Variant
from dbus_next._private.marshaller import Marshaller
from dbus_next._private.unmarshaller import Unmarshaller
from hypothesis import given
from hypothesis import strategies as st

from oomslice.bus.message import encoded
from oomslice.bus.question import _encoded, _header
from oomslice.bus.wire import ARRAY_MAX, DEPTH_MAX, Reader, Writer, single_types

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)
SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "b": st.booleans(),
    "y": st.integers(0, 255),
    "n": st.integers(-(1 << 15), (1 << 15) - 1),
    "q": st.integers(0, (1 << 16) - 1),
    "i": st.integers(-(1 << 31), (1 << 31) - 1),
    "u": st.integers(0, (1 << 32) - 1),
    "x": st.integers(-(1 << 63), (1 << 63) - 1),
    "t": st.integers(0, (1 << 64) - 1),
    "d": st.floats(allow_nan=False),
    "s": TEXT,
}


@st.composite
def typed_values(draw: st.DrawFn, depth: int = 3, of: str = "any") -> tuple[str, Any]:
    """A type and a value of it."""
    kinds = ["simple"] if of == "key" else ["simple", "simple", "array", "struct", "dictionary"]
    match draw(st.sampled_from(kinds if depth else ["simple"])):
        case "array":
            type_, _ = draw(typed_values(depth - 1))
            if type_ == "y":
                return "ay", draw(st.binary(max_size=5))
            return "a" + type_, draw(st.lists(value_of(type_), max_size=3))
        case "struct":
            parts = draw(st.lists(typed_values(depth - 1), min_size=1, max_size=3))
            return "(" + "".join(type_ for type_, _ in parts) + ")", [value for _, value in parts]
        case "dictionary":
            key, _ = draw(typed_values(0, "key"))
            type_, _ = draw(typed_values(depth - 1))
            return f"a{{{key}{type_}}}", draw(st.dictionaries(SIMPLE[key], value_of(type_), max_size=3))
    type_ = draw(st.sampled_from(sorted(SIMPLE)))
    return type_, draw(SIMPLE[type_])


def value_of(type_: str) -> st.SearchStrategy[Any]:
    """Values of a complete type."""
    if type_ in SIMPLE:
        return SIMPLE[type_]
    if type_ == "ay":
        return st.binary(max_size=5)
    if type_.startswith("a{"):
        key, inner = single_types(type_[2:-1])
        return st.dictionaries(SIMPLE[key], value_of(inner), max_size=3)
    if type_.startswith("a"):
        return st.lists(value_of(type_[1:]), max_size=3)
    return st.tuples(*(value_of(part) for part in single_types(type_[1:-1]))).map(list)


@given(typed_values())
def test_bytes_are_those_of_dbus_next_and_come_back(typed: tuple[str, Any]) -> None:
    type_, value = typed
    writer = Writer()
    writer.write(type_, value)
    theirs = Marshaller(type_, [value])
    theirs.marshall()
    assert bytes(writer.data) == bytes(theirs.buffer)
    assert Reader(b"l" + bytes(7) + writer.data, 8).read(type_) == value


def test_variants_have_the_type_of_their_value_and_come_back_plain() -> None:
    writer = Writer()
    writer.write("a{sv}", {"a": "text", "b": True, "c": -5})
    theirs = encoded("a{sv}", [{"a": Variant("s", "text"), "b": Variant("b", True), "c": Variant("x", -5)}])
    assert bytes(writer.data) == theirs.data
    nested = encoded("v", [Variant("a(sv)", [["x", Variant("as", ["y"])]])]).data
    assert Reader(b"l" + bytes(7) + nested, 8).read("v") == [["x", ["y"]]]


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order: str) -> None:
    start = b"l" if order == "<" else b"B"
    data = start + bytes(7) + struct.pack(order + "IIqd", 12, 1, -3, 0.5)
    reader = Reader(data, 8)
    assert [reader.read(type_) for type_ in "ubxd"] == [12, True, -3, 0.5]


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("y", 256),
        ("i", 1 << 31),
        ("t", -1),
        ("i", "one"),
        ("b", 1),
        ("s", 5),
        ("s", "a\0b"),
        ("s", "\ud800"),
        ("as", "text"),
        ("as", 5),
        ("a{ss}", ["a"]),
        ("(si)", ["a"]),
        ("(si)", ["a", 1, 2]),
        ("v", 1.5),
        ("v", 1 << 63),
    ],
)
def test_values_that_do_not_fit_are_value_errors(type_: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Writer().write(type_, value)


@pytest.mark.parametrize("signature", ["a", "(", "(s", "a{s", "z", "h", "a" * 200, "(" * 100 + ")" * 100, "{sv"])
def test_what_is_no_signature_is_a_value_error(signature: str) -> None:
    with pytest.raises(ValueError, match="no signature"):
        single_types(signature)


@given(st.sampled_from(["a(sa{sv})", "v", "aav", "a{oa{sa{sv}}}", "(tvas)", "ad", "g", "a()"]), st.binary(max_size=80))
def test_any_bytes_are_a_value_or_a_value_error(type_: str, data: bytes) -> None:
    with contextlib.suppress(ValueError):
        Reader(b"l" + bytes(7) + data, 8).read(type_)


def test_what_would_go_on_for_ever_ends() -> None:
    deep = b"\1v\0" * (DEPTH_MAX + 10) + b"\1y\0\5"
    with pytest.raises(ValueError, match="too much in each other"):
        Reader(b"l" + bytes(7) + deep, 8).read("v")
    with pytest.raises(ValueError, match="longer than the message"):
        Reader(b"l" + bytes(7) + struct.pack("<I", ARRAY_MAX), 8).read("ay")
    with pytest.raises(ValueError, match="array of nothing"):
        Reader(b"l" + bytes(7) + struct.pack("<III", 8, 0, 0) + bytes(8), 8).read("a()")


def test_a_call_is_one_that_dbus_next_reads() -> None:
    to = ("org.oomslice1", "/org/oomslice1", "org.oomslice1.Manager", "SetProperties")
    arguments = ["batch.slice", True, {"Priority": "-200"}]
    frame = _encoded(to, "sba{sv}", arguments, 6, 77)
    read = Unmarshaller(_Stream(frame)).unmarshall()
    assert isinstance(read, Message)
    assert (read.destination, read.path, read.interface, read.member) == to
    assert (read.signature, read.serial, read.flags.value) == ("sba{sv}", 77, 6)
    assert [read.body[0], read.body[1], read.body[2]["Priority"].value] == ["batch.slice", True, "-200"]
    kind, header, body_at = _header(frame)
    assert (kind, header[1], header[8]) == (1, "/org/oomslice1", "sba{sv}")
    assert Reader(frame, body_at).read("s") == "batch.slice"


class _Stream:
    """As much of a file as dbus-next's reader needs."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        return taken
