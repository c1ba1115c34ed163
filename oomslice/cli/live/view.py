# SPDX-License-Identifier: LGPL-2.1-or-later
"""What stands on the screen of `oomslicectl top`, as lines of styled text. Pure: figures, keys, size in, lines out.

A line is a list of (style, text) and never wider than the screen; styles are those of text.STYLES, and "reverse".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from oomslice.cli.live.figures import Picture, Pressure, Row, shown_rows
from oomslice.cli.text import (
    Column,
    Terminal,
    clean,
    display_width,
    local_time,
    metric,
    metric_title,
    relative,
    shorten,
    size,
    table,
)

Line: TypeAlias = list[tuple[str, str]]

SORTS = ("order", "memory", "swap", "growth", "pressure", "name")
"""What rows can be sorted by; "order" is who would go first."""
WIDE = 120
"""Columns from which on the bars stand in two columns."""
BAR_MIN = 10
KEYS = (
    ("q", "quit"),
    ("s S", "sort by the next, or by the one before"),
    ("p space", "pause, and go on"),
    ("a", "also units that hold others"),
    ("d", "the next domain"),
    ("r", "look now"),
    ("+ -", "look less or more often"),
    ("↑ ↓ PgUp PgDn Home End", "scroll"),
    ("h ?", "this help; any key leaves it"),
)
INTERVALS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class View:
    """What the user has chosen to see."""

    def __init__(
        self, *, interval: float = 2.0, everything: bool = False, help: bool = False, top: int = 0, domain: str = ""
    ) -> None:
        self.interval = interval
        self.sort = SORTS[0]
        self.everything = everything
        self.paused = False
        self.help = help
        self.top = top
        """how many rows are scrolled over"""
        self.domain = domain
        """wanted; "" is the machine"""

    def key(self, key: str, page: int, domains: Sequence[str]) -> str:
        """Takes a key; returns "quit", "look" (figures are wanted now) or "" (what is known is to be drawn again)."""
        if self.help and key not in ("q", ""):
            self.help = False
            return ""
        match key:
            case "q":
                return "quit"
            case "s" | "S":
                step = 1 if key == "s" else -1
                self.sort = SORTS[(SORTS.index(self.sort) + step) % len(SORTS)]
                self.top = 0
            case "p" | " ":
                self.paused = not self.paused
                return "" if self.paused else "look"
            case "a":
                self.everything = not self.everything
            case "h" | "?":
                self.help = True
            case "r":
                return "look"
            case "d" if domains:
                at = domains.index(self.domain) if self.domain in domains else 0
                self.domain = domains[(at + 1) % len(domains)]
                self.top = 0
                return "look"
            case "+" | "-":
                slower = [one for one in INTERVALS if one > self.interval]
                quicker = [one for one in INTERVALS if one < self.interval]
                self.interval = (slower[:1] or [self.interval])[0] if key == "+" else (quicker or [self.interval])[-1]
                return "look"
            case "up" | "down" | "pgup" | "pgdn" | "home" | "end":
                moved = {"up": -1, "down": 1, "pgup": -page, "pgdn": page, "home": -(1 << 30), "end": 1 << 30}[key]
                self.top = max(0, self.top + moved)
        return ""


def sort_rows(rows: Sequence[Row], sort: str) -> list[Row]:
    """Rows by what is wanted; what is equal stays in the order of the choice."""
    match sort:
        case "memory":
            return sorted(rows, key=lambda row: -row.figures.current)
        case "swap":
            return sorted(rows, key=lambda row: -row.figures.swap)
        case "growth":
            return sorted(rows, key=lambda row: -(row.figures.growth or 0))
        case "pressure":
            return sorted(rows, key=lambda row: -row.figures.pressure.some10)
        case "name":
            return sorted(rows, key=lambda row: row.name)
        case _:
            return list(rows)


def frame(shown: Picture, view: View, width: int, height: int, terminal: Terminal) -> list[Line]:
    """The whole screen: exactly `height` lines at the most, the last one with the keys."""
    lines = [_title(shown, view, width, terminal)]
    if view.help:
        lines += [[], *_help(terminal)]
    else:
        lines += header(shown, width, terminal)
        room = height - len(lines) - 1
        lines += _rows(shown, view, width, room, terminal)
    lines = [cut(line, width, terminal) for line in lines[: max(0, height - 1)]]
    lines += [[] for _ in range(height - 1 - len(lines))]
    return [*lines, _keys(view, width, terminal)] if height else []


def header(shown: Picture, width: int, terminal: Terminal) -> list[Line]:
    """Bars, who would be next, and what was done last; one empty line behind it."""
    machine, limits = shown.machine, shown.limits
    pressure = machine.pressure
    used = machine.total - machine.available
    swapped = machine.swap_total - machine.swap_free
    memory_text = f"{size(used)} of {size(machine.total)}, {size(machine.available)} available"
    swap_text = (
        f"{size(swapped)} of {size(machine.swap_total)}, {size(machine.swap_free)} free"
        if machine.swap_total
        else "none"
    )
    is_short = machine.available <= limits.available
    bars = [
        ("Memory", _share(used, machine.total), _share(machine.total - limits.available, machine.total), memory_text),
        (
            "Swap",
            _share(swapped, machine.swap_total) if machine.swap_total else None,
            _share(machine.swap_total - limits.swap_free, machine.swap_total) if machine.swap_total else None,
            swap_text,
        ),
        ("Some", pressure.some10 / 100 if pressure else None, None, _pressure_text(pressure, "some")),
        ("Full", pressure.full10 / 100 if pressure else None, None, _pressure_text(pressure, "full")),
    ]
    columns = 2 if width >= WIDE else 1
    each = (width - 2 * (columns - 1)) // columns
    text_width = max(display_width(text) for *_, text in bars)
    drawn = [_bar(*bar, each, text_width, terminal, alarm=is_short and bar[0] == "Memory") for bar in bars]
    if columns == 2:
        drawn = [[*drawn[i], ("", "  "), *drawn[i + 2]] for i in range(2)]
    return [*drawn, _next(shown), _last(shown, terminal), []]


def _pressure_text(pressure: Pressure | None, kind: str) -> str:
    if pressure is None:
        return "no pressure figures"
    ten, sixty = (pressure.some10, pressure.some60) if kind == "some" else (pressure.full10, pressure.full60)
    return f"{ten:.2f}% of 10 s, {sixty:.2f}% of a minute"


def _share(part: int, whole: int) -> float:
    return part / whole if whole > 0 else 0.0


def _bar(
    label: str,
    share: float | None,
    mark: float | None,
    text: str,
    width: int,
    text_width: int,
    terminal: Terminal,
    *,
    alarm: bool = False,
) -> Line:
    """A label, a bar with a mark where oomslice acts, and figures; exactly `width` columns. The bar goes first if
    there is no room."""
    title = f"{label:<6} "
    if share is None:
        return [("bold", title), ("dim", fill(text, max(0, width - len(title)), terminal))]
    room = width - len(title) - text_width - 3
    if room < BAR_MIN:
        return [("bold", title), ("", fill(text, max(0, width - len(title)), terminal))]
    full, empty, limit = terminal.symbol("█", "#"), terminal.symbol("░", "."), terminal.symbol("│", "|")
    filled = min(room, max(0, round(share * room)))
    if share > 0 and filled == 0:
        filled = 1
    cells = [full] * filled + [empty] * (room - filled)
    style = "red" if alarm or share > 0.9 else "yellow" if share > 0.7 else "green"
    line: Line = [("bold", title), ("", "[")]
    if mark is None:
        line += [(style, "".join(cells[:filled])), ("dim", "".join(cells[filled:]))]
    else:
        at = min(room - 1, max(0, round(mark * room)))
        before, behind = cells[:at], cells[at + 1 :]
        line += [
            (style, "".join(before[:filled])),
            ("dim", "".join(before[filled:])),
            ("red", limit),
            (style, "".join(behind[: max(0, filled - at - 1)])),
            ("dim", "".join(behind[max(0, filled - at - 1) :])),
        ]
    return [*line, ("", "] "), ("", fill(text, text_width, terminal))]


def _title(shown: Picture, view: View, width: int, terminal: Terminal) -> Line:
    order = shown.order
    armed = terminal.symbol("●", "*") + (" armed" if order.armed else " NOT ARMED")
    if order.watching:
        armed += ", memory is short"
    parts = [" oomslice", armed, "domain " + (clean(order.domain))]
    parts.append("PAUSED" if view.paused else f"every {view.interval:g} s")
    left = "   ".join(parts)
    right = local_time(shown.moment_usec, terminal).split(" ")[1] + " "
    left = shorten(left, max(0, width - len(right) - 1), terminal.symbol("…", "..."))
    return [("reverse", left + " " * max(0, width - display_width(left) - len(right)) + right)]


def _next(shown: Picture) -> Line:
    if shown.complaint:
        return [("yellow", shown.complaint)]
    first = next((row for row in shown.rows if row.place == 1), None)
    if first is None:
        return [("bold", "Next   "), ("", "nobody may be chosen")]
    return [("bold", "Next   "), ("red", clean(first.name)), ("", f" ({clean(first.reason)})")]


def _last(shown: Picture, terminal: Terminal) -> Line:
    last = shown.order.last
    if last is None:
        return [("bold", "Last   "), ("dim", "no decision so far")]
    ago = relative(last["realtime_usec"], shown.moment_usec)
    return [("bold", "Last   "), ("", f"{clean(last['victim']) or 'nobody'}: {clean(last['outcome'])}, {ago}")]


def _rows(shown: Picture, view: View, width: int, room: int, terminal: Terminal) -> list[Line]:
    rows = sort_rows(shown_rows(shown.rows, everything=view.everything), view.sort)
    if not rows:
        return [[("dim", "no candidates")]]
    page = max(0, room - 1)
    view.top = min(view.top, max(0, len(rows) - page))
    return units(rows, shown.order.rank_by, width, terminal, first=view.top, count=page)


def units(
    rows: Sequence[Row],
    rank_by: str,
    width: int | None,
    terminal: Terminal,
    *,
    first: int = 0,
    count: int | None = None,
) -> list[Line]:
    """The table of units, headings first. Widths are of all rows, so that scrolling moves nothing."""
    columns = (
        Column("#", right=True),
        Column("UNIT", give=True, least=24),
        Column("PRIO", right=True),
        Column(metric_title(rank_by), right=True),
        Column("SWAP", right=True, drop=5),
        Column("GROWTH/S", right=True, drop=4),
        Column("SOME%", right=True, drop=3),
        Column("FULL%", right=True, drop=3),
        Column("ACTIONS", give=True, least=8, drop=1),
        Column("REASON", give=True, least=10, drop=2),
    )
    cells = [_cells(row, rank_by) for row in rows]
    plain = Terminal(width=width, unicode=terminal.unicode)
    heading, *lines = table(columns, cells, plain).splitlines()
    styled: list[Line] = [[("bold", heading)]]
    end = None if count is None else first + count
    for row, text in list(zip(rows, lines, strict=True))[first:end]:
        style = (
            "red" if row.place == 1 else "" if row.place else "green" if row.verdict in ("protected", "self") else "dim"
        )
        styled.append([(style, text)])
    return styled


def _cells(row: Row, rank_by: str) -> tuple[str, ...]:
    figures = row.figures
    growth = figures.growth or 0
    return (
        str(row.place) if row.place else "-",
        clean(row.name),
        str(row.priority),
        metric(row.metric, rank_by),
        size(figures.swap) if figures.swap else "-",
        "-" if figures.growth is None or not growth else ("+" if growth > 0 else "") + size(growth),
        f"{figures.pressure.some10:.1f}",
        f"{figures.pressure.full10:.1f}",
        clean(row.actions) or "-",
        clean(row.reason) if row.place else clean(row.verdict),
    )


def _help(terminal: Terminal) -> list[Line]:
    keys = [(key if terminal.unicode else key.replace("↑ ↓", "arrows"), what) for key, what in KEYS]
    width = max(display_width(key) for key, _ in keys)
    lines: list[Line] = [
        [("bold", "  " + key + " " * (width - display_width(key) + 2)), ("", what)] for key, what in keys
    ]
    mark = terminal.symbol("│", "|")
    return [
        *lines,
        [],
        [("", "  Units can be sorted by " + ", ".join(SORTS) + ".")],
        [("", "  order: as they would be chosen if memory ran out now. The first is red,")],
        [("", "  what is protected green. At the red "), ("red", mark), ("", " oomslice acts, once both memory and")],
        [("", "  swap are there. Some, Full: how long some tasks, or all of them, waited")],
        [("", "  for memory. GROWTH/S is memory and swap. More: oomslicectl(1)")],
    ]


def _keys(view: View, width: int, terminal: Terminal) -> Line:
    keys = [("q", "quit"), ("s", f"sort: {view.sort}"), ("p", "go on" if view.paused else "pause")]
    keys += [
        ("a", "fewer" if view.everything else "all"),
        ("d", "domain"),
        ("+-", f"{view.interval:g} s"),
        ("h", "help"),
    ]
    line: Line = []
    for key, what in keys:
        line += [("reverse", f" {key} "), ("", f" {what}  ")]
    return cut(line, width - 1, terminal)  # the last cell of the screen would scroll some terminals


def fill(text: str, width: int, terminal: Terminal) -> str:
    """`text` in exactly `width` columns."""
    text = shorten(text, width, terminal.symbol("…", "..."))
    return text + " " * (width - display_width(text))


def cut(line: Line, width: int, terminal: Terminal) -> Line:
    """What of a line fits."""
    kept: Line = []
    for style, text in line:
        if display_width(text) > width:
            kept.append((style, shorten(text, width, terminal.symbol("…", "..."))))
            break
        kept.append((style, text))
        width -= display_width(text)
    return kept


def render_once(shown: Picture, terminal: Terminal, *, everything: bool, legend: bool) -> str:
    """For --once and pipes: the same figures as text, of any width."""
    rows = shown_rows(shown.rows, everything=everything)
    lines: list[Line] = []
    if legend:
        lines += header(shown, terminal.width or 80, terminal)
    listed = units(rows, shown.order.rank_by, terminal.width, terminal)
    lines += listed if legend else listed[1:]
    return "\n".join("".join(terminal.style(style, text) for style, text in line).rstrip() for line in lines)
