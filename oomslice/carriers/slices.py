# SPDX-License-Identifier: LGPL-2.1-or-later
"""The plan as the BPF programs see it: what is in the map "slices" for each unit's cgroup, and which plan that is.

Writes only what is new, the number of the plan last: programs act on no plan that is not there as a whole for the first
time, and on none at all once something could not be written. The layout is core/slicevalue.h and core/pulse.h. Never
reads or sets what the core has in "pulse".
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oomslice._core import ffi, lib
from oomslice.carriers.bpf import PINS
from oomslice.cgroups.tree import CgroupTree
from oomslice.errors import CgroupError
from oomslice.plan.encode import KILL_SCOPE
from oomslice.policy.model import Policy, PolicyUnit
from oomslice.policy.rank import unit_flags

LOGGER = logging.getLogger("oomsliced")

GONE = (errno.ENOENT, errno.ENODEV, errno.EBADF)
"""What the kernel says of a cgroup that has ended, and of one that has no value."""

Value = tuple[int, int, int]
"""Priority, flags and scope."""


class SliceValues:
    """`error` is why the programs do not have the newest plan; empty while they have it, or none is loaded."""

    def __init__(self, tree: CgroupTree, pins: Path = PINS) -> None:
        self._tree = tree
        self._slices = pins / "shared" / "map-slices"
        self._pulse_path = pins / "shared" / "map-pulse"
        self._pins: tuple[int, int] | None = None
        self._map = -1
        self._memory: mmap.mmap | None = None
        self._pulse: Any = None
        self._written: dict[int, tuple[Value, str]] = {}
        """cgroup id -> what the kernel has of it, and where the cgroup is"""
        self.error = ""
        self.generation = 0
        """of the plan that the programs have; 0: of none"""

    def follow(self, policy: Policy, descriptors: Sequence[int], generation: int) -> None:
        """A new plan was made. `descriptors[i]` is the open cgroup directory of `policy.units[i]`."""
        try:
            if not self._open():
                self.error = ""
                return
            self._write(policy, descriptors, generation)
        except OSError as error:
            said = f"the plan could not be given to the BPF programs: {error.strerror or error}"
            if said != self.error:
                LOGGER.error("%s; they do nothing until it can", said)
            self.error = said
            self._withdraw()
        else:
            self.error = ""

    @property
    def units(self) -> int:
        """How many units the kernel knows."""
        return len(self._written)

    def close(self) -> None:
        """The values stay with the programs."""
        self.generation = 0
        self._pulse = None
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if self._map >= 0:
            os.close(self._map)
            self._map = -1
        self._pins = None
        self._written.clear()

    def _open(self) -> bool:
        """Whether there are maps; they are others each time that oomslice-bpf.service starts. Raises OSError."""
        try:
            found = self._slices.stat()
        except FileNotFoundError:
            self.close()
            return False
        if self._pins == (found.st_dev, found.st_ino):
            return True
        self.close()
        self._map = _opened(self._slices)
        pulse = _opened(self._pulse_path)
        try:
            self._memory = mmap.mmap(pulse, mmap.PAGESIZE)
        finally:
            os.close(pulse)
        self._pulse = ffi.cast("struct oomslice_pulse *", ffi.from_buffer(self._memory))
        self._sweep()
        self._pins = (found.st_dev, found.st_ino)
        return True

    def _sweep(self) -> None:
        """Removes what an oomsliced before us has written, of units now in no plan. Such a map cannot be listed."""
        self._pulse.generation = 0
        for directory, _, _ in os.walk(self._tree.root):
            try:
                descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                self._forget(descriptor)
            finally:
                os.close(descriptor)

    def _write(self, policy: Policy, descriptors: Sequence[int], generation: int) -> None:
        planned = {unit.cgroup_id for unit in policy.units}
        for cgroup_id in [known for known in self._written if known not in planned]:
            self._forget_unit(cgroup_id)
        key, value = ffi.new("int *"), ffi.new("struct oomslice_slice_value *")
        for unit, descriptor in zip(policy.units, descriptors, strict=True):
            wanted = value_of(unit)
            if self._written.get(unit.cgroup_id, (None, ""))[0] == wanted:
                continue
            key[0] = descriptor
            value.priority, value.flags, value.scope = wanted
            value.generation = generation
            result = lib.oomslice_pinned_update(self._map, key, value)
            if result == 0:
                self._written[unit.cgroup_id] = (wanted, unit.path)
            elif -result not in GONE:
                raise OSError(-result, f"{unit.name}: {os.strerror(-result)}")
        self._pulse.generation = self.generation = generation

    def _forget_unit(self, cgroup_id: int) -> None:
        _, path = self._written.pop(cgroup_id)
        try:
            descriptor = self._tree.open(path)
        except CgroupError:
            return  # it took its value along
        try:
            if os.fstat(descriptor).st_ino == cgroup_id:
                self._forget(descriptor)
        finally:
            os.close(descriptor)

    def _forget(self, descriptor: int) -> None:
        result = lib.oomslice_pinned_delete(self._map, ffi.new("int *", descriptor))
        if result < 0 and -result not in GONE:
            raise OSError(-result, os.strerror(-result))

    def _withdraw(self) -> None:
        """No program acts any more, and the next plan is written as a whole."""
        if self._pulse is not None:
            self._pulse.generation = 0
        self.close()


def value_of(unit: PolicyUnit) -> Value:
    """What the kernel is told of a unit."""
    return unit.priority, unit_flags(unit), KILL_SCOPE[unit.kill_scope]


def _opened(path: Path) -> int:
    descriptor = lib.oomslice_pinned_open(os.fsencode(path))
    if descriptor < 0:
        raise OSError(-descriptor, f"{path}: {os.strerror(-descriptor)}")
    return descriptor
