# SPDX-License-Identifier: LGPL-2.1-or-later
"""The carrier `bpf-oom_ops`: the plan in the kernel's own killer, on kernels with struct bpf_oom_ops.

oomslice-bpf attaches the program to the root, and that link is pinned. Here it is attached to each slice with settings
of its own as well, so that for a limit there it is asked before whatever else is attached further up. Those links live
as long as oomsliced: without them the root's does the same.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from oomslice._core import lib
from oomslice.carriers.bpf import PINS, REPORT, BpfCarrier
from oomslice.carriers.model import CarrierState
from oomslice.policy.model import Policy

PROGRAM = "oom_ops"
WORKING = "the kernel's own killer asks for the plan's choice before it chooses by itself"
CGROUP_FD = 1 << 7
"""Of version 3 of the interface, which wants to be told that the descriptor is a cgroup's; not of the rework."""

Attach = Callable[[int, int, int], int]
"""Map, cgroup and flags to a link or a negative errno."""


class OomOpsCarrier:
    """Active if the program is loaded. `open_map` opens a pinned map, `attach` attaches it to a cgroup."""

    def __init__(
        self,
        *,
        report: Path = REPORT,
        pins: Path = PINS,
        open_map: Callable[[bytes], int] = lib.oomslice_pinned_open,
        attach: Attach = lib.oomslice_pinned_attach,
    ) -> None:
        self._map_path = pins / PROGRAM / "map-oomslice"
        self._open_map = open_map
        self._attach = attach
        self._map: tuple[int, int] | None = None
        """device and inode of the pin that the links are of"""
        self._links: dict[int, int] = {}
        """cgroup id -> link"""
        self._error = ""
        self._loaded = BpfCarrier(
            PROGRAM, WORKING, acts=True, chooses=True, problem=lambda: self._error, report=report, pins=pins
        )

    def state(self) -> CarrierState:
        """As of the newest plan."""
        state = self._loaded.state()
        if not self._links:
            return state
        count = len(self._links)
        return replace(
            state, detail=f"{state.detail}; {count} slice{'' if count == 1 else 's'} beside the root have a program"
        )

    def follow(self, policy: Policy, descriptors: Sequence[int]) -> None:
        """Attaches to slices that have settings now, and lets go of those that had."""
        self._loaded.follow(policy, descriptors)
        try:
            pin = self._map_path.stat()
        except OSError:
            self._let_go(set())
            self._map, self._error = None, ""
            return
        if self._map != (pin.st_dev, pin.st_ino):
            self._let_go(set())
            self._map = (pin.st_dev, pin.st_ino)
        wanted = {policy.units[index].cgroup_id: descriptors[index] for index in with_settings(policy)}
        self._let_go(set(wanted))
        missing = {id: descriptor for id, descriptor in wanted.items() if id not in self._links}
        self._error = self._attach_all(missing) if missing else ""

    def close(self) -> None:
        """The root's link stays."""
        self._let_go(set())

    def _attach_all(self, missing: dict[int, int]) -> str:
        """Why one could not be attached, the last one; empty: all are."""
        error = ""
        map = self._open_map(os.fsencode(self._map_path))
        if map < 0:
            return f"{self._map_path}: {os.strerror(-map)}"
        try:
            for cgroup_id, descriptor in missing.items():
                link = self._attach(map, descriptor, 0)
                if link in (-errno.EINVAL, -errno.EOPNOTSUPP):
                    link = self._attach(map, descriptor, CGROUP_FD)
                if link >= 0:
                    self._links[cgroup_id] = link
                else:
                    error = f"a slice could not be given the program: {os.strerror(-link)}"
        finally:
            os.close(map)
        return error

    def _let_go(self, wanted: set[int]) -> None:
        for cgroup_id in [attached for attached in self._links if attached not in wanted]:
            os.close(self._links.pop(cgroup_id))


def with_settings(policy: Policy) -> list[int]:
    """Indices of the slices, beside the root, that somebody has given a priority or a trigger."""
    domains = {domain.unit for domain in policy.domains}
    return [
        index
        for index, unit in enumerate(policy.units)
        if index and unit.name.endswith(".slice") and (unit.priority_origin == "own" or index in domains)
    ]
