# SPDX-License-Identifier: LGPL-2.1-or-later
"""One decision, as it is stored, sent over D-Bus and shown. The words are those of the design: trigger -> domain ->
candidates -> choice -> step -> outcome."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Candidate:
    """One unit that was looked at. `metric` is in the unit of `Decision.rank_by` (bytes, or pages for refault)."""

    name: str
    cgroup_id: int
    priority: int
    metric: int
    verdict: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Times ending in `_usec` are CLOCK_MONOTONIC microseconds, 0 if it did not happen; sizes are bytes."""

    id: str
    """"RING-SEQUENCE" in hexadecimal and decimal; "k" before the sequence for the kernel's own kills"""
    boot_id: str
    carrier: str
    """"core" or "kernel" (later "bpf")"""
    trigger: str
    """"memory-available", "thrash", "pressure" or "kernel-oom\""""
    domain: str
    outcome: str
    """one of "freed", "deadline", "dry-run", "no-candidate", "failed", "gone", "interrupted", "refused",
    "killed-by-kernel\""""
    realtime_usec: int
    """CLOCK_REALTIME of the trigger"""
    trigger_usec: int = 0
    decision_usec: int = 0
    signal_usec: int = 0
    death_usec: int = 0
    memory_back_usec: int = 0
    step: str = "kill"
    rank_by: str = "memory"
    victim: str = ""
    victim_cgroup_id: int = 0
    victim_priority: int = 0
    victim_memory_before: int = 0
    victim_memory_after: int = 0
    bytes_freed: int = 0
    processes: int = 0
    pids: tuple[int, ...] = ()
    reaped: int = 0
    error: int = 0
    """errno of what failed, 0 if nothing did"""
    memory_total: int = 0
    memory_available: int = 0
    memory_available_limit: int = 0
    memory_available_after: int = 0
    swap_total: int = 0
    swap_free: int = 0
    swap_free_limit: int = 0
    pressure: str = ""
    """the PSI trigger that fired, as written: "some 150ms/1s", or empty"""
    pressure_some_avg10: float = 0.0
    pressure_full_avg10: float = 0.0
    plan_generation: int = 0
    candidates: tuple[Candidate, ...] = ()
    candidates_total: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, keys as the fields are named."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Decision:
        """The inverse of to_dict; unknown keys of a newer version are ignored."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        known["pids"] = tuple(known.get("pids", ()))
        known["candidates"] = tuple(Candidate(**candidate) for candidate in known.get("candidates", ()))
        return cls(**known)
