# SPDX-License-Identifier: LGPL-2.1-or-later
"""Data as text for people: sizes, times, tables, colours. Pure; what the terminal is like comes in as a `Terminal`.

Every string that came from outside (unit names, values from files) goes through `clean`, so that no name can send
control sequences to the terminal.

Every call imports this, so it imports little: named tuples, because dataclasses take seven milliseconds.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import NamedTuple

SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
}


class Terminal(NamedTuple):
    """Where the text goes. `width` None means: not a terminal, never shorten anything."""

    width: int | None = None
    colour: bool = False
    unicode: bool = True
    now_usec: int = 0
    """CLOCK_REALTIME of the call, microseconds"""
    timezone: tzinfo | None = None
    """None is the local one"""
    boot_id: str = ""

    def style(self, name: str, text: str) -> str:
        """`text` in that style, on terminals that show colours."""
        if not self.colour or not name or not text:
            return text
        return f"\033[{STYLES[name]}m{text}\033[0m"

    def symbol(self, fancy: str, plain: str) -> str:
        """`fancy` where the locale can show it, else `plain` (ASCII)."""
        return fancy if self.unicode else plain


def clean(value: object) -> str:
    """`value` as one line without control or unprintable characters; those are written \\xNN or \\uNNNN."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def display_width(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    columns = 0
    for character in text:
        if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
            continue
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return columns


def shorten(text: str, width: int, ellipsis: str = "…") -> str:
    """`text` in at most `width` columns; what is cut is replaced by `ellipsis`, at the end."""
    if display_width(text) <= width:
        return text
    if width <= len(ellipsis):
        return ellipsis[: max(width, 0)]
    kept = ""
    columns = len(ellipsis)
    for character in text:
        columns += display_width(character)
        if columns > width:
            break
        kept += character
    return kept + ellipsis


def size(count: int) -> str:
    """Bytes for people, in binary units: 1610612736 -> "1.5 GiB"."""
    if count < 0:
        return "-" + size(-count)
    value = float(count)
    for unit in SIZE_UNITS:
        # The next unit takes over where this one would be written as 1024.
        if value < 1023.95 or unit == SIZE_UNITS[-1]:
            break
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def metric(count: int, rank_by: str) -> str:
    """A rank metric in its unit: pages for refault, bytes for all others."""
    return f"{count} pages" if rank_by == "refault" else size(count)


def metric_title(rank_by: str) -> str:
    """Heading of a column of such metrics."""
    return {"memory": "MEMORY", "swap": "SWAP", "growth": "GROWTH", "refault": "REFAULTS"}.get(rank_by, "METRIC")


def milliseconds(usec: int) -> str:
    """A duration of the kill path: 12345 -> "12.3 ms"."""
    return f"{usec / 1000:.1f} ms"


