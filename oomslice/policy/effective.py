# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which settings hold for which unit, and why: systemd's units and the administrator's words made into a Policy.

Pure: the result depends on the values given and on nothing else, not even on their order.

Own settings come first, then the tier they name, then the rules that match (later ones first, each over its own tier).
What `INHERITED` names goes down the tree to whoever does not set it. A priority, ladder or kill scope from the rules
that come with oomslice gives way to one that the administrator wrote for an ancestor. Below a cgroup that was delegated
to someone other than root, no priority is above that of the delegated unit, and marks that he can set himself count for
nothing.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from oomslice.cgroups.model import Cgroup, unit_name
from oomslice.errors import PlanError
from oomslice.policy.limits import DOMAINS_MAX, drop_units, drop_user_units
from oomslice.policy.model import Policy, PolicyDomain, PolicyUnit
from oomslice.policy.scope import take_subtrees
from oomslice.settings.configuration import unknown_tier
from oomslice.settings.model import (
    SETTING_NAMES,
    Configuration,
    KillScope,
    PressureVictims,
    Problem,
    RankBy,
    Source,
    UnitSettings,
)
from oomslice.settings.steps import with_end
from oomslice.units.model import Unit, UnitSnapshot

SELF_UNITS: frozenset[str] = frozenset(
    {
        "init.scope",
        "systemd-journald.service",
        "systemd-journald@*.service",
        "dbus.service",
        "dbus-broker.service",
        "oomslice.slice",
        "oomslice-core.service",
        "oomsliced.service",
        "oomslice-actions.service",
    }
)
"""Globs of PID 1's units without which neither the machine nor oomslice works: never chosen, nor what is below them."""

COOLDOWN_DEFAULT_USEC = 2_000_000
RANK_BY_DEFAULT = RankBy.MEMORY
PRIORITY_MIN = -1000
PRIORITY_MAX = 1000
AVOID_BONUS = 100
"""What ManagedOOMPreference=avoid adds to a priority that is not set in the unit's own files."""

NEVER_ADJUST = -1000
"""The OOMScoreAdjust= of whom the kernel's own killer never takes."""

INHERITED: Mapping[str, Any] = MappingProxyType(
    {"priority": 0, "protect": False, "dry_run": False, "actions": None, "kill_scope": None, "on_decision": None}
)
"""Field of UnitSettings that goes down the tree -> its default."""
YIELDING = frozenset({"priority", "actions", "kill_scope", "on_decision"})
"""What a shipped rule says of these gives way to what an administrator says of an ancestor."""

DEFAULT = "default"
SHIPPED = "/usr/"
"""Where the files of packages are; what an administrator writes is elsewhere."""
ROOT = "/"


@dataclass(slots=True)
class _Node:
    """A unit on its way into the policy."""

    name: str
    cgroup: Cgroup
    unit: Unit | None
    """None for a user manager's"""
    parent: int = -1
    children: int = 0
    held: bool = False
    """below a cgroup delegated to someone other than root"""
    ceiling: int = PRIORITY_MAX
    inherited: dict[str, tuple[Any, str, bool]] = field(default_factory=dict)
    """what children get: field -> value, name of the unit that has it, and whether the administrator wrote it"""


@dataclass(frozen=True, slots=True)
class _Layered:
    """Settings put together, and where each of them is from."""

    settings: UnitSettings
    origins: Mapping[str, str]
    own: frozenset[str]
    """fields set by the unit's files, or by the tier they name"""
    shipped: frozenset[str]
    """fields set by a rule below /usr, or by the tier it names"""


