# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one run comes to, and what several do. Pure: traces in, figures out."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .trace import Sample, Trace

EXHAUSTED = 0.03
"""Share of memory: with less available, memory is exhausted."""
SHORT, WELL = 0.05, 0.10
"""Recovery is from the first moment below SHORT until WELL is reached for good."""
STALL = 0.010
HOG, DATABASE = 0, 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. None is "does not apply": nobody died, or memory never came back."""

    hung: bool
    right: bool
    collateral: int
    """Services that died and should not have: the database, and whatever else was not of the hog."""
    exhausted_s: float
    recovery_s: float | None
    recovered: bool
    longest_stall_ms: float | None
    p99_ms: float | None
    stalled_share: float | None
    """Share of the time in which a request was being served that took longer than STALL."""
    kernel_kills: int
    unused_share: float | None
    swap_free_share: float | None
    first_death_s: float | None
    blind_ms: float | None
    """The witness's own longest gap: what it could have missed."""

    def plain(self) -> dict[str, Any]:
        """For JSON, rounded to what can be meant."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}


def outcome(trace: Trace, victim: str) -> Outcome:
    """The figures of one run. `victim` is what would be right (storms.py)."""
    if not trace.complete or not trace.samples or "lost" not in trace.facts:
        return _hung(trace)
    samples = [sample for sample in trace.samples if sample.at >= trace.go]
    total = trace.total_kb
    deaths = [first_death(samples, which) for which in (HOG, DATABASE)]
    lost = [str(unit) for unit in trace.facts.get("lost", [])]
    hog_died, database_died = (death is not None for death in deaths)
    collateral = len({*lost, *(["database.service"] if database_died else [])})
    right = collateral == 0 and {"hog": hog_died, "none": not hog_died}.get(victim, True)
    recovery, recovered = _recovery(samples, total)
    late = lateness(trace)
    first = min((death for death in deaths if death is not None), default=None)
    unused = swap_free = None
    if first is not None:
        # A process is counted until it has been reaped: its memory may be back long before, so the least counts.
        least = min((sample for sample in samples if sample.at <= first), key=lambda sample: sample.available_kb)
        unused = least.available_kb / total
        if trace.swap_total_kb:
            swap_free = least.swap_free_kb / trace.swap_total_kb
    return Outcome(
        hung=False,
        right=right,
        collateral=collateral,
        exhausted_s=_time_below(samples, EXHAUSTED * total),
        recovery_s=recovery,
        recovered=recovered,
        longest_stall_ms=max(late, default=0.0) * 1000,
        p99_ms=percentile(late, 0.99) * 1000,
        stalled_share=sum(value for value in late if value > STALL) / max(samples[-1].at - trace.go, 1e-9),
        kernel_kills=samples[-1].kernel_kills - trace.samples[0].kernel_kills,
        unused_share=unused,
        swap_free_share=swap_free,
        first_death_s=None if first is None else first - trace.go,
        blind_ms=max((b.at - a.at for a, b in itertools.pairwise(samples)), default=0.0) * 1000,
    )


def _hung(trace: Trace) -> Outcome:
    """What is known of a run that was not heard to its end: only what was said before."""
    seen = trace.heartbeats
    return Outcome(
        hung=True,
        right=False,
        collateral=0,
        exhausted_s=_time_below(seen, EXHAUSTED * trace.total_kb),
        recovery_s=None,
        recovered=False,
        longest_stall_ms=None,
        p99_ms=None,
        stalled_share=None,
        kernel_kills=seen[-1].kernel_kills - seen[0].kernel_kills if seen else 0,
        unused_share=None,
        swap_free_share=None,
        first_death_s=None,
        blind_ms=None,
    )


def first_death(samples: Sequence[Sample], which: int) -> float | None:
    """When a unit first had fewer processes than before."""
    most = 0
    for sample in samples:
        if sample.processes[which] < most:
            return sample.at
        most = sample.processes[which]
    return None


def lateness(trace: Trace) -> list[float]:
    """Seconds that each request took since the storm began; a database that lives and is silent at the end, too."""
    late = [late for due, late in trace.rounds if due + late >= trace.go]
    alive = bool(trace.samples) and trace.samples[-1].processes[DATABASE] > 0
    if alive and trace.rounds:
        last = max(sum(trace.rounds[-1]), trace.go)
        if trace.end - last > 0.1:
            late.append(trace.end - last)
    return late


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def _time_below(samples: Sequence[Sample], limit_kb: float) -> float:
    # Each sample stands for the time until the next: what happens to a witness that is late itself is not lost.
    return sum(b.at - a.at for a, b in itertools.pairwise(samples) if a.available_kb < limit_kb)


def _recovery(samples: Sequence[Sample], total_kb: int) -> tuple[float | None, bool]:
    begin = next((sample.at for sample in samples if sample.available_kb < SHORT * total_kb), None)
    if begin is None:
        return 0.0, True
    bad = [index for index, sample in enumerate(samples) if sample.available_kb < WELL * total_kb]
    if bad[-1] + 1 >= len(samples):
        return None, False
    return samples[bad[-1] + 1].at - begin, True


@dataclass(frozen=True, slots=True)
class Cell:
    """All runs of one candidate in one storm."""

    swap: str
    candidate: str
    storm: str
    outcomes: tuple[Outcome, ...]

    @property
    def finished(self) -> list[Outcome]:
        """Those that did not hang."""
        return [outcome for outcome in self.outcomes if not outcome.hung]

    def count(self, name: str) -> int:
        """In how many runs a flag is set."""
        return sum(bool(getattr(outcome, name)) for outcome in self.outcomes)

    def total(self, name: str) -> int:
        """A count over all runs."""
        return sum(int(getattr(outcome, name)) for outcome in self.outcomes)

    def median_and_worst(self, name: str) -> tuple[float, float] | None:
        """Over the runs that have the figure."""
        values = [value for outcome in self.finished if (value := getattr(outcome, name)) is not None]
        return (statistics.median(values), max(values)) if values else None
