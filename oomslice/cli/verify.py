# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl verify: what is wrong in unit files and YAML. Works without the daemon."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Terminal, clean, plural

if TYPE_CHECKING:
    from oomslice.settings.model import Configuration, Problem
    from oomslice.units.model import Unit

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
SECTION = "[X-OOMSlice]"
SYSTEMCTL_TIMEOUT_SEC = 30


class Report:
    """What was looked at and what was found."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.problems: list[Problem] = []

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
        for line in render(report):
            print(line, file=sys.stderr)
        print(summary(report))
    return Exit.FAILED if report.errors() else Exit.OK


def is_file(name: str) -> bool:
    """Whether `name` is meant as a file, see DESCRIPTION."""
    return "/" in name or name.endswith(FILE_SUFFIXES) or Path(name).is_file()


def check(names: Sequence[str]) -> Report:
    """Everything wrong in what `names` say. Raises CommandFailure if systemd cannot be asked or knows no such unit."""
    from oomslice.settings.configuration import parse_configuration
    from oomslice.settings.verify import verify_configuration
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
    unreadable: list[Problem] = []
    installed = read_configuration(problems=unreadable)
    together = [*installed, *(file for file in yaml if file not in installed)]
    configuration, _ = parse_configuration(together)
    problems = [*verify_configuration(together), *_machine_problems_of(configuration)]
    place = {file: number for number, (file, _) in enumerate(together)}
    problems.sort(key=lambda problem: (place.get(problem.source.file, -1), problem.source.line))
    if not names:
        report.add(installed, [*unreadable, *problems])
    # Of the installed files only their tiers are of interest when something else was asked about.
    report.add(yaml, [problem for problem in problems if problem.source.file in dict(yaml)])
    for file in given:
        if file not in yaml:
            _check_unit_files([file], configuration, report, None)
    if units or not names:
        _check_units(units, configuration, report)
    return report


def _machine_problems_of(configuration: Configuration) -> Iterator[Problem]:
    """What this machine stands against in the YAML: a reserve too large for it, and steps that it would refuse."""
    from oomslice.actions.verify import machine_problems
    from oomslice.cgroups.tree import CgroupTree
    from oomslice.errors import CgroupError
    from oomslice.settings.configuration import with_possible_reserve
    from oomslice.settings.keys import YAML_KEY_OF

    with contextlib.suppress(CgroupError):
        yield from with_possible_reserve(configuration.limits, CgroupTree().memory().total)[1]
    for name, settings in configuration.tiers.items():
        yield from machine_problems(settings, f"tiers.{name}", YAML_KEY_OF)
    for rule in configuration.rules:
        yield from machine_problems(rule.settings, "rules", YAML_KEY_OF)


def _check_unit_files(
    files: Sequence[tuple[str, str]], configuration: Configuration, report: Report, unit: Unit | None
) -> None:
    from oomslice.actions.verify import machine_problems
    from oomslice.settings.keys import UNIT_FILE_KEY_OF
    from oomslice.settings.unitfile import SECTION as UNIT_FILE_SECTION
    from oomslice.settings.unitfile import parse_unit_files
    from oomslice.settings.verify import verify_unit_files

    problems = list(verify_unit_files(files, configuration))
    settings, _ = parse_unit_files(files)
    problems += machine_problems(settings, UNIT_FILE_SECTION, UNIT_FILE_KEY_OF, needed=_memory(unit))
    report.add(files, problems)


def _memory(unit: Unit | None) -> int:
    """What a dump of the unit would have to hold; 0 if it does not run."""
    from oomslice.cgroups.tree import CgroupTree
    from oomslice.errors import CgroupError

    if unit is None or not unit.control_group:
        return 0
    try:
        usage = CgroupTree().usage(unit.control_group)
    except CgroupError:
        return 0
    return usage.current + usage.swap


def _check_units(names: Sequence[str], configuration: Configuration, report: Report) -> None:
    from oomslice.units.files import read_unit_files

    for unit in [named_unit(name) for name in names] or running_units():
        files, problems = read_unit_files(unit)
        if names or any(SECTION in text for _, text in files):
            report.add(files, problems)
            _check_unit_files(files, configuration, report, unit)


def named_unit(name: str, command: Sequence[str] = ("systemctl",)) -> Unit:
    """The unit as systemd loads it, running or not. Raises CommandFailure."""
    import subprocess

    from oomslice.cli import systemctl
    from oomslice.units.model import Unit

    properties = ("LoadState", "FragmentPath", "DropInPaths", "Transient", "ControlGroup")
    try:
        (values,) = systemctl.show([name], properties, SYSTEMCTL_TIMEOUT_SEC, command)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _no_systemd(clean(str(error))) from error
    if not values.get("FragmentPath") and not values.get("DropInPaths"):
        state = values.get("LoadState", "not-found")
        raise CommandFailure(
            f"there is no unit file of {clean(name)} ({clean(state)})",
            Exit.FAILED,
            "A file that is not installed yet can be checked by its path: oomslicectl verify ./FILE",
        )
    return Unit(
        name=name,
        control_group=values.get("ControlGroup", ""),
        fragment_path=values.get("FragmentPath", ""),
        drop_in_paths=tuple(unescaped(path) for path in values.get("DropInPaths", "").split()),
        transient=values.get("Transient") == "yes",
    )


def unescaped(path: str) -> str:
    """A path out of a list that systemctl printed: blanks and the like are written \\xNN there."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found.group(1), 16)), path)


def running_units() -> list[Unit]:
    """Every slice, service and scope that has a cgroup. Raises CommandFailure."""
    from oomslice.cli import systemd
    from oomslice.errors import UnitsError

    try:
        return list(systemd.snapshot().units)
    except UnitsError as error:
        raise _no_systemd(str(error)) from error


def _no_systemd(reason: str) -> CommandFailure:
    return CommandFailure(
        reason if reason.startswith("systemd cannot be asked") else f"systemd cannot be asked: {reason}",
        Exit.FAILED,
        "Files can be checked without it: oomslicectl verify ./FILE",
    )


def _read(path: str, report: Report) -> str | None:
    """The text of a file; None, and a problem in the report, if there is none."""
    from oomslice.settings.model import Problem, Source
    from oomslice.units.files import read_text

    try:
        return read_text(Path(path))
    except OSError as error:
        report.add([(path, "")], [Problem(Source(path, 0), "", "", "", f"cannot be read: {error.strerror}")])
        return None


def render(report: Report) -> list[str]:
    """One line per problem, as systemd-analyze verify writes them."""
    from oomslice.settings import verify

    return [clean(verify.render(problem)) for problem in report.problems]


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
