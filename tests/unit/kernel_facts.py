# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file with the layout of a BPF ring buffer, and records as the program `observe` writes them."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence

from oomslice._core import ffi, lib

PAGE = mmap.PAGESIZE
SIZE = 64 << 10
BUSY = 1 << 31
DISCARD = 1 << 30
HEADER = 8


class RingFile:
    """What the kernel would share: a page of the consumer's, one of the producer's, and the data."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * SIZE)
        self.memory = mmap.mmap(self.fd, 2 * PAGE + 2 * SIZE)

    @property
    def produced(self) -> int:
        return int(struct.unpack_from("<Q", self.memory, PAGE)[0])

    @property
    def consumed(self) -> int:
        return int(struct.unpack_from("<Q", self.memory, 0)[0])

    def add(self, data: bytes, flags: int = 0) -> None:
        """Writes one record."""
        start = 2 * PAGE + self.produced
        assert self.produced + HEADER + len(data) <= SIZE, "the file has no second mapping to wrap into"
        struct.pack_into("<II", self.memory, start, len(data) | flags, 0)
        self.memory[start + HEADER : start + HEADER + len(data)] = data
        struct.pack_into("<Q", self.memory, PAGE, self.produced + (HEADER + len(data) + 7) // 8 * 8)

    def kill(
        self,
        nsec: int,
        levels: Sequence[tuple[int, str]],
        *,
        pid: int,
        limited: int = 0,
        victims: Sequence[int] | None = (),
        end: bool = True,
        begin: bool = True,
        lost: int = 0,
    ) -> None:
        """One kill with all its records; `levels` are id and name of the cgroups from below the root. `victims` are
        `pid` alone unless told; None: nobody."""
        killed = (pid,) if victims == () else victims or ()
        head = {"kill_nsec": nsec, "nsec": nsec}
        shown = levels[: lib.OOMSLICE_FACT_LEVELS]
        if begin:
            self._put(
                "struct oomslice_fact_kill *",
                fact={**head, "kind": lib.OOMSLICE_FACT_KILL},
                limited=limited,
                points=2000,
                total_pages=10000,
                constraint=3 if limited else 0,
                pid=pid,
                cgroup=levels[-1][0] if levels else 1,
                depth=len(levels),
                levels_count=len(shown),
                levels=[{"id": id, "name": name.encode()[:119]} for id, name in shown],
            )
        for number, victim in enumerate(killed):
            self._put(
                "struct oomslice_fact_victim *",
                fact={"kill_nsec": nsec, "nsec": nsec + 1000 * number, "kind": lib.OOMSLICE_FACT_VICTIM},
                pid=victim,
                uid=7,
                score_adjustment=-5,
                anonymous=256,
                file=2,
                shared=1,
                task=b"hog",
            )
        if end:
            self._put(
                "struct oomslice_fact_end *",
                fact={**head, "kind": lib.OOMSLICE_FACT_END},
                victims=len(killed) + lost,
                lost=lost,
            )

    def _put(self, kind: str, **values: object) -> None:
        self.add(bytes(ffi.buffer(ffi.new(kind, values))))
