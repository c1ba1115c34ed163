# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a set of samples is boiled down to, and how it is printed. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the result: samples of one quantity in one unit."""

    name: str
    unit: str
    samples: tuple[float, ...]
    goal: str = ""

    def row(self) -> tuple[str, str, str, str, str, str]:
        """Name, number of runs, median, smallest, largest, goal."""
        return (
            self.name,
            str(len(self.samples)),
            f"{statistics.median(self.samples):.4g} {self.unit}",
            f"{min(self.samples):.4g}",
            f"{max(self.samples):.4g}",
            self.goal or "-",
        )


def markdown(title: str, figures: Sequence[Figure]) -> str:
    """A table in Markdown whose columns also line up on a terminal."""
    rows = [("figure", "runs", "median", "min", "max", "goal"), *(figure.row() for figure in figures if figure.samples)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return f"### {title}\n" + "\n".join(lines) + "\n"
