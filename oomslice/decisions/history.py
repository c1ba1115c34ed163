# SPDX-License-Identifier: LGPL-2.1-or-later
"""The figures around a decision, as the core read them while memory was short. Pure.

There are points where something happened, not at even distances: ten a second, more while memory falls or comes back
fast, none at rest.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

BEFORE_USEC = 120_000_000
"""How long before its trigger the history of a decision begins."""
SAMPLES_MAX, UNITS_MAX = 1000, 2000
"""More points than these are thinned out: no picture shows more."""

Point = TypeVar("Point")


@dataclass(frozen=True, slots=True)
class MachineSample:
    """The machine at one moment. Sizes are bytes."""

    usec: int
    """CLOCK_MONOTONIC, microseconds, as in a decision"""
    memory_available: int
    swap_free: int
    some_usec: int
    """how long somebody has stalled for memory since the boot, microseconds; this and the next 0: not read"""
    full_usec: int


@dataclass(frozen=True, slots=True)
class UnitSample:
    """What one unit had at one moment, swap included."""

    usec: int
    unit: str
    memory: int


@dataclass(frozen=True, slots=True)
class History:
    """Oldest first."""

    samples: tuple[MachineSample, ...] = ()
    units: tuple[UnitSample, ...] = ()

    def thinned(self) -> History:
        """With no more points than a picture can show; first and last stay. All units of a moment go together."""
        moments = sorted({sample.usec for sample in self.units})
        # So many moments fit if all have as many units as they have on average.
        fitting = max(2, UNITS_MAX * len(moments) // max(len(self.units), 1))
        kept = set(_thin(moments, fitting))
        units = tuple(sample for sample in self.units if sample.usec in kept)
        return History(tuple(_thin(self.samples, SAMPLES_MAX)), units[-2 * UNITS_MAX :])

    def to_bytes(self) -> bytes:
        """For the store: a tenth of its JSON."""
        names = sorted({sample.unit for sample in self.units})
        numbers = {name: number for number, name in enumerate(names)}
        value = {
            "samples": [
                [sample.usec, sample.memory_available, sample.swap_free, sample.some_usec, sample.full_usec]
                for sample in self.samples
            ],
            "names": names,
            "units": [[sample.usec, numbers[sample.unit], sample.memory] for sample in self.units],
        }
        return zlib.compress(json.dumps(value, separators=(",", ":")).encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> History:
        """The inverse. Raises ValueError if it is none."""
        try:
            value = json.loads(zlib.decompress(data))
            names = [str(name) for name in value["names"]]
            samples = [MachineSample(*(int(figure) for figure in figures)) for figures in value["samples"]]
            units = [UnitSample(int(usec), names[number], int(memory)) for usec, number, memory in value["units"]]
        except (zlib.error, KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"not a history: {error}") from error
        return cls(tuple(samples), tuple(units))


def _thin(points: Sequence[Point], most: int) -> Sequence[Point]:
    if len(points) <= most:
        return points
    last = len(points) - 1
    return [points[index * last // (most - 1)] for index in range(most)]
