# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who would be chosen, for programs: a picture of units and their memory, settings, and `rank`, which is the choice of
the kill path itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from oomslice.cgroups.model import Cgroup, Usage, unit_name
from oomslice.cgroups.tree import CgroupTree
from oomslice.errors import CgroupError, NoSuchUnitError
from oomslice.policy.effective import effective
from oomslice.policy.model import RankedUnit
from oomslice.policy.rank import rank as rank_policy
from oomslice.settings.model import Configuration, Problem, UnitSettings
from oomslice.settings.unitfile import parse_unit_files
from oomslice.units.model import Unit, UnitSnapshot

MACHINE = "-.slice"
UNIT_SUFFIXES = (".slice", ".service", ".scope")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Units by cgroup and their figures at one moment. Made by `of` or `read`."""

    units: UnitSnapshot
    cgroups: Mapping[str, Cgroup]
    """by path below the cgroup root"""
    usage: Mapping[int, Usage]
    """by cgroup id"""
    user_cgroups: tuple[Cgroup, ...] = ()
    """what user managers have"""

    @classmethod
    def of(cls, memory: Mapping[str, int]) -> Snapshot:
        """A machine as one imagines it: cgroup path -> bytes that a kill would give back. Slices above are made."""
        paths = {"/"}
        for path in memory:
            if not path.startswith("/") or path != os.path.normpath(path):
                raise ValueError(f"{path!r} is no path of a cgroup: write it like /batch.slice/job.service")
            paths.update(os.fspath(parent) for parent in (Path(path), *Path(path).parents))
        cgroups = {path: Cgroup(path, id, owner=0, populated=True) for id, path in enumerate(sorted(paths), start=1)}
        usage = {cgroups[path].id: Usage(memory=size, current=size, populated=True) for path, size in memory.items()}
        units = tuple(Unit(unit_name(path), path) for path in sorted(paths))
        return cls(UnitSnapshot(units), cgroups, usage)

    @classmethod
    def read(cls, root: str | os.PathLike[str] = "/sys/fs/cgroup") -> Snapshot:
        """This machine now, as its cgroups tell; systemd is not asked. Raises CgroupError without cgroup v2."""
        tree = CgroupTree(Path(root))
        tree.check()
        units: list[Unit] = []
        cgroups: dict[str, Cgroup] = {}
        user_cgroups: list[Cgroup] = []
        usage: dict[int, Usage] = {}
        waiting = ["/"]
        while waiting:
            path = waiting.pop()
            try:
                cgroups[path] = tree.read(path)
                usage[cgroups[path].id] = tree.usage(path)
            except CgroupError:
                cgroups.pop(path, None)
                continue  # it ended meanwhile
            name = unit_name(path)
            units.append(Unit(name, path))
            if name.startswith("user@"):
                user_cgroups += tree.walk_user_units(path)
            elif name.endswith(".slice"):
                waiting += _children(Path(root), path)
        for cgroup in user_cgroups:
            try:
                usage[cgroup.id] = tree.usage(cgroup.path)
            except CgroupError:
                continue
        return cls(UnitSnapshot(tuple(units)), cgroups, usage, tuple(user_cgroups))


def parse_settings(text: str, file: str = "settings") -> tuple[UnitSettings, tuple[Problem, ...]]:
    """What an [X-OOMSlice] section says, and what is wrong in it. Raises nothing."""
    return parse_unit_files([(file, text)])


def rank(
    snapshot: Snapshot,
    settings: Mapping[str, UnitSettings] = MappingProxyType({}),
    *,
    configuration: Configuration | None = None,
    domain: str = MACHINE,
) -> tuple[RankedUnit, ...]:
    """Every unit in the order in which it would be chosen if that domain ran out of memory, each with its reason.

    `settings` are by unit name, `configuration` is oomslice.yaml, by default an empty one: nothing is protected
    then but what oomslice never touches. Pure. Raises NoSuchUnitError if the domain is neither the machine nor a unit
    with PressureTrigger=.
    """
    policy, _ = effective(
        snapshot.units, settings, snapshot.cgroups, snapshot.user_cgroups, configuration or Configuration()
    )
    for index, candidate in enumerate(policy.domains):
        if policy.units[candidate.unit].name == domain:
            return rank_policy(policy, snapshot.usage, domain=index)
    raise NoSuchUnitError(f"{domain} is no domain: it needs a PressureTrigger= in its settings")


def _children(root: Path, path: str) -> list[str]:
    try:
        with os.scandir(f"{root}{path}") as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [f"{path.rstrip('/')}/{name}" for name in sorted(names) if name.endswith(UNIT_SUFFIXES)]
