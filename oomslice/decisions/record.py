# SPDX-License-Identifier: LGPL-2.1-or-later
"""One decision, as it is stored, sent over D-Bus and shown. The words are those of the design: trigger -> domain ->
candidates -> choice -> step -> outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

UNDOABLE = frozenset({"freeze", "throttle"})
"""Steps whose effect is taken back when the domain is calm."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One unit that was looked at. `metric` is in the unit of `Decision.rank_by` (bytes, or pages for refault)."""

    name: str
    cgroup_id: int
    priority: int
    metric: int
    verdict: str


@dataclass(frozen=True, slots=True)
class StepTaken:
    """One step of the ladder that was begun. Times and sizes as in `Decision`; memory is the victim's, with swap."""

    step: str
    """its name in Actions="""
    result: str
    """one of "done", "failed", "late", "unavailable", "needless", "dry-run", "pending\""""
    argument: str = ""
    """path or unit, as written in Actions=; empty if there is none or it is no longer known"""
    amount: int = 0
    """bytes to reclaim, or that memory.high was set to by throttle; its percent if it did not come so far; else 0"""
    error: int = 0
    begin_usec: int = 0
    end_usec: int = 0
    memory_before: int = 0
    memory_after: int = 0
    undone_usec: int = 0
    """when its effect was taken back, 0 if it was not (yet)"""
    undo_error: int = 0
    """errno with which taking it back failed the last time it was tried"""

    @property
    def acted(self) -> bool:
        """True if something was done, whatever came of it."""
        return self.result in ("done", "late", "pending")

    @property
    def in_force(self) -> bool:
        """True if it did something that lasts until it is undone, and that it was not yet."""
        return self.acted and self.step in UNDOABLE and not self.undone_usec


@dataclass(frozen=True, slots=True)
class Undo:
    """What the core says when it has taken back what steps of an earlier decision did."""

    id: str
    """of its own record, which is no decision"""
    decision: str
    """id of the decision whose steps these were"""
    usec: int
    """CLOCK_MONOTONIC, microseconds"""
    errors: Mapping[str, int]
    """name of each step that was undone -> errno, 0 if it is as it was before"""


@dataclass(frozen=True, slots=True)
class Decision:
    """Times ending in `_usec` are CLOCK_MONOTONIC microseconds, 0 if it did not happen; sizes are bytes."""

    id: str
    """"RING-SEQUENCE" in hexadecimal and decimal; "k" before the sequence for the kernel's own kills, "b" for those of
    the BPF program; "o" and a time for those of systemd-oomd"""
    boot_id: str
    carrier: str
    """"core", "bpf" (a program in the kernel, by the same plan), "kernel" or "systemd-oomd\""""
    trigger: str
    """"memory-available", "memory-low", "thrash", "pressure", "asked", "kernel-oom" or "oomd"; of the carrier bpf also
    "last-moment" and "memory-limit\""""
    domain: str
    outcome: str
    """one of "freed", "relieved", "held", "kept", "deadline", "dry-run", "no-candidate", "failed", "gone",
    "interrupted", "refused", "done", "killed-by-kernel", "killed-by-oomd\""""
    realtime_usec: int
    """CLOCK_REALTIME of the trigger"""
    trigger_usec: int = 0
    decision_usec: int = 0
    signal_usec: int = 0
    death_usec: int = 0
    memory_back_usec: int = 0
    step: str = "kill"
    """the last one that acted"""
    steps: tuple[StepTaken, ...] = ()
    """those of the ladder that were begun, in order"""
    kill_scope: str = "unit"
    flags: tuple[str, ...] = ()
    """"restarting": the victim came back again and again; "watchdog": the other thread acted; "unmarked": systemd
    could not be told before the kill"""
    rank_by: str = "memory"
    victim: str = ""
    victim_cgroup_id: int = 0
    victim_priority: int = 0
    agreement: str = ""
    """of the kernel's choice with the plan: "as-planned", "against-plan", or empty if it is not known or was ours"""
    planned_victim: str = ""
    """against the plan: one that the plan would have chosen before"""
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
        known["flags"] = tuple(known.get("flags", ()))
        steps = known.get("steps", ())
        known["steps"] = tuple(
            StepTaken(**{key: step[key] for key in StepTaken.__dataclass_fields__ if key in step}) for step in steps
        )
        return cls(**known)

    def undone(self, undo: Undo) -> Decision:
        """This decision, knowing what of it was taken back. The same twice changes nothing more."""
        steps = []
        for step in self.steps:
            if step.in_force and step.step in undo.errors:
                error = undo.errors[step.step]
                step = replace(step, undo_error=error, undone_usec=0 if error else undo.usec)
            steps.append(step)
        return replace(self, steps=tuple(steps))
