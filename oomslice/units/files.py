# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads the files that settings come from: those that systemd names for a unit, and the YAML of oomslice.

Reads regular files only, and a bounded amount of each. What cannot be read is a Problem, never an exception.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from oomslice.settings import locate
from oomslice.settings.model import Problem, Severity, Source
from oomslice.units.model import Unit

FILE_SIZE_MAX = 1024 * 1024
"""Bytes of one file; systemd takes lines of up to 1 MiB."""


def read_unit_files(unit: Unit, *, root: Path = Path("/")) -> tuple[list[tuple[str, str]], list[Problem]]:
    """Path and text of a unit's fragment and drop-ins, in order of application, and what could not be read."""
    files: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for path in (unit.fragment_path, *unit.drop_in_paths):
        if not path:
            continue
        try:
            files.append((path, read_text(root / path.lstrip("/"))))
        except FileNotFoundError:
            if not unit.transient:  # the files of a transient unit go with it
                problems.append(
                    Problem(
                        Source(path, 0),
                        "",
                        "",
                        "",
                        f"was removed since systemd loaded {unit.name}; run 'systemctl daemon-reload'",
                        Severity.NOTICE,
                    )
                )
        except OSError as error:
            problems.append(_unreadable(path, error))
    return files, problems


def read_configuration(root: Path = Path("/"), problems: list[Problem] | None = None) -> list[tuple[str, str]]:
    """Path and text of oomslice.yaml and its drop-ins, in order of application. Adds to `problems`."""
    if problems is None:
        problems = []
    listing: dict[str, list[str]] = {}
    for directory in locate.DIRECTORIES:
        try:
            listing[directory] = sorted(os.listdir(root / directory.lstrip("/")))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problems.append(_unreadable(directory, error))
    files: list[tuple[str, str]] = []
    for path in locate.configuration_order(listing):
        try:
            files.append((path, read_text(root / path.lstrip("/"))))
        except OSError as error:
            problems.append(_unreadable(path, error))
    for path, instead in locate.masked_files(listing):
        # Drop-ins are masked on purpose; writing /etc/oomslice/oomslice.yaml for one key is an easy mistake.
        if path.startswith("/usr/") and path.endswith("/" + locate.MAIN_FILE):
            message = f"takes the place of {path}: nothing in it holds, protection of what a machine needs included"
            problems.append(Problem(Source(instead, 0), "", "", "", message, Severity.NOTICE))
    return files


def read_text(path: Path) -> str:
    """A regular file of at most FILE_SIZE_MAX bytes; what is not UTF-8 becomes surrogates. Raises OSError.

    A link to /dev/null is an empty file: that is how systemd's files are masked.
    """
    if os.path.realpath(path) == os.devnull:
        return ""
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    with open(descriptor, "rb") as file:
        data = file.read(FILE_SIZE_MAX + 1)
    if len(data) > FILE_SIZE_MAX:
        raise OSError(errno.EFBIG, f"Larger than {FILE_SIZE_MAX // 1024} KiB", os.fspath(path))
    return data.decode(errors="surrogateescape")


def _unreadable(path: str, error: OSError) -> Problem:
    text = error.strerror or os.strerror(error.errno or errno.EIO)
    return Problem(Source(path, 0), "", "", "", f"cannot be read: {text}")
