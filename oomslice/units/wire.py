# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lines between client and worker: one JSON object each. Pure: text in, values or UnitsError out.

Request:  {"id": N, "full": BOOL}
Answers:  {"id": N, "progress": UNITS_SO_FAR}   any number of times: the worker is alive
          {"id": N, "units": [[...], ...], "oomd_active": BOOL}
          {"id": N, "error": "a sentence"}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from oomslice.errors import UnitsError
from oomslice.units.model import Unit, UnitSnapshot

LINE_MAX = 32 * 1024 * 1024
"""Bytes of the longest line taken: some 50 000 units."""

_FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Unit))


@dataclass(frozen=True, slots=True)
class Answer:
    """One line from the worker. Of the three one is set, or only `progress`."""

    id: int
    progress: int = 0
    snapshot: UnitSnapshot | None = None
    error: str | None = None


def request_line(number: int, *, full: bool) -> bytes:
    """A request as it goes over the pipe."""
    return json.dumps({"id": number, "full": full}).encode() + b"\n"


def parse_request(line: bytes) -> tuple[int, bool]:
    """Number and `full` of a request. Raises UnitsError."""
    message = _object(line)
    if type(message.get("id")) is not int or type(message.get("full")) is not bool:
        raise UnitsError(f"the request {line[:80]!r} has no number or no 'full'")
    return message["id"], message["full"]


def snapshot_line(number: int, snapshot: UnitSnapshot) -> bytes:
    """A snapshot as it goes over the pipe. Units are lists in the order of their fields, without the names of them."""
    units = [[getattr(unit, name) for name in _FIELDS] for unit in snapshot.units]
    return json.dumps({"id": number, "units": units, "oomd_active": snapshot.oomd_active}).encode() + b"\n"


def progress_line(number: int, units: int) -> bytes:
    """The sign of life that goes over the pipe while units are read."""
    return json.dumps({"id": number, "progress": units}).encode() + b"\n"


def error_line(number: int, error: str) -> bytes:
    """A failure as it goes over the pipe."""
    return json.dumps({"id": number, "error": error}).encode() + b"\n"


def parse_answer(line: bytes) -> Answer:
    """What the worker said. Raises UnitsError if it is not an answer."""
    message = _object(line)
    number = message.get("id")
    if type(number) is not int:
        raise UnitsError(f"the answer {line[:80]!r} has no number")
    if "error" in message:
        return Answer(number, error=str(message["error"]))
    if "units" not in message:
        return Answer(number, progress=int(message.get("progress", 0)))
    try:
        units = tuple(_unit(values) for values in message["units"])
        return Answer(number, snapshot=UnitSnapshot(units, bool(message["oomd_active"])))
    except (KeyError, TypeError, ValueError) as error:
        raise UnitsError(f"the answer {line[:80]!r} is no snapshot: {error}") from error


def snapshot_text(snapshot: UnitSnapshot) -> str:
    """A snapshot as indented JSON with the names of the fields, for people and tests."""
    units = [{name: getattr(unit, name) for name in _FIELDS} for unit in snapshot.units]
    return json.dumps({"oomd_active": snapshot.oomd_active, "units": units}, indent=2)


def _unit(values: list[Any]) -> Unit:
    named = dict(zip(_FIELDS, values, strict=True))
    named["drop_in_paths"] = tuple(named["drop_in_paths"])
    return Unit(**named)


def _object(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise UnitsError(f"{line[:80]!r} is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise UnitsError(f"{line[:80]!r} is not a JSON object")
    return message
