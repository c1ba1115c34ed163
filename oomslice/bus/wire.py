# SPDX-License-Identifier: LGPL-2.1-or-later
"""Values of D-Bus as bytes and back, as far as a client of oomslice needs it: quickly imported, and no more than that.

What does not fit its type, or ends too early, is a ValueError; nothing else is raised whatever the bytes are. The
daemon, which speaks with everybody, has transport.py instead. Source: D-Bus specification, "Message Protocol".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

FIXED = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
"""Type -> code of `struct`."""
ALIGNMENT = {**{type_: struct.calcsize(code) for type_, code in FIXED.items()}, "b": 4, "s": 4, "o": 4, "a": 4} | {
    "g": 1,
    "v": 1,
    "(": 8,
    "{": 8,
}
ARRAY_MAX = 1 << 26
DEPTH_MAX = 64
"""Containers and variants in each other: the specification has two limits of 32 and one of 64."""


@lru_cache(maxsize=256)
def single_types(signature: str) -> tuple[str, ...]:
    """The complete types in a row that a signature is made of. Raises ValueError."""
    types = []
    begin = 0
    while begin < len(signature):
        end = _end_of_type(signature, begin, 0)
        types.append(signature[begin:end])
        begin = end
    return tuple(types)


def _end_of_type(signature: str, begin: int, depth: int) -> int:
    if begin >= len(signature) or depth > DEPTH_MAX:
        raise ValueError(f"{signature!r} is no signature")
    first = signature[begin]
    if first == "a":
        return _end_of_type(signature, begin + 1, depth + 1)
    if first in "({":
        end = begin + 1
        while signature[end : end + 1] != (")" if first == "(" else "}"):
            end = _end_of_type(signature, end, depth + 1)
        return end + 1
    if first not in ALIGNMENT:
        raise ValueError(f"{signature!r} is no signature")
    return begin + 1


class Writer:
    """Values in little endian, one after another, from a place that is a multiple of eight."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, type_: str, value: Any) -> None:
        """One value of one complete type; in a variant, texts, truth values and whole numbers. Raises ValueError."""
        try:
            self._write(type_, value)
        except (struct.error, TypeError, AttributeError, UnicodeError, OverflowError) as error:
            raise ValueError(f"{value!r} is no {type_}") from error

    def _align(self, size: int) -> None:
        self.data += b"\0" * (-len(self.data) % size)

    def _write(self, type_: str, value: Any) -> None:
        first = type_[0]
        self._align(ALIGNMENT[first])
        if first in FIXED:
            self.data += struct.pack("<" + FIXED[first], value)
        elif first == "b":
            if not isinstance(value, bool):
                raise TypeError("no truth value")
            self.data += struct.pack("<I", value)
        elif first in "so":
            text = value.encode()
            if b"\0" in text:
                raise ValueError("D-Bus carries no text with a NUL in it")
            self.data += struct.pack("<I", len(text)) + text + b"\0"
        elif first == "g":
            self.data += struct.pack("<B", len(value)) + value.encode() + b"\0"
        elif first == "v":
            inner = _variant_type(value)
            self._write("g", inner)
            self._write(inner, value)
        elif first == "a":
            self._write_array(type_[1:], value)
        else:
            self._write_all(single_types(type_[1:-1]), value)

    def _write_all(self, types: Sequence[str], values: Sequence[Any]) -> None:
        if len(types) != len(values):
            raise ValueError(f"{len(values)} values, and {len(types)} are wanted")
        for type_, value in zip(types, values, strict=True):
            self._write(type_, value)

    def _write_array(self, element: str, value: Any) -> None:
        text = isinstance(value, str) or (isinstance(value, bytes) and element != "y")
        if text or (element[0] == "{" and not isinstance(value, Mapping)):
            raise TypeError("no array")
        self.data += bytes(4)
        length_at = len(self.data) - 4
        self._align(ALIGNMENT[element[0]])
        begin = len(self.data)
        for item in value.items() if element[0] == "{" else value:
            self._write(element, item)
        size = len(self.data) - begin
        if size > ARRAY_MAX:
            raise ValueError("an array that is too long")
        struct.pack_into("<I", self.data, length_at, size)


def _variant_type(value: Any) -> str:
    if isinstance(value, str):
        return "s"
    if isinstance(value, bool):
        return "b"
    if isinstance(value, int):
        return "x"
    raise TypeError("no variant of ours")


class Reader:
    """Values out of a message. `order` is its first byte, `data` all of it: places count from its begin."""

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self._data = data
        self._at = offset
        self._order = ">" if data[:1] == b"B" else "<"
        self._depth = 0

    def read(self, type_: str) -> Any:
        """The next value, variants replaced by what they hold. Raises ValueError."""
        try:
            return self._read(type_)
        except (struct.error, IndexError, KeyError, TypeError) as error:
            raise ValueError(f"no {type_} can be read: {error}") from error

    def _align(self, size: int) -> None:
        self._at += -self._at % size

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack_from(self._order + code, self._data, self._at)
        self._at += struct.calcsize("=" + code)
        return value

    def _text(self, length: int) -> str:
        end = self._at + length
        if end >= len(self._data):
            raise ValueError("a text that is longer than the message")
        text = self._data[self._at : end].decode()
        self._at = end + 1
        return text

    def _read(self, type_: str) -> Any:
        first = type_[0]
        self._align(ALIGNMENT[first])
        if first in FIXED:
            return self._number(FIXED[first])
        if first == "b":
            return self._number("I") != 0
        if first in "so":
            return self._text(self._number("I"))
        if first == "g":
            return self._text(self._number("B"))
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ValueError("too much in each other")
        value = self._container(first, type_)
        self._depth -= 1
        return value

    def _container(self, first: str, type_: str) -> Any:
        if first == "v":
            types = single_types(self._read("g"))
            if len(types) != 1:
                raise ValueError("a variant holds one value")
            return self._read(types[0])
        if first == "a":
            return self._array(type_[1:])
        return [self._read(part) for part in single_types(type_[1:-1])]

    def _array(self, element: str) -> Any:
        size = self._number("I")
        self._align(ALIGNMENT[element[0]])
        end = self._at + size
        if size > ARRAY_MAX or end > len(self._data):
            raise ValueError("an array that is longer than the message")
        if element == "y":
            self._at = end
            return self._data[end - size : end]
        items = []
        while self._at < end:
            before = self._at
            items.append(self._read(element))
            if self._at == before:
                raise ValueError("an array of nothing")
        if self._at != end:
            raise ValueError("an array whose elements are longer than it")
        if element[0] == "{":
            return dict(items)
        return items
