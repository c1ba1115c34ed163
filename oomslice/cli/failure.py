# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a call of oomslicectl ends: the exit codes, and the one exception that carries what to do about a failure."""

from __future__ import annotations

import enum

from oomslice.errors import OomsliceError


class Exit(enum.IntEnum):
    """Exit codes; oomslicectl(1) lists them under the same numbers."""

    OK = 0
    FAILED = 1
    """the question was answered with a no: problems found, nothing of that name, core not armed"""
    USAGE = 2
    NOT_RUNNING = 3
    NO_PERMISSION = 4
    NOT_INSTALLED = 5
    """something that is needed is missing on this machine: system parts, a Python package, cgroup v2"""


EXIT_CODES = (
    (Exit.OK, "done, nothing wrong"),
    (Exit.FAILED, "problems were found, there is nothing of that name, or the core is not armed"),
    (Exit.USAGE, "wrong options or arguments"),
    (Exit.NOT_RUNNING, "oomsliced is not running or does not answer"),
    (Exit.NO_PERMISSION, "not allowed"),
    (Exit.NOT_INSTALLED, "something is missing: the system parts, a Python package, or cgroup v2"),
)


class CommandFailure(OomsliceError):
    """Ends the call with `code`. `hint` says what to do, as one or more lines."""

    def __init__(self, message: str, code: Exit = Exit.FAILED, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