def effective(
    snapshot: UnitSnapshot,
    settings: Mapping[str, UnitSettings],
    cgroups: Mapping[str, Cgroup],
    user_cgroups: Sequence[Cgroup],
    configuration: Configuration,
    *,
    self_units: frozenset[str] = SELF_UNITS,
) -> tuple[Policy, tuple[Problem, ...]]:
    """The policy for these units, and what of the settings could not be followed.

    `settings` are those of the unit files by unit name, `cgroups` those of PID 1's units by path; a unit without its
    cgroup has ended and is left out. `user_cgroups` are what is below the user managers. Raises PlanError if the root
    slice is missing.
    """
    problems: list[Problem] = []
    nodes = _nodes(snapshot.units, cgroups, drop_user_units(snapshot.units, cgroups, user_cgroups, problems))
    layers = _Layers(configuration, problems)
    own_names = _Matcher(sorted(self_units))
    oomd = snapshot.oomd_active and configuration.limits.leave_to_systemd_oomd
    units: list[PolicyUnit] = []
    for node in nodes:
        parent = units[node.parent] if node.parent >= 0 else None
        layered = layers.of(node, settings.get(node.name) if node.unit is not None else None)
        marked = node.unit is not None and "kill" in (
            node.unit.managed_oom_swap,
            node.unit.managed_oom_memory_pressure,
        )
        self_ = node.unit is not None and own_names.match(node.name) is not None
        units.append(
            _policy_unit(
                node,
                nodes[node.parent] if node.parent >= 0 else None,
                layered,
                self_=self_ or (parent is not None and parent.self_),
                left_to_oomd=oomd and (marked or (parent is not None and parent.left_to_oomd)),
            )
        )
    units = take_subtrees(units, problems)
    populated = {node.cgroup.id for node in nodes if node.cgroup.populated}
    units = drop_units(units, populated, problems)
    policy = Policy(
        units=tuple(units),
        domains=tuple(_domains(units, problems)),
        machine=configuration.machine,
        death_deadline_usec=configuration.limits.death_deadline_usec,
        reserve=configuration.limits.reserve,
        mark_kills=configuration.limits.mark_kills,
    )
    return policy, tuple(dict.fromkeys(problems))


def _nodes(units: Iterable[Unit], cgroups: Mapping[str, Cgroup], user_cgroups: Iterable[Cgroup]) -> list[_Node]:
    """In the order of the tree, each with its parent."""
    by_path: dict[str, _Node] = {}
    for unit in sorted(units, key=lambda unit: unit.name):
        cgroup = cgroups.get(unit.control_group)
        if cgroup is not None and unit.control_group not in by_path:
            by_path[unit.control_group] = _Node(unit.name, cgroup, unit)
    if ROOT not in by_path:
        raise PlanError("the root slice -.slice is missing from what systemd and the cgroup tree say")
    for cgroup in user_cgroups:
        if cgroup.path not in by_path:
            by_path[cgroup.path] = _Node(unit_name(cgroup.path), cgroup, None)
    nodes = [by_path[path] for path in sorted(by_path, key=_parts)]
    index = {node.cgroup.path: number for number, node in enumerate(nodes)}
    for node in nodes[1:]:
        path = node.cgroup.path
        while True:
            path = path.rpartition("/")[0] or ROOT
            if path in index:
                break
        node.parent = index[path]
        above = nodes[node.parent]
        above.children += 1
        node.held = node.unit is None and (above.held or above.cgroup.owner != 0 or node.cgroup.owner != 0)
    return nodes


def _parts(path: str) -> list[str]:
    return path.split("/")


_NOTHING = _Layered(UnitSettings(), {}, frozenset(), frozenset())


class _Layers:
    """Puts a unit's settings together from its files, tiers and rules."""

    def __init__(self, configuration: Configuration, problems: list[Problem]) -> None:
        self._tiers = configuration.tiers
        self._problems = problems
        # Later rules are stronger, so they come first.
        self._rules = [(_Matcher(rule.match), rule) for rule in reversed(configuration.rules)]

    def of(self, node: _Node, own: UnitSettings | None) -> _Layered:
        layers: list[tuple[UnitSettings, str]] = []
        shipped_layers: set[int] = set()
        if own is not None:
            layers.append((own, "own"))
            layers += self._tier(own, complain=True)
        own_layers = len(layers)
        manager = "system" if node.unit is not None else "user"
        for matcher, rule in self._rules:
            glob = matcher.match(node.name) if rule.manager == manager else None
            if glob is not None:
                first = len(layers)
                layers.append((rule.settings, f"rule {glob}"))
                layers += self._tier(rule.settings, complain=False)
                if rule.source.file.startswith(SHIPPED):
                    shipped_layers.update(range(first, len(layers)))
        if not layers:
            return _NOTHING
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        sources: dict[str, Source] = {}
        set_by_own: set[str] = set()
        shipped: set[str] = set()
        for number, (settings, origin) in enumerate(layers):
            for name in SETTING_NAMES:
                value = getattr(settings, name)
                if value is None or name in values:
                    continue
                values[name] = value
                source = settings.sources.get(name)
                if source is not None:
                    sources[name] = source
                place = f"{source.file}:{source.line}" if source is not None else ""
                origins[name] = f"own ({place})" if origin == "own" and place else origin
                if number < own_layers:
                    set_by_own.add(name)
                if number in shipped_layers:
                    shipped.add(name)
        settings_ = UnitSettings(**values, sources=MappingProxyType(sources))
        return _Layered(settings_, origins, frozenset(set_by_own), frozenset(shipped))

    def _tier(self, settings: UnitSettings, *, complain: bool) -> list[tuple[UnitSettings, str]]:
        if settings.tier is None:
            return []
        tier = self._tiers.get(settings.tier)
        if tier is not None:
            return [(tier, f"tier {settings.tier}")]
        if complain:  # for rules the YAML's own check does
            self._problems.append(
                Problem(
                    settings.sources.get("tier", Source("", 0)),
                    "X-OOMSlice",
                    "Tier",
                    settings.tier,
                    unknown_tier(settings.tier, self._tiers),
                )
            )
        return []


