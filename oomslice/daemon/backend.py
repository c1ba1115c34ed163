# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the bus service may ask of the daemon: answers come from the newest plan and the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from oomslice import __version__
from oomslice._core import ffi, lib
from oomslice.bus.backend import ExplainedDomain, SliceRow
from oomslice.daemon.planner import Planner
from oomslice.decisions.record import Decision
from oomslice.decisions.store import DecisionStore
from oomslice.errors import NoSuchUnitError
from oomslice.plan.channel import FEATURES, CoreState
from oomslice.policy.model import Policy, PolicyUnit
from oomslice.policy.rank import rank
from oomslice.settings.model import SETTING_KEYS, Problem, format_usec
from oomslice.settings.steps import format_actions

OUTSIDE = ffi.string(lib.oomslice_verdict_text(lib.OOMSLICE_VERDICT_OUTSIDE)).decode()
DECISIONS_DEFAULT = 100
"""how many decisions a listing without limit has"""


@dataclass(slots=True)
class Status:
    """What the daemon knows of its own condition, kept up to date by whoever learns it."""

    core: CoreState | None = None
    """None while there is no connection"""
    plan_error: str = ""
    """why the newest plan is not in force; empty if it is"""
    kernel_log: bool = False
    """kernel kills are told with process and size, not only counted"""
    dropped: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
    """what could not be told: signals and answers on the bus, entries of the journal"""


class DaemonBackend:
    """Implements bus.backend.Backend."""

    version = __version__

    def __init__(
        self, planner: Planner, store: DecisionStore, status: Status, reload: Callable[[], Awaitable[None]]
    ) -> None:
        self._planner = planner
        self._store = store
        self._status = status
        self._reload = reload

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
            "OtherDaemons": list(self._planner.other_daemons),
            "LeftToSystemdOomd": [unit.name for unit in policy.units if unit.left_to_oomd] if policy else [],
            "SignalsDropped": signals,
            "RepliesDropped": replies,
            "JournalEntriesDropped": entries,
        }

    def carriers(self) -> list[dict[str, Any]]:
        """Who can act on the plan, and who only sees what the kernel does."""
        core = self._status.core
        return [
            {
                "Name": "core",
                "Active": core is not None and core.generation > 0,
                "Acts": True,
                "Detail": "armed"
                if core and core.generation
                else "oomslice-core has no plan"
                if core
                else "not running",
            },
            {
                "Name": "kernel",
                "Active": True,
                "Acts": False,
                "Detail": "kills by the kernel are recorded from memory.events"
                + (
                    " and the kernel log"
                    if self._status.kernel_log
                    else ", without details: the kernel log is closed to us"
                ),
            },
        ]

    def configuration_errors(self) -> list[Problem]:
        """What is wrong in unit files and YAML, as of the newest plan."""
        return [*self._planner.problems, *self._store.problems]

    def slices(self) -> list[SliceRow]:
        """All units of the plan, parents before children."""
        policy = self._planner.policy
        return [_listed(unit) for unit in policy.units] if policy else []

    def slice(self, name: str) -> dict[str, Any]:
        """One unit with its effective settings. Raises NoSuchUnitError."""
        policy = self._planner.policy
        for unit in policy.units if policy else ():
            if unit.name == name:
                return _described(unit)
        raise NoSuchUnitError(f"no running slice, service or scope is called {name!r}")

    def decisions(self, since_usec: int, limit: int) -> list[Decision]:
        """Stored decisions, newest first."""
        return self._store.list(since_usec, limit or DECISIONS_DEFAULT)

    def decision(self, id: str) -> Decision:
        """One stored decision. Raises NoSuchDecisionError."""
        return self._store.get(id)

    def explain(self) -> list[ExplainedDomain]:
        """For each domain, who would be chosen now and why nobody else."""
        policy = self._planner.policy
        return _explained(policy, self._planner) if policy else []

    async def reload(self) -> None:
        """Reads configuration and units again and hands over the plan they make."""
        await self._reload()


def _explained(policy: Policy, planner: Planner) -> list[ExplainedDomain]:
    usage = planner.usage()
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
        "CooldownSec": format_usec(settings.cooldown_usec) if settings.cooldown_usec is not None else "2s",
        "Tier": settings.tier or "",
        "OnDecision": settings.on_decision or "",
    }
    fields = {field_name: key for key, field_name in SETTING_KEYS.items()}
    described["Sources"] = {fields.get(name, name): origin for name, origin in unit.settings_from.items()}
    return described
