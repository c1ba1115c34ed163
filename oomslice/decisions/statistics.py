# SPDX-License-Identifier: LGPL-2.1-or-later
"""Decisions counted, and how long they took: for monitoring.

Counts go on from what the store has, so a restart loses none of those that are kept. Nothing is read before somebody
asks, and then only what is new.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

BOUNDS_SEC = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets, seconds."""
UNITS_MAX = 100
"""Names of units that are told apart; whoever comes later counts as OTHER."""
OTHER = "other"
CHUNK = 100
LATENCIES = ("trigger_to_signal", "signal_to_death", "trigger_to_memory_back")

_NUMBERS = re.compile(r"[0-9]+")


class Key(NamedTuple):
    """What decisions are counted by."""

    unit: str
    step: str
    carrier: str
    outcome: str


class Figures(NamedTuple):
    """What of a stored decision is counted. Times are CLOCK_MONOTONIC microseconds, 0 if it did not happen."""

    number: int
    """place in the store: later ones are larger"""
    unit: str
    step: str
    carrier: str
    outcome: str
    trigger_usec: int
    signal_usec: int
    death_usec: int
    memory_back_usec: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many took how long."""

    counts: tuple[int, ...] = (0,) * len(BOUNDS_SEC)
    """at most as long as each of BOUNDS_SEC, so each holds those before it"""
    count: int = 0
    sum_sec: float = 0.0

    def with_value(self, seconds: float) -> Histogram:
        """And one more."""
        counts = tuple(count + (seconds <= bound) for count, bound in zip(self.counts, BOUNDS_SEC, strict=True))
        return replace(self, counts=counts, count=self.count + 1, sum_sec=self.sum_sec + seconds)


@dataclass(frozen=True, slots=True)
class Statistics:
    """All that is counted."""

    decisions: dict[Key, int] = field(default_factory=dict)
    latencies: dict[str, Histogram] = field(default_factory=lambda: dict.fromkeys(LATENCIES, Histogram()))


class Store(Protocol):
    """Where decisions are kept."""

    def figures(self, after: int, limit: int) -> Sequence[Figures]:
        """The oldest `limit` decisions with a number larger than `after`. Raises StoreError."""


class Tally:
    """Counts what a store has. May be asked from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._seen = 0
        self._units: set[str] = set()
        self._decisions: Counter[Key] = Counter()
        self._latencies = dict.fromkeys(LATENCIES, Histogram())

    def read(self) -> Statistics:
        """Everything until now. Raises StoreError."""
        with self._lock:
            while chunk := self._store.figures(self._seen, CHUNK):
                self._count(chunk)
            return Statistics(dict(self._decisions), dict(self._latencies))

    def _count(self, decisions: Iterable[Figures]) -> None:
        for one in decisions:
            self._seen = max(self._seen, one.number)
            self._decisions[Key(self._unit(one.unit), one.step, one.carrier, one.outcome)] += 1
            for name, begin, end in (
                ("trigger_to_signal", one.trigger_usec, one.signal_usec),
                ("signal_to_death", one.signal_usec, one.death_usec),
                ("trigger_to_memory_back", one.trigger_usec, one.memory_back_usec),
            ):
                if begin and end >= begin:
                    self._latencies[name] = self._latencies[name].with_value((end - begin) / 1_000_000)

    def _unit(self, name: str) -> str:
        """A label: few values, whatever users call their units. Scopes have numbers that do not come twice."""
        label = _NUMBERS.sub("N", name) if name.endswith(".scope") else name
        if label not in self._units:
            if len(self._units) >= UNITS_MAX:
                return OTHER
            self._units.add(label)
        return label
