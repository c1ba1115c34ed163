# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd says of one unit, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """A loaded slice, service or scope that has a cgroup.

    Sizes in bytes; None where systemd says "infinity" or has no such property. Source: org.freedesktop.systemd1(5).
    """

    name: str
    control_group: str
    """path below the cgroup root, as systemd gives it: "/system.slice/ssh.service"; "/" for -.slice"""
    fragment_path: str = ""
    drop_in_paths: tuple[str, ...] = ()
    """in the order of application"""
    need_daemon_reload: bool = False
    active_state: str = ""
    transient: bool = False
    delegate: bool = False
    managed_oom_swap: str = "auto"
    managed_oom_memory_pressure: str = "auto"
    managed_oom_preference: str = "none"
    oom_score_adjust: int | None = None
    memory_min: int = 0
    memory_low: int = 0
    memory_high: int | None = None
    memory_max: int | None = None


@dataclass(frozen=True, slots=True)
class UnitSnapshot:
    """All such units at one moment, rebuilt from PID 1."""

    units: tuple[Unit, ...]
    oomd_active: bool = False
    """systemd-oomd.service runs"""
