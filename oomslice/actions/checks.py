# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a step is refused for, before anything is done: the same for `oomslicectl verify` and for the service.

Each check raises CheckError, whose text is a sentence without its subject ("is on ext4, ..."), or returns what it
found out. They look at the machine and change nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from oomslice.errors import OomsliceError
from oomslice.settings.unitname import UnitNameKind, check_unit_name

DIRECTORY = "/var/lib/oomslice-checkpoints"
"""Where checkpoints are written unless the step says otherwise."""
MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")
"""File systems whose files are memory. (devtmpfs is one too, and has no files.)"""
NEVER_PURGED = ("/dev", "/run", "/proc", "/sys")
"""Not themselves: below them they hold what purge is for (/dev/shm, /run/cache)."""
NEVER_PURGED_BELOW = (
    "/run/systemd",
    "/run/udev",
    "/run/dbus",
    "/run/lock",
    "/run/credentials",
    "/run/initramfs",
    "/run/mount",
    "/run/oomslice",
    "/run/log",
    "/sys",
    "/proc",
)
"""State of the machine itself; /run/log is the journal of machines without a disk for it."""
PROGRAM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
MARGIN_BYTES = 64 << 20
"""Free space that a checkpoint leaves on its file system: it may be the one of the journal."""


class CheckError(OomsliceError):
    """A step that would be refused. `error` is the errno that the record of the decision gets."""

    def __init__(self, message: str, error: int) -> None:
        super().__init__(message)
        self.error = error


