# SPDX-License-Identifier: LGPL-2.1-or-later
"""What cgroupfs says of one cgroup, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One cgroup directory. `id` is its inode: the identity, which no later cgroup of the same path has."""

    path: str
    """below the cgroup root: "/system.slice/ssh.service"; "/" for the root"""
    id: int
    owner: int
    """uid that owns the directory"""
    populated: bool
    preference: str = "none"
    """"none", "avoid" or "omit": user.oomd_avoid and user.oomd_omit"""


@dataclass(frozen=True, slots=True)
class Usage:
    """Figures of one cgroup. Bytes; refaults in pages. Source: cgroup-v2.rst."""

    memory: int = 0
    """what a kill gives back: memory.current - active_file - inactive_file + memory.swap.current"""
    current: int = 0
    """memory.current"""
    swap: int = 0
    """memory.swap.current"""
    refaults: int = 0
    """workingset_refault_anon + workingset_refault_file"""
    processes: int = 0
    populated: bool = False


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """The machine's memory in bytes. Source: /proc/meminfo, proc_meminfo(5)."""

    total: int
    available: int
    swap_total: int
    swap_free: int


def unit_name(path: str) -> str:
    """The unit that a cgroup path stands for: its last part, without the "_" that systemd escapes some names with."""
    if path == "/":
        return "-.slice"
    name = path.rpartition("/")[2]
    return name[1:] if name.startswith("_") and len(name) > 1 else name
