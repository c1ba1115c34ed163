# SPDX-License-Identifier: LGPL-2.1-or-later
"""The carriers of oomslice-bpf, BPF programs in the kernel: what that program reported of each when it loaded them, and
what they have counted since. Needs no privilege but the rights to the pinned maps."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class ReportedPolicy:
    """An administrator's own BPF policy, as oomslice-bpf reported it."""

    name: str
    """of its file"""
    why: str
    """why it is not in force; empty if it is"""
    usec: int
    """since when that is so, by the real clock"""
    programs: tuple[str, ...]
    """those that have it"""


class BpfCarrier:
    """The carrier that oomslice-bpf calls `program`; for the daemon it is "bpf-PROGRAM".

    `working` says how it works, if it does; `problem()` why the daemon cannot use it all the same, else empty. One that
    `chooses` asks an administrator's policy, if there is one.
    """

    def __init__(
        self,
        program: str,
        working: str,
        *,
        acts: bool,
        chooses: bool = False,
        problem: Callable[[], str] = lambda: "",
        report: Path = REPORT,
        pins: Path = PINS,
    ) -> None:
        self._program = program
        self._working = working
        self._acts = acts
        self._chooses = chooses
        self._policy: ReportedPolicy | None = None
        self._problem = problem
        self._report = report
        self._pins = pins / program
        self.look()

    def state(self) -> CarrierState:
        """As of the newest plan, or of the start: there is a new plan whenever oomslice-bpf has left a new report."""
        detail, error = self._working if self._active else self._why, self._problem()
        if self._policy and self._active and self._program in self._policy.programs:
            detail = f"{detail}; it asks the policy {self._policy.name}"
        elif self._policy and self._chooses and self._policy.why:
            error = error or f"the policy {self._policy.name} is not in force: {self._policy.why}"
        return CarrierState(
            name=f"bpf-{self._program}",
            active=self._active,
            acts=self._acts,
            detail=detail,
            hits=self._hits,
            missed=self._missed,
            last_error=error,
        )

    def follow(self, policy: Policy, descriptors: Sequence[int]) -> None:
        """Looks what is loaded now."""
        self.look()

    def look(self) -> None:
        """Reads report and figures anew."""
        lines, missing = read_report(self._report)
        self._active, self._why = (False, missing) if missing else reported(lines, self._program)
        self._policy = reported_policy(lines)
        self._hits, self._missed = figures(self._pins) if self._active else (0, 0)

    def close(self) -> None:
        """The programs stay in the kernel."""


def read_report(report: Path) -> tuple[list[list[str]], str]:
    """The fields of each line, and why there are none."""
    try:
        text = report.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return [], NOT_LOADED if isinstance(error, FileNotFoundError) else f"{report}: {error.strerror}"
    return [line.split("\t") for line in text.splitlines()], ""


def reported(lines: Sequence[Sequence[str]], program: str) -> tuple[bool, str]:
    """Whether a program is loaded, and if not why."""
    for name, *fields in lines:
        if name == program:
            return fields[:1] == ["active"], "\t".join(fields[1:])
    return False, f"this version of oomslice-bpf has no program {program}"


def reported_policy(lines: Sequence[Sequence[str]]) -> ReportedPolicy | None:
    """The policy that is to be in force, if there is one."""
    for name, *fields in lines:
        if name == "policy" and len(fields) == 5:
            state, why, file, usec, programs = fields
            active = state == "active"
            return ReportedPolicy(
                name=file,
                why="" if active else why,
                usec=int(usec) if usec.isdecimal() else 0,
                programs=tuple(programs.split()) if active else (),
            )
    return None


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
