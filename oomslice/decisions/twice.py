# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tells whether two reports speak of one kill: BPF and the kernel log both tell most of them. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from oomslice.decisions.kmsg import Kill
from oomslice.decisions.record import Decision

SAME_S = 5.0
"""Two reports of one kill tell times that differ by this much at most, and by DRIFT of the time since boot."""
DRIFT = 1 / 2000
"""Between the clock of the kernel log and CLOCK_MONOTONIC, which is steered: 500 ppm is the most that NTP does."""
REMEMBERED = 1000
BPF = "bpf"
LOG = "kernel-log"


@dataclass(frozen=True, slots=True)
class _Report:
    source: str
    pids: frozenset[int]
    usec: int


class Remembered:
    """The newest kills that have their decision already, by who told them."""

    def __init__(self) -> None:
        self._reports: deque[_Report] = deque(maxlen=REMEMBERED)

    def restore(self, decisions: Iterable[Decision]) -> None:
        """Takes over what is stored of this boot."""
        for decision in decisions:
            source = decision.extra.get("source")
            if decision.carrier == "kernel" and source in (BPF, LOG):
                self._reports.append(_Report(source, frozenset(decision.pids), decision.trigger_usec))

    def add(self, kill: Kill) -> None:
        """This one has its decision now."""
        self._reports.append(_Report(kill.source, frozenset(kill.processes), kill.usec))

    def take(self, kill: Kill) -> bool:
        """Whether the other source told it before. Each of its reports answers for one kill only."""
        for report in self._reports:
            if report.source != kill.source and same(report.pids, report.usec, kill):
                self._reports.remove(report)
                return True
        return False


def same(pids: Iterable[int], usec: int, kill: Kill) -> bool:
    """Whether a report of these processes at that time is about this kill."""
    tolerance = SAME_S * 1e6 + DRIFT * max(usec, kill.usec)
    return abs(usec - kill.usec) <= tolerance and not kill.processes.keys().isdisjoint(pids)
