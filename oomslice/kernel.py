# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel interfaces that a killer needs and Python's standard library lacks, as plain functions.

    psi_trigger          be told when tasks stall for lack of memory
    pidfd_open           hold on to a process, so that a number used again cannot be mistaken for it
    pidfd_send_signal    signal what is held
    process_mrelease     take the memory of a process that is dying, without waiting for it to get the CPU
    cgroup_kill          kill all of a cgroup at once
    cgroup_id            the identity of a cgroup, which a later one of the same path does not have
    cgroup_open          find a cgroup by that identity

Each is the C of core/, the same that the kill path runs. Every failure is a KernelError, which is also an OSError:
`errno` is set, and the text says what is wrong. Processes are named by pidfd, cgroups by descriptor or path.

    >>> with psi_trigger("/proc/pressure/memory", PressureTrigger(PsiKind.SOME, 150_000, 2_000_000)) as trigger:
    ...     trigger.wait(timeout=0.01)
    False
"""

from __future__ import annotations

import errno
import os
import select
import signal as signals
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from oomslice._core import ffi, lib
from oomslice.errors import KernelError
from oomslice.settings.model import PressureTrigger, PsiKind

__all__ = [
    "PsiTrigger",
    "cgroup_id",
    "cgroup_kill",
    "cgroup_open",
    "pidfd_open",
    "pidfd_send_signal",
    "process_mrelease",
    "psi_trigger",
]

CGROUP_ROOT = "/sys/fs/cgroup"
AT_FDCWD = -100  # fcntl.h

_PSI_KIND = {PsiKind.SOME: lib.OOMSLICE_PSI_SOME, PsiKind.FULL: lib.OOMSLICE_PSI_FULL}


class PsiTrigger:
    """A PSI trigger that is set. It ends with `close`, or with the `with` statement it is used in."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name

    def fileno(self) -> int:
        """The descriptor, for poll or epoll: POLLPRI when the trigger fires, POLLERR once its cgroup is gone.

        Waiting for it to become readable is of no use: a pressure file always is. Raises ValueError after `close`.
        """
        if self._fd < 0:
            raise ValueError("this PSI trigger is closed")
        return self._fd

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the trigger fires; True if it did, False if `timeout` (seconds; None: for ever) passed first.

        A trigger fires at most once in its window, and a firing is reported to one waiter only. Raises KernelError
        (ENODEV) if the cgroup was removed, ValueError after `close`.
        """
        poll = select.poll()
        poll.register(self.fileno(), select.POLLPRI)
        events = poll.poll(None if timeout is None else max(0.0, timeout * 1000))
        if not events:
            return False
        if events[0][1] & select.POLLERR:
            raise KernelError(errno.ENODEV, f"{self._name}: the cgroup of this PSI trigger was removed")
        return True

    def close(self) -> None:
        """Removes the trigger. More than once does no harm."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> PsiTrigger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def psi_trigger(where: str | os.PathLike[str] | int, trigger: PressureTrigger) -> PsiTrigger:
    """Sets a PSI trigger: be told when tasks stalled `stall_usec` within `window_usec`.

    `where` is a pressure file ("/proc/pressure/memory", or memory.pressure, io.pressure or cpu.pressure of a cgroup),
    or the descriptor of a cgroup directory, whose memory.pressure is meant then.

    Raises KernelError: EINVAL if the window is not 500 ms to 10 s or the stall not within it, or if the caller has no
    CAP_SYS_RESOURCE and the window is not a multiple of 2 s (older kernels refuse such callers any window: EPERM);
    EACCES if the file may not be written; EOPNOTSUPP if the kernel was booted with psi=0; ENOENT if it has no PSI at
    all or there is no such cgroup. Source: Documentation/accounting/psi.rst.
    """
    wanted = ffi.new("struct oomslice_psi_trigger *")
    if isinstance(where, int):
        dir_fd, path, name = where, "memory.pressure", f"memory.pressure of descriptor {where}"
    else:
        dir_fd, path, name = AT_FDCWD, os.fspath(where), os.fspath(where)
    try:
        wanted.kind = _PSI_KIND[trigger.kind]
        wanted.stall_us = trigger.stall_usec
        wanted.window_us = trigger.window_usec
    except OverflowError:
        raise KernelError(errno.EINVAL, f"{name}: {trigger}: {_PSI_EINVAL}") from None
    fd = lib.oomslice_psi_open(dir_fd, os.fsencode(path), wanted)
    hints = {
        errno.EINVAL: _PSI_EINVAL,
        errno.EPERM: "this kernel lets only privileged programs set PSI triggers",
        errno.EACCES: "this file may not be written by the present user",
        errno.EOPNOTSUPP: 'PSI is switched off; boot with "psi=1"',
        errno.ENOENT: "no such pressure file; the kernel may be without PSI (CONFIG_PSI)",
    }
    return PsiTrigger(_value(fd, f"cannot set the PSI trigger {trigger} on {name}", hints), name)


_PSI_EINVAL = (
    "the window must be 500 ms to 10 s, without CAP_SYS_RESOURCE a multiple of 2 s, and the stall more than 0"
    " and no longer than the window"
)


def pidfd_open(pid: int) -> int:
    """A descriptor of the process `pid`, which the caller closes. It becomes readable when the process dies.

    It is closed on exec. Raises KernelError: ESRCH if there is no such process, EINVAL if `pid` is not positive or
    names a thread that leads no process (some kernels say ENOENT). Source: pidfd_open(2), Linux 5.3.
    """
    hints = {
        errno.EINVAL: "not the id of a process",
        errno.ENOENT: "not the id of a process",
        errno.ESRCH: "there is no such process",
    }
    return _value(lib.oomslice_pidfd_open(_int32(pid, "pid")), f"cannot open process {pid}", hints)


