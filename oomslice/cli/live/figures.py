# SPDX-License-Identifier: LGPL-2.1-or-later
"""Figures of this moment: what the daemon says of the order, and what the kernel says of memory and pressure.

The order is the daemon's (Explain, the code that decides in an emergency). Sizes and pressure are read here, from files
that everybody may read: they go on while the daemon does not answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from oomslice.cli import answers
from oomslice.errors import NoSuchUnitError

if TYPE_CHECKING:
    from oomslice.cli.ask import Manager

ROOT_SLICE = "-.slice"
READ_MAX = 64 * 1024


class Pressure(NamedTuple):
    """Averages of the last ten and sixty seconds, in percent. Source: Documentation/accounting/psi.rst."""

    some10: float = 0.0
    some60: float = 0.0
    full10: float = 0.0
    full60: float = 0.0


class MachineFigures(NamedTuple):
    """Bytes, and percent."""

    total: int = 0
    available: int = 0
    swap_total: int = 0
    swap_free: int = 0
    pressure: Pressure | None = None
    """None: this kernel has none"""


class UnitFigures(NamedTuple):
    """Figures of one cgroup in bytes; growth in bytes per second since the look before, None at the first."""

    current: int = 0
    swap: int = 0
    growth: int | None = None
    pressure: Pressure = Pressure()


class Row(NamedTuple):
    """One unit as it is shown."""

    name: str
    place: int
    """1: would be chosen first; 0: would not be chosen"""
    priority: int
    metric: int
    verdict: str
    reason: str
    actions: str
    figures: UnitFigures


class Limits(NamedTuple):
    """Where oomslice acts for the machine as a whole: when both are reached. Bytes."""

    available: int = 0
    swap_free: int = 0


class Order(NamedTuple):
    """What the daemon said, at its last answer."""

    domain: str = ROOT_SLICE
    domains: tuple[str, ...] = ()
    rank_by: str = "memory"
    candidates: tuple[Mapping[str, Any], ...] = ()
    paths: Mapping[str, str] = {}
    """unit -> path of its cgroup"""
    actions: Mapping[str, str] = {}
    armed: bool = False
    generation: int = 0
    watching: bool = False
    last: Mapping[str, Any] | None = None
    """the newest decision, as in ListDecisions"""


class Picture(NamedTuple):
    """Everything that one frame shows."""

    moment_usec: int
    """CLOCK_REALTIME"""
    machine: MachineFigures
    limits: Limits
    order: Order
    rows: tuple[Row, ...]
    complaint: str = ""
    """why the order is an old one; empty if it is not"""


async def ask_order(manager: Manager, domain: str) -> Order:
    """What the daemon says now. Raises OomsliceError."""
    explained = {row["domain"]: row for row in answers.explanation(await manager.rows("Explain"))}
    slices = answers.slices(await manager.rows("ListSlices"))
    state: Mapping[str, Any] = await manager.get("State")
    newest = answers.decisions(await manager.rows("ListDecisions", 0, 1))
    rank_by = "memory"
    # It may have ended between the two questions.
    with contextlib.suppress(NoSuchUnitError):
        rank_by = (await manager.slice(domain)).get("RankBy") or "memory"
    return Order(
        domain=domain,
        domains=tuple(explained),
        rank_by=rank_by,
        candidates=tuple(explained[domain]["candidates"]) if domain in explained else (),
        paths={row["name"]: row["cgroup_path"] for row in slices},
        actions={row["name"]: row["actions"] for row in slices},
        armed=bool(state.get("Armed")),
        generation=int(state.get("PlanGeneration", 0)),
        watching=bool(state.get("Watching")),
        last=newest[0] if newest else None,
    )


class Reader:
    """Reads the kernel's figures, and knows those of the look before."""

    def __init__(self, cgroups: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> None:
        self._cgroups = str(cgroups)
        self._proc = str(proc)
        self._before: dict[str, tuple[int, int]] = {}

    def machine(self) -> MachineFigures:
        """MemAvailable, swap and pressure of the machine; what cannot be read is 0."""
        values = {}
        for line in _text(f"{self._proc}/meminfo").splitlines():
            words = line.split()
            if len(words) >= 2 and words[1].isdecimal():
                values[words[0]] = int(words[1]) * 1024
        text = _text(f"{self._proc}/pressure/memory")
        return MachineFigures(
            total=values.get("MemTotal:", 0),
            available=values.get("MemAvailable:", 0),
            swap_total=values.get("SwapTotal:", 0),
            swap_free=values.get("SwapFree:", 0),
            pressure=parse_pressure(text) if text else None,
        )

    def units(self, paths: Mapping[str, str], moment_usec: int) -> dict[str, UnitFigures]:
        """Figures of each unit, by name."""
        figures = {}
        seen: dict[str, tuple[int, int]] = {}
        for name, path in paths.items():
            directory = self._cgroups + path.rstrip("/")
            current = _number(_text(f"{directory}/memory.current"))
            swap = _number(_text(f"{directory}/memory.swap.current"))
            growth = None
            if path in self._before:
                then, before = self._before[path]
                growth = (current + swap - before) * 1_000_000 // max(1, moment_usec - then)
            seen[path] = (moment_usec, current + swap)
            figures[name] = UnitFigures(current, swap, growth, parse_pressure(_text(f"{directory}/memory.pressure")))
        self._before = seen
        return figures


def picture(reader: Reader, order: Order, limits: Limits, moment_usec: int, complaint: str = "") -> Picture:
    """All that a frame needs, with the figures of now."""
    paths = {row["name"]: order.paths.get(row["name"], "") for row in order.candidates}
    figures = reader.units({name: path for name, path in paths.items() if path}, moment_usec)
    return Picture(
        moment_usec=moment_usec,
        machine=reader.machine(),
        limits=limits,
        order=order,
        rows=rows_of(order, figures),
        complaint=complaint,
    )


def rows_of(order: Order, figures: Mapping[str, UnitFigures]) -> tuple[Row, ...]:
    """The candidates in the order of the choice, each with its figures."""
    rows = []
    place = 0
    for candidate in order.candidates:
        may_be = candidate["verdict"] in ("chosen", "eligible")
        place += may_be
        rows.append(
            Row(
                name=candidate["name"],
                place=place if may_be else 0,
                priority=candidate["priority"],
                metric=candidate["metric"],
                verdict=candidate["verdict"],
                reason=candidate["reason"],
                actions=order.actions.get(candidate["name"], ""),
                figures=figures.get(candidate["name"], UnitFigures()),
            )
        )
    return tuple(rows)


def parse_pressure(text: str) -> Pressure:
    """A pressure file; what it does not have is 0."""
    values = {}
    for line in text.splitlines():
        kind, *words = line.split()
        for word in words:
            key, _, value = word.partition("=")
            if key in ("avg10", "avg60"):
                values[kind + key] = float(value)
    return Pressure(*(values.get(key, 0.0) for key in ("someavg10", "someavg60", "fullavg10", "fullavg60")))


async def ask_limits(manager: Manager) -> Limits:
    """Where oomslice acts, as the daemon has it in force. Raises OomsliceError."""
    figures: Mapping[str, Any] = (await manager.do("GetStatistics"))[2]
    return Limits(int(figures.get("MemoryAvailableLimit", 0)), int(figures.get("SwapFreeLimit", 0)))


def as_data(shown: Picture) -> dict[str, Any]:
    """For --json."""
    machine = shown.machine
    return {
        "realtime_usec": shown.moment_usec,
        "domain": shown.order.domain,
        "rank_by": shown.order.rank_by,
        "armed": shown.order.armed,
        "memory_total": machine.total,
        "memory_available": machine.available,
        "memory_available_limit": shown.limits.available,
        "swap_total": machine.swap_total,
        "swap_free": machine.swap_free,
        "swap_free_limit": shown.limits.swap_free,
        "pressure": machine.pressure._asdict() if machine.pressure else None,
        "units": [_row_data(row) for row in shown.rows],
    }


def _row_data(row: Row) -> dict[str, Any]:
    figures = row.figures
    return {
        "name": row.name,
        "place": row.place,
        "priority": row.priority,
        "metric": row.metric,
        "verdict": row.verdict,
        "reason": row.reason,
        "actions": row.actions,
        "current": figures.current,
        "swap": figures.swap,
        "growth": figures.growth,
        "pressure": figures.pressure._asdict(),
    }


def shown_rows(rows: Sequence[Row], *, everything: bool) -> list[Row]:
    """Without units that are no candidates by their nature, unless all are wanted."""
    return [row for row in rows if everything or row.verdict not in ("container", "outside")]


def _text(path: str) -> str:
    """The file's text, or "" if it cannot be read."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(READ_MAX)
    except OSError:
        return ""


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdecimal() else 0
