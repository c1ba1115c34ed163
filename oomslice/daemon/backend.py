# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the bus service may ask of the daemon: answers come from the newest plan and the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oomslice import __version__
from oomslice._core import ffi, lib
from oomslice.bus.backend import ExplainedDomain, SliceRow
from oomslice.carriers.model import Carrier
from oomslice.daemon.commands import Commands, asked_step, check
from oomslice.daemon.planner import Planner
from oomslice.decisions.history import History
from oomslice.decisions.record import Decision
from oomslice.decisions.statistics import Statistics, Tally
from oomslice.decisions.store import DecisionStore
from oomslice.errors import InvalidSettingError, NoSuchUnitError
from oomslice.plan.channel import FEATURES, CoreState
from oomslice.policy.model import Policy, PolicyUnit
from oomslice.policy.rank import rank
from oomslice.settings.model import SETTING_KEYS, PressureVictims, Problem, format_usec
from oomslice.settings.steps import format_actions

OUTSIDE = ffi.string(lib.oomslice_verdict_text(lib.OOMSLICE_VERDICT_OUTSIDE)).decode()
EXPLAINED_SEC = 0.2
"""An explanation is of this moment for so long."""
DECISIONS_DEFAULT = 100
"""how many decisions a listing without limit has"""


@dataclass(slots=True)
class Status:
    """What the daemon knows of its own condition, kept up to date by whoever learns it."""

    core: CoreState | None = None
    """None while there is no connection"""
    pressed: list[str] = field(default_factory=list)
    """names of the domains that are short of memory"""
    plan_error: str = ""
    """why the newest plan is not in force; empty if it is"""
    refused: str = ""
    """why the core did not take a plan the last time it did not"""
    dropped: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
    """what could not be told: signals and answers on the bus, entries of the journal"""
    start_problems: Callable[[], tuple[Problem, ...]] = lambda: ()
    """what is wrong with the units that ladders and OnDecision= start"""


