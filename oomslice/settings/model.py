# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an administrator can say, as values. Pure data: no file, no clock, no other layer."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType


class Severity(enum.Enum):
    """How much a problem matters. Only errors make `oomslicectl verify` fail."""

    ERROR = "error"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value was written. `line` counts from 1; 0 means the file as a whole."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one place, said so that it can be mended without the manual."""

    source: Source
    section: str
    key: str
    value: str
    message: str
    """What is wrong and what would be right, without file, line or key."""
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        where = f"{self.source.file}:{self.source.line}" if self.source.line else self.source.file
        what = f"{self.key}{'=' if self.value else ''}{self.value}: " if self.key else ""
        return f"{where}: {what}{self.message}"


class KillScope(enum.Enum):
    UNIT = "unit"
    SUBTREE = "subtree"
    PROCESS = "process"


class RankBy(enum.Enum):
    MEMORY = "memory"
    SWAP = "swap"
    GROWTH = "growth"
    REFAULT = "refault"


class PressureVictims(enum.Enum):
    BELOW = "below"
    """what is in the unit, or the unit itself"""
    LOWER_PRIORITY = "lower-priority"
    """units elsewhere with a smaller priority, while the machine has little left"""


class PsiKind(enum.Enum):
    SOME = "some"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class PressureTrigger:
    """A PSI trigger: `stall_usec` of stall within `window_usec` (microseconds).

    The kernel takes windows of 500 ms to 10 s, and 0 < stall <= window (Documentation/accounting/psi.rst).
    """

    kind: PsiKind
    stall_usec: int
    window_usec: int

    def __str__(self) -> str:
        return f"{self.kind.value} {format_usec(self.stall_usec)}/{format_usec(self.window_usec)}"


_LOOKS_LIKE_DELAY = r"@[\s+.0-9]"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a ladder: `name[:argument][@delay]`, the delay counted from the trigger (microseconds)."""

    name: str
    argument: str | None = None
    delay_usec: int = 0

    def __str__(self) -> str:
        argument = f":{self.argument}" if self.argument is not None else ""
        # "purge:/run/a@5s" would read as a delay: where an argument could be taken so, the delay is always written.
        written = self.delay_usec or re.search(_LOOKS_LIKE_DELAY, argument)
        delay = f"@{format_usec(self.delay_usec)}" if written else ""
        return f"{self.name}{argument}{delay}"


_TIME_UNITS = (
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
    ("us", 1),
)


def format_usec(usec: int) -> str:
    """Microseconds as systemd would write them: 150000 -> "150ms", 90000000 -> "1min 30s"."""
    if usec == 0:
        return "0"
    parts = []
    for unit, size in _TIME_UNITS:
        count, usec = divmod(usec, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts)


@dataclass(frozen=True, slots=True)
class UnitSettings:
    """The keys of [X-OOMSlice]. None means: not set here, so the tier, rule, ancestor or default decides."""

    priority: int | None = None
    protect: bool | None = None
    actions: tuple[Step, ...] | None = None
    kill_scope: KillScope | None = None
    rank_by: RankBy | None = None
    pressure_trigger: PressureTrigger | None = None
    pressure_victims: PressureVictims | None = None
    cooldown_usec: int | None = None
    dry_run: bool | None = None
    tier: str | None = None
    on_decision: str | None = None
    sources: Mapping[str, Source] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    """Field name -> where its value was written."""

    def over(self, weaker: UnitSettings) -> UnitSettings:
        """These settings, with what they leave unset taken from `weaker`."""
        values: dict[str, object] = {}
        sources: dict[str, Source] = {}
        for name in SETTING_NAMES:
            chosen = self if getattr(self, name) is not None else weaker
            values[name] = getattr(chosen, name)
            if values[name] is not None and name in chosen.sources:
                sources[name] = chosen.sources[name]
        return UnitSettings(**values, sources=MappingProxyType(sources))  # type: ignore[arg-type]


SETTING_NAMES: tuple[str, ...] = tuple(f.name for f in fields(UnitSettings) if f.name != "sources")

SETTING_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "Priority": "priority",
        "Protect": "protect",
        "Actions": "actions",
        "KillScope": "kill_scope",
        "RankBy": "rank_by",
        "PressureTrigger": "pressure_trigger",
        "PressureVictims": "pressure_victims",
        "CooldownSec": "cooldown_usec",
        "DryRun": "dry_run",
        "Tier": "tier",
        "OnDecision": "on_decision",
    }
)
"""Key in a unit file -> field of UnitSettings. In YAML: priority, kill-scope, cooldown-sec, ..."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A size limit: bytes, or hundredths of a percent of a total (exactly one is set)."""

    bytes: int | None = None
    permyriad: int | None = None

    def of(self, total: int) -> int:
        """In bytes, for a total in bytes."""
        if self.bytes is not None:
            return min(self.bytes, total)
        assert self.permyriad is not None
        return total * self.permyriad // 10_000

    @property
    def is_zero(self) -> bool:
        """True if it is nothing, whatever the total."""
        return not (self.bytes or self.permyriad)

    def __str__(self) -> str:
        """As it is written: "64M", "4%", "2.5%"."""
        if self.bytes is None:
            whole, hundredths = divmod(self.permyriad or 0, 100)
            return f"{whole}.{hundredths:02}".rstrip("0").rstrip(".") + "%" if hundredths else f"{whole}%"
        for unit, size in (("T", 2**40), ("G", 2**30), ("M", 2**20), ("K", 2**10)):
            if self.bytes and self.bytes % size == 0:
                return f"{self.bytes // size}{unit}"
        return str(self.bytes)


