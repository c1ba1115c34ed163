# SPDX-License-Identifier: LGPL-2.1-or-later
"""BPF maps made by the tests, as oomslice-bpf would: the core takes no other file for one. The one program that is
loaded writes a sign into a ring buffer, when it is run by hand; where it is refused, signs are not tested."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
import time

import pytest

from oomslice._core import ffi, lib

SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
MAP_CREATE, PROG_LOAD, PROG_RUN = 0, 5, 10
ARRAY, RINGBUF = 2, 27
MMAPABLE = 1 << 10
SOCKET_FILTER = 1
RINGBUF_OUTPUT, FORCE_WAKEUP = 130, 2


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2). What it returns; a skip where nobody here may do that."""
    space = ctypes.create_string_buffer(attributes, 144)
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(SYSCALL.get(platform.machine(), -1), command, space, len(space)))
    if result < 0:
        error = ctypes.get_errno()
        assert error in (errno.EPERM, errno.ENOSYS), os.strerror(error)
        pytest.skip(f"BPF cannot be used here: {os.strerror(error)}")
    return result


def make_map(kind: int, value_size: int, entries: int, flags: int = 0) -> int:
    """Its descriptor."""
    key_size = 4 if kind == ARRAY else 0
    return bpf(MAP_CREATE, struct.pack("=5I", kind, key_size, value_size, entries, flags))


def map_id(fd: int) -> int:
    """The kernel's number of a map."""
    map = ffi.new("struct oomslice_pinned_map *")
    assert lib.oomslice_pinned_map(fd, map) == 0
    return int(map.id)


def _instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | to, offset, value)


class Ring:
    """The ring buffer "signs" with a program that writes a struct oomslice_sign of no meaning into it."""

    def __init__(self) -> None:
        self.fd = make_map(RINGBUF, 0, mmap.PAGESIZE)
        self._program = -1

    def _load(self) -> int:
        code = b"".join(
            [
                *(_instruction(0x7A, to=10, offset=at, value=7) for at in (-24, -16, -8)),  # the record, on the stack
                _instruction(0x18, to=1, source=1, value=self.fd),
                _instruction(0),
                _instruction(0xBF, to=2, source=10),
                _instruction(0x07, to=2, value=-24),
                _instruction(0xB7, to=3, value=24),
                _instruction(0xB7, to=4, value=FORCE_WAKEUP),
                _instruction(0x85, value=RINGBUF_OUTPUT),
                _instruction(0x95),
            ]
        )
        text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
        addresses = ctypes.addressof(text), ctypes.addressof(licence)
        return bpf(PROG_LOAD, struct.pack("=IIQQ", SOCKET_FILTER, len(code) // 8, *addresses))

    def sign(self) -> None:
        """What a program does that sees memory run short."""
        if self._program < 0:
            self._program = self._load()
        data = ctypes.create_string_buffer(64)
        bpf(PROG_RUN, struct.pack("=IIIIQQ", self._program, 0, len(data), 0, ctypes.addressof(data), 0))

    @property
    def unread(self) -> int:
        """Bytes that the core has not taken."""
        with (
            mmap.mmap(self.fd, mmap.PAGESIZE, prot=mmap.PROT_READ) as consumer,
            mmap.mmap(self.fd, mmap.PAGESIZE, prot=mmap.PROT_READ, offset=mmap.PAGESIZE) as producer,
        ):
            return int(struct.unpack_from("=Q", producer)[0] - struct.unpack_from("=Q", consumer)[0])

    def close(self) -> None:
        os.close(self.fd)
        if self._program >= 0:
            os.close(self._program)


class Pulse:
    """The maps as programs share them with the core, seen from their side."""

    def __init__(self, value_size: int = 0, flags: int = MMAPABLE) -> None:
        self.fd = make_map(ARRAY, value_size or ffi.sizeof("struct oomslice_pulse"), 1, flags)
        self.ring = Ring()
        if value_size == 0 and flags == MMAPABLE:
            self.map = mmap.mmap(self.fd, mmap.PAGESIZE)
            self.value = ffi.cast("struct oomslice_pulse *", ffi.from_buffer(self.map))

    def __enter__(self) -> Pulse:
        return self

    def __exit__(self, *unused: object) -> None:
        os.close(self.fd)
        self.ring.close()

    @property
    def maps(self) -> tuple[int, int]:
        """As the core wants them."""
        return self.fd, self.ring.fd

    def ask(self) -> int:
        """What a program does that wants to know whether the core lives; when that was. It wakes nobody."""
        self.value.asked_nsec = time.monotonic_ns()
        return int(self.value.asked_nsec)

    @property
    def beat(self) -> int:
        return int(self.value.beat_nsec)

    @property
    def busy_until(self) -> int:
        return int(self.value.busy_until_nsec)

    @property
    def quiet_until(self) -> int:
        return int(self.value.quiet_until_nsec)
