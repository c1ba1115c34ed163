# SPDX-License-Identifier: LGPL-2.1-or-later
"""The summary as tables in Markdown, and the text of docs/benchmarks.md between its marks. Pure.

A summary is what is committed; summary.py says what is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import goals
from .columns import Cell, Outcome
from .storms import MEMORY_MB, STORMS, SWAPS
from .summary import dates

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEAD = (
    "storm",
    "candidate",
    "right victim",
    "collateral",
    "exhausted, s",
    "recovery, s",
    "longest stall, ms",
    "p99, ms",
    "stalled, %",
    "kernel kills",
    "unused, %",
    "blind, ms",
    "hung",
    "measured",
)


def cells_of(summary: dict[str, Any]) -> list[Cell]:
    """The cells of a summary."""
    return [
        Cell(cell["swap"], cell["candidate"], cell["storm"], tuple(Outcome(**outcome) for outcome in cell["outcomes"]))
        for cell in summary["cells"]
    ]


def _pair(pair: tuple[float, float] | None, pattern: str, factor: float = 1.0) -> str:
    if pair is None:
        return "-"
    median, worst = (format(value * factor, pattern) for value in pair)
    return median if median == worst else f"{median} ({worst})"


def row(cell: Cell, measured: str) -> tuple[str, ...]:
    """One line of the table; figures are the median and, in brackets, the worst. `measured` says when, and what."""
    runs = len(cell.outcomes)
    lost = sum(not outcome.recovered for outcome in cell.finished)
    recovery = _pair(cell.median_and_worst("recovery_s"), ".2f")
    if lost:
        recovery = "never" if recovery == "-" else f"{recovery}, never in {lost}"
    return (
        cell.storm,
        cell.candidate,
        f"{cell.count('right')} of {runs}",
        str(cell.total("collateral")),
        _pair(cell.median_and_worst("exhausted_s"), ".2f"),
        recovery,
        _pair(cell.median_and_worst("longest_stall_ms"), ".0f"),
        _pair(cell.median_and_worst("p99_ms"), ".1f"),
        _pair(cell.median_and_worst("stalled_share"), ".1f", 100),
        str(cell.total("kernel_kills")),
        _pair(cell.median_and_worst("unused_share"), ".1f", 100),
        _pair(cell.median_and_worst("blind_ms"), ".0f"),
        str(cell.count("hung")),
        measured,
    )


def provenance(cell: dict[str, Any], summary: dict[str, Any]) -> str:
    """The day of a cell, and what it is of where that is not what the rest of the page is of."""
    first, last = cell["measured"]
    said = [first if first == last else f"{first} to {last}"]
    if cell["kernel"] != summary["machine"]["kernel"]:
        said.append(f"Linux {cell['kernel']}")
    elif cell["version"] != summary["candidates"][cell["candidate"]]["version"]:
        said.append(cell["version"])
    return ", ".join(said)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown whose columns line up on a terminal, too."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (head, *rows)
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def tables(summary: dict[str, Any]) -> str:
    """All tables: one for each kind of swap that was measured, then the candidates themselves."""
    cells = cells_of(summary)
    order = list(STORMS)
    names = list(summary["candidates"])
    parts = []
    for swap, what in SWAPS.items():
        chosen = [
            (cell, provenance(source, summary))
            for cell, source in zip(cells, summary["cells"], strict=True)
            if cell.swap == swap
        ]
        if chosen:
            chosen.sort(key=lambda pair: (order.index(pair[0].storm), names.index(pair[0].candidate)))
            parts.append(f"### {what[0].upper()}{what[1:]}\n\n{grid(HEAD, [row(*pair) for pair in chosen])}")
    parts.append(
        "### The candidates at rest\n\n"
        + grid(("candidate", "version", "memory, MiB", "processor, %", ""), _rest(summary))
    )
    parts.append(
        "### What oomslice with priorities is meant to reach\n\n"
        + grid(goals.HEAD, [goal.row() for goal in goals.goals(cells)])
    )
    return "\n".join(parts)


def _rest(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, about in summary["candidates"].items():
        rest = about.get("at_rest") or {}
        rows.append(
            (
                name,
                about["version"],
                f"{rest['memory_mb']:.1f}" if rest else "-",
                f"{rest['cpu'] * 100:.2f}" if rest else "-",
                "does not start as packaged: " + about["failure"] if about.get("failure") else "",
            )
        )
    return rows


def not_measured(summary: dict[str, Any], candidates: Sequence[str]) -> str:
    """Which cells of the whole matrix have no figures, in words. Who does not start cannot have any."""
    able = [name for name in candidates if not summary["candidates"].get(name, {}).get("failure")]
    there = {(cell["swap"], cell["storm"], cell["candidate"]) for cell in summary["cells"]}
    lines = []
    for swap, what in SWAPS.items():
        storms_without: dict[tuple[str, ...], list[str]] = {}
        for storm in STORMS:
            missing = tuple(name for name in able if (swap, storm, name) not in there)
            if missing:
                storms_without.setdefault(missing, []).append(storm)
        for missing, storms in storms_without.items():
            who = "all" if len(missing) == len(able) else ", ".join(missing)
            lines.append(f"- {what[0].upper()}{what[1:]}, {', '.join(storms)}: {who}.")
    return "\n".join(lines) + "\n" if lines else "Nothing: the matrix is complete.\n"


def page(summary: dict[str, Any], candidates: Sequence[str]) -> str:
    """What stands between the marks of docs/benchmarks.md."""
    machine = summary["machine"]
    first, last = dates(summary)
    when = first if first == last else f"{first} to {last}"
    cells = cells_of(summary)
    runs = sorted({len(cell.outcomes) for cell in cells})
    spoken = f"{runs[0]} run{'s'[: runs[0] - 1]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]} runs"
    return (
        f"{BEGIN}\n"
        f"Measured {when}, {spoken} in each cell: Debian trixie, Linux {machine['kernel']}, systemd "
        f"{machine['systemd']}, 2 processors, {MEMORY_MB} MiB, emulated by {machine['emulator']}.\n\n"
        f"![Time with memory exhausted and longest stall, for each candidate and storm](benchmarks.svg)\n\n"
        f"{tables(summary)}\n"
        f"### Not measured yet\n\n{not_measured(summary, candidates)}"
        f"{END}"
    )


def into(document: str, text: str) -> str:
    """The document with what is between its marks replaced."""
    before, _, rest = document.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the document has no {BEGIN} ... {END}")
    return before + text + after
