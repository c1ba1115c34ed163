# SPDX-License-Identifier: LGPL-2.1-or-later
"""States and figures in a file: one JSON object a line, compressed if its name ends in .gz.

    {"oomslice_trace": 1, "version": ..., "kernel": ..., "realtime_usec": ..., "interval_usec": ...}
    {"state": {...}}       units, their settings and cgroups: first, and again whenever they have changed
    {"figures": {...}}     memory, swap and stall of the machine and of every cgroup of the state before it

A file that was cut off in the middle is good up to its last whole line.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import IO, Any, cast

from oomslice.cgroups.model import Cgroup, Usage
from oomslice.errors import OomsliceError
from oomslice.units.model import Unit, UnitSnapshot
from oomslice.whatif.state import Figures, Frame, Stall, State

FORMAT = 1
LINE_MAX = 64 << 20
USAGE_FIELDS = ("memory", "current", "swap", "refaults", "processes")


class TraceError(OomsliceError):
    """A trace that cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first line says."""

    version: str
    kernel: str
    realtime_usec: int
    interval_usec: int


class Writer:
    """Writes a trace to an open binary stream, line by line."""

    def __init__(self, stream: IO[bytes], header: Header) -> None:
        self._stream = stream
        self._state: State | None = None
        self._put({"oomslice_trace": FORMAT, **asdict(header)})

    def add(self, frame: Frame) -> None:
        """One moment, preceded by its state if that is another one than before. Raises OSError."""
        if frame.state is not self._state:
            self._state = frame.state
            self._put({"state": state_data(frame.state)})
        self._put({"figures": figures_data(frame.figures)})
        self._stream.flush()

    def _put(self, data: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(data, separators=(",", ":")).encode() + b"\n")


def state_data(state: State) -> dict[str, Any]:
    """A state as JSON takes it."""
    return {
        "units": [asdict(unit) for unit in state.snapshot.units],
        "oomd_active": state.snapshot.oomd_active,
        "unit_files": state.unit_files if isinstance(state.unit_files, dict) else dict(state.unit_files),
        "configuration": state.configuration,
        "cgroups": [asdict(cgroup) for cgroup in state.cgroups],
        "user_cgroups": [asdict(cgroup) for cgroup in state.user_cgroups],
        "memory_total": state.memory_total,
        "swap_total": state.swap_total,
    }


def figures_data(figures: Figures) -> dict[str, Any]:
    """Figures as JSON takes them; a cgroup is a list, because there are many."""
    return {
        "moment_usec": figures.moment_usec,
        "available": figures.available,
        "swap_free": figures.swap_free,
        "stall": [figures.stall.some, figures.stall.full],
        "cgroups": {
            str(id): [
                *(getattr(usage, name) for name in USAGE_FIELDS),
                int(usage.populated),
                *((stall.some, stall.full) if (stall := figures.stalls.get(id)) else ()),
            ]
            for id, usage in figures.usage.items()
        },
    }


def open_for_reading(path: str) -> IO[bytes]:
    """The file, unpacked if its name says that it is packed. Raises TraceError."""
    try:
        return cast(IO[bytes], gzip.open(path, "rb")) if path.endswith(".gz") else open(path, "rb")
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error


def open_for_writing(path: str) -> IO[bytes]:
    """A new file, which only its owner reads; "-" is the standard output. Raises TraceError."""
    try:
        if path == "-":
            return os.fdopen(os.dup(1), "wb")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error
    stream = os.fdopen(descriptor, "wb")
    if not path.endswith(".gz"):
        return stream
    packed = gzip.GzipFile("", "wb", 6, stream)
    packed.myfileobj = cast(Any, stream)  # closed with it
    return cast(IO[bytes], packed)


def read(path: str) -> tuple[Header, Iterator[Frame]]:
    """Header and frames of a trace; these are read as they are wanted. Raises TraceError, with file and line."""
    stream = open_for_reading(path)
    lines = _lines(stream, path)
    number, first = next(lines, (1, {}))
    if first.get("oomslice_trace") != FORMAT:
        raise TraceError(f"{path}:{number}: this is no trace of oomslice in format {FORMAT}")
    header = Header(
        str(first.get("version", "")),
        str(first.get("kernel", "")),
        _whole(first.get("realtime_usec", 0)),
        _whole(first.get("interval_usec", 0)),
    )
    return header, _frames(lines, path)


def _frames(lines: Iterator[tuple[int, dict[str, Any]]], path: str) -> Iterator[Frame]:
    state: State | None = None
    for number, line in lines:
        try:
            if "state" in line:
                state = state_of(line["state"])
            elif "figures" in line:
                if state is None:
                    raise ValueError("figures come before a state")
                yield Frame(state, figures_of(line["figures"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TraceError(f"{path}:{number}: not as a trace is written: {error}") from error


def _lines(stream: IO[bytes], path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    with stream:
        while True:
            number += 1
            try:
                line = stream.readline(LINE_MAX)
            except EOFError:
                return  # gzip, cut off
            except (OSError, zlib.error) as error:
                raise TraceError(f"{path}:{number}: {error}") from error
            if not line.endswith(b"\n"):
                if len(line) >= LINE_MAX:
                    raise TraceError(f"{path}:{number}: longer than {LINE_MAX} bytes")
                return
            try:
                data = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise TraceError(f"{path}:{number}: not JSON: {error}") from error
            if not isinstance(data, dict):
                raise TraceError(f"{path}:{number}: not a JSON object")
            yield number, data


def state_of(data: Mapping[str, Any]) -> State:
    """The inverse of state_data. Raises KeyError, TypeError or ValueError."""
    known = {field.name for field in fields(Unit)}
    units = []
    for values in data["units"]:
        given = {name: value for name, value in values.items() if name in known}
        given["drop_in_paths"] = tuple(given.get("drop_in_paths", ()))
        units.append(Unit(**given))
    if any(not isinstance(unit.name, str) or not isinstance(unit.control_group, str) for unit in units):
        raise ValueError("a unit without a name or cgroup")
    files = {
        str(unit): tuple((str(path), str(text)) for path, text in of_unit)
        for unit, of_unit in data["unit_files"].items()
    }
    return State(
        snapshot=UnitSnapshot(tuple(units), bool(data["oomd_active"])),
        unit_files=MappingProxyType(files),
        configuration=tuple((str(path), str(text)) for path, text in data["configuration"]),
        cgroups=tuple(_cgroup(values) for values in data["cgroups"]),
        user_cgroups=tuple(_cgroup(values) for values in data["user_cgroups"]),
        memory_total=_whole(data["memory_total"]),
        swap_total=_whole(data["swap_total"]),
    )


def _cgroup(values: Mapping[str, Any]) -> Cgroup:
    path, preference = values["path"], values["preference"]
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f"{path!r} is no path of a cgroup")
    return Cgroup(path, _whole(values["id"]), _whole(values["owner"]), bool(values["populated"]), str(preference))


def figures_of(data: Mapping[str, Any]) -> Figures:
    """The inverse of figures_data. Raises KeyError, TypeError or ValueError."""
    usage: dict[int, Usage] = {}
    stalls: dict[int, Stall] = {}
    for id, values in data["cgroups"].items():
        numbers = [_whole(value) for value in values]
        if len(numbers) not in (len(USAGE_FIELDS) + 1, len(USAGE_FIELDS) + 3):
            raise ValueError(f"{len(numbers)} figures of a cgroup")
        memory, current, swap, refaults, processes, populated = numbers[: len(USAGE_FIELDS) + 1]
        usage[int(id)] = Usage(memory, current, swap, refaults, processes, bool(populated))
        if len(numbers) > len(USAGE_FIELDS) + 1:
            stalls[int(id)] = Stall(*numbers[-2:])
    some, full = data["stall"]
    return Figures(
        moment_usec=_whole(data["moment_usec"]),
        available=_whole(data["available"]),
        swap_free=_whole(data["swap_free"]),
        stall=Stall(_whole(some), _whole(full)),
        usage=MappingProxyType(usage),
        stalls=MappingProxyType(stalls),
    )


def _whole(value: object) -> int:
    """A size, a time or an id: the C code takes 64 bits, and two are added at times."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r} is no whole number that can be")
    return value
