# SPDX-License-Identifier: LGPL-2.1-or-later
"""From what systemd and the administrator say to a plan: asks the layers below, and keeps the last good answers."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from oomslice.actions.verify import purge_problems
from oomslice.cgroups.model import Cgroup, MemoryInfo, Usage
from oomslice.cgroups.tree import CgroupTree
from oomslice.errors import CgroupError, NoSuchUnitError, OomsliceError, PlanError
from oomslice.plan.encode import encode
from oomslice.plugins.apply import with_priorities
from oomslice.plugins.client import PolicyClient
from oomslice.plugins.wire import PolicyError
from oomslice.policy.effective import effective
from oomslice.policy.model import Policy, PolicyUnit
from oomslice.policy.rank import rank
from oomslice.settings.assign import check_assignments
from oomslice.settings.configuration import parse_configuration, with_possible_reserve
from oomslice.settings.keys import SETTING_PARSERS, UNIT_FILE_KEY_OF, YAML_KEY_OF
from oomslice.settings.model import SETTING_KEYS, Configuration, Problem, RankBy, Severity, UnitSettings
from oomslice.settings.unitfile import SECTION, parse_unit_files
from oomslice.units.client import UnitsClient
from oomslice.units.files import read_configuration, read_unit_files
from oomslice.units.model import Unit, UnitSnapshot

_Inputs: TypeAlias = tuple[
    UnitSnapshot, Mapping[str, UnitSettings], Mapping[str, Cgroup], Sequence[Cgroup], Configuration
]

OTHER_DAEMONS = ("earlyoom.service", "nohang.service", "nohang-desktop.service", "oomd.service")
"""Other out-of-memory killers, beside systemd-oomd, that a Debian machine may run."""
ROOM = 32 << 20
"""Bytes above its limit that memory or swap must have for what can wait. A service in Python takes some 12 MiB."""


@dataclass(slots=True)
class Prepared:
    """A plan and the cgroup descriptors that go with it. Whoever holds it closes it."""

    generation: int
    data: bytes
    policy: Policy
    descriptors: list[int]

    def close(self) -> None:
        """Closes the descriptors."""
        while self.descriptors:
            os.close(self.descriptors.pop())


class Planner:
    """Makes plans. `problems` is what is wrong with the configuration now; `policy` what the newest plan says."""

    def __init__(self, tree: CgroupTree, units: UnitsClient, root: Path = Path("/")) -> None:
        self._tree = tree
        self._units = units
        self._root = root
        self._configuration_problems: tuple[Problem, ...] = ()
        self._settings: dict[str, tuple[tuple[object, ...], UnitSettings, tuple[Problem, ...]]] = {}
        self._generation = time.time_ns() // 1000
        self._inputs: _Inputs | None = None
        """what the newest plan was made of"""
        self.policy: Policy | None = None
        self.baseline: dict[int, Usage] = {}
        """what growth and refaults count from: the figures when the newest plan was made, if it needs them"""
        self.problems: tuple[Problem, ...] = ()
        self.other_daemons: tuple[str, ...] = ()
        self.configuration = Configuration()
        """the YAML configuration in force"""
        self._configured = False
        self._policy_client: PolicyClient | None = None
        self.again_sec: float | None = None
        """when another plan is worth the while though nothing has changed, because of the policy; None: not at all"""
        self.reload()

    def reload(self) -> None:
        """Reads the YAML again. If it has errors and there is a good one, that one stays; the errors are kept."""
        self._settings.clear()
        unreadable: list[Problem] = []
        configuration, found = parse_configuration(read_configuration(self._root, unreadable))
        problems = (*unreadable, *found)
        self._configuration_problems = problems
        broken = any(problem.severity is Severity.ERROR for problem in problems)
        if not broken or not self._configured:
            self.configuration = configuration
            self._configured = True
        # What this machine refuses of it is no reason to keep an older one: the rest of it holds.
        for settings in (*self.configuration.tiers.values(), *(rule.settings for rule in self.configuration.rules)):
            self._configuration_problems += tuple(purge_problems(settings, "", YAML_KEY_OF))

    def written(self) -> list[tuple[UnitSettings, str, Mapping[str, str]]]:
        """All settings that are written in files of units and in the YAML, with the section there and names of keys."""
        return [
            *((settings, SECTION, UNIT_FILE_KEY_OF) for _, settings, _ in self._settings.values()),
            *((tier, f"tiers.{name}", YAML_KEY_OF) for name, tier in self.configuration.tiers.items()),
            *((rule.settings, "rules", YAML_KEY_OF) for rule in self.configuration.rules),
        ]

    async def prepare(self, *, full: bool) -> Prepared:
        """Asks systemd for its units and makes the next plan. Raises UnitsError, CgroupError or PlanError."""
        snapshot = await self._units.snapshot(full=full)
        if full:
            self._settings.clear()
        settings, problems = self._unit_settings(snapshot.units)
        cgroups = self._cgroups(snapshot.units)
        user_cgroups = [
            cgroup
            for unit in snapshot.units
            if unit.name.startswith("user@") and unit.control_group in cgroups
            for cgroup in self._tree.walk_user_units(unit.control_group)
        ]
        memory = self._tree.memory()
        limits, limit_problems = with_possible_reserve(self.configuration.limits, memory.total)
        configuration = replace(self.configuration, limits=limits)
        while True:
            policy, policy_problems = effective(snapshot, settings, cgroups, user_cgroups, configuration)
            descriptors, ended = self._open(policy)
            if not ended:
                break
            cgroups = {path: cgroup for path, cgroup in cgroups.items() if cgroup.id not in ended}
            user_cgroups = [cgroup for cgroup in user_cgroups if cgroup.id not in ended]
        try:
            policy, plugin_problems = await self._with_plugin(policy)
        except BaseException:
            Prepared(0, b"", policy, descriptors).close()
            raise
        prepared = Prepared(self._generation + 1, b"", policy, descriptors)
        baseline = self._baseline(policy)
        try:
            prepared.data = encode(
                policy,
                generation=prepared.generation,
                made_realtime_usec=time.time_ns() // 1000,
                usage=baseline,
                memory_total=memory.total,
                swap_total=memory.swap_total,
            )
        except OomsliceError:
            prepared.close()
            raise
        self._generation = prepared.generation
        self._inputs = (snapshot, settings, cgroups, user_cgroups, configuration)
        self.policy = policy
        self.baseline = baseline
        self.problems = (*self._configuration_problems, *limit_problems, *problems, *policy_problems, *plugin_problems)
        self.other_daemons = _other_daemons(snapshot)
        return prepared

    def simulated(self, settings: Mapping[str, Mapping[str, str]]) -> Policy:
        """The policy of the newest plan, if units had these settings as well. Reads nothing.

        `settings` is unit -> key -> value as in a unit file, an empty one being a reset. Raises NoSuchUnitError,
        InvalidSettingError, PlanError.
        """
        if self._inputs is None:
            raise PlanError("there is no plan yet")
        snapshot, own, cgroups, user_cgroups, configuration = self._inputs
        known = {unit.name for unit in snapshot.units}
        changed = dict(own)
        for name, assignments in settings.items():
            if name not in known:
                raise NoSuchUnitError(f"systemd runs no unit {name[:100]!r} that could have other settings")
            check_assignments(assignments)
            values = {
                SETTING_KEYS[key]: SETTING_PARSERS[SETTING_KEYS[key]](value) if value else None
                for key, value in assignments.items()
            }
            changed[name] = replace(own.get(name, UnitSettings()), **values)  # type: ignore[arg-type]
        return effective(snapshot, changed, cgroups, user_cgroups, configuration)[0]

    async def _with_plugin(self, policy: Policy) -> tuple[Policy, tuple[Problem, ...]]:
        """With the priorities of the policy that oomslice.yaml names; as it is, and why, if that one cannot be used."""
        name = self.configuration.policy
        self.again_sec = None
        if self._policy_client is not None and self._policy_client.name != name:
            await self.close()
        if not name:
            return policy, ()
        if self.policy is None:
            # The first plan arms the core, and waits for nobody's code.
            self.again_sec = 0.0
            return policy, ()
        if self._policy_client is None:
            self._policy_client = PolicyClient(name)
        try:
            ranking = rank(policy, self.usage_in(policy))
            return with_priorities(policy, await self._policy_client.priorities(ranking), name), ()
        except PolicyError as error:
            self.again_sec = self._policy_client.pause_sec
            message = f"{error}. The built-in ranking is used"
            return policy, (Problem(self.configuration.policy_source, "", "policy", name, message),)

    async def close(self) -> None:
        """Ends the process of the policy, if there is one."""
        if self._policy_client is not None:
            await self._policy_client.close()
            self._policy_client = None

    def _open(self, policy: Policy) -> tuple[list[int], set[int]]:
        """One descriptor per unit, or none and the ids of those cgroups that ended (or began anew) meanwhile."""
        descriptors: list[int] = []
        ended: set[int] = set()
        for unit in policy.units:
            try:
                descriptors.append(self._tree.open(unit.path))
            except CgroupError:
                ended.add(unit.cgroup_id)
                continue
            if os.fstat(descriptors[-1]).st_ino != unit.cgroup_id:
                ended.add(unit.cgroup_id)
        if ended:
            for descriptor in descriptors:
                os.close(descriptor)
            descriptors.clear()
        return descriptors, ended

    def memory(self) -> MemoryInfo:
        """The machine's memory now. Raises CgroupError."""
        return self._tree.memory()

    def has_room(self) -> bool:
        """Whether a service may be started that nobody waits for: memory or swap is far enough above its limit."""
        try:
            memory = self.memory()
        except CgroupError:
            return True
        machine = self.configuration.machine
        return (
            memory.available - machine.available_min.of(memory.total) >= ROOM
            or memory.swap_free - machine.swap_free_min.of(memory.swap_total) >= ROOM
        )

    def usage(self) -> dict[int, Usage]:
        """Cgroup id -> figures, now, of every candidate of the newest plan."""
        return {} if self.policy is None else self.usage_in(self.policy)

    def usage_of(self, unit: PolicyUnit) -> Usage:
        """Figures of one unit, now; all 0 if its cgroup is gone, or another."""
        try:
            if self._tree.read(unit.path).id == unit.cgroup_id:
                return self._tree.usage(unit.path)
        except CgroupError:
            pass
        return Usage()

    def usage_in(self, policy: Policy) -> dict[int, Usage]:
        """Cgroup id -> figures, now, of every candidate of a policy; without those whose cgroup is gone."""
        usage: dict[int, Usage] = {}
        for unit in policy.units:
            if unit.candidate:
                try:
                    usage[unit.cgroup_id] = self._tree.usage(unit.path)
                except CgroupError:
                    continue
        return usage

    def _baseline(self, policy: Policy) -> dict[int, Usage]:
        compared_over_time = {RankBy.GROWTH, RankBy.REFAULT}
        if any(domain.rank_by in compared_over_time for domain in policy.domains):
            return self.usage_in(policy)
        return {}

    def _unit_settings(self, units: Sequence[Unit]) -> tuple[dict[str, UnitSettings], list[Problem]]:
        settings: dict[str, UnitSettings] = {}
        problems: list[Problem] = []
        fresh: dict[str, tuple[tuple[object, ...], UnitSettings, tuple[Problem, ...]]] = {}
        for unit in units:
            # PID 1 loads these files once per daemon-reload; so do we, or a half-written file would take effect early.
            key = (unit.fragment_path, unit.drop_in_paths)
            known = self._settings.get(unit.name)
            if known is None or known[0] != key:
                files, unreadable = read_unit_files(unit)
                parsed, found = parse_unit_files(files)
                refused = purge_problems(parsed, SECTION, UNIT_FILE_KEY_OF)
                known = (key, parsed, (*unreadable, *found, *refused))
            fresh[unit.name] = known
            settings[unit.name] = known[1]
            problems += [problem for problem in known[2] if problem not in problems]
        self._settings = fresh
        return settings, problems

    def _cgroups(self, units: Sequence[Unit]) -> dict[str, Cgroup]:
        cgroups: dict[str, Cgroup] = {}
        for unit in units:
            try:
                cgroups[unit.control_group] = self._tree.read(unit.control_group)
            except CgroupError:
                continue  # it ended since systemd was asked
        return cgroups


def _other_daemons(snapshot: UnitSnapshot) -> tuple[str, ...]:
    running = {unit.name for unit in snapshot.units if unit.active_state in ("active", "activating", "reloading")}
    oomd = ("systemd-oomd.service",) if snapshot.oomd_active else ()
    return (*oomd, *(name for name in OTHER_DAEMONS if name in running))
