# SPDX-License-Identifier: LGPL-2.1-or-later
"""All that a policy is made from at one moment, and the figures that it is applied to. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from oomslice.cgroups.model import Cgroup, Usage
from oomslice.policy.effective import effective
from oomslice.policy.model import Policy
from oomslice.settings.configuration import parse_configuration, with_possible_reserve
from oomslice.settings.model import Problem, Severity
from oomslice.settings.unitfile import parse_unit_files
from oomslice.units.model import UnitSnapshot

File = tuple[str, str]
"""Path and text."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Files that are read after all others, so what they say wins."""

    unit_files: Mapping[str, tuple[File, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """unit -> its additional files"""
    configuration: tuple[File, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.unit_files or self.configuration)


@dataclass(frozen=True, slots=True)
class State:
    """Units, their files, the YAML and the cgroups of a machine."""

    snapshot: UnitSnapshot
    unit_files: Mapping[str, tuple[File, ...]]
    """unit -> its files with an [X-OOMSlice] section, in the order of application"""
    configuration: tuple[File, ...]
    cgroups: tuple[Cgroup, ...]
    """of the units of the snapshot"""
    user_cgroups: tuple[Cgroup, ...]
    memory_total: int
    swap_total: int

    def policy(self, changes: Changes = Changes()) -> tuple[Policy, tuple[Problem, ...]]:
        """What holds with these changes, and what is wrong in them and in what they change. Raises PlanError."""
        configuration, problems = parse_configuration([*self.configuration, *changes.configuration])
        limits, too_large = with_possible_reserve(configuration.limits, self.memory_total)
        found = [*problems, *too_large]
        if configuration.policy:
            # It may ask anything of anybody; what it answers for settings that are not in force is not known.
            message = "is not asked here: the priorities are those of the settings, and the order is the built-in one"
            source = configuration.policy_source
            found.append(Problem(source, "", "policy", configuration.policy, message, Severity.NOTICE))
        settings = {}
        for unit in self.snapshot.units:
            files = (*self.unit_files.get(unit.name, ()), *changes.unit_files.get(unit.name, ()))
            if files:
                settings[unit.name], problems = parse_unit_files(files)
                found += problems
        policy, problems = effective(
            self.snapshot,
            settings,
            {cgroup.path: cgroup for cgroup in self.cgroups},
            self.user_cgroups,
            replace(configuration, limits=limits),
        )
        return policy, (*found, *problems)


@dataclass(frozen=True, slots=True)
class Stall:
    """Microseconds of stall since boot: the totals of a pressure file."""

    some: int = 0
    full: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """What was read at one moment. Sizes in bytes."""

    moment_usec: int
    """monotonic, from any beginning"""
    available: int
    swap_free: int
    stall: Stall = Stall()
    usage: Mapping[int, Usage] = field(default_factory=lambda: MappingProxyType({}))
    """by cgroup id"""
    stalls: Mapping[int, Stall] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Frame:
    """One moment: figures, and the state that holds since the frame where it was first given."""

    state: State
    figures: Figures
