# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes snapshots of PID 1's units with few questions. Knows systemd's interfaces, but not who carries the questions.

The list of units is asked for every time. What is constant for a loaded unit is asked once and kept until systemd has
loaded its units anew (its UnitsLoadTimestamp tells) or until a full snapshot is wanted, as long as the unit's cgroup is
the same. So a snapshot of a thousand known units costs two questions; of unknown ones, two questions each and those for
what their files mention (mentions.py). Values that `systemctl set-property` changes without a reload may be as old as
the last full snapshot.

Which units have a cgroup, and where, is seen in the tree itself: below slices each directory is named after its unit.

Single properties are asked for instead of GetAll: of the 450 that a service has PID 1 reads several from the kernel for
each caller, and one GetAll takes as long as 15 to 25 single questions (measured on an emulated machine).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from oomslice.cgroups.model import unit_name
from oomslice.errors import UnitsError
from oomslice.units.mentions import Mentions
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


TRANSIENT = "/run/systemd/transient/"
WRITTEN = (TRANSIENT, "/run/systemd/system.control/", "/etc/systemd/system.control/")
"""Where PID 1 writes files of units, which it does not have to load after that."""


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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a unit's cgroup is: path below the root, and inode, 0 if it is not known."""

    control_group: str
    inode: int


class Reader:
    """One per connection. `progress` is called with the number of units done, after each that cost questions."""

    def __init__(
        self,
        bus: Bus,
        cgroup_root: Path = Path("/sys/fs/cgroup"),
        root: Path = Path("/"),
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._bus = bus
        self._mentions = Mentions(root)
        self._cgroup_root = os.fspath(cgroup_root)
        self._progress = progress
        self._known: dict[str, tuple[Unit, _Place]] = {}
        self._loaded_usec: int | None = None
        self._directories_changed = True
        self._missing: set[tuple[str, str]] = set()

    def snapshot(self, *, full: bool) -> UnitSnapshot:
        """All slices, services and scopes that have a cgroup. Raises UnitsError.

        `full` asks for everything anew; without it that happens only if systemd has loaded its units since.
        """
        loaded_usec: int | None = self._get_or(None, *MANAGER, "UnitsLoadTimestamp", "t")
        # Taken before reading: a reload in between shows as a difference in the next snapshot.
        if full or loaded_usec is None or loaded_usec != self._loaded_usec:
            self._known.clear()
            self._mentions.forget()
            self._loaded_usec = loaded_usec
            search_path = self._get_or((), *MANAGER, "UnitPath", "as")
            self._directories_changed = (
                loaded_usec is None
                or not search_path
                or self._mentions.directories_changed_since(loaded_usec, search_path)
            )
        listed_units = {listed[0]: listed for listed in self._bus.list_units()}
        if ROOT_SLICE not in listed_units:
            raise UnitsError(f"systemd did not name {ROOT_SLICE}, which every systemd has: is it PID 1 that answers?")
        root = self._root(listed_units[ROOT_SLICE][6])
        places = self._places(root)
        oomd = listed_units.get(OOMD)
        known: dict[str, tuple[Unit, _Place]] = {}
        for name, listed in listed_units.items():
            unit_type = name.rpartition(".")[2]
            if unit_type not in TYPE_INTERFACES:
                continue
            place = root if name == ROOT_SLICE else places.get(name)
            if place is None:
                continue
            active_state, path = listed[3], listed[6]
            entry = self._known.get(name)
            if entry is None or entry[1] != place or not place.inode:
                unit = self._read(name, unit_type, path, place)
                self._progress(len(known))
                if unit is None:
                    continue
            else:
                unit = entry[0]
            known[name] = (
                unit if unit.active_state == active_state else replace(unit, active_state=active_state),
                place,
            )
        self._known = known
        return UnitSnapshot(
            tuple(unit for unit, _ in known.values()), oomd_active=oomd is not None and oomd[3] in RUNNING
        )

    def _root(self, path: str) -> _Place:
        """Of the root slice. Whether systemd says "/" or "" depends on its version."""
        known = self._known.get(ROOT_SLICE)
        if known is not None:
            return known[1]
        try:
            control_group: str = self._get_or("", path, TYPE_INTERFACES["slice"], "ControlGroup", "s") or "/"
        except NoSuchObjectError:
            control_group = "/"
        return _Place(control_group, -1)

    def _places(self, root: _Place) -> dict[str, _Place]:
        """Unit name -> place, of all that is in slices: units have their cgroups nowhere else."""
        places: dict[str, _Place] = {}
        pending = [root.control_group.rstrip("/")]
        while pending:
            slice_ = pending.pop()
            try:
                with os.scandir(f"{self._cgroup_root}{slice_}") as entries:
                    found = [(entry.name, entry.inode()) for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError:
                continue  # ended meanwhile
            for directory, inode in found:
                control_group = f"{slice_}/{directory}"
                name = unit_name(control_group)
                # Left behind in another slice: only systemd knows which of the two is the unit's.
                places[name] = _Place(control_group, inode if name not in places else 0)
                if directory.endswith(".slice"):
                    pending.append(control_group)
        return places

    def _read(self, name: str, unit_type: str, path: str, place: _Place) -> Unit | None:
        interface = TYPE_INTERFACES[unit_type]
        try:
            control_group = place.control_group
            if not place.inode:
                control_group = self._get_or("", path, interface, "ControlGroup", "s")
                if not control_group:
                    return None
            fragment: str = self._get_or("", path, UNIT_INTERFACE, "FragmentPath", "s")
            drop_ins = tuple(self._get_or((), path, UNIT_INTERFACE, "DropInPaths", "as"))
            files = [file for file in (fragment, *drop_ins) if file]
            mentioned = self._mentions.properties(files)

            def ask(default: Any, name: str, signature: str) -> Any:
                return self._get_or(default, path, interface, name, signature) if name in mentioned else default

            return Unit(
                name=name,
                control_group=control_group,
                fragment_path=fragment,
                drop_in_paths=drop_ins,
                need_daemon_reload=self._may_need_reload(files)
                and self._get_or(False, path, UNIT_INTERFACE, "NeedDaemonReload", "b"),
                # No question either: PID 1 writes a file for each transient unit.
                transient=fragment.startswith(TRANSIENT),
                delegate=unit_type != "slice" and ask(False, "Delegate", "b"),
                managed_oom_swap=ask("auto", "ManagedOOMSwap", "s"),
                managed_oom_memory_pressure=ask("auto", "ManagedOOMMemoryPressure", "s"),
                managed_oom_preference=ask("none", "ManagedOOMPreference", "s"),
                oom_score_adjust=ask(0, "OOMScoreAdjust", "i") if unit_type == "service" else None,
                memory_min=ask(0, "MemoryMin", "t"),
                memory_low=ask(0, "MemoryLow", "t"),
                memory_high=_limit(ask(INFINITY, "MemoryHigh", "t")),
                memory_max=_limit(ask(INFINITY, "MemoryMax", "t")),
            )
        except NoSuchObjectError:
            return None

    def _may_need_reload(self, files: Sequence[str]) -> bool:
        if self._directories_changed or self._loaded_usec is None:
            return True
        return self._mentions.changed_since(self._loaded_usec, (file for file in files if not file.startswith(WRITTEN)))

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
