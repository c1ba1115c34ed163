# SPDX-License-Identifier: LGPL-2.1-or-later
"""Says when a cgroup was made or removed, by inotify, so that nobody has to look again and again.

Cgroups are made and removed with mkdir and rmdir by managers, and the kernel reports these like in any file system. The
callback only says that something changed; what, is for a new snapshot to find out. It is not called for memory figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from oomslice.cgroups.tree import CgroupTree
from oomslice.errors import CgroupError

# linux/inotify.h
_IN_CREATE = 0x100
_IN_DELETE = 0x200
_IN_MOVED = 0x40 | 0x80
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x1000000
_IN_ISDIR = 0x40000000
_EVENT = struct.Struct("iIII")
_BUFFER_SIZE = 64 * 1024


class _Unit(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...


class _HasUnits(Protocol):
    @property
    def units(self) -> Sequence[_Unit]: ...


class CgroupWatch:
    """Watches directories of the cgroup tree; calls `changed()` in the running event loop, at most once per wake-up."""

    def __init__(self, tree: CgroupTree, changed: Callable[[], None]) -> None:
        """Must be made in a running event loop. Raises CgroupError if the kernel gives no inotify descriptor."""
        self._changed = changed
        self._root = tree.root
        self._paths: dict[str, int] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise CgroupError(f"cgroups cannot be watched: {os.strerror(ctypes.get_errno())}")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._readable)

    @property
    def paths(self) -> frozenset[str]:
        """The cgroup paths that are watched now."""
        return frozenset(self._paths)

    def follow(self, policy: _HasUnits) -> frozenset[str]:
        """Watches what new units appear in: the slices and user managers of a policy. Returns what cannot be."""
        return self.watch(
            [unit.path for unit in policy.units if unit.name.endswith(".slice") or unit.name.startswith("user@")]
        )

    def watch(self, paths: Collection[str]) -> frozenset[str]:
        """Makes these the watched cgroups, whatever was watched before. Returns those that cannot be watched.

        A watch tells what is made or removed directly in that cgroup, not further below.
        """
        wanted = set(paths)
        for path in self._paths.keys() - wanted:
            self._libc.inotify_rm_watch(self._descriptor, self._paths.pop(path))
        mask = _IN_CREATE | _IN_DELETE | _IN_MOVED | _IN_ONLYDIR
        failed: set[str] = set()
        for path in sorted(wanted):
            # Also those watched already: the directory may be another one of the same name by now.
            directory = os.fsencode(self._root + path.rstrip("/"))
            number = self._libc.inotify_add_watch(self._descriptor, ctypes.c_char_p(directory), ctypes.c_uint32(mask))
            if number < 0:
                self._paths.pop(path, None)
                failed.add(path)
            else:
                self._paths[path] = number
        return frozenset(failed)

    def close(self) -> None:
        """Ends all watches. May be called more than once."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self._paths.clear()

    def _readable(self) -> None:
        ended: set[int] = set()
        tell = False
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._descriptor, _BUFFER_SIZE)
            offset = 0
            while offset < len(data):
                number, mask, _cookie, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size + length
                if mask & _IN_IGNORED:
                    ended.add(number)
                if mask & _IN_Q_OVERFLOW or (mask & _IN_ISDIR and mask & (_IN_CREATE | _IN_DELETE | _IN_MOVED)):
                    tell = True
        if ended:
            self._paths = {path: number for path, number in self._paths.items() if number not in ended}
        if tell:
            self._changed()
