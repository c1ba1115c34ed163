# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a set of samples is boiled down to, and how it is printed. Nothing here measures."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STARTED = time.monotonic()


def say(message: str) -> None:
    """Progress, on standard error."""
    print(f"bench: [{time.monotonic() - STARTED:4.0f} s] {message}", file=sys.stderr, flush=True)


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

    def __str__(self) -> str:
        if not self.samples:
            return f"{self.name}: could not be taken"
        _, runs, median, least, most, _ = self.row()
        spread = f" ({least} to {most} in {runs} runs)" if len(self.samples) > 1 else ""
        return f"{self.name}: {median.strip()}{spread}"


@dataclass(slots=True)
class Report:
    """The figures of one place. Each is printed when it is taken, so that a run that is broken off says something."""

    title: str
    figures: list[Figure]

    def take(self, figures: Iterable[Figure]) -> None:
        """Add what a generator of figures yields, as it yields it."""
        for figure in figures:
            self.figures.append(figure)
            print(figure, flush=True)

    def complete(self) -> bool:
        """Whether every figure could be taken."""
        return all(figure.samples for figure in self.figures)

    def plain(self) -> dict[str, object]:
        """For JSON: all samples, not what they are boiled down to."""
        samples = [{"name": figure.name, "unit": figure.unit, "samples": figure.samples} for figure in self.figures]
        return {"title": self.title, "figures": samples}


def markdown(title: str, figures: Sequence[Figure]) -> str:
    """A table in Markdown whose columns also line up on a terminal."""
    rows = [("figure", "runs", "median", "min", "max", "goal"), *(figure.row() for figure in figures if figure.samples)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return f"### {title}\n" + "\n".join(lines) + "\n"