def elapsed(usec: int) -> str:
    """A duration of any length: "12.3 ms", "3.5 s", "2 min 5 s"."""
    if abs(usec) < 1_000_000:
        return milliseconds(usec)
    if usec < 60_000_000:
        return f"{usec / 1_000_000:.1f} s"
    minutes, seconds = divmod(usec // 1_000_000, 60)
    return f"{minutes} min {seconds} s"


def relative(realtime_usec: int, now_usec: int) -> str:
    """How far away a moment is, in its largest unit: "5 min ago", "in 2 h", "just now"."""
    distance = now_usec - realtime_usec
    seconds = abs(distance) // 1_000_000
    if seconds == 0:
        return "just now"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= length:
            amount = f"{seconds // length} {unit}"
            break
    return f"{amount} ago" if distance > 0 else f"in {amount}"


def local_time(realtime_usec: int, terminal: Terminal, *, milli: bool = False) -> str:
    """A moment in local time: "2026-11-21 01:49:30 CET"; with `milli`, to the millisecond."""
    try:
        moment = datetime.fromtimestamp(realtime_usec // 1_000_000, terminal.timezone)
    except (OverflowError, OSError, ValueError):
        return f"@{realtime_usec / 1_000_000:.0f}"
    if moment.tzinfo is None:
        moment = moment.astimezone()
    fraction = f".{realtime_usec // 1000 % 1000:03d}" if milli else ""
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction} {moment.tzname()}"


def clock(realtime_usec: int, terminal: Terminal) -> str:
    """The time of day to the millisecond: "01:49:30.123"."""
    _, _, rest = local_time(realtime_usec, terminal, milli=True).partition(" ")
    return rest.partition(" ")[0] if rest and realtime_usec > 0 else "-"


def when(realtime_usec: int, terminal: Terminal) -> str:
    """Local and relative: "2026-11-21 01:49:30 CET, 5 min ago"."""
    return f"{local_time(realtime_usec, terminal)}, {relative(realtime_usec, terminal.now_usec)}"


def yes_no(value: object) -> str:
    """A flag as systemd writes it."""
    return "yes" if value else "no"


class Column(NamedTuple):
    """One column of a table. Only those that `give` may be shortened when the terminal is narrow."""

    title: str
    right: bool = False
    give: bool = False
    least: int = 8
    """a column that gives keeps at least so many columns"""
    drop: int = 0
    """if even that is too wide, columns with a number are left out whole, the smallest number first"""


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    terminal: Terminal,
    *,
    styles: Sequence[str] = (),
    header: bool = True,
    indent: str = "",
) -> str:
    """Aligned text, one line per row, shortened to the terminal's width where columns allow it.

    `styles` names a style per row. Cells must be clean already. No line ends in blanks.
    """
    shown, widths = _fit(columns, rows, terminal, header, len(indent))
    ellipsis = terminal.symbol("…", "...")
    result = []
    lines = [[column.title for column in columns], *rows] if header else list(rows)
    for number, line in enumerate(lines):
        cells = []
        for i, width in zip(shown, widths, strict=True):
            cell = shorten(line[i], width, ellipsis)
            blanks = " " * (width - display_width(cell))
            cells.append(blanks + cell if columns[i].right else cell + blanks)
        text = indent + "  ".join(cells).rstrip()
        row = number - 1 if header else number
        style = "bold" if row < 0 else (styles[row] if row < len(styles) else "")
        result.append(terminal.style(style, text))
    return "\n".join(result)


def _fit(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], terminal: Terminal, header: bool, indent: int
) -> tuple[list[int], list[int]]:
    """Which columns are shown, and how wide each is."""
    lines = [[column.title for column in columns], *rows] if header else rows
    natural = [max((display_width(line[i]) for line in lines), default=0) for i in range(len(columns))]
    least = [min(natural[i], column.least) if column.give else natural[i] for i, column in enumerate(columns)]
    shown = list(range(len(columns)))
    if terminal.width is None:
        return shown, natural
    room = terminal.width - indent

    def gaps() -> int:
        return 2 * (len(shown) - 1)

    for i in sorted((i for i in shown if columns[i].drop), key=lambda i: columns[i].drop):
        if sum(least[j] for j in shown) + gaps() <= room:
            break
        shown.remove(i)
    widths = {i: natural[i] for i in shown}
    excess = sum(widths.values()) + gaps() - room
    while excess > 0 and (givers := [i for i in shown if widths[i] > least[i]]):
        # The widest gives first, down to the next one, so that short columns stay whole.
        widest = max(givers, key=lambda i: widths[i])
        floor = max([least[widest], *(widths[i] for i in givers if widths[i] < widths[widest])])
        step = min(excess, max(1, widths[widest] - floor))
        widths[widest] -= step
        excess -= step
    return shown, [widths[i] for i in shown]


def facts(pairs: Sequence[tuple[str, str]], terminal: Terminal) -> str:
    """Labels and values, labels aligned to the right as systemctl does; further lines of a value are indented."""
    width = max((display_width(label) for label, _ in pairs), default=0)
    lines = []
    for label, value in pairs:
        first, *rest = value.split("\n")
        lines.append(f"{' ' * (width - display_width(label))}{terminal.style('bold', label + ':')} {first}".rstrip())
        lines.extend(f"{' ' * (width + 2)}{line}".rstrip() for line in rest)
    return "\n".join(lines)


def plural(count: int, noun: str, many: str = "") -> str:
    """A number and its noun: "1 process", "2 processes" (with `many` given for what does not just take an s)."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"
