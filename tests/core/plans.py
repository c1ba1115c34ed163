# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plans for tests, made field by field: also such that the encoder would never make."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from oomslice._core import ffi, lib

MEBIBYTE = 1 << 20
SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, SHRINK, GROW, WRITE


@dataclass
class Unit:
    """One unit of a plan; `parent` is an index, as in struct oomslice_plan_unit."""

    name: str
    cgroup_id: int
    parent: int
    priority: int = 0
    flags: int = 0
    kill_scope: int = 0
    ladder: tuple[tuple[int, int, int, str], ...] = ()
    """kind, amount, delay in microseconds and text of each step"""


@dataclass
class Domain:
    """One domain; `trigger` is kind, stall and window in microseconds."""

    unit: int
    rank_by: int = 0
    flags: int = 0
    cooldown_us: int = 0
    trigger: tuple[int, int, int] = (0, 0, 0)


@dataclass
class Plan:
    """A plan whose machine is short below 100 MiB available and 10 MiB of free swap, and watched below 1 GiB."""

    units: list[Unit]
    domains: list[Domain] = field(default_factory=lambda: [Domain(0)])
    generation: int = 1
    available_min: int = 100 * MEBIBYTE
    available_watch: int = 1024 * MEBIBYTE
    available_thrash: int = 200 * MEBIBYTE
    swap_free_min: int = 10 * MEBIBYTE
    deadline_us: int = 5_000_000
    sign: tuple[int, int, int] = (0, 0, 0)
    thrash: tuple[int, int, int] = (0, 0, 0)
    available_ladder: int = 0
    swap_free_ladder: int = 0
    reserve: int = 0
    mark_kills: int = 0

    def encode(self) -> bytes:
        """The bytes of the plan, finished."""
        texts = [unit.name for unit in self.units] + [step[3] for unit in self.units for step in unit.ladder if step[3]]
        names = b"".join(text.encode() + b"\0" for text in texts)
        offsets = {text: sum(len(before.encode()) + 1 for before in texts[: texts.index(text)]) for text in texts}
        header_size = ffi.sizeof("struct oomslice_plan_header")
        unit_size = ffi.sizeof("struct oomslice_plan_unit")
        domain_size = ffi.sizeof("struct oomslice_plan_domain")
        step_size = ffi.sizeof("struct oomslice_plan_step")
        ladder = [step for unit in self.units for step in unit.ladder]
        fixed = header_size + len(self.units) * unit_size + len(self.domains) * domain_size
        size = fixed + len(ladder) * step_size + len(names)
        data = ffi.new("char[]", size)
        header = ffi.cast("struct oomslice_plan_header *", data)
        header.generation = self.generation
        header.units_count = len(self.units)
        header.domains_count = len(self.domains)
        header.steps_count = len(ladder)
        header.names_size = len(names)
        machine = header.machine
        machine.available_min = self.available_min
        machine.available_watch = self.available_watch
        machine.available_thrash = self.available_thrash
        machine.swap_free_min = self.swap_free_min
        machine.death_deadline_us = self.deadline_us
        machine.available_ladder = self.available_ladder
        machine.swap_free_ladder = self.swap_free_ladder
        machine.reserve = self.reserve
        machine.mark_kills = self.mark_kills
        for trigger, values in ((machine.sign, self.sign), (machine.thrash, self.thrash)):
            trigger.kind, trigger.stall_us, trigger.window_us = values
        units = ffi.cast("struct oomslice_plan_unit *", data + header_size)
        first = 0
        for index, unit in enumerate(self.units):
            entry = units[index]
            entry.cgroup_id, entry.parent = unit.cgroup_id, unit.parent
            entry.priority, entry.flags, entry.name_offset = unit.priority, unit.flags, offsets[unit.name]
            entry.kill_scope, entry.steps_first, entry.steps_count = unit.kill_scope, first, len(unit.ladder)
            first += len(unit.ladder)
        domains = ffi.cast("struct oomslice_plan_domain *", data + header_size + len(self.units) * unit_size)
        for index, domain in enumerate(self.domains):
            entry = domains[index]
            entry.unit, entry.rank_by, entry.flags = domain.unit, domain.rank_by, domain.flags
            entry.cooldown_us = domain.cooldown_us
            entry.trigger.kind, entry.trigger.stall_us, entry.trigger.window_us = domain.trigger
        steps = ffi.cast("struct oomslice_plan_step *", data + fixed)
        for index, (kind, amount, delay_us, text) in enumerate(ladder):
            entry = steps[index]
            entry.kind, entry.amount, entry.delay_us = kind, amount, delay_us
            entry.text = offsets[text] if text else lib.OOMSLICE_PLAN_NO_TEXT
        ffi.memmove(data + size - len(names), names, len(names))
        assert lib.oomslice_plan_finish(data, size) == lib.OOMSLICE_PLAN_OK
        return bytes(ffi.buffer(data, size))


def memfd(data: bytes, seals: int = SEALS) -> int:
    """A memfd with these bytes and seals."""
    import fcntl

    fd = os.memfd_create("test-plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, 1033, seals)  # F_ADD_SEALS
    return fd


def ids(paths: Sequence[os.PathLike[str]]) -> list[int]:
    """The cgroup ids of these directories."""
    return [os.stat(path).st_ino for path in paths]
