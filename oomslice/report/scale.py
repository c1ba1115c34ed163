# SPDX-License-Identifier: LGPL-2.1-or-later
"""Axes: round numbers for ticks, and how times, sizes and shares are written beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass

TIME_UNITS = (("µs", 1), ("ms", 1000), ("s", 1_000_000), ("min", 60_000_000), ("h", 3_600_000_000))
SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def elapsed(usec: float) -> str:
    """A time span as people read it: "45 µs", "12.3 ms", "3.5 s", "2 min 5 s"; never less than nothing."""
    usec = max(usec, 0)
    if usec < 1000:
        return f"{usec:.0f} µs"
    if usec < 1_000_000:
        return f"{usec / 1000:.1f} ms"
    if usec < 120_000_000:
        return f"{usec / 1_000_000:.1f} s"
    minutes, seconds = divmod(int(usec) // 1_000_000, 60)
    return f"{minutes} min {seconds} s"


@dataclass(frozen=True, slots=True)
class Axis:
    """From `low` to `high`, with ticks at round values."""

    low: float
    high: float
    ticks: tuple[float, ...]
    unit: str
    divisor: float = 1

    def label(self, value: float) -> str:
        """A tick without its unit."""
        return f"{value / self.divisor:.6g}".replace("-", "\N{MINUS SIGN}")

    def share(self, value: float) -> float:
        """Where on the axis a value is, 0 to 1."""
        return (value - self.low) / (self.high - self.low)


def time_axis(low_usec: float, high_usec: float) -> Axis:
    """For times, in the unit that keeps the numbers short."""
    high_usec = max(high_usec, low_usec + 1)
    reach = max(abs(low_usec), abs(high_usec))
    unit, divisor = next((item for item in reversed(TIME_UNITS) if reach >= 2 * item[1] or item[1] == 1), TIME_UNITS[0])
    step = _round_step((high_usec - low_usec) / divisor, 6) * divisor
    return Axis(low_usec, high_usec, _ticks(low_usec, high_usec, step), unit, divisor)


def size_axis(high: float) -> Axis:
    """From 0 to at least `high` bytes, in binary units."""
    power = 0
    while power < len(SIZE_UNITS) - 1 and high >= 1024 ** (power + 1):
        power += 1
    divisor = float(1024**power)
    step = _round_step(max(high, 1) / divisor, 4) * divisor
    top = math.ceil(max(high, 1) / step - 1e-9) * step
    return Axis(0, top, _ticks(0, top, step), SIZE_UNITS[power], divisor)


def percent_axis(high: float) -> Axis:
    """From 0 to at least `high` percent."""
    step = _round_step(max(high, 1), 4)
    top = math.ceil(max(high, 1) / step - 1e-9) * step
    return Axis(0, top, _ticks(0, top, step), "%")


def _round_step(span: float, count: int) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that cuts `span` into at most `count` parts."""
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _ticks(low: float, high: float, step: float) -> tuple[float, ...]:
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(number * step for number in range(first, last + 1))
