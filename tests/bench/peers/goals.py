# SPDX-License-Identifier: LGPL-2.1-or-later
"""What oomslice with priorities is meant to reach, and whether it does: reported, never asserted. Pure.

The worst run counts, of every storm that was measured. A goal without a figure is not measured, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .columns import Cell
from .storms import STORMS

OURS = "oomslice-tuned"
HEAD = ("goal", "measured", "met")
TENTH, EXHAUSTED_S, STALL_MS, STALL_SWAP_MS, STALLED, UNUSED = 0.1, 0.3, 20.0, 50.0, 0.01, 0.03


@dataclass(frozen=True, slots=True)
class Goal:
    """One line: what is to be reached, what was measured, and whether that is enough; None if nothing was."""

    text: str
    measured: str
    met: bool | None

    def row(self) -> tuple[str, str, str]:
        """For a table."""
        return self.text, self.measured, {True: "yes", False: "no", None: "-"}[self.met]


def goals(cells: Sequence[Cell]) -> list[Goal]:
    """All goals."""
    ours = [cell for cell in cells if cell.candidate == OURS]
    dry = [cell for cell in ours if cell.swap == "none"]
    freed = [cell for cell in dry if not STORMS[cell.storm].is_left_behind]
    wet = [cell for cell in ours if cell.swap != "none"]
    deadly = [cell for cell in ours if STORMS[cell.storm].victim == "hog"]
    static = [cell for cell in wet if STORMS[cell.storm].right(cell.swap) == "none"]
    return [
        _every("right victim in every run", ours),
        _count("no kernel kill", ours),
        *[_tenth(cell, cells) for cell in freed if STORMS[cell.storm].victim == "hog"],
        _most(
            "without swap, where a kill frees memory: exhausted at most 0.3 s",
            freed,
            "exhausted_s",
            EXHAUSTED_S,
            "{:.2f} s",
        ),
        _most("without swap: longest stall at most 20 ms", dry, "longest_stall_ms", STALL_MS, "{:.0f} ms"),
        _most("with swap: longest stall at most 50 ms", wet, "longest_stall_ms", STALL_SWAP_MS, "{:.0f} ms"),
        _most("with swap: stalled for at most 1 % of the time", wet, "stalled_share", STALLED, "{:.2%}"),
        _every("a hog that stops with half of the swap free is not killed", static),
        _most("at most 3 % of memory unused when the kill comes", deadly, "unused_share", UNUSED, "{:.1%}"),
    ]


def _every(text: str, cells: Sequence[Cell]) -> Goal:
    runs, right = sum(len(cell.outcomes) for cell in cells), sum(cell.count("right") for cell in cells)
    return Goal(text, f"{right} of {runs}", right == runs) if runs else _none(text)


def _count(text: str, cells: Sequence[Cell]) -> Goal:
    kills = sum(cell.total("kernel_kills") for cell in cells)
    return Goal(text, str(kills), kills == 0) if cells else _none(text)


def _most(text: str, cells: Sequence[Cell], name: str, limit: float, pattern: str) -> Goal:
    worst = max(_values(cells, lambda cell: cell.median_and_worst(name)), key=lambda pair: pair[1], default=None)
    return _none(text) if worst is None else Goal(text, pattern.format(worst[1]), worst[1] <= limit)


def _values(cells: Iterable[Cell], of: Callable[[Cell], tuple[float, float] | None]) -> list[tuple[float, float]]:
    return [pair for cell in cells if (pair := of(cell)) is not None]


def _tenth(ours: Cell, cells: Sequence[Cell]) -> Goal:
    text = f"without swap, {ours.storm}: exhausted at most a tenth of the best other that was right"
    others = [
        cell
        for cell in cells
        if (cell.swap, cell.storm) == (ours.swap, ours.storm)
        and not cell.candidate.startswith("oomslice")
        and cell.count("right") == len(cell.outcomes)
    ]
    pairs = [(pair[0], cell.candidate) for cell in others if (pair := cell.median_and_worst("exhausted_s"))]
    mine = ours.median_and_worst("exhausted_s")
    if not pairs or mine is None:
        return Goal(text, "nobody else was right" if mine else "-", None)
    best, name = min(pairs)
    return Goal(text, f"{mine[0]:.2f} s, {name} {best:.2f} s", mine[0] <= TENTH * best)


def _none(text: str) -> Goal:
    return Goal(text, "not measured", None)
