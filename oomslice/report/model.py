# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any

from oomslice.decisions.record import Decision


@dataclass(frozen=True, slots=True)
class Sample:
    """Figures of one moment. None, or a unit that is not there: not known then."""

    usec: int
    """CLOCK_MONOTONIC, microseconds"""
    memory_available: int | None = None
    swap_free: int | None = None
    pressure_some: float | None = None
    """percent of time in which some task waited for memory"""
    pressure_full: float | None = None
    units: Mapping[str, int] = field(default_factory=dict)
    """name -> memory and swap of the unit, bytes"""


@dataclass(frozen=True, slots=True)
class Case:
    """One decision with what is known around it."""

    decision: Decision
    samples: Sequence[Sample] = ()
    """figures that were recorded around it, oldest first; empty if there were none"""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """name of a unit -> its settings when the report was made, as GetSlice() gives them"""


@dataclass(frozen=True, slots=True)
class Report:
    """All that goes into the page."""

    cases: Sequence[Case]
    """newest first"""
    made_usec: int
    """CLOCK_REALTIME"""
    host: str = ""
    version: str = ""
    plan_generation: int = 0
    """of the plan in force when the report was made"""
    boot_id: str = ""
    """of the boot in which the report was made"""
    since_usec: int = 0
    """first moment that was asked for, 0 if a decision was"""
    left_out: int = 0
    """decisions that were asked for and are not in the page"""
    timezone: tzinfo | None = None
    """None is the local one"""

    def same_boot(self, decision: Decision) -> bool:
        """True if the decision is of the boot in which the report was made."""
        return decision.boot_id.replace("-", "") == self.boot_id.replace("-", "")

    def moment(self, realtime_usec: int) -> str:
        """Date and time to the millisecond, with the zone."""
        moment = self._moment(realtime_usec)
        if moment is None:
            return f"@{realtime_usec / 1_000_000:.3f}"
        return f"{moment:%Y-%m-%d %H:%M:%S}.{realtime_usec // 1000 % 1000:03d} {moment.tzname()}"

    def clock(self, realtime_usec: int) -> str:
        """Time of day to the millisecond."""
        moment = self._moment(realtime_usec)
        return f"{moment:%H:%M:%S}.{realtime_usec // 1000 % 1000:03d}" if moment else "-"

    def machine_readable(self, realtime_usec: int) -> str | None:
        """For <time datetime=>."""
        moment = self._moment(realtime_usec)
        return moment.isoformat() if moment else None

    def _moment(self, realtime_usec: int) -> datetime | None:
        try:
            moment = datetime.fromtimestamp(realtime_usec // 1_000_000, self.timezone)
        except (OverflowError, OSError, ValueError):
            return None
        return moment if moment.tzinfo else moment.astimezone()
