# SPDX-License-Identifier: LGPL-2.1-or-later
"""purge:PATH: removes the files of a directory on a tmpfs, oldest first, until enough memory is free.

Never follows a symbolic link and never leaves the mount that PATH is on, whatever is done to the tree meanwhile: each
directory is opened from the one above it, and the mount is compared. Only regular files go; directories, sockets,
FIFOs and links stay. A file that somebody has open stays as well: its memory would not come free before it is
closed, and its owner would lose it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import heapq
import os
import signal
import stat
import time
from collections.abc import Iterator
from typing import NamedTuple

from oomslice.actions.checks import mount_id

BATCH = 10_000
"""Files that are sorted at once: our own memory must not grow with the tree."""
DEPTH_MAX = 64
"""Directories below each other, and so descriptors that are open at once."""
BLOCK = 512
"""Bytes in a unit of st_blocks. Source: stat(2)."""


class Purged(NamedTuple):
    """What came of it."""

    files: int
    freed: int
    """bytes"""
    in_use: int
    """files that somebody had open"""
    complete: bool
    """False if the deadline came first"""
    error: int
    """errno of the last file that could not be removed, 0 if there was none"""


def purge(directory: int, amount: int, deadline: float) -> Purged:
    """Empties the open directory. `amount` is in bytes, 0 for everything; `deadline` is of time.monotonic().

    Raises nothing of the file system's: what cannot be read or removed is left.
    """
    # Whoever opens a file while we hold a lease on it would have us killed by this signal.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    work = _Purge(directory, amount, deadline)
    while work.batch():
        pass
    return Purged(work.files, work.freed, work.in_use, work.complete, work.error)


class _Purge:
    def __init__(self, directory: int, amount: int, deadline: float) -> None:
        self._directory = directory
        self._device = os.fstat(directory).st_dev
        self._mount = mount_id(directory)
        self._amount = amount
        self._deadline = deadline
        self.files = 0
        self.freed = 0
        self.in_use = 0
        self.complete = True
        self.error = 0

    def batch(self) -> bool:
        """Removes the oldest files; True if there may be more of them."""
        before = self.files
        self.in_use = 0
        oldest = heapq.nsmallest(BATCH, self._walk(self._directory, ()))
        for _, parts in oldest:
            if self._enough() or self._late():
                return False
            self._remove(parts)
        return len(oldest) == BATCH and self.files > before and not self._enough() and not self._late()

    def _enough(self) -> bool:
        return 0 < self._amount <= self.freed

    def _late(self) -> bool:
        if time.monotonic() < self._deadline:
            return False
        self.complete = False
        return True

    def _walk(self, directory: int, above: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Modification time and path, in its parts, of every regular file."""
        below = []
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if self._late():
                        return
                    with contextlib.suppress(OSError):
                        if entry.is_dir(follow_symlinks=False):
                            below.append(entry.name)
                        elif entry.is_file(follow_symlinks=False):
                            yield entry.stat(follow_symlinks=False).st_mtime_ns, (*above, entry.name)
        except OSError as error:
            self.error = error.errno or errno.EIO
        if len(above) >= DEPTH_MAX:
            return
        for name in below:
            descriptor = self._open_below(directory, name)
            if descriptor >= 0:
                try:
                    yield from self._walk(descriptor, (*above, name))
                finally:
                    os.close(descriptor)

    def _open_below(self, directory: int, name: str) -> int:
        """A directory in this one, if it is one and on the same mount, else -1."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            return -1
        try:
            if os.fstat(descriptor).st_dev == self._device and mount_id(descriptor) == self._mount:
                return descriptor
        except OSError:
            pass
        os.close(descriptor)
        return -1

    def _remove(self, parts: tuple[str, ...]) -> None:
        directory = self._directory
        for name in parts[:-1]:
            below = self._open_below(directory, name)
            if directory != self._directory:
                os.close(directory)
            if below < 0:
                return
            directory = below
        try:
            self._remove_file(directory, parts[-1])
        finally:
            if directory != self._directory:
                os.close(directory)

    def _remove_file(self, directory: int, name: str) -> None:
        try:
            # Not blocking: it may have become a FIFO meanwhile.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=directory)
        except OSError as error:
            self._failed(error)
            return
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_dev != self._device:
                return
            if _in_use(descriptor):
                self.in_use += 1
                return
            os.unlink(name, dir_fd=directory)
            self.files += 1
            # Another name of it keeps it alive.
            if os.fstat(descriptor).st_nlink == 0:
                self.freed += status.st_blocks * BLOCK
        except OSError as error:
            self._failed(error)
        finally:
            os.close(descriptor)

    def _failed(self, error: OSError) -> None:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # gone, or another thing by now
            self.error = error.errno or errno.EIO


def _in_use(descriptor: int) -> bool:
    """Whether anybody else has the file open: only then a write lease is refused with EAGAIN. Source: fcntl(2)."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False
