# SPDX-License-Identifier: LGPL-2.1-or-later
"""The summary as a picture: a dot for each run, on a logarithmic scale. Pure; writes SVG without any library."""

from __future__ import annotations

import math
from typing import Any
from xml.sax.saxutils import escape

from .columns import Cell, Outcome
from .storms import STORMS, SWAPS
from .table import cells_of

WIDTH, LABEL, PANEL, GAP, LINE, TOP = 960, 190, 340, 50, 17, 64
RIGHT, WRONG = "#1b7f4b", "#c0392b"
PANELS = (
    ("exhausted_s", "time with less than 3 % of memory available", "s", 0.01, 100.0),
    ("longest_stall_ms", "longest stall of the database", "ms", 1.0, 100000.0),
)


def place(value: float, least: float, most: float) -> float:
    """Where a value is on a panel, 0 to 1. What is below the scale is at its left edge, zero as well."""
    if value <= least:
        return 0.0
    return min(math.log(value / least) / math.log(most / least), 1.0)


def picture(summary: dict[str, Any]) -> str:
    """The whole SVG."""
    parts: list[str] = []
    y = TOP
    cells = cells_of(summary)
    order = list(summary["candidates"])
    for swap, what in SWAPS.items():
        for storm in STORMS:
            chosen = [cell for cell in cells if (cell.swap, cell.storm) == (swap, storm)]
            if not chosen:
                continue
            y += 10
            parts.append(_text(8, y + 12, f"{storm}, {what}", weight="bold"))
            y += LINE + 3
            for cell in sorted(chosen, key=lambda cell: order.index(cell.candidate)):
                parts.extend(_line(cell, y))
                y += LINE
    height = y + 24
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<circle cx="14" cy="16" r="4" fill="{RIGHT}"/>' + _text(24, 20, "the right one died, nobody else"),
        f'<circle cx="244" cy="16" r="4" fill="none" stroke="{WRONG}" stroke-width="2"/>'
        + _text(254, 20, "somebody else died, or nobody"),
        _text(474, 20, "x  hung", colour=WRONG) + _text(554, 20, "one mark for each run; further left is better"),
        *_scales(height - 16),
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", colour: str = "#222222"
) -> str:
    look = f'text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.0f}" y="{y:.0f}" {look}>{escape(text)}</text>'


def _left(panel: int) -> int:
    return LABEL + panel * (PANEL + GAP)


def _scales(bottom: int) -> list[str]:
    parts = []
    for panel, (_, title, unit, least, most) in enumerate(PANELS):
        parts.append(_text(_left(panel), TOP - 20, title, weight="bold"))
        mark = least
        while mark <= most * 1.001:
            x = _left(panel) + PANEL * place(mark, least, most)
            parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#dddddd"/>')
            parts.append(_text(x, TOP - 4, f"{mark:g} {unit}", anchor="middle", colour="#666666"))
            mark *= 10
    return parts


def _line(cell: Cell, y: int) -> list[str]:
    ours = cell.candidate.startswith("oomslice")
    parts = [_text(LABEL - 16, y + 11, cell.candidate, anchor="end", weight="bold" if ours else "normal")]
    for panel, (name, _, _, least, most) in enumerate(PANELS):
        for outcome in cell.outcomes:
            value = getattr(outcome, name)
            x = _left(panel) + PANEL * (1.0 if value is None else place(value, least, most))
            parts.append(_mark(outcome, x, y + 7))
    return parts


def _mark(outcome: Outcome, x: float, y: float) -> str:
    if outcome.hung:
        return _text(x, y + 4, "x", anchor="middle", weight="bold", colour=WRONG)
    if outcome.right:
        return f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{RIGHT}" fill-opacity="0.7"/>'
    return f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="none" stroke="{WRONG}" stroke-width="2"/>'
