# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `oomslicectl verify` says: what the parsers say, what only the whole shows, and what is worth knowing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from oomslice.settings.configuration import parse_configuration, unknown_tier
from oomslice.settings.keys import UNIT_FILE_KEY_OF, YAML_KEY_OF
from oomslice.settings.model import Configuration, Problem, Severity, Source, UnitSettings
from oomslice.settings.steps import STEPS, format_actions, with_end
from oomslice.settings.unitfile import SECTION, Assignment, parse_lines, parse_unit_files
from oomslice.settings.unitname import CGROUP_TYPES, UNIT_TYPES


def verify_unit_files(files: Sequence[tuple[str, str]], configuration: Configuration) -> tuple[Problem, ...]:
    """All that is wrong or worth knowing in the files of one unit, in the order of the files. Raises nothing.

    `files` are (path, text) in the order of application. Notices are said of the values that win.
    """
    settings, problems = parse_unit_files(files)
    found = [*problems, *_settings_notices(settings, SECTION, UNIT_FILE_KEY_OF), *_file_notices(files)]
    found += _score_notices(files, settings)
    if settings.tier is not None and settings.tier not in configuration.tiers:
        message = unknown_tier(settings.tier, configuration.tiers) + " The other keys hold"
        found.append(Problem(settings.sources["tier"], SECTION, "Tier", settings.tier, message))
    return _in_order(found, files)


def verify_configuration(files: Sequence[tuple[str, str]]) -> tuple[Problem, ...]:
    """All that is wrong or worth knowing in oomslice.yaml and its drop-ins, in the order of the files."""
    configuration, problems = parse_configuration(files)
    found = list(problems)
    for name, settings in configuration.tiers.items():
        found += _settings_notices(settings, f"tiers.{name}", YAML_KEY_OF)
    for rule in configuration.rules:
        found += _settings_notices(rule.settings, "rules", YAML_KEY_OF)
    return _in_order(found, files)


def has_errors(problems: Iterable[Problem]) -> bool:
    """True if `oomslicectl verify` fails; notices do not make it fail."""
    return any(problem.severity is Severity.ERROR for problem in problems)


def render(problem: Problem) -> str:
    """One problem as `systemd-analyze verify` prints it: `FILE:LINE: message`, notices marked as such."""
    text = str(problem)
    if problem.severity is Severity.ERROR:
        return text
    where = f"{problem.source.file}:{problem.source.line}" if problem.source.line else problem.source.file
    return f"{where}: notice:{text[len(where) + 1 :]}"


def _settings_notices(settings: UnitSettings, section: str, keys: Mapping[str, str]) -> Iterator[Problem]:
    def notice(field: str, value: str, message: str) -> Problem:
        return Problem(settings.sources[field], section, keys[field], value, message, Severity.NOTICE)

    if settings.actions is not None:
        added = with_end(settings.actions)[len(settings.actions) :]
        if added:
            last = settings.actions[-1].name
            ends = ", ".join(name for name, kind in STEPS.items() if kind.ends)
            why = "nothing kills what terminate leaves" if STEPS[last].ends else f"the ladder ends in none of {ends}"
            message = f"{why}, so {format_actions(added)} is added to it"
            yield notice("actions", format_actions(settings.actions), message)
    if settings.dry_run:
        yield notice("dry_run", "yes", "oomslice decides and records here, but does nothing")


def _file_notices(files: Sequence[tuple[str, str]]) -> Iterator[Problem]:
    """Settings in files of units that oomslice does not rank."""
    for file, text in files:
        kind = _unit_type(file)
        if kind is None or kind in CGROUP_TYPES:
            continue
        settings, _ = parse_unit_files([(file, text)])
        if settings.sources:
            first = min(source.line for source in settings.sources.values())
            message = f"[{SECTION}] has no effect in a {kind} unit; oomslice reads slices, services and scopes"
            yield Problem(Source(file, first), SECTION, "", "", message, Severity.NOTICE)


def _score_notices(files: Sequence[tuple[str, str]], settings: UnitSettings) -> Iterator[Problem]:
    """Two words for one thing: without OOMScoreAdjust= the kernel's own killer would follow the priority."""
    last: Problem | None = None
    key = next((UNIT_FILE_KEY_OF[name] for name in ("protect", "priority") if getattr(settings, name)), "")
    for file, text in files:
        for item in parse_lines(text):
            if isinstance(item, Assignment) and (item.section, item.key) == ("Service", "OOMScoreAdjust"):
                message = f"is kept: the kernel's own killer follows it, and not {key}="
                source = Source(file, item.line)
                last = Problem(source, "Service", item.key, item.value, message, Severity.NOTICE)
    if last is not None and key and last.value.strip("+-0"):
        yield last


def _unit_type(file: str) -> str | None:
    """The unit type that a fragment's or drop-in's path says; None if it says none."""
    path = PurePosixPath(file)
    name = path.parent.name.removesuffix(".d") if path.parent.name.endswith(".d") else path.name
    kind = name.rpartition(".")[2]
    return kind if kind in UNIT_TYPES else None


def _in_order(problems: Iterable[Problem], files: Sequence[tuple[str, str]]) -> tuple[Problem, ...]:
    order: dict[str, int] = {}
    for number, (file, _) in enumerate(files):
        order.setdefault(file, number)
    last = len(order)
    return tuple(sorted(problems, key=lambda problem: (order.get(problem.source.file, last), problem.source.line)))
