# SPDX-License-Identifier: LGPL-2.1-or-later
"""warn: tells the main process of a unit that memory is short, by the protocol that systemd gave services for it.

The protocol (https://systemd.io/PRESSURE): a service is told in $MEMORY_PRESSURE_WATCH what to wait on. A FIFO is for
whoever warns to write to, and that is done here. The usual value, memory.pressure of the own cgroup, is the kernel's to
signal. At a socket the service is the client: there its server warns, which is not us.

The path comes from a process that need not be trusted. So it is looked up in that process's own root, over no symbolic
link, and nothing is opened for writing but a FIFO that belongs to the user of that process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

VARIABLE = b"MEMORY_PRESSURE_WATCH="
ENVIRONMENT_MAX = 1 << 20
"""Bytes of an environment that are read; the kernel allows a quarter of the stack's limit."""
DESCRIPTORS_MAX = 4096
"""Open files of a process that are looked at."""
WORD = b"1"
"""What is written: the reader discards it."""


def warn(pid: int, cgroup: str = "", proc: str = "/proc") -> tuple[str, int, str]:
    """Result, errno and a sentence. `pid` is the unit's main process, 0 if it has none.

    It must be in `cgroup`, if that is known: a user's unit may have the name of one of the system's.
    """
    if pid <= 0 or (cgroup and not _is_in(pid, cgroup, proc)):
        return "unavailable", errno.ESRCH, "the unit has no main process; the bus was told"
    try:
        watched = _watched(f"{proc}/{pid}/environ")
        owner = os.stat(f"{proc}/{pid}").st_uid
    except OSError as error:
        return "unavailable", error.errno or errno.EIO, f"its environment cannot be read: {error.strerror}"
    if watched in (b"", b"/dev/null"):
        return "unavailable", 0, "it does not ask to be told of memory pressure; the bus was told"
    try:
        found = _open_path(f"{proc}/{pid}/root", watched)
    except OSError as error:
        return "unavailable", error.errno or errno.EIO, f"what it waits on cannot be opened: {error.strerror}"
    try:
        status = os.fstat(found)
        if stat.S_ISFIFO(status.st_mode):
            if status.st_uid != owner:
                return "unavailable", errno.EPERM, "the FIFO that it waits on belongs to another user"
            return _write(found)
        if stat.S_ISREG(status.st_mode):
            if _holds(f"{proc}/{pid}/fd", status):
                return "needless", 0, "it waits on its memory.pressure: the kernel tells it"
            return "unavailable", 0, "it was told where to wait and does not; the bus was told"
        if stat.S_ISSOCK(status.st_mode):
            return "needless", 0, "it waits on a socket: that one's server tells it"
        return "unavailable", errno.EINVAL, "what it waits on is neither a FIFO, a socket nor a file"
    finally:
        os.close(found)


def _is_in(pid: int, cgroup: str, proc: str) -> bool:
    with contextlib.suppress(OSError), open(f"{proc}/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("0::"):
                return f"{line[3:].rstrip()}/".startswith(f"{cgroup.rstrip('/')}/")
    return False


def _watched(path: str) -> bytes:
    with open(path, "rb") as file:
        for word in file.read(ENVIRONMENT_MAX).split(b"\0"):
            if word.startswith(VARIABLE):
                return word[len(VARIABLE) :]
    return b""


def _open_path(root: str, path: bytes) -> int:
    """A descriptor that can be looked at and not read, of a path below a process's root."""
    if not path.startswith(b"/") or b".." in path.split(b"/"):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for number, part in enumerate(parts, start=1):
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_DIRECTORY if number < len(parts) else 0)
        try:
            below = os.open(part, flags, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    if stat.S_ISLNK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return descriptor


def _write(found: int) -> tuple[str, int, str]:
    """To the FIFO behind a descriptor, if somebody reads it. Never waits."""
    try:
        descriptor = os.open(f"/proc/self/fd/{found}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return "unavailable", errno.ENXIO, "nobody reads the FIFO that it was told to wait on"
        return "failed", error.errno or errno.EIO, f"its FIFO cannot be written: {error.strerror}"
    try:
        os.write(descriptor, WORD)
    except BlockingIOError:
        return "needless", 0, "its FIFO is full: it was told and has not looked yet"
    except OSError as error:
        return "failed", error.errno or errno.EIO, f"its FIFO cannot be written: {error.strerror}"
    finally:
        os.close(descriptor)
    return "done", 0, "it was told over its FIFO"


def _holds(directory: str, status: os.stat_result) -> bool:
    """Whether a process has this file open."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory)[:DESCRIPTORS_MAX]:
            with contextlib.suppress(OSError):
                held = os.stat(f"{directory}/{name}")
                if (held.st_dev, held.st_ino) == (status.st_dev, status.st_ino):
                    return True
    return False