class _Matcher:
    """Globs made ready: as one pattern, because most names match none of them."""

    def __init__(self, globs: Sequence[str]) -> None:
        self._globs = [(glob, re.compile(fnmatch.translate(glob))) for glob in globs]
        self._any = re.compile("|".join(fnmatch.translate(glob) for glob in globs) or r"(?!)")

    def match(self, name: str) -> str | None:
        """The first glob that matches."""
        if self._any.match(name) is None:
            return None
        return next((glob for glob, pattern in self._globs if pattern.match(name)), None)


def _policy_unit(node: _Node, above: _Node | None, layered: _Layered, *, self_: bool, left_to_oomd: bool) -> PolicyUnit:
    inherited = above.inherited if above is not None else {}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, default in INHERITED.items():
        value = getattr(layered.settings, name)
        if name in YIELDING and name in layered.shipped and name in inherited and inherited[name][2]:
            value = None
        if value is not None:
            values[name], origins[name] = value, layered.origins[name]
            node.inherited[name] = (value, node.name, name not in layered.shipped)
        elif name in inherited:
            node.inherited[name] = inherited[name]
            values[name], origins[name] = inherited[name][0], f"inherited from {inherited[name][1]}"
        else:
            values[name], origins[name] = default, DEFAULT
    if node.held:
        assert above is not None
        node.ceiling = above.ceiling if above.held else _handed_down(above)
        if values["priority"] > node.ceiling:
            values["priority"] = node.ceiling
            origins["priority"] += f", held to the {node.ceiling} of the user manager"
            node.inherited["priority"] = (node.ceiling, node.name, True)
    candidate = _is_candidate(node)
    whole = bool(node.children) and values["kill_scope"] is KillScope.SUBTREE
    if candidate or whole:
        _honour_score(node, layered, values, origins)
        _honour_preference(node, layered, values, origins)
    set_ = {name: value for name, value in values.items() if origins[name] != DEFAULT}
    sources = layered.settings.sources
    settings = UnitSettings(
        **{**{name: getattr(layered.settings, name) for name in SETTING_NAMES}, **set_}, sources=sources
    )
    settings_from = {
        name: _place(name, layered, origins) for name in SETTING_NAMES if getattr(settings, name) is not None
    }
    ladder = with_end(settings.actions or ())
    added = ", kill added" if len(ladder) > len(settings.actions or ()) else ""
    return PolicyUnit(
        name=node.name,
        path=node.cgroup.path,
        cgroup_id=node.cgroup.id,
        parent=node.parent,
        priority=values["priority"],
        priority_origin=origins["priority"],
        candidate=candidate,
        protected=values["protect"],
        protected_origin=origins["protect"] if values["protect"] else "",
        self_=self_,
        left_to_oomd=left_to_oomd,
        dry_run=values["dry_run"],
        need_daemon_reload=node.unit is not None and node.unit.need_daemon_reload,
        ladder=ladder,
        ladder_origin=origins["actions"] + added,
        kill_scope=settings.kill_scope or KillScope.UNIT,
        kill_scope_origin=origins["kill_scope"],
        user=node.unit is None,
        oom_score_adjust=node.unit.oom_score_adjust if node.unit is not None else None,
        memory_max=node.unit.memory_max if node.unit is not None else None,
        settings=settings,
        settings_from=settings_from,
    )


