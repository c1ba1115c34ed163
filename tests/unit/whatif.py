# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small machine for what-if questions: 8 GiB, a database, a web server, jobs in batch.slice, a protected ssh."""

from __future__ import annotations

from dataclasses import replace

from oomslice.cgroups.model import Cgroup, Usage
from oomslice.units.model import Unit, UnitSnapshot
from oomslice.whatif.state import Figures, Frame, Stall, State

MIB, GIB = 1 << 20, 1 << 30
PATHS = {
    "-.slice": "/",
    "batch.slice": "/batch.slice",
    "job.service": "/batch.slice/job.service",
    "system.slice": "/system.slice",
    "db.service": "/system.slice/db.service",
    "ssh.service": "/system.slice/ssh.service",
    "web.service": "/system.slice/web.service",
}
IDS = {name: number for number, name in enumerate(PATHS, 1)}
SIZES = {"job.service": 512 * MIB, "db.service": 3 * GIB, "ssh.service": 8 * MIB, "web.service": GIB}
YAML = "rules:\n  - match: ssh.service\n    protect: yes\n"


def state(*, swap: int = 0, **files: str) -> State:
    """The machine; `files` are texts of [X-OOMSlice] sections by unit name, "_" for "."."""
    return State(
        snapshot=UnitSnapshot(tuple(Unit(name, path) for name, path in PATHS.items())),
        unit_files={
            name.replace("_", "."): ((f"/etc/{name}.conf", f"[X-OOMSlice]\n{text}\n"),) for name, text in files.items()
        },
        configuration=(("/etc/oomslice/oomslice.yaml", YAML),),
        cgroups=tuple(Cgroup(path, IDS[name], 0, populated=True) for name, path in PATHS.items()),
        user_cgroups=(),
        memory_total=8 * GIB,
        swap_total=swap,
    )


def figures(moment_sec: float = 0.0, available: int = 3 * GIB, swap_free: int = 0, **sizes: int) -> Figures:
    """Figures of the machine; `sizes` change memory by unit name, "_" for "."."""
    now = {**SIZES, **{name.replace("_", "."): size for name, size in sizes.items()}}
    return Figures(
        moment_usec=int(moment_sec * 1e6) + 1_000_000,
        available=available,
        swap_free=swap_free,
        usage={
            IDS[name]: Usage(memory=now.get(name, 0), current=now.get(name, 0), processes=1, populated=True)
            for name in PATHS
        },
        stalls={IDS[name]: Stall() for name in PATHS},
    )


def with_stall(frame: Frame, *, some: int = 0, full: int = 0, unit: str = "") -> Frame:
    """The frame with totals of stall, of the machine or of a unit."""
    before = frame.figures
    if not unit:
        return replace(frame, figures=replace(before, stall=Stall(some, full)))
    return replace(frame, figures=replace(before, stalls={**before.stalls, IDS[unit]: Stall(some, full)}))
