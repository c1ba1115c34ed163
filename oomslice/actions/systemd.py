# SPDX-License-Identifier: LGPL-2.1-or-later
"""systemd, asked through its own commands: they come with it, and speak to PID 1 directly, without the message bus.

A Python library for D-Bus would take more memory than all the rest of the service, all the time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time

from oomslice.actions.checks import startable
from oomslice.actions.messages import ActionRequest
from oomslice.settings.unitname import check_unit_name

ENVIRONMENT_DIRECTORY = "/run/oomslice/environment"
STARTED_DIRECTORY = "/run/oomslice/started"
NOTES_MAX = 1000
"""Decisions that are remembered to have had their unit started: more than the ring and the store's backlog hold."""
SYSTEMCTL_ERRORS = {3: errno.ENOENT, 4: errno.EPERM, 5: errno.ENOENT, 6: errno.EINVAL}
"""Exit codes of systemctl(1) that say more than "failed", as errno."""


def run(command: list[str], deadline: float) -> tuple[int, str]:
    """Runs a command until time.monotonic() is `deadline`: exit status and output. Raises TimeoutError, OSError."""
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(0.05, deadline - time.monotonic()),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{command[0]} did not end in time") from None
    return ended.returncode, ended.stdout.decode(errors="replace").strip()


def start(request: ActionRequest, deadline: float, systemctl: str = "systemctl") -> tuple[str, int, str]:
    """Has systemd accept a job for the unit; what that does is not waited for. Raises CheckError, TimeoutError.

    If the request carries an outcome it is for OnDecision=: a template gets the decision's id as its instance, and the
    environment file of the unit is written first.
    """
    unit = startable(request.text, request.decision)
    if request.outcome:
        if not first_time(request.decision, STARTED_DIRECTORY):
            return "needless", 0, f"{unit} was started for this decision before"
        write_environment(request, ENVIRONMENT_DIRECTORY)
    command = [systemctl, "start", "--no-block", "--job-mode=fail", "--no-ask-password", "--quiet", "--", unit]
    status, said = run(command, deadline)
    if status == 0:
        return "done", 0, f"{unit} is being started"
    return "failed", SYSTEMCTL_ERRORS.get(status, errno.ECANCELED), said[:300] or f"systemctl ended with {status}"


def first_time(decision: str, directory: str) -> bool:
    """Notes that something is started for this decision; False if it was noted before. Raises OSError.

    oomsliced asks again for what it was told no end of before it died; a unit is started once all the same.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    try:
        os.close(
            os.open(f"{directory}/{startable(f'{decision}.service')}", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        )
    except FileExistsError:
        return False
    with os.scandir(directory) as entries:
        notes = sorted((entry.stat().st_mtime_ns, entry.path) for entry in entries)
    for _, path in notes[:-NOTES_MAX]:
        os.unlink(path)
    return True


def main_process(unit: str, deadline: float, systemctl: str = "systemctl") -> int:
    """Number of the main process of a unit, 0 if it has none. Raises TimeoutError."""
    if check_unit_name(unit)[0]:
        return 0
    _, said = run([systemctl, "show", "--property=MainPID", "--value", "--", unit], deadline)
    return int(said) if said.isdecimal() else 0


def write_environment(request: ActionRequest, directory: str) -> None:
    """Replaces DIRECTORY/UNIT, for EnvironmentFile=-, with what a unit of OnDecision= is told. Raises OSError."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    lines = [
        f"OOMSLICE_{name}={_quoted(value)}\n"
        for name, value in (
            ("DECISION", request.decision),
            ("VICTIM", request.unit),
            ("OUTCOME", request.outcome),
            ("DOMAIN", request.domain),
            ("STEP", request.step),
        )
    ]
    name = f"{directory}/.{request.text}.{os.getpid()}"
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.writelines(lines)
        os.replace(name, f"{directory}/{request.text}")
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _quoted(value: str) -> str:
    """As EnvironmentFile= takes it literally. Nothing of ours holds a quote or a line break; if so, "?" is read."""
    return "'" + "".join(c if c.isascii() and c.isprintable() and c != "'" else "?" for c in value[:256]) + "'"
