# SPDX-License-Identifier: LGPL-2.1-or-later
"""What this machine would refuse of a ladder, said before it is climbed: with file, line, key and what would be right.

The checks themselves are those of `checks`, with which the service refuses a step; here is whether a refusal is an
error or may be right later, and the words for it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping

from oomslice.actions import checks
from oomslice.actions.checks import DIRECTORY, CheckError
from oomslice.settings.model import Problem, Severity, Source, Step, UnitSettings
from oomslice.settings.steps import format_actions

REFUSED = "The step will be refused"


def machine_problems(
    settings: UnitSettings,
    section: str,
    keys: Mapping[str, str],
    *,
    needed: int = 0,
    unit_exists: Callable[[str], None] = checks.check_unit_exists,
) -> Iterator[Problem]:
    """All that stands against the steps and OnDecision= of these settings here and now, for `oomslicectl verify`.

    `keys` are the names of the fields as they are written, `needed` the bytes that a dump of the unit would have.
    """
    for step in settings.actions or ():
        yield from _step_problems(step, settings, section, keys, needed)
    yield from start_problems(settings, section, keys, unit_exists)


def started(settings: UnitSettings) -> frozenset[str]:
    """The units that steps and OnDecision= of these settings start."""
    steps = {step.argument for step in settings.actions or () if step.name == "start" and step.argument is not None}
    return frozenset(steps if settings.on_decision is None else steps | {settings.on_decision})


def start_problems(
    settings: UnitSettings,
    section: str,
    keys: Mapping[str, str],
    unit_exists: Callable[[str], None] = checks.check_unit_exists,
) -> Iterator[Problem]:
    """Which of the units that are to be started cannot be. Asks systemd, and waits for its answer."""
    for step in settings.actions or ():
        if step.name == "start" and step.argument is not None:
            problem = _look_up(step.argument, unit_exists)
            if problem:
                message = f"{step}: {step.argument} {problem}. {REFUSED}"
                yield _problem(settings, "actions", "", message, section, keys)
    if settings.on_decision is not None:
        problem = _look_up(settings.on_decision, unit_exists)
        if problem:
            yield _problem(
                settings, "on_decision", settings.on_decision, f"{problem}; nothing can be started", section, keys
            )


def purge_problems(settings: UnitSettings, section: str, keys: Mapping[str, str]) -> Iterator[Problem]:
    """What is certainly wrong with paths to purge, also for one who may not look everywhere: the daemon."""
    for step in settings.actions or ():
        error = _purge_error(step) if step.name == "purge" else None
        if error is not None and error.error in (errno.EXDEV, errno.EPERM):
            yield _problem(settings, "actions", "", f"{step} {error}. {REFUSED}", section, keys)


def _step_problems(
    step: Step,
    settings: UnitSettings,
    section: str,
    keys: Mapping[str, str],
    needed: int,
) -> Iterator[Problem]:
    def said(message: str, severity: Severity = Severity.ERROR) -> Problem:
        return _problem(settings, "actions", "", message, section, keys, severity)

    if step.name == "purge":
        error = _purge_error(step)
        if error is not None and error.error == errno.ENOENT:
            yield said(f"{step} {error} now; there is nothing to remove until it exists", Severity.NOTICE)
        elif error is not None and not _is_hidden(error):
            yield said(f"{step} {error}. {REFUSED}")
    elif step.name == "checkpoint":
        yield from _checkpoint_problems(step, needed, said)


def _checkpoint_problems(step: Step, needed: int, said: Callable[..., Problem]) -> Iterator[Problem]:
    try:
        checks.program("criu")
    except CheckError as error:
        yield said(f"{step} {error}: the step is unavailable, and the ladder goes on", Severity.NOTICE)
    if os.geteuid() != 0 and step.argument is not None and not os.path.isdir(step.argument):
        # Who may write to it is root's to check, but that it is there everybody can see.
        yield said(f"{step} cannot be opened: {os.strerror(errno.ENOENT)}. {REFUSED}")
        return
    if os.geteuid() != 0 or (step.argument is None and not os.path.isdir(DIRECTORY)):
        return  # the service makes its own directory when it is started
    try:
        checks.check_checkpoint_directory(step.argument or DIRECTORY, needed)
    except CheckError as error:
        if error.error == errno.ENOSPC:
            yield said(f"{step} {error} for this unit as it is now", Severity.NOTICE)
        else:
            yield said(f"{step} {error}. {REFUSED}")


def _purge_error(step: Step) -> CheckError | None:
    try:
        checks.check_purge_path(step.argument or "")
    except CheckError as error:
        return error
    return None


def _is_hidden(error: CheckError) -> bool:
    return os.geteuid() != 0 and error.error == errno.EACCES


def _look_up(unit: str, unit_exists: Callable[[str], None]) -> str:
    """What is wrong with a unit to start, "" if nothing is, or systemd cannot be asked."""
    try:
        unit_exists(unit)
    except CheckError as error:
        return "" if error.error == errno.EAGAIN else str(error)
    return ""


def _problem(
    settings: UnitSettings,
    field: str,
    value: str,
    message: str,
    section: str,
    keys: Mapping[str, str],
    severity: Severity = Severity.ERROR,
) -> Problem:
    if field == "actions":
        value = format_actions(settings.actions or ())
    source = settings.sources.get(field, Source("", 0))
    return Problem(source, section, keys[field], value, message, severity)
