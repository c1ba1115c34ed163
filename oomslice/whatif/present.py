# SPDX-License-Identifier: LGPL-2.1-or-later
"""This machine: the settings of its units, read from files, and its figures. Needs no daemon. Whom to ask for the units
is the caller's to know."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from oomslice.cgroups.model import Cgroup, Usage
from oomslice.cgroups.tree import CgroupTree
from oomslice.errors import CgroupError
from oomslice.settings.unitfile import SECTION
from oomslice.units.files import read_configuration, read_unit_files
from oomslice.units.model import Unit, UnitSnapshot
from oomslice.whatif.state import Figures, Stall, State


def read_state(units: UnitSnapshot, tree: CgroupTree, root: Path = Path("/")) -> State:
    """Everything that settings are made from, for these units. Raises CgroupError."""
    cgroups: list[Cgroup] = []
    for unit in units.units:
        try:
            cgroups.append(tree.read(unit.control_group))
        except CgroupError:
            continue  # it ended since systemd was asked
    there = {cgroup.path for cgroup in cgroups}
    user_cgroups = [
        cgroup
        for unit in units.units
        if unit.name.startswith("user@") and unit.control_group in there
        for cgroup in tree.walk_user_units(unit.control_group)
    ]
    memory = tree.memory()
    return State(
        snapshot=units,
        unit_files={unit.name: files for unit in units.units if (files := own_section(unit, root))},
        configuration=tuple(read_configuration(root)),
        cgroups=tuple(cgroups),
        user_cgroups=tuple(user_cgroups),
        memory_total=memory.total,
        swap_total=memory.swap_total,
    )


def own_section(unit: Unit, root: Path) -> tuple[tuple[str, str], ...]:
    """What of a unit's files is for oomslice; the rest, in which there may be secrets, is left empty, line by line."""
    files, _ = read_unit_files(unit, root=root)
    return tuple((path, only_section(text)) for path, text in files if f"[{SECTION}]" in text)


def only_section(text: str) -> str:
    """The text with every line empty that is not in an [X-OOMSlice] section; line numbers stay."""
    lines = []
    inside = False
    for line in text.splitlines():
        if line.lstrip().startswith("["):
            inside = line.strip() == f"[{SECTION}]"
        lines.append(line if inside else "")
    return "\n".join(lines).rstrip("\n") + "\n"


def read_figures(cgroups: Iterable[Cgroup], tree: CgroupTree, proc: Path = Path("/proc")) -> Figures:
    """Memory, swap and stall of the machine and of these cgroups, now. Raises CgroupError without /proc/meminfo."""
    memory = tree.memory()
    usage: dict[int, Usage] = {}
    stalls: dict[int, Stall] = {}
    for cgroup in cgroups:
        try:
            usage[cgroup.id] = tree.usage(cgroup.path)
        except CgroupError:
            continue
        stalls[cgroup.id] = read_stall(Path(tree.root + cgroup.path) / "memory.pressure")
    return Figures(
        moment_usec=time.monotonic_ns() // 1000,
        available=memory.available,
        swap_free=memory.swap_free,
        stall=read_stall(proc / "pressure/memory"),
        usage=usage,
        stalls=stalls,
    )


def read_stall(path: Path) -> Stall:
    """The totals of a pressure file; 0 if there is none."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return Stall()
    totals = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        total = rest.rpartition("total=")[2]
        if total.isdecimal():
            totals[kind] = int(total)
    return Stall(totals.get("some", 0), totals.get("full", 0))
