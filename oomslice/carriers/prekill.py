# SPDX-License-Identifier: LGPL-2.1-or-later
"""The carrier `bpf-prekill`: kills by the plan from inside the kernel, before the kernel's own killer would act. It has
the program follow the switch in the configuration, and its kills become decisions of the carrier `bpf`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from oomslice._core import ffi, lib
from oomslice.carriers.bpf import PINS, REPORT, BpfCarrier
from oomslice.carriers.model import CarrierState
from oomslice.decisions.bpfkills import BpfKills
from oomslice.policy.model import Policy

PREKILL = "kills by the plan if the core does not, and for units at their MemoryMax=, before the kernel would"


class PrekillCarrier:
    """`enabled()` is what the configuration says; `problem()` why the programs do not have the plan, else empty."""

    def __init__(
        self,
        kills: BpfKills,
        enabled: Callable[[], bool],
        problem: Callable[[], str],
        *,
        report: Path = REPORT,
        pins: Path = PINS,
    ) -> None:
        self._kills = kills
        self._enabled = enabled
        self._problem = problem
        self._carrier = BpfCarrier("prekill", PREKILL, acts=True, chooses=True, report=report, pins=pins)
        self._control = pins / "prekill" / "map-control"
        self._error = ""
        """why the switch could not be set"""

    def state(self) -> CarrierState:
        """As of the newest plan or the last kill."""
        state = self._carrier.state()
        error = self._error or self._problem() or self._kills.error or state.last_error
        if state.active and not self._enabled():
            state = replace(state, active=False, detail="switched off: carriers: prekill: no")
        elif state.active and self._problem():
            state = replace(state, active=False, detail=self._problem())
        return replace(state, last_error=error)

    def follow(self, policy: Policy, descriptors: Sequence[int]) -> None:
        """Sets the switch: programs that were loaded anew are on. Their kills are read from now on."""
        self.look()
        self._error = self._switch() if self._carrier.state().active else ""
        self._kills.follow(policy)

    def look(self) -> None:
        """Reads report and figures anew."""
        self._carrier.look()

    def close(self) -> None:
        """The programs stay in the kernel, and what they tell in their ring."""
        self._kills.close()

    def _switch(self) -> str:
        fd = lib.oomslice_pinned_open(os.fsencode(self._control))
        if fd < 0:
            return f"{self._control}: {os.strerror(-fd)}"
        try:
            control = ffi.new("struct oomslice_prekill_control *")
            control.off = not self._enabled()
            result = lib.oomslice_pinned_update(fd, ffi.new("uint32_t *"), control)
        finally:
            os.close(fd)
        return f"{self._control}: {os.strerror(-result)}" if result < 0 else ""
