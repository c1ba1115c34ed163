# SPDX-License-Identifier: LGPL-2.1-or-later
"""A ring buffer of a BPF program that oomslice-bpf has pinned, as its one reader sees it.

What is in the ring stays there until `release`, also while nobody reads it: room is given back to the kernel only when
what was told is stored. The layout of the records is core/fact.h.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from typing import Any

from oomslice._core import ffi, lib

LOGGER = logging.getLogger(__name__)

PINS = "/run/oomslice/bpf"
"""Where oomslice-bpf pins; the maps of a carrier are in a directory of its name."""


class FactRing:
    """The ring of the carrier `program` below `pins`; it tells `what`. It may come and go: `follow` looks."""

    def __init__(self, program: str, what: str, pins: str = PINS) -> None:
        self._path = f"{pins}/{program}/map-facts"
        self._what = what
        self._identity: tuple[int, int] | None = None
        self._fd = -1
        self._facts: Any = None
        self.error = ""
        """why a ring that is there cannot be read, empty if it can"""

    @property
    def open(self) -> bool:
        """There is a ring to read."""
        return self._facts is not None

    def fileno(self) -> int:
        """Readable while there is something that was not released; -1 if there is no ring."""
        return self._fd

    def follow(self) -> bool:
        """Opens the ring if there is a new one, closes it if it is gone. True if that changed anything."""
        try:
            status = os.stat(self._path)
            identity = (status.st_dev, status.st_ino)
        except OSError as error:
            self.error = "" if error.errno == errno.ENOENT else f"{self._path}: {error.strerror}"
            changed = self.open
            self.close()
            return changed
        if identity == self._identity:
            return False
        self.close()
        self._identity = identity
        fd = lib.oomslice_pinned_open(self._path.encode())
        if fd < 0:
            return self._refused(-fd)
        return self._map(fd, lib.oomslice_facts_new(fd))

    def use(self, fd: int, size: int) -> None:
        """Reads from a file with the layout of a ring buffer of `size` bytes instead. The descriptor is taken over."""
        self.close()
        self._map(fd, lib.oomslice_facts_map(fd, size))

    def _map(self, fd: int, facts: Any) -> bool:
        if facts == ffi.NULL:
            number = ffi.errno
            os.close(fd)
            return self._refused(number)
        self._fd = fd
        self._facts = facts
        self.error = ""
        return True

    def _refused(self, number: int) -> bool:
        self.error = f"{self._path}: {os.strerror(number)}"
        LOGGER.warning("%s cannot be read from the BPF program: %s", self._what, self.error)
        return True

    def close(self) -> None:
        """Lets go of the ring; what is in it stays."""
        if self._facts is not None:
            lib.oomslice_facts_free(self._facts)
            self._facts = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._identity = None

    def records(self) -> Iterator[tuple[Any, int, int]]:
        """All records that were not released, oldest first: each with its size and where in the ring it ends."""
        if self._facts is None:
            return
        lib.oomslice_facts_rewind(self._facts)
        record = ffi.new("const void **")
        size = ffi.new("uint32_t *")
        while (result := lib.oomslice_facts_next(self._facts, record, size)) > 0:
            if size[0] >= ffi.sizeof("struct oomslice_fact"):
                yield record[0], size[0], lib.oomslice_facts_position(self._facts)
        if result < 0:
            self.error = f"{self._path}: {os.strerror(-result)}"

    def release(self, position: int) -> None:
        """Gives back what was told up to there."""
        if self._facts is not None and position:
            lib.oomslice_facts_release(self._facts, position)


def text(value: Any) -> str:
    """A string of the kernel's; names of processes and cgroups may be any bytes."""
    return ffi.string(value).decode("utf-8", "replace")


def way(fact: Any) -> tuple[str, tuple[int, ...]]:
    """The path of a cgroup below the root, as far as it was told, and the id of each part of it."""
    levels = fact.levels[0 : fact.levels_count]
    return "/" + "/".join(text(level.name) for level in levels), (*(level.id for level in levels),)
