# SPDX-License-Identifier: LGPL-2.1-or-later
"""Units with their effective settings, and the ranking of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from oomslice.settings.model import (
    Amount,
    KillScope,
    Limits,
    MachineTriggers,
    PressureVictims,
    RankBy,
    Step,
    UnitSettings,
)


@dataclass(frozen=True, slots=True)
class PolicyUnit:
    """One unit of a plan: a slice, service or scope of PID 1, or a cgroup of a user manager's unit."""

    name: str
    path: str
    """cgroup path below the cgroup root"""
    cgroup_id: int
    parent: int
    """index in `Policy.units`, smaller than the own one; -1 for the root slice, which is unit 0"""
    priority: int
    priority_origin: str
    """why it has this priority: "own", "inherited from low.slice", "rule app-*.scope", "tier batch", "default", ..."""
    candidate: bool
    protected: bool = False
    protected_origin: str = ""
    self_: bool = False
    left_to_oomd: bool = False
    dry_run: bool = False
    need_daemon_reload: bool = False
    ladder: tuple[Step, ...] = ()
    """Actions= in force, with the kill that was added if it had no end; empty: kill, at once"""
    ladder_origin: str = "default"
    """where Actions= is from, in the words of `priority_origin`"""
    kill_scope: KillScope = KillScope.UNIT
    """KillScope= in force: `SUBTREE` only of a candidate that holds other units"""
    kill_scope_origin: str = "default"
    taken_with: str = ""
    """name of the candidate that holds this unit and is taken as a whole; empty if there is none"""
    user: bool = False
    """of a user manager, who may call it what he likes"""
    oom_score_adjust: int | None = None
    """what systemd gives to its processes; None if it has no such property, and for a user manager's"""
    memory_max: int | None = None
    """bytes; None if there is no limit, or it is a user manager's"""
    settings: UnitSettings = field(default_factory=UnitSettings)
    """effective: own over tier over rules; see `effective.INHERITED` for what comes from above"""
    settings_from: Mapping[str, str] = field(default_factory=dict)
    """field name -> "FILE:LINE" or origin, for display"""


@dataclass(frozen=True, slots=True)
class PolicyDomain:
    """A cgroup whose shortage is handled. Domain 0 is the machine (unit 0)."""

    unit: int
    rank_by: RankBy
    cooldown_usec: int
    dry_run: bool
    settings: UnitSettings
    victims: PressureVictims = PressureVictims.BELOW


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything a plan is made from. `units[0]` is the root slice; parents come before children."""

    units: tuple[PolicyUnit, ...]
    domains: tuple[PolicyDomain, ...]
    machine: MachineTriggers
    death_deadline_usec: int
    reserve: Amount = field(default=Limits().reserve)
    mark_kills: bool = True


@dataclass(frozen=True, slots=True)
class RankedUnit:
    """One line of a ranking, with the numbers that made it."""

    name: str
    path: str
    cgroup_id: int
    priority: int
    priority_origin: str
    metric: int
    memory: int
    verdict: str
    """text of enum oomslice_verdict: "chosen", "eligible", "protected", ..."""
    reason: str
    """one sentence for people"""