def mount_id(descriptor: int) -> int:
    """Which mount an open file was reached through: also bind mounts of one file system differ. Raises OSError."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        for line in file:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    raise OSError(errno.ENOSYS, "the kernel does not tell mounts apart")


def file_system(descriptor: int) -> str:
    """Type of the file system that an open file is on, "" if it is mounted nowhere here. Raises OSError."""
    wanted = str(mount_id(descriptor))
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.partition(" ")[0] == wanted:
                return line.rpartition(" - ")[2].partition(" ")[0]
    return ""


def absolute(path: str) -> str:
    """The path, if it is one that can be meant only one way. Raises CheckError."""
    if not path.startswith("/") or "\0" in path or len(path.encode(errors="surrogateescape")) > 4095:
        raise CheckError("is not an absolute path", errno.EINVAL)
    parts = [part for part in path.split("/") if part]
    if "." in parts or ".." in parts:
        raise CheckError('holds "." or ".."; write the path as it is', errno.EINVAL)
    return "/" + "/".join(parts)


def open_directory(path: str, root: str = "/") -> int:
    """A descriptor of a directory reached without following a single symbolic link. Raises CheckError."""
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in absolute(path).split("/")[1:]:
        if not part:
            continue
        try:
            # A symbolic link is what O_NOFOLLOW with O_DIRECTORY calls ENOTDIR: it is told apart for the reader.
            if stat.S_ISLNK(os.stat(part, dir_fd=descriptor, follow_symlinks=False).st_mode):
                raise CheckError(f'leads over the symbolic link "{part}"; write the path behind it', errno.ELOOP)
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        except OSError as error:
            raise CheckError(f"cannot be opened: {error.strerror}", error.errno or errno.EIO) from None
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def open_purgeable(path: str, root: str = "/") -> int:
    """A readable descriptor of the directory that `purge:PATH` empties. Raises CheckError if it must not."""
    path = absolute(path)
    if path == "/" or path in NEVER_PURGED:
        raise CheckError("holds the state of the machine; name a directory below it", errno.EPERM)
    if any(path == kept or path.startswith(kept + "/") for kept in NEVER_PURGED_BELOW):
        raise CheckError("holds the state of the machine and is never purged", errno.EPERM)
    descriptor = open_directory(path, root)
    try:
        opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
    except OSError as error:
        raise CheckError(f"cannot be read: {error.strerror}", error.errno or errno.EIO) from None
    finally:
        os.close(descriptor)
    if file_system(opened) not in MEMORY_FILE_SYSTEMS:
        os.close(opened)
        raise CheckError("is not on a tmpfs: removing its files would free no memory", errno.EXDEV)
    return opened


def check_purge_path(path: str) -> None:
    """Raises CheckError if `purge:PATH` would be refused now."""
    os.close(open_purgeable(path))


def open_checkpoints(path: str, root: str = "/") -> int:
    """A descriptor of a directory for dumps that nobody but root can change, on any level. Raises CheckError.

    A dump is restored with all privileges of the processes in it: who can write one is root.
    """
    parts = absolute(path).split("/")[1:]
    for end in range(len(parts) + 1):
        descriptor = open_directory("/" + "/".join(parts[:end]), root)
        status = os.fstat(descriptor)
        sticky = bool(status.st_mode & stat.S_ISVTX) and end < len(parts)
        if status.st_uid != 0 or (status.st_mode & 0o022 and not sticky):
            os.close(descriptor)
            where = "/" + "/".join(parts[:end])
            raise CheckError(f"is not safe: others than root can write to {where}", errno.EPERM)
        if end < len(parts):
            os.close(descriptor)
    if file_system(descriptor) in MEMORY_FILE_SYSTEMS:
        os.close(descriptor)
        raise CheckError("is on a tmpfs: a dump there would take the memory that it is to free", errno.EXDEV)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def check_room(descriptor: int, needed: int) -> None:
    """Raises CheckError unless the file system of an open directory has room for `needed` bytes and some to spare."""
    status = os.fstatvfs(descriptor)
    free = status.f_bavail * status.f_frsize
    if free < needed + MARGIN_BYTES:
        raise CheckError(f"has {free >> 20} MiB free, and {(needed + MARGIN_BYTES) >> 20} MiB are needed", errno.ENOSPC)


def check_checkpoint_directory(path: str, needed: int = 0) -> None:
    """Raises CheckError if `checkpoint:DIR` would be refused now, for a unit that holds `needed` bytes."""
    descriptor = open_checkpoints(path)
    try:
        check_room(descriptor, needed)
    finally:
        os.close(descriptor)


def program(name: str, path: str = PROGRAM_PATH) -> str:
    """Where a program is. Raises CheckError if it is not installed."""
    for directory in path.split(":"):
        if os.access(f"{directory}/{name}", os.X_OK):
            return f"{directory}/{name}"
    raise CheckError(f"needs the program {name}, which is not installed", errno.ENOENT)


def startable(name: str, instance: str = "") -> str:
    """The unit to start: the name itself, or that of a template's instance. Raises CheckError."""
    problem, kind = check_unit_name(name)
    if problem:
        raise CheckError(problem, errno.EINVAL)
    if kind is UnitNameKind.TEMPLATE:
        if not instance:
            raise CheckError("is a template; name an instance of it", errno.EINVAL)
        prefix, _, suffix = name.rpartition("@")
        name = f"{prefix}@{instance}{suffix}"
        problem, _ = check_unit_name(name)
        if problem:
            raise CheckError(problem, errno.EINVAL)
    return name


def check_unit_exists(name: str, command: Sequence[str] = ("systemctl",), timeout: float = 10.0) -> None:
    """Raises CheckError if systemd knows no unit of this name (a template: of its instances), or cannot be asked."""
    name = startable(name, "0")
    import subprocess

    try:
        said = subprocess.run(
            [*command, "show", "--property=LoadState", "--value", "--", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=True,
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        raise CheckError("cannot be looked up: systemd does not answer", errno.EAGAIN) from None
    state = said.strip()
    if state == "not-found":
        raise CheckError("is no unit of this machine", errno.ENOENT)
    if state != "loaded":
        raise CheckError(f"cannot be started: systemd says that it is {state}", errno.ENOEXEC)
