# SPDX-License-Identifier: LGPL-2.1-or-later
"""BPF maps made by the tests, as oomslice-bpf would: the core takes no other file for one. No program is loaded."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform

import pytest

from oomslice._core import ffi, lib

SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
MAP_CREATE = 0
ARRAY, RINGBUF = 2, 27
MMAPABLE = 1 << 10


def make_map(kind: int, value_size: int, entries: int, flags: int = 0) -> int:
    """Its descriptor; a skip where nobody may make one."""
    attributes = ffi.new("uint32_t[32]")
    attributes[0:5] = [kind, 4 if kind == ARRAY else 0, value_size, entries, flags]
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.c_void_p(int(ffi.cast("uintptr_t", attributes)))
    fd = int(libc.syscall(SYSCALL.get(platform.machine(), -1), MAP_CREATE, address, 128))
    if fd < 0:
        error = ctypes.get_errno()
        assert error in (errno.EPERM, errno.ENOSYS), os.strerror(error)
        pytest.skip(f"BPF maps cannot be made here: {os.strerror(error)}")
    return fd


class Pulse:
    """A map as programs share it with the core, seen from their side."""

    def __init__(self, value_size: int = 0, flags: int = MMAPABLE) -> None:
        self.fd = make_map(ARRAY, value_size or ffi.sizeof("struct oomslice_pulse"), 1, flags)

    def __enter__(self) -> Pulse:
        self.map = mmap.mmap(self.fd, mmap.PAGESIZE)
        self.value = ffi.cast("struct oomslice_pulse *", ffi.from_buffer(self.map))
        return self

    def __exit__(self, *unused: object) -> None:
        os.close(self.fd)

    def ask(self, nsec: int) -> None:
        """What a program does that wants to know whether the core lives."""
        self.value.asked_nsec = nsec

    @property
    def beat(self) -> int:
        return int(self.value.beat_nsec)

    @property
    def busy_until(self) -> int:
        return int(self.value.busy_until_nsec)


def map_id(fd: int) -> int:
    """The kernel's number of a map."""
    map = ffi.new("struct oomslice_pinned_map *")
    assert lib.oomslice_pinned_map(fd, map) == 0
    return int(map.id)