class DaemonBackend:
    """Implements bus.backend.Backend."""

    version = __version__

    def __init__(
        self,
        planner: Planner,
        store: DecisionStore,
        status: Status,
        commands: Commands,
        carriers: Sequence[Carrier],
        score_of: Callable[[int], tuple[int | None, str]] = lambda cgroup_id: (None, ""),
    ) -> None:
        """`score_of(cgroup_id)` is what the processes of a unit get as oom_score_adj, if they get one, and why."""
        self._planner = planner
        self._store = store
        self._tally = Tally(store)
        self._status = status
        self._commands = commands
        self._carriers = carriers
        self._explained: list[ExplainedDomain] = []
        self._explained_of: Policy | None = None
        self._explained_until = 0.0
        self._score_of = score_of
        self._units_of: Policy | None = None
        self._units: Mapping[str, PolicyUnit] = {}

    def state(self) -> dict[str, Any]:
        """Everything about the condition of core, plan and neighbours."""
        core = self._status.core
        policy = self._planner.policy
        signals, replies, entries = self._status.dropped()
        return {
            "Armed": core is not None and core.generation > 0,
            "CoreConnected": core is not None,
            "CoreFeatures": list(core.features) if core else [],
            "CoreFeaturesMissing": [name for name in FEATURES if core and name not in core.features],
            "CoreLockedBytes": core.locked_bytes if core else 0,
            "ReserveBytes": core.reserve_bytes if core else 0,
            "CoreWakeups": core.wakeups if core else 0,
            "CoreDecisions": core.decisions if core else 0,
            "CoreDecisionsDropped": core.dropped if core else 0,
            "Watching": core is not None and core.watching,
            "PlanGeneration": core.generation if core else 0,
            "PlanError": self._status.plan_error,
            "Units": len(policy.units) if policy else 0,
            "Candidates": sum(unit.candidate for unit in policy.units) if policy else 0,
            "Domains": [policy.units[domain.unit].name for domain in policy.domains] if policy else [],
            "Pressed": list(self._status.pressed),
            "OtherDaemons": list(self._planner.other_daemons),
            "LeftToSystemdOomd": [unit.name for unit in policy.units if unit.left_to_oomd] if policy else [],
            "SignalsDropped": signals,
            "RepliesDropped": replies,
            "JournalEntriesDropped": entries,
        }

    def carriers(self) -> list[dict[str, Any]]:
        """Who can act on the plan, and who only sees what the kernel does."""
        return [carrier.state().to_bus() for carrier in self._carriers]

    def configuration_errors(self) -> list[Problem]:
        """What is wrong in unit files and YAML, as of the newest plan."""
        return [*self._planner.problems, *self._status.start_problems(), *self._store.problems]

    def slices(self) -> list[SliceRow]:
        """All units of the plan, parents before children."""
        policy = self._planner.policy
        return [_listed(unit) for unit in policy.units] if policy else []

    def slice(self, name: str) -> dict[str, Any]:
        """One unit with its effective settings. Raises NoSuchUnitError."""
        unit = self._unit(name)
        # No property of the unit's object: it follows the plan, and changes by itself when memory is short.
        adj, why = self._score_of(unit.cgroup_id)
        return {**_described(unit), "OOMScoreAdjust": adj, "OOMScoreAdjustOrigin": why}

    def _unit(self, name: str) -> PolicyUnit:
        unit = self.units().get(name)
        if unit is None:
            # Of a user's manager: the first of this name.
            unit = next((unit for unit in self.units().values() if unit.name == name), None)
        if unit is None:
            raise NoSuchUnitError(f"no running slice, service or scope is called {name!r}")
        return unit

    def units(self) -> Mapping[str, PolicyUnit]:
        """All units of the plan by id."""
        policy = self._planner.policy
        if policy is not self._units_of:
            self._units_of = policy
            self._units = {_unit_id(unit): unit for unit in policy.units} if policy else {}
        return self._units

    def described(self, unit: object) -> dict[str, Any]:
        """One unit of this plan, or of an earlier one."""
        assert isinstance(unit, PolicyUnit)
        return _described(unit)

    def figures(self, unit: object) -> dict[str, int]:
        """Of one unit, now."""
        assert isinstance(unit, PolicyUnit)
        usage = self._planner.usage_of(unit)
        return {
            "MemoryCurrent": usage.current,
            "MemoryReclaimable": usage.memory,
            "SwapCurrent": usage.swap,
            "Refaults": usage.refaults,
        }

    def decisions(self, since_usec: int, limit: int) -> list[Decision]:
        """Stored decisions, newest first."""
        return self._store.list(since_usec, limit or DECISIONS_DEFAULT)

    def decision(self, id: str) -> Decision:
        """One stored decision. Raises NoSuchDecisionError."""
        return self._store.get(id)

    def history(self, id: str) -> History:
        """The figures around it. Raises NoSuchDecisionError."""
        return self._store.history(id)

    def statistics(self) -> Statistics:
        """Decisions counted by what was done to whom, and how long they took. Raises StoreError."""
        return self._tally.read()

    def memory(self) -> dict[str, int]:
        """Memory of the machine, and the limits at which it counts as short. Raises CgroupError."""
        memory = self._planner.memory()
        machine = self._planner.configuration.machine
        return {
            "MemoryTotal": memory.total,
            "MemoryAvailable": memory.available,
            "MemoryAvailableLimit": machine.available_min.of(memory.total),
            "SwapTotal": memory.swap_total,
            "SwapFree": memory.swap_free,
            "SwapFreeLimit": machine.swap_free_min.of(memory.swap_total),
        }

    def explain(self) -> list[ExplainedDomain]:
        """For each domain, who would be chosen now and why nobody else.

        Who asks again and again gets the same for a moment: it takes the reading of many files.
        """
        policy, now = self._planner.policy, time.monotonic()
        if policy is not self._explained_of or now >= self._explained_until:
            self._explained = _explained(policy, self._planner) if policy else []
            self._explained_of, self._explained_until = policy, now + EXPLAINED_SEC
        return self._explained

    def simulate(self, settings: Mapping[str, Mapping[str, str]]) -> list[ExplainedDomain]:
        """As explain, if units had these settings: unit -> key -> value. Raises OomsliceError."""
        return _explained(self._planner.simulated(settings), self._planner)

    def check_settings(self, unit: str, assignments: Mapping[str, str]) -> None:
        """Raises InvalidSettingError."""
        check(unit, assignments)
        tier, tiers = assignments.get("Tier"), self._planner.configuration.tiers
        if tier and tier not in tiers:
            raise InvalidSettingError(f"Tier={tier}: there is no such tier; tiers are {', '.join(sorted(tiers))}")

    async def set_settings(self, unit: str, assignments: Mapping[str, str], runtime: bool, uid: int) -> str:
        """Writes them, and returns the file when they are in force."""
        return await self._commands.set_settings(unit, assignments, runtime, uid)

    def check_step(self, unit: str, step: str) -> None:
        """Raises NoSuchUnitError, InvalidSettingError."""
        self._unit(unit)
        asked_step(step)

    async def act(self, unit: str, step: str, uid: int) -> str:
        """Has a step done to a unit."""
        return await self._commands.act(self._unit(unit), asked_step(step), uid)

    async def release(self, unit: str, uid: int) -> None:
        """Has it undone what steps did to a unit."""
        await self._commands.release(self._unit(unit), uid)

    async def reload(self) -> None:
        """Reads configuration and units again and hands over the plan they make."""
        await self._commands.reload()


