# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose process the kernel killed: from what it says of cgroups to a unit, and to a decision about that."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oomslice.decisions.kmsg import Kill
from oomslice.decisions.record import Decision
from oomslice.decisions.twice import BPF

ROOT_SLICE = "-.slice"
UNIT_SUFFIXES = (".service", ".scope", ".slice", ".socket", ".mount", ".swap")


@dataclass(frozen=True, slots=True)
class CountedUnit:
    """One cgroup whose kills are counted; its counter includes those of all below it."""

    name: str
    path: str
    """below the cgroup root"""
    cgroup_id: int
    priority: int
    parent: int
    """cgroup id of the nearest counted ancestor, 0 if there is none"""


class Whose:
    """Units by what the kernel calls them: paths below the cgroup root `root`, and ids."""

    def __init__(self, root: str, units: Mapping[int, CountedUnit]) -> None:
        self._root = root
        self._units = units

    def path(self, kill: Kill) -> str:
        """Where its process was, empty if that is not known. Ids before names: a long name may have been cut."""
        path = kill.task_memcg or kill.group
        for id in reversed(kill.cgroup_ids):
            unit = self._units.get(id)
            if unit is not None:
                return path if f"{path}/".startswith(f"{unit.path}/") else unit.path
        return path

    def unit_above(self, path: str) -> CountedUnit | None:
        """The nearest counted unit at or above a cgroup path. A unit's priority holds for what is below it."""
        by_path = {unit.path: unit for unit in self._units.values()}
        while path not in ("", "/"):
            if path in by_path:
                return by_path[path]
            path = path.rpartition("/")[0]
        return by_path.get("/")

    def name(self, path: str) -> str:
        """The unit's name: as the plan has it, else as its cgroup is called."""
        unit = self.unit_above(path)
        if unit is not None and (unit.path == path or not unit.name.endswith(".slice")):
            return unit.name
        # A unit that came and went between two plans: the first of the names below the slice that is a unit's but no
        # slice's; else the last slice.
        below = path[len(unit.path) :] if unit is not None else path
        names = [name for name in below.split("/") if name.endswith(UNIT_SUFFIXES)]
        for name in names:
            if not name.endswith(".slice"):
                return name
        if names:
            return names[-1]
        return unit.name if unit is not None else path.rpartition("/")[2] or ROOT_SLICE

    def cgroup_id(self, path: str, victim: str, unit: CountedUnit | None) -> int:
        """Of a cgroup path the id of the unit's own cgroup, 0 if it is not known."""
        if unit is not None and unit.name == victim:
            return unit.cgroup_id
        # The unit's own directory is where the victim's name is in the path; it may be gone.
        head, found, _ = f"{path}/".partition(f"/{victim}/")
        if found:
            with contextlib.suppress(OSError):
                return os.stat(f"{self._root}{head}/{victim}").st_ino
        return 0


def decision_of(kill: Kill, whose: Whose, boot_id: str) -> Decision:
    """One kill by the kernel as a decision, without whether the plan would have chosen so."""
    path = kill.task_memcg or kill.group
    unit = whose.unit_above(path) if path else None
    victim = whose.name(path) if path else ROOT_SLICE
    domain = victim
    if not kill.memcg:
        domain = ROOT_SLICE
    elif kill.oom_memcg:
        domain = whose.name(kill.oom_memcg)
    processes = list(kill.processes.values())
    first = processes[0]
    extra: dict[str, Any] = {
        "source": kill.source,
        "kernel_sequence": kill.sequence,
        "task": first.task,
        "constraint": kill.constraint or ("CONSTRAINT_MEMCG" if kill.memcg else "CONSTRAINT_NONE"),
        "task_memcg": kill.task_memcg,
        "oom_memcg": kill.oom_memcg,
        "group": kill.group,
    }
    if first.uid is not None:
        extra["uid"] = first.uid
    if first.score_adjustment is not None:
        extra["oom_score_adj"] = first.score_adjustment
    if kill.total_pages:
        extra["points"] = kill.points
        extra["points_of"] = kill.total_pages
    cgroup_id = whose.cgroup_id(path, victim, unit) or _told_id(kill, victim)
    memory = sum(item.anonymous + item.file + item.shared for item in processes)
    number = f"kb{kill.sequence}" if kill.source == BPF else f"k{kill.sequence}"
    return Decision(
        id=f"{boot_id[:16]}-{number}",
        boot_id=boot_id,
        carrier="kernel",
        trigger="kernel-oom",
        domain=domain,
        outcome="killed-by-kernel",
        # Good to the time the machine was suspended since.
        realtime_usec=(time.time_ns() - time.monotonic_ns()) // 1000 + kill.usec,
        trigger_usec=kill.usec,
        decision_usec=kill.usec,
        signal_usec=kill.last_usec,
        victim=victim,
        victim_cgroup_id=cgroup_id,
        victim_priority=unit.priority if unit else 0,
        victim_memory_before=memory,
        # What the death of a process gives back for sure: file pages and shared memory may stay.
        bytes_freed=sum(item.anonymous for item in processes),
        processes=len(processes),
        pids=tuple(item.pid for item in processes),
        extra=extra,
    )


def _told_id(kill: Kill, victim: str) -> int:
    """Id of the unit's own cgroup as BPF told it, 0 if it did not: by now the cgroup may be gone."""
    names = kill.task_memcg.strip("/").split("/")
    return kill.cgroup_ids[names.index(victim)] if victim in names[: len(kill.cgroup_ids)] else 0
