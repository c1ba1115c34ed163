# SPDX-License-Identifier: LGPL-2.1-or-later
"""Brings back what `checkpoint` wrote to disk: a transient service in the slice where the unit was.

For root, who runs oomslicectl; not for the daemon. Nothing is done before all that can be known is checked.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oomslice.actions import checks
from oomslice.actions.checkpoint import COMPLETE, CRIU_OPTIONS, DIRECTORY, NOTE, Note, last_error
from oomslice.errors import OomsliceError
from oomslice.settings.unitname import check_unit_name

LOG = "criu-restore.log"
PID_DIRECTORY = "/run/oomslice"


class RestoreError(OomsliceError):
    """It cannot be brought back. `hint` says what to do; `error` is an errno."""

    def __init__(self, message: str, hint: str, error: int = errno.EINVAL) -> None:
        super().__init__(message)
        self.hint = hint
        self.error = error


@dataclass(frozen=True, slots=True)
class Restored:
    """What runs again."""

    unit: str
    """the service in which it does"""
    was: str
    """the unit that it was in"""
    pid: int
    directory: str


def find(decision: str, directory: str = DIRECTORY) -> tuple[Note, str]:
    """The dump of a decision, and its path. Raises RestoreError."""
    if check_unit_name(f"{decision}.service")[0]:
        raise RestoreError(f"{decision!r} is no id of a decision", "oomslicectl decisions lists them.")
    path = f"{directory.rstrip('/')}/{decision}"
    if os.path.isdir(directory) and not os.path.isdir(path):
        raise RestoreError(
            f"there is no dump of decision {decision} in {directory}",
            "If Actions=checkpoint:DIR of the unit names another directory: --directory DIR.\n"
            f"Whether its step checkpoint was done: oomslicectl show {decision}",
            errno.ENOENT,
        )
    try:
        os.close(checks.open_checkpoints(path))
    except checks.CheckError as error:
        hint = "What is restored has all the privileges that are in the dump: only root may be able to write there."
        raise RestoreError(f"{path} {error}", hint, error.error) from error
    try:
        with open(f"{path}/{NOTE}", encoding="utf-8") as file:
            note = _note(json.loads(file.read(1 << 20)))
        if not os.path.exists(f"{path}/{COMPLETE}"):
            raise ValueError(COMPLETE)
    except (OSError, ValueError, TypeError) as error:
        raise RestoreError(
            f"the dump in {path} is damaged: {error}", "It cannot be restored; start the unit anew."
        ) from error
    return note, path


def _note(values: Any) -> Note:
    note = Note(**values)
    whole = all(type(number) is int for number in (note.pid, note.processes, *note.sockets))
    if not whole or not isinstance(note.unit, str) or not isinstance(note.cgroup, str):
        raise ValueError(NOTE)
    return note


def restore(decision: str, directory: str = DIRECTORY, path: str = checks.PROGRAM_PATH) -> Restored:
    """Restores the dump of a decision. Raises RestoreError."""
    note, images = find(decision, directory)
    try:
        criu, systemctl, systemd_run = (checks.program(name, path) for name in ("criu", "systemctl", "systemd-run"))
    except checks.CheckError as error:
        raise RestoreError(f"it {error}", "Install it with: apt install criu", errno.ENOPKG) from error
    unit = restored_unit(note.unit)
    if _says(systemctl, "is-active", "--quiet", "--", unit).returncode == 0:
        raise RestoreError(f"it runs already, as {unit}", f"Look at it with: systemctl status {unit}", errno.EBUSY)
    if _says(systemctl, "is-active", "--quiet", "--", note.unit).returncode == 0:
        raise RestoreError(
            f"{note.unit} was started anew and runs",
            f"Two of them would work on the same files. Stop it first: systemctl stop {note.unit}",
            errno.EBUSY,
        )
    if os.path.exists(f"/proc/{note.pid}"):
        raise RestoreError(
            f"the process number {note.pid} is taken by another process by now",
            "Processes are restored with their numbers. End that one, or restore after a reboot.",
            errno.EBUSY,
        )
    pid_file = f"{PID_DIRECTORY}/{unit}.pid"
    command = [criu, "restore", "--images-dir", images, "--restore-detached", "--pidfile", pid_file]
    # The last one counts: the log of the dump is kept.
    command += [*CRIU_OPTIONS, "--log-file", LOG]
    command += [word for inode in note.sockets for word in ("--inherit-fd", f"fd[1]:socket:[{inode}]")]
    if note.shell_job:
        command.append("--shell-job")
    Path(pid_file).unlink(missing_ok=True)
    started = _says(
        *(systemd_run, "--quiet", "--collect", f"--unit={unit}", f"--slice={slice_of(note.cgroup)}"),
        f"--description={note.unit}, restored after decision {decision}",
        *("-p", "Type=forking", "-p", f"PIDFile={pid_file}", "--", *command),
    )
    if started.returncode != 0:
        reason = last_error(f"{images}/{LOG}") or started.stderr.decode(errors="replace").strip()
        raise RestoreError(
            f"{note.unit} cannot be restored: {reason}",
            f"criu's reasons are in {images}/{LOG}, and journalctl -u {unit} may say more.\n"
            "Files that it had open must be as they were. Otherwise start the unit anew; the dump is kept.",
            errno.EIO,
        )
    return Restored(unit, note.unit, note.pid, images)


def _says(*command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def restored_unit(unit: str) -> str:
    """The name of the service that takes the processes; drop-ins for the prefix of the unit's name reach it too."""
    name = f"{unit.rpartition('.')[0]}-restored.service"
    return name if not check_unit_name(name)[0] and "@" not in name else "oomslice-restored.service"


def slice_of(cgroup: str) -> str:
    """The slice around a cgroup of PID 1's."""
    slices = [part for part in cgroup.split("/") if part.endswith(".slice") and not check_unit_name(part)[0]]
    return slices[-1] if slices and "user@" not in cgroup else "system.slice"
