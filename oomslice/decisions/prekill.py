# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whom the BPF program `prekill` killed, and what came of it: records of a pinned ring buffer in, decisions out.

A kill is stored as one decision once its end was told, or could have been, and its room in the ring is given back then;
so one that was made while nobody ran is found later, and none is stored twice. The layout of the records is
core/prekill.h.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from oomslice._core import ffi, lib
from oomslice.decisions.factring import PINS, FactRing, text, way
from oomslice.decisions.record import Decision

END_S = 3.0
"""How long the end of a kill is waited for: a victim has a second, and nobody looks again once memory is back."""
NSEC = 1000
TRIGGERS = {
    lib.OOMSLICE_PREKILL_SILENT: "memory-available",
    lib.OOMSLICE_PREKILL_LAST: "last-moment",
    lib.OOMSLICE_PREKILL_LIMIT: "memory-limit",
}
SCOPES = {lib.OOMSLICE_SCOPE_UNIT: "unit", lib.OOMSLICE_SCOPE_SUBTREE: "subtree", lib.OOMSLICE_SCOPE_PROCESS: "process"}
KEPT = 4
"""A victim that keeps more than one part in so many has not given its memory back: files on a tmpfs."""


@dataclass(frozen=True, slots=True)
class End:
    """What came of a kill."""

    usec: int
    emptied: bool
    usage: int


@dataclass(slots=True)
class Told:
    """One kill as far as it was told. Times are CLOCK_MONOTONIC microseconds, sizes bytes."""

    nsec: int
    """names it, for this boot"""
    position: int
    """where in the ring its KILL begins"""
    decision: Decision
    domain: int = 0
    """id of the cgroup that was short, OOMSLICE_PREKILL_MACHINE for the machine"""
    end: End | None = None
    complete: bool = False


class PrekillFacts(FactRing):
    """The ring of the carrier `prekill` below `pins`.

    `named` says what the cgroup of an id is called, with what is known of the way to it: its path, which may be cut.
    """

    def __init__(self, boot_id: str, named: Callable[[int, str], str], pins: str = PINS) -> None:
        super().__init__("prekill", "kills by the plan", pins)
        self._boot_id = boot_id
        self._named = named

    def read(self) -> tuple[list[Told], int, bool]:
        """The complete kills that were not released, oldest first; up to where the ring may be released once they are
        stored; and whether there is one that is not complete yet."""
        told: dict[int, Told] = {}
        begin = 0
        for record, size, position in self.records():
            fact = ffi.cast("struct oomslice_fact *", record)
            if fact.kind == lib.OOMSLICE_PREKILL_KILL and size >= ffi.sizeof("struct oomslice_prekill_kill"):
                kill = ffi.cast("struct oomslice_prekill_kill *", record)
                told[fact.kill_nsec] = Told(fact.kill_nsec, begin, self._begin(kill), kill.domain)
            # Without its KILL: that found no room, or has its decision since the last time.
            elif fact.kill_nsec in told and size >= ffi.sizeof("struct oomslice_prekill_ended"):
                told[fact.kill_nsec].end = ended(ffi.cast("struct oomslice_prekill_ended *", record))
            begin = position
        now = time.monotonic_ns()
        for one in told.values():
            late = now - one.nsec > END_S * 1e9
            one.complete = one.end is not None or late or one.decision.outcome == "dry-run"
        waiting = [one.position for one in told.values() if not one.complete]
        return [one for one in told.values() if one.complete], min(waiting, default=begin), bool(waiting)

    def _begin(self, kill: Any) -> Decision:
        path, ids = way(kill)
        domain_path = "/"
        if kill.domain in ids:
            domain_path = "/".join(path.split("/")[: ids.index(kill.domain) + 2])
        usec = kill.fact.kill_nsec // NSEC
        dry = bool(kill.flags & lib.OOMSLICE_UNIT_DRY_RUN)
        extra: dict[str, Any] = {
            "source": "bpf",
            "asking_pid": kill.asking_pid,
            "asking_task": text(kill.asking_task),
            "cgroup": path,
            "memory_free": kill.free,
        }
        if kill.reason == lib.OOMSLICE_PREKILL_SILENT:
            extra["core_asked_usec"] = kill.asked_nsec // NSEC
            extra["core_beat_usec"] = kill.beat_nsec // NSEC
        if kill.failed:
            extra["not_signalled"] = kill.failed
        if kill.wanted:
            extra["policy"] = "kill"
        return Decision(
            id=f"{self._boot_id[:16]}-b{kill.fact.kill_nsec}",
            boot_id=self._boot_id,
            carrier="bpf",
            trigger=TRIGGERS.get(kill.reason, "last-moment"),
            domain=self._named(kill.domain, domain_path),
            outcome="dry-run" if dry else "pending",
            # Good to the time the machine was suspended since.
            realtime_usec=(time.time_ns() - time.monotonic_ns()) // NSEC + usec,
            trigger_usec=usec,
            decision_usec=usec,
            signal_usec=0 if dry else kill.signal_nsec // NSEC,
            kill_scope=SCOPES.get(kill.scope, "unit"),
            victim=self._named(kill.victim, path),
            victim_cgroup_id=kill.victim,
            victim_priority=kill.priority,
            victim_memory_before=kill.usage,
            processes=kill.signalled,
            pids=(*kill.pids[0 : kill.pids_count],),
            memory_available=kill.available,
            memory_available_limit=kill.available_limit,
            swap_free=kill.swap_free,
            swap_free_limit=kill.swap_free_limit,
            plan_generation=kill.generation,
            candidates_total=kill.eligible,
            extra=extra,
        )


def ended(end: Any) -> End:
    """What an END says."""
    return End(end.fact.nsec // NSEC, end.how == lib.OOMSLICE_PREKILL_EMPTY, end.usage)


def judged(told: Told, alive: Callable[[Decision], bool]) -> Decision:
    """The decision with what came of it. `alive` tells whether a process of the victim is left; it is asked where the
    kernel did not tell."""
    decision, end = told.decision, told.end
    if decision.outcome == "dry-run":
        return decision
    before = decision.victim_memory_before
    if end is None:
        if alive(decision):
            return replace(decision, outcome="deadline", victim_memory_after=before)
        return replace(decision, outcome="freed", bytes_freed=before)
    after = end.usage
    decision = replace(decision, victim_memory_after=after, bytes_freed=max(0, before - after))
    if not end.emptied:
        return replace(decision, outcome="deadline")
    if decision.kill_scope != "process" and after * KEPT > before:
        return replace(decision, outcome="kept", death_usec=end.usec)
    return replace(decision, outcome="freed", death_usec=end.usec, memory_back_usec=end.usec)


def lives(root: str, decision: Decision) -> bool:
    """Whether there is a process that was killed, in the same cgroup as then."""
    directory = root + str(decision.extra.get("cgroup", ""))
    try:
        if os.stat(directory).st_ino != decision.victim_cgroup_id:
            return False
        with open(f"{directory}/cgroup.events", "rb", buffering=0) as file:
            if b"populated 0" in file.read(4096).splitlines():
                return False
        with open(f"{directory}/cgroup.procs", "rb", buffering=0) as file:
            pids = {int(line) for line in file.read().split()}
    except (OSError, ValueError):
        return False
    return not pids.isdisjoint(decision.pids)
