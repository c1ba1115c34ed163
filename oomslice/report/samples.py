# SPDX-License-Identifier: LGPL-2.1-or-later
"""The figures that were kept around a decision, as the pictures need them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oomslice.report.model import Sample

NEAR_USEC = 20_000
"""Between moments closer than this, a share of time lost would say more of the clock than of the machine."""


def samples_of(
    machine: Iterable[Sequence[int]], units: Iterable[tuple[int, str, int]], *, since_usec: int = 0
) -> list[Sample]:
    """From what GetHistory() of org.oomslice1(5) returns. Moments before `since_usec` are left out.

    Stalls are counters of microseconds; a picture has the share of time that was lost since the moment before.
    """
    memory: dict[int, dict[str, int]] = {}
    for usec, unit, size in units:
        memory.setdefault(usec, {})[unit] = size
    found: dict[int, Sample] = {}
    before: tuple[int, int, int] | None = None
    for usec, available, swap_free, some_usec, full_usec in machine:
        some = full = None
        if some_usec or full_usec:
            if before is None:
                before = (usec, some_usec, full_usec)
            elif usec - before[0] >= NEAR_USEC:
                span = usec - before[0]
                some, full = _share(some_usec - before[1], span), _share(full_usec - before[2], span)
                before = (usec, some_usec, full_usec)
        found[usec] = Sample(usec, available, swap_free, some, full, memory.pop(usec, {}))
    for usec, sizes in memory.items():
        found[usec] = Sample(usec, units=sizes)
    return [found[usec] for usec in sorted(found) if usec >= since_usec]


def _share(lost_usec: int, span_usec: int) -> float:
    """Percent, within what is possible: counter and clock are not read in the same instant."""
    return min(max(100 * lost_usec / span_usec, 0.0), 100.0)
