# SPDX-License-Identifier: LGPL-2.1-or-later
"""The carriers of oomslice-bpf, BPF programs in the kernel: what that program reported of each when it loaded them, and
what they have counted since. Needs no privilege but the rights to the pinned maps."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from oomslice._core import ffi, lib
from oomslice.carriers.model import CarrierState
from oomslice.policy.model import Policy

REPORT = Path("/run/oomslice/bpf.status")
PINS = Path("/run/oomslice/bpf")
NOT_LOADED = "oomslice-bpf.service is not running"
OBSERVE = "the kernel's own kills are seen the moment they happen"
CHOICE = "oomslice-bpf choose says whom programs in the kernel would choose"
SIGNS = "the core is woken when the kernel runs short of memory, before anybody has waited for it"


class BpfCarrier:
    """The carrier that oomslice-bpf calls `program`; for the daemon it is "bpf-PROGRAM".

    `working` says how it works, if it does; `problem()` why the daemon cannot use it all the same, else empty.
    """

    def __init__(
        self,
        program: str,
        working: str,
        *,
        acts: bool,
        problem: Callable[[], str] = lambda: "",
        report: Path = REPORT,
        pins: Path = PINS,
    ) -> None:
        self._program = program
        self._working = working
        self._acts = acts
        self._problem = problem
        self._report = report
        self._pins = pins / program
        self.look()

    def state(self) -> CarrierState:
        """As of the newest plan, or of the start; oomslice-bpf.service is a unit, so there is a new one whenever it
        starts or stops."""
        return CarrierState(
            name=f"bpf-{self._program}",
            active=self._active,
            acts=self._acts,
            detail=self._working if self._active else self._why,
            hits=self._hits,
            missed=self._missed,
            last_error=self._problem(),
        )

    def follow(self, policy: Policy, descriptors: Sequence[int]) -> None:
        """Looks what is loaded now."""
        self.look()

    def look(self) -> None:
        """Reads report and figures anew."""
        self._active, self._why = reported(self._report, self._program)
        self._hits, self._missed = figures(self._pins) if self._active else (0, 0)

    def close(self) -> None:
        """The programs stay in the kernel."""


def reported(report: Path, program: str) -> tuple[bool, str]:
    """Whether a program is loaded, and if not why."""
    try:
        lines = report.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return False, NOT_LOADED if isinstance(error, FileNotFoundError) else f"{report}: {error.strerror}"
    for line in lines:
        name, _, rest = line.partition("\t")
        state, _, why = rest.partition("\t")
        if name == program:
            return state == "active", why
    return False, f"this version of oomslice-bpf has no program {program}"


def figures(pins: Path) -> tuple[int, int]:
    """Hits and missed of a loaded program; what cannot be read counts as 0."""
    hits = missed = 0
    fd = lib.oomslice_pinned_open(os.fsencode(pins / "map-figures"))
    if fd >= 0:
        value = ffi.new("struct oomslice_prekill_figures *")  # the longest; all begin alike
        if lib.oomslice_pinned_lookup(fd, ffi.new("uint32_t *"), value) == 0:
            hits, missed = value.kills, value.lost
        os.close(fd)
    count = ffi.new("uint64_t *")
    try:
        programs = [path for path in pins.iterdir() if path.name.startswith("program-")]
    except OSError:
        programs = []
    for path in programs:
        if lib.oomslice_pinned_missed(os.fsencode(path), count) == 0:
            missed += count[0]
    return hits, missed
