# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl verify: what is wrong in unit files and YAML. Works without the daemon."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Terminal, clean, plural

if TYPE_CHECKING:
    from oomslice.settings.model import Configuration, Problem
    from oomslice.units.model import Unit

NAME = "verify"
HELP = "what is wrong in unit files and YAML"
DESCRIPTION = """\
Checks the [X-OOMSlice] sections of unit files and drop-ins, and the YAML configuration, without the daemon. systemd
does not look into sections that begin with X-, so this does.

A name with a slash in it or ending in .conf, .yaml or .yml is a file, and so is one that exists in the current
directory; every other name is a unit, whose files systemd is asked for. Without names, checks oomslice.yaml with its
drop-ins and all running units that have an [X-OOMSlice] section.

What is wrong goes to the standard error as FILE:LINE: KEY=VALUE: MESSAGE. Exit code 1 if there was an error; notices
alone do not count."""
EXAMPLES = """\
examples:
  oomslicectl verify                   everything that is in force
  oomslicectl verify batch.slice nginx.service
                                       the files of these units, as systemd reads them
  oomslicectl verify ./50-oomslice.conf ./site.yaml
                                       files that are not installed yet"""

FILE_SUFFIXES = (".conf", ".yaml", ".yml")
YAML_SUFFIXES = (".yaml", ".yml")
UNIT_SUFFIXES = (".slice", ".service", ".scope")
FILE_SIZE_MAX = 1 << 20
"""bytes; no unit file or YAML is as large"""


@dataclass(slots=True)
class Report:
    """What was looked at and what was found."""

    files: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, files: Sequence[tuple[str, str]], problems: Sequence[Problem]) -> None:
        """Takes over what is new of both."""
        self.files += [name for name, _ in files if name not in self.files]
        self.problems += [problem for problem in problems if problem not in self.problems]

    def errors(self) -> int:
        """How many problems are errors."""
        from oomslice.settings.model import Severity

        return sum(problem.severity is Severity.ERROR for problem in self.problems)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="FILE|UNIT", nargs="*", help="what to check (default: all in force)")


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Reads, checks and prints."""
    from oomslice.cli.ask import missing_module, print_json

    try:
        report = check(arguments.name)
    except ModuleNotFoundError as error:
        raise missing_module(error) from error
    if arguments.json:
        print_json(as_data(report))
    else:
        for line in render(report, terminal):
            print(line, file=sys.stderr)
        print(summary(report))
    return Exit.FAILED if report.errors() else Exit.OK


def is_file(name: str) -> bool:
    """Whether `name` is meant as a file, see DESCRIPTION."""
    return "/" in name or name.endswith(FILE_SUFFIXES) or Path(name).is_file()


def check(names: Sequence[str]) -> Report:
    """Everything wrong in what `names` say. Raises CommandFailure if systemd cannot be asked or knows no such unit."""
    from oomslice.settings.configuration import parse_configuration
    from oomslice.units.files import read_configuration

    report = Report()
    paths = [name for name in names if is_file(name)]
    units = [name for name in names if not is_file(name)]
    for unit in units:
        if not unit.endswith(UNIT_SUFFIXES):
            raise CommandFailure(
                f"{clean(unit)} is neither a file nor a slice, service or scope",
                Exit.USAGE,
                "For a file write its path; a unit name ends in .slice, .service or .scope.",
            )
    given = [(path, text) for path in paths if (text := _read(path, report)) is not None]
    yaml = [file for file in given if file[0].endswith(YAML_SUFFIXES)]
    installed = read_configuration()
    configuration, problems = parse_configuration([*installed, *yaml])
    if not names:
        report.add(installed, problems)
    # Of the installed files only their tiers are of interest when something else was asked about.
    report.add(yaml, [problem for problem in problems if problem.source.file in dict(yaml)])
    for file in given:
        if file not in yaml:
            _check_unit_files([file], configuration, report)
    if units or not names:
        _check_units(units, configuration, report)
    return report


def _check_unit_files(files: Sequence[tuple[str, str]], configuration: Configuration, report: Report) -> None:
    from oomslice.settings.unitfile import parse_unit_files
    from oomslice.settings.verify import verify_unit_files

    _, problems = parse_unit_files(files)
    report.add(files, [*problems, *verify_unit_files(files, configuration)])


def _check_units(names: Sequence[str], configuration: Configuration, report: Report) -> None:
    from oomslice.units.files import read_unit_files

    for unit in _units(names):
        files, problems = read_unit_files(unit)
        if names or any("[X-OOMSlice]" in text for _, text in files):
            report.add(files, problems)
            _check_unit_files(files, configuration, report)


def _units(names: Sequence[str]) -> list[Unit]:
    import asyncio

    from oomslice.errors import UnitsError
    from oomslice.units.client import UnitsClient

    async def asked() -> list[Unit]:
        client = UnitsClient()
        try:
            snapshot = await client.snapshot(full=True)
        finally:
            await client.close()
        return list(snapshot.units)

    try:
        known = {unit.name: unit for unit in asyncio.run(asked())}
    except UnitsError as error:
        raise CommandFailure(
            f"systemd cannot be asked for its units: {error}",
            Exit.FAILED,
            "Files can be checked without it: oomslicectl verify ./FILE",
        ) from error
    for name in names:
        if name not in known:
            raise CommandFailure(
                f"{clean(name)} is not running",
                Exit.FAILED,
                f"Its files can be checked by path; systemctl cat {clean(name)} shows them.",
            )
    return [known[name] for name in names] if names else list(known.values())


def _read(path: str, report: Report) -> str | None:
    """The text of a file; None, and a problem in the report, if there is none."""
    from oomslice.settings.model import Problem, Source

    try:
        with open(path, "rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
        if len(data) > FILE_SIZE_MAX:
            reason = f"larger than {FILE_SIZE_MAX} bytes, this is no configuration"
        else:
            return data.decode()
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8: byte {error.start + 1} is {error.object[error.start]:#04x}"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    report.add([(path, "")], [Problem(Source(path, 0), "", "", "", reason)])
    return None


def render(report: Report, terminal: Terminal) -> list[str]:
    """One line per problem, as systemd-analyze verify writes them; notices say that they are."""
    from oomslice.settings.model import Severity

    return [
        clean(problem) if problem.severity is Severity.ERROR else f"{clean(problem)} (notice)"
        for problem in report.problems
    ]


def summary(report: Report) -> str:
    """One line on the whole."""
    errors = report.errors()
    notices = len(report.problems) - errors
    found = [plural(errors, "error")] if errors else []
    found += [plural(notices, "notice")] if notices else []
    return f"{plural(len(report.files), 'file')} checked: {' and '.join(found) or 'no problems'}."


def as_data(report: Report) -> dict[str, Any]:
    """For --json."""
    return {
        "files": report.files,
        "errors": report.errors(),
        "problems": [
            {
                "severity": problem.severity.value,
                "file": problem.source.file,
                "line": problem.source.line,
                "section": problem.section,
                "key": problem.key,
                "value": problem.value,
                "message": problem.message,
            }
            for problem in report.problems
        ],
    }