def pidfd_send_signal(pidfd: int, signal: int = signals.SIGKILL) -> None:
    """Sends a signal to the process that `pidfd` holds, and to no other, whatever became of its number.

    Signal 0 only checks. Raises KernelError: ESRCH if it has died, EPERM if the caller may not signal it, EINVAL if
    there is no such signal, EBADF if `pidfd` is none. Source: pidfd_send_signal(2), Linux 5.1.
    """
    hints = {
        errno.EINVAL: "no such signal",
        errno.ESRCH: "the process has died",
        errno.EPERM: "the process belongs to somebody else",
        errno.EBADF: "not a pidfd",
    }
    result = lib.oomslice_pidfd_send_signal(_int32(pidfd, "pidfd"), _int32(signal, "signal"))
    _value(result, f"cannot send signal {int(signal)}", hints)


def process_mrelease(pidfd: int) -> None:
    """Frees the memory of a process that was sent SIGKILL but has not come to exit yet, in the time of the caller.

    May block for as long as it takes to free it, so it is nothing for a thread that has to decide. Raises KernelError:
    ESRCH if the process is gone, EINVAL if it is not dying (or shares its memory with one that is not), EAGAIN if its
    memory was in use at this moment (try again, or leave it to the process), ENOSYS before Linux 5.15.
    Source: process_mrelease(2).
    """
    hints = {
        errno.EINVAL: "the process is not dying, or shares its memory with one that is not",
        errno.ESRCH: "the process is gone",
        errno.EAGAIN: "its memory is in use at this moment",
        errno.ENOSYS: "needs Linux 5.15",
        errno.EBADF: "not a pidfd",
    }
    _value(lib.oomslice_process_mrelease(_int32(pidfd, "pidfd")), "cannot release the memory of a process", hints)


def cgroup_kill(cgroup: str | os.PathLike[str] | int) -> None:
    """Sends SIGKILL to every process in a cgroup and in all below it, at once; also to those just being forked.

    `cgroup` is its directory, by path or descriptor. Raises KernelError: ENOENT if there is no such cgroup or it has
    no cgroup.kill (the root of the hierarchy; Linux before 5.14), EOPNOTSUPP if it is threaded, ENODEV if it was
    removed, EACCES or EPERM if the caller may not. Source: Documentation/admin-guide/cgroup-v2.rst.
    """
    hints = {
        errno.ENOENT: "no such cgroup, or it has no cgroup.kill (the root has none; needs Linux 5.14)",
        errno.ENODEV: "the cgroup was removed",
    }
    with _directory(cgroup) as fd:
        _value(lib.oomslice_cgroup_kill(fd), f"cannot kill cgroup {_named(cgroup)}", hints)


def cgroup_id(cgroup: str | os.PathLike[str] | int) -> int:
    """The 64-bit id of a cgroup v2 directory, by path or descriptor. No later cgroup has it while the machine is up.

    Raises KernelError: ENOENT if there is no such directory, ENOTDIR if it is none, ENOTSUP if it is not on a cgroup v2
    file system. Source: the id is the inode number and the body of the file handle (kernel/cgroup/cgroup.c).
    """
    idp = ffi.new("uint64_t *")
    with _directory(cgroup) as fd:
        hints = {errno.ENOTSUP: "not on a cgroup v2 file system"}
        _value(lib.oomslice_cgroup_id(fd, idp), f"cannot tell the id of cgroup {_named(cgroup)}", hints)
    return int(idp[0])


def cgroup_open(id: int, root: str | os.PathLike[str] | int = CGROUP_ROOT) -> int:
    """A descriptor of the directory of the cgroup with this id, which the caller closes. No path is looked up.

    `root` is any directory of the cgroup v2 mount, by path or descriptor. Raises KernelError: ESTALE if there is no
    such cgroup (any more), EPERM without CAP_DAC_READ_SEARCH, ENOTSUP if `root` is not on a cgroup v2 file system.
    Source: open_by_handle_at(2).
    """
    if not 0 <= id < 1 << 64:
        raise KernelError(errno.ESTALE, f"cannot open cgroup {id}: an id has 64 bits")
    hints = {
        errno.ESTALE: "there is no such cgroup",
        errno.EPERM: "this needs CAP_DAC_READ_SEARCH",
        errno.ENOTSUP: f"{_named(root)} is not on a cgroup v2 file system",
    }
    with _directory(root) as fd:
        return _value(lib.oomslice_cgroup_open_by_id(fd, id), f"cannot open cgroup {id}", hints)


def _value(result: int, what: str, hints: dict[int, str]) -> int:
    """A result of the C functions, which are 0, a descriptor or -errno."""
    if result < 0:
        raise KernelError(-result, f"{what}: {hints.get(-result, os.strerror(-result))}")
    return result


def _int32(number: int, what: str) -> int:
    """The C functions take 32 bits, as the system calls do."""
    if not -(1 << 31) <= number < 1 << 31:
        raise KernelError(errno.EINVAL, f"{what} {number} is out of range")
    return number


def _named(cgroup: str | os.PathLike[str] | int) -> str:
    return f"descriptor {cgroup}" if isinstance(cgroup, int) else os.fspath(cgroup)


@contextmanager
def _directory(cgroup: str | os.PathLike[str] | int) -> Iterator[int]:
    """A descriptor given is used as it is; one for a path lives only as long as it is needed."""
    if isinstance(cgroup, int):
        yield cgroup
        return
    try:
        fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(error.errno or 0, f"cannot open cgroup {_named(cgroup)}: {error.strerror}") from error
    try:
        yield fd
    finally:
        os.close(fd)
