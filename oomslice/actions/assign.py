# SPDX-License-Identifier: LGPL-2.1-or-later
"""`set`: writes settings of one unit into a drop-in of our own, and has systemd read its units again.

What arrives here is checked as if nobody had before: who asks has no privileges, and could only ever write settings of
oomslice, for units that systemd knows. Nothing is followed that is a symbolic link, and a file is replaced at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os

from oomslice.actions.checks import CheckError
from oomslice.actions.messages import ActionRequest
from oomslice.actions.systemd import run
from oomslice.errors import InvalidSettingError

ROOTS = ("/etc/systemd/system", "/run/systemd/system")
"""Where a drop-in for good is, and one until the next boot."""
FILE_MAX = 1 << 16


def assign(
    request: ActionRequest, deadline: float, systemctl: str = "systemctl", roots: tuple[str, str] = ROOTS
) -> tuple[str, int, str]:
    """Sets `text`, lines of KEY=VALUE, for the unit; `amount` 1: until the next boot. No lines: takes all back.

    The detail is the file. Raises CheckError, TimeoutError, OSError.
    """
    # Only the child that does it pays for these.
    from oomslice.settings.assign import PERSISTENT_NAME, RUNTIME_NAME, check_assignments, check_unit

    wanted = dict(line.partition("=")[::2] for line in request.text.splitlines())
    try:
        check_unit(request.unit)
        check_assignments(wanted)
    except InvalidSettingError as error:
        raise CheckError(str(error), errno.EINVAL) from None
    status, said = run([systemctl, "show", "--property=LoadState", "--value", "--", request.unit], deadline)
    if status != 0 or said != "loaded":
        raise CheckError(f"{request.unit} is not known to systemd ({said[:100]})", errno.ENOENT)

    runtime = bool(request.amount)
    if runtime:
        path = write(roots[1], request.unit, RUNTIME_NAME, wanted)
    else:
        path = write(roots[0], request.unit, PERSISTENT_NAME, wanted)
        # What was set for this boot would hide it.
        write(roots[1], request.unit, RUNTIME_NAME, wanted, remove=True)
    status, said = run([systemctl, "daemon-reload"], deadline)
    if status != 0:
        return "failed", errno.ECANCELED, f"{path} is written, but systemd did not reload: {said[:200]}"
    return "done", 0, path


def write(root: str, unit: str, name: str, wanted: dict[str, str], *, remove: bool = False) -> str:
    """Adds to the drop-in of this name, or takes these keys out of it; none at all: all of them. Returns its path.

    A drop-in without a line is none. Raises CheckError, OSError.
    """
    from oomslice.settings.assign import assignments_in, drop_in

    remove = remove or not wanted
    path = f"{root}/{unit}.d"
    directory = _directory(root, f"{unit}.d", make=not remove)
    if directory < 0:
        return f"{path}/{name}"
    try:
        # Two at once would each take back what the other has set.
        fcntl.flock(directory, fcntl.LOCK_EX)
        kept = assignments_in(_read(directory, name))
        for key in wanted or dict(kept):
            kept.pop(key, None)
        text = drop_in(kept if remove else {**kept, **wanted})
        if text:
            _replace(directory, name, text)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            with contextlib.suppress(OSError):
                os.rmdir(path)  # not empty: others have drop-ins there
    finally:
        os.close(directory)
    return f"{path}/{name}"


def _directory(root: str, name: str, *, make: bool) -> int:
    if make:
        os.makedirs(root, mode=0o755, exist_ok=True)
    try:
        above = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=above)
                # Whatever our umask: everybody may read unit files.
                os.chmod(name, 0o755, dir_fd=above)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    except FileNotFoundError:
        return -1
    except NotADirectoryError:
        raise CheckError(
            f"{root}/{name} is no directory but a link or a file; write there by hand", errno.ELOOP
        ) from None
    finally:
        os.close(above)


def _read(directory: int, name: str) -> str:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return ""
    with open(descriptor, "rb") as file:
        return file.read(FILE_MAX).decode(errors="surrogateescape")


def _replace(directory: int, name: str, text: str) -> None:
    temporary = f".{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o644, dir_fd=directory)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
