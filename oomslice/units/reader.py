# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes snapshots of PID 1's units with few questions. Knows systemd's interfaces, but not who carries the questions.

The list of units is asked for every time. What is constant for a loaded unit is asked once and kept until systemd has
loaded its units anew (its UnitsLoadTimestamp tells) or until a full snapshot is wanted; which cgroup a unit has is kept
as long as that directory is still the same inode. So a snapshot of a thousand known units costs two questions and a
thousand stat calls. Values that `systemctl set-property` changes without a
reload may be as old as the last full snapshot.

Single properties are asked for instead of GetAll: a service has some 450 of them, several of which PID 1 reads from the
kernel for each caller, and we need thirteen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from oomslice.errors import UnitsError
from oomslice.units.model import Unit, UnitSnapshot

MANAGER = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
UNIT_INTERFACE = "org.freedesktop.systemd1.Unit"
TYPE_INTERFACES = {
    "service": "org.freedesktop.systemd1.Service",
    "scope": "org.freedesktop.systemd1.Scope",
    "slice": "org.freedesktop.systemd1.Slice",
}
INFINITY = 2**64 - 1
"""What systemd means by "infinity" in sizes."""

ROOT_SLICE = "-.slice"
OOMD = "systemd-oomd.service"
RUNNING = ("active", "activating", "reloading", "refreshing", "maintenance")


class NoSuchPropertyError(Exception):
    """This systemd, or this type of unit, has no such property."""


class NoSuchObjectError(Exception):
    """The unit ended since it was listed."""


class Bus(Protocol):
    """The questions that are asked of org.freedesktop.systemd1. Failures other than the two above are UnitsError."""

    def list_units(self) -> list[tuple[Any, ...]]:
        """The body of Manager.ListUnits(), strings as str."""
        ...

    def get(self, path: str, interface: str, name: str, signature: str) -> Any:
        """One property. Raises NoSuchPropertyError or NoSuchObjectError."""
        ...


@dataclass(slots=True)
class _Known:
    """What was read of a unit."""

    unit: Unit
    sub_state: str
    cgroup_inode: int


class Reader:
    """One per connection. `progress` is called with the number of units done, after each that cost questions."""

    def __init__(self, bus: Bus, cgroup_root: Path, progress: Callable[[int], None] = lambda done: None) -> None:
        self._bus = bus
        self._cgroup_root = os.fspath(cgroup_root)
        self._progress = progress
        self._known: dict[str, _Known] = {}
        self._loaded_usec: int | None = None
        self._missing: set[tuple[str, str]] = set()

    def snapshot(self, *, full: bool) -> UnitSnapshot:
        """All slices, services and scopes that have a cgroup. Raises UnitsError.

        `full` asks for everything anew; without it that happens only if systemd has loaded its units since.
        """
        loaded_usec = self._get_or(None, *MANAGER, "UnitsLoadTimestampMonotonic", "t")
        if full or loaded_usec != self._loaded_usec:
            self._known.clear()
        # Taken before reading: a reload in between shows as a difference in the next snapshot.
        self._loaded_usec = loaded_usec
        known: dict[str, _Known] = {}
        oomd_active = False
        for done, listed in enumerate(self._bus.list_units()):
            name, _description, _load_state, active_state, sub_state, _following, path = listed[:7]
            if name == OOMD:
                oomd_active = active_state in RUNNING
            unit_type = name.rpartition(".")[2]
            if unit_type not in TYPE_INTERFACES:
                continue
            entry = self._reused(name, active_state, sub_state)
            if entry is None:
                entry = self._read(name, unit_type, path, active_state, sub_state)
                self._progress(done)
            if entry is not None:
                known[name] = entry
        if ROOT_SLICE not in known:
            raise UnitsError(f"systemd did not name {ROOT_SLICE}, which every systemd has: is it PID 1 that answers?")
        self._known = known
        return UnitSnapshot(
            tuple(entry.unit for entry in known.values() if entry.unit.control_group), oomd_active=oomd_active
        )

    def _reused(self, name: str, active_state: str, sub_state: str) -> _Known | None:
        entry = self._known.get(name)
        if entry is None:
            return None
        if not entry.unit.control_group:
            at_rest = active_state in ("inactive", "failed") or sub_state == "exited"
            if not at_rest or (active_state, sub_state) != (entry.unit.active_state, entry.sub_state):
                return None
        elif self._inode(entry.unit.control_group) != entry.cgroup_inode:
            return None
        if active_state != entry.unit.active_state:
            entry.unit = replace(entry.unit, active_state=active_state)
        entry.sub_state = sub_state
        return entry

    def _inode(self, control_group: str) -> int:
        """Of the cgroup's directory, or 0."""
        try:
            return os.stat(self._cgroup_root + control_group).st_ino
        except OSError:
            return 0

    def _read(self, name: str, unit_type: str, path: str, active_state: str, sub_state: str) -> _Known | None:
        interface = TYPE_INTERFACES[unit_type]
        try:
            control_group: str = self._get_or("", path, interface, "ControlGroup", "s")
            if name == ROOT_SLICE:
                control_group = control_group or "/"  # which of the two it is depends on systemd's version
            if not control_group:
                return _Known(Unit(name, "", active_state=active_state), sub_state, 0)
            inode = self._inode(control_group)
            unit = Unit(
                name=name,
                control_group=control_group,
                fragment_path=self._get_or("", path, UNIT_INTERFACE, "FragmentPath", "s"),
                drop_in_paths=tuple(self._get_or((), path, UNIT_INTERFACE, "DropInPaths", "as")),
                need_daemon_reload=self._get_or(False, path, UNIT_INTERFACE, "NeedDaemonReload", "b"),
                active_state=active_state,
                transient=self._get_or(False, path, UNIT_INTERFACE, "Transient", "b"),
                delegate=unit_type != "slice" and self._get_or(False, path, interface, "Delegate", "b"),
                managed_oom_swap=self._get_or("auto", path, interface, "ManagedOOMSwap", "s"),
                managed_oom_memory_pressure=self._get_or("auto", path, interface, "ManagedOOMMemoryPressure", "s"),
                managed_oom_preference=self._get_or("none", path, interface, "ManagedOOMPreference", "s"),
                oom_score_adjust=(
                    self._get_or(None, path, interface, "OOMScoreAdjust", "i") if unit_type == "service" else None
                ),
                memory_min=self._get_or(0, path, interface, "MemoryMin", "t"),
                memory_low=self._get_or(0, path, interface, "MemoryLow", "t"),
                memory_high=_limit(self._get_or(INFINITY, path, interface, "MemoryHigh", "t")),
                memory_max=_limit(self._get_or(INFINITY, path, interface, "MemoryMax", "t")),
            )
        except NoSuchObjectError:
            return None
        return _Known(unit, sub_state, inode)

    def _get_or(self, default: Any, path: str, interface: str, name: str, signature: str) -> Any:
        if (interface, name) in self._missing:
            return default
        try:
            return self._bus.get(path, interface, name, signature)
        except NoSuchPropertyError:
            # Asked once only: every failing call leaks about 1 kB in pystemd.
            self._missing.add((interface, name))
            return default


def _limit(value: int) -> int | None:
    return None if value == INFINITY else value