def _handed_down(manager: _Node) -> int:
    """The priority that a delegated unit hands down, which nothing below it may pass."""
    value: int = manager.inherited.get("priority", (0, "", False))[0]
    return value


def _place(name: str, layered: _Layered, origins: Mapping[str, str]) -> str:
    origin = origins.get(name) or layered.origins.get(name, DEFAULT)
    source = layered.settings.sources.get(name)
    return f"{source.file}:{source.line}" if source is not None and origin.startswith("own (") else origin


def _is_candidate(node: _Node) -> bool:
    if node.children:
        return False
    if not node.name.endswith(".slice"):
        return True
    # A user's slice that could not be taken apart is one thing with all that is in it, or it would be out of reach.
    return node.unit is None and node.cgroup.populated


def _honour_score(node: _Node, layered: _Layered, values: dict[str, Any], origins: dict[str, str]) -> None:
    """OOMScoreAdjust= says who goes first, too, though to the kernel: for the unit itself, and where nobody says more.

    It has the range of Priority= with the opposite sign, and -1000 exempts a process (systemd.exec(5), proc(5)).
    """
    adjust = node.unit.oom_score_adjust if node.unit is not None else None
    if not adjust or origins["priority"] != DEFAULT:
        return
    origin = f"OOMScoreAdjust={adjust}"
    values["priority"], origins["priority"] = max(PRIORITY_MIN, min(-adjust, PRIORITY_MAX)), origin
    if adjust <= NEVER_ADJUST and "protect" not in layered.own and not values["protect"]:
        values["protect"], origins["protect"] = True, origin


def _honour_preference(node: _Node, layered: _Layered, values: dict[str, Any], origins: dict[str, str]) -> None:
    """ManagedOOMPreference= and the attributes made of it: for the unit itself only, as for systemd-oomd."""
    preference, origin = "none", ""
    if node.unit is not None and node.unit.managed_oom_preference != "none":
        preference = node.unit.managed_oom_preference
        origin = f"ManagedOOMPreference={preference}"
    elif node.cgroup.preference != "none" and node.cgroup.owner == 0:  # anyone else could have set it for himself
        preference = node.cgroup.preference
        origin = f"user.oomd_{preference}"
    if preference == "omit" and "protect" not in layered.own and not values["protect"]:
        values["protect"], origins["protect"] = True, origin
    if preference == "avoid" and "priority" not in layered.own:
        raised = min(values["priority"] + AVOID_BONUS, node.ceiling)
        if raised > values["priority"]:
            values["priority"] = raised
            origins["priority"] += f", raised by {origin}"


def _domains(units: Sequence[PolicyUnit], problems: list[Problem]) -> list[PolicyDomain]:
    """The machine, and every unit with a trigger of its own, in the order of the tree."""
    domains: list[PolicyDomain] = []
    for number, unit in enumerate(units):
        settings = unit.settings
        if number > 0 and settings.pressure_trigger is None:
            continue
        if unit.taken_with:
            problems.append(
                _trigger_problem(
                    unit, f"{unit.taken_with} is taken as a whole (KillScope=subtree), so {unit.name} is no domain"
                )
            )
            continue
        if len(domains) == DOMAINS_MAX:
            problems.append(
                _trigger_problem(
                    unit, f"a plan holds {DOMAINS_MAX} domains, the machine included; {unit.name} is not watched"
                )
            )
            continue
        domains.append(
            PolicyDomain(
                unit=number,
                rank_by=settings.rank_by or RANK_BY_DEFAULT,
                cooldown_usec=COOLDOWN_DEFAULT_USEC if settings.cooldown_usec is None else settings.cooldown_usec,
                dry_run=unit.dry_run,
                settings=settings,
                # The machine's shortage is everybody's.
                victims=(number > 0 and settings.pressure_victims) or PressureVictims.BELOW,
            )
        )
    return domains


def _trigger_problem(unit: PolicyUnit, message: str) -> Problem:
    settings = unit.settings
    source = settings.sources.get("pressure_trigger", Source("", 0))
    return Problem(source, "X-OOMSlice", "PressureTrigger", str(settings.pressure_trigger), message)