@dataclass(frozen=True, slots=True)
class Rule:
    """Settings for units that nobody can edit, by shell glob on the unit name.

    Later rules win over earlier ones, unit files win over all.
    """

    match: tuple[str, ...]
    settings: UnitSettings
    manager: str = "system"
    """"system" or "user": whose units. A user manager's units are known by their cgroups below user@UID.service."""
    source: Source = Source("", 0)


@dataclass(frozen=True, slots=True)
class MachineTriggers:
    """When the machine as a whole is short of memory (YAML: `machine:`)."""

    available_min: Amount = Amount(permyriad=400)
    """act at or below this MemAvailable, if free swap is at its limit too"""
    available_watch: Amount = Amount(permyriad=2500)
    """watch MemAvailable by timer from here down, once there was a sign of shortage"""
    swap_free_min: Amount = Amount(permyriad=1000)
    available_thrash: Amount = Amount(permyriad=1000)
    """act at or below this MemAvailable when `thrash` fires, whatever swap is free"""
    sign: PressureTrigger = PressureTrigger(PsiKind.SOME, 2_000, 500_000)
    thrash: PressureTrigger = PressureTrigger(PsiKind.FULL, 5_000_000, 10_000_000)
    available_ladder: Amount = Amount(permyriad=800)
    """climb ladders, with their delays, at or below this MemAvailable, if free swap is at its own such limit too"""
    swap_free_ladder: Amount = Amount(permyriad=2500)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of our own (YAML: `limits:`)."""

    death_deadline_usec: int = 2_000_000
    decisions_max: int = 10_000
    """decisions kept in the store; the oldest go first"""
    leave_to_systemd_oomd: bool = True
    """units marked ManagedOOM*=kill are left to systemd-oomd while it runs"""
    reserve: Amount = Amount(bytes=0)
    """locked by the core, and given back to the kernel at a decision"""
    mark_kills: bool = True
    """systemd is told of kills, by the attributes that systemd-oomd writes"""
    sources: Mapping[str, Source] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    """Field name -> where its value was written."""


@dataclass(frozen=True, slots=True)
class CarrierSwitches:
    """What of the plan is brought into the kernel (YAML: `carriers:`)."""

    score_adj: bool = True
    """processes get an oom_score_adj by which the kernel's own killer follows the priorities"""
    prekill: bool = True
    """a BPF program kills by the plan before the kernel would"""


@dataclass(frozen=True, slots=True)
class Configuration:
    """All of oomslice.yaml and its drop-ins."""

    tiers: Mapping[str, UnitSettings] = field(default_factory=lambda: MappingProxyType({}))
    rules: tuple[Rule, ...] = ()
    machine: MachineTriggers = MachineTriggers()
    limits: Limits = Limits()
    policy: str = ""
    """name of an entry point of the group oomslice.policies; empty: the built-in ranking alone"""
    policy_source: Source = Source("", 0)
    carriers: CarrierSwitches = CarrierSwitches()