def _explained(policy: Policy, planner: Planner) -> list[ExplainedDomain]:
    usage = planner.usage_in(policy)
    return [
        {
            "domain": policy.units[domain.unit].name,
            "candidates": [
                {
                    "name": unit.name,
                    "priority": unit.priority,
                    "metric": unit.metric,
                    "verdict": unit.verdict,
                    "priority_origin": unit.priority_origin,
                    "reason": unit.reason,
                }
                for unit in rank(policy, usage, domain=index, baseline=planner.baseline)
                if unit.verdict != OUTSIDE
            ],
        }
        for index, domain in enumerate(policy.domains)
    ]


def _unit_id(unit: PolicyUnit) -> str:
    """Its name, which is one of a kind; below a user's manager, where everybody chooses names, the path as well."""
    below = unit.path.partition("/user@")[2]
    return f"user@{below}" if "/" in below else unit.name


def _listed(unit: PolicyUnit) -> SliceRow:
    return {
        "name": unit.name,
        "cgroup": unit.path,
        "priority": unit.priority,
        "protected": unit.protected or unit.self_,
        "candidate": unit.candidate,
        "priority_origin": unit.priority_origin,
        "actions": "" if unit.taken_with else _ladder(unit),
    }


def _ladder(unit: PolicyUnit) -> str:
    return format_actions(unit.ladder) or "kill"


def _described(unit: PolicyUnit) -> dict[str, Any]:
    settings = unit.settings
    described: dict[str, Any] = {
        "Name": unit.name,
        "ControlGroup": unit.path,
        "CgroupId": unit.cgroup_id,
        "Candidate": unit.candidate,
        "Priority": unit.priority,
        "PriorityOrigin": unit.priority_origin,
        "Protect": unit.protected or unit.self_,
        "ProtectOrigin": "oomslice never touches it" if unit.self_ else unit.protected_origin,
        "LeftToSystemdOomd": unit.left_to_oomd,
        "DryRun": unit.dry_run,
        "NeedDaemonReload": unit.need_daemon_reload,
        "Actions": _ladder(unit),
        "ActionsOrigin": unit.ladder_origin,
        "KillScope": unit.kill_scope.value,
        "KillScopeOrigin": unit.kill_scope_origin,
        "TakenWith": unit.taken_with,
        "RankBy": settings.rank_by.value if settings.rank_by else "memory",
        "PressureTrigger": str(settings.pressure_trigger) if settings.pressure_trigger else "",
        "PressureVictims": (settings.pressure_victims or PressureVictims.BELOW).value,
        "CooldownSec": format_usec(settings.cooldown_usec) if settings.cooldown_usec is not None else "2s",
        "Tier": settings.tier or "",
        "OnDecision": settings.on_decision or "",
    }
    fields = {field_name: key for key, field_name in SETTING_KEYS.items()}
    described["Sources"] = {fields.get(name, name): origin for name, origin in unit.settings_from.items()}
    return described
