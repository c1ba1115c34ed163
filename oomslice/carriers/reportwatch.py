# SPDX-License-Identifier: LGPL-2.1-or-later
"""Says when oomslice-bpf has left a new report, by inotify: an administrator may load programs, or put a policy in
force, by hand, and no unit changes then. What the report says is for the carriers to read."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path

from oomslice.carriers.bpf import REPORT

LOGGER = logging.getLogger("oomsliced")

# linux/inotify.h
_IN_MOVED_TO = 0x80
_IN_DELETE = 0x200
_IN_ONLYDIR = 0x1000000
_EVENT = struct.Struct("iIII")
_BUFFER_SIZE = 4096


class ReportWatch:
    """Calls `changed()` in the running event loop whenever the report was replaced or removed."""

    def __init__(self, changed: Callable[[], None], report: Path = REPORT) -> None:
        """Must be made in a running event loop. Where the directory cannot be watched, that is logged and no more."""
        self._changed = changed
        self._name = os.fsencode(report.name)
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        directory = ctypes.c_char_p(os.fsencode(report.parent))
        mask = ctypes.c_uint32(_IN_MOVED_TO | _IN_DELETE | _IN_ONLYDIR)
        if self._descriptor < 0 or libc.inotify_add_watch(self._descriptor, directory, mask) < 0:
            LOGGER.warning("%s cannot be watched: %s", report.parent, os.strerror(ctypes.get_errno()))
            self.close()
            return
        asyncio.get_running_loop().add_reader(self._descriptor, self._readable)

    def close(self) -> None:
        """Ends the watch. May be called more than once."""
        if self._descriptor >= 0:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._descriptor, _BUFFER_SIZE)
            offset, names = 0, set()
            while offset < len(data):
                _number, _mask, _cookie, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size
                names.add(data[offset : offset + length].rstrip(b"\0"))
                offset += length
            if self._name in names:
                self._changed()
