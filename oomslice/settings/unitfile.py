# SPDX-License-Identifier: LGPL-2.1-or-later
"""[X-OOMSlice] of unit files: systemd's own syntax, line by line, and the settings that come out of it.

Follows systemd.syntax(7) and what systemd 252 to 261 do (config_parse() in src/shared/conf-parser.c). systemd ignores
sections that begin with X-, so what it would say of our keys is said here, and what makes it stop reading a file
(an unfinished section header, invalid UTF-8, a line of more than 1 MiB) makes us stop as well.

Text is what was read from the file, decoded as UTF-8 with `surrogateescape`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from oomslice.settings.keys import SETTING_PARSERS
from oomslice.settings.model import SETTING_KEYS, Problem, Source, UnitSettings
from oomslice.settings.nearest import nearest
from oomslice.settings.problems import limited
from oomslice.settings.values import WHITESPACE, BadValueError, shown

SECTION = "X-OOMSlice"
LONG_LINE_MAX = 1024 * 1024
"""Bytes in one line, continuations joined; systemd reads no file beyond a longer one."""

_SYSTEMD_SECTIONS = frozenset({"Unit", "Install", "Slice", "Service", "Scope"})
"""Sections of slices, services and scopes. None has a key of our names, so such a key is ours and misplaced."""

# One end of line is \n, \r or \0, or several different ones after each other, \0 being the last: read_line_full().
_END_OF_LINE = re.compile("\n\r?\0?|\r\n?\0?|\0")
_BYTE_ORDER_MARK = "\ufeff"
# unichar_is_valid(): no surrogates (also what surrogateescape makes of bad bytes), no noncharacters.
_NOT_UTF8 = (
    "[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(1, 17))
    + "]"
)
_UNSAFE_IN_SECTION = "[\x01-\x1f\"'\\\\\x7f]"


@dataclass(frozen=True, slots=True)
class Assignment:
    """`key=value` in a section; `section` is None above the first header. `line` is where the assignment begins."""

    section: str | None
    key: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that systemd does not take, and where. `fatal`: nothing of the file is read from here on."""

    section: str | None
    line: int
    message: str
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Header:
    """A section header."""

    section: str
    line: int


def _too_long(text: str) -> bool:
    return len(text) * 4 > LONG_LINE_MAX and len(text.encode("utf-8", "surrogatepass")) > LONG_LINE_MAX


def _physical_lines(text: str) -> Iterator[str]:
    start = 0
    for end in _END_OF_LINE.finditer(text):
        yield text[start : end.start()]
        start = end.end()
    if start < len(text):
        yield text[start:]


def _logical_lines(text: str) -> Iterator[tuple[int, str] | Fault]:
    """Lines with their continuations joined, comments left out, and the number of the first line of each."""
    number, first = 0, 0
    mark_seen = False
    parts: list[str] = []
    length = 0
    for line in _physical_lines(text):
        number += 1
        if _too_long(line):
            yield Fault(None, number, "the line is longer than 1 MiB", fatal=True)
            return
        if line.lstrip(WHITESPACE).startswith(("#", ";")):
            continue  # also between a line and its continuation
        if not mark_seen and line.startswith(_BYTE_ORDER_MARK):
            mark_seen = True
            line = line[1:]
        first = first or number
        length += len(line.encode("utf-8", "surrogatepass"))
        if parts and length > LONG_LINE_MAX:
            yield Fault(None, first, "the line and its continuations are longer than 1 MiB", fatal=True)
            return
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            parts.append(line[:-1] + " ")
            continue
        parts.append(line)
        yield first, "".join(parts)
        parts, first, length = [], 0, 0
    if parts:
        yield first, "".join(parts)


def parse_lines(text: str) -> Iterator[Assignment | Header | Fault]:
    """What systemd sees in a unit file, in order. Lines below an X- section are looked at like all others."""
    section: str | None = None
    for logical in _logical_lines(text):
        if isinstance(logical, Fault):
            yield logical
            return
        number, line = logical[0], logical[1].strip(WHITESPACE)
        if not line:
            continue
        if not line.isascii() and re.search(_NOT_UTF8, line):
            yield Fault(section, number, "the line is not valid UTF-8", fatal=True)
            return
        if line.startswith("["):
            if not line.endswith("]") or len(line) < 2:
                yield Fault(section, number, "the section header has no closing ]", fatal=True)
                return
            section = line[1:-1]
            if re.search(_UNSAFE_IN_SECTION, section):
                yield Fault(
                    section, number, "the section header has a quote, backslash or control character", fatal=True
                )
                return
            yield Header(section, number)
            continue
        key, equals, value = line.partition("=")
        if not equals:
            yield Fault(section, number, f'"{shown(line, 60)}" is no assignment: it has no "="; the line is ignored')
        elif not key:
            yield Fault(section, number, 'there is no key before the "="; the line is ignored')
        else:
            yield Assignment(section, key.strip(WHITESPACE), value.strip(WHITESPACE), number)


def parse_unit_files(files: Sequence[tuple[str, str]]) -> tuple[UnitSettings, tuple[Problem, ...]]:
    """The settings that a unit's files make together, and what is wrong in them. Raises nothing.

    `files` are (path, text) in the order of application: the fragment, then the drop-ins, as systemd reports them.
    A later assignment of a key replaces the earlier one, also for Actions=; an empty one takes it back. A bad value
    is ignored: what was assigned before it stays.
    """
    values: dict[str, object] = {}
    sources: dict[str, Source] = {}
    problems: list[Problem] = []
    for file, text in files:
        found = (_apply(file, item, values, sources) for item in parse_lines(text))
        problems += limited([problem for problem in found if problem])
    return UnitSettings(**values, sources=MappingProxyType(sources)), tuple(problems)  # type: ignore[arg-type]


def _apply(
    file: str, item: Assignment | Header | Fault, values: dict[str, object], sources: dict[str, Source]
) -> Problem | None:
    """Takes one line into `values` and `sources`, or says what is wrong with it."""
    source = Source(file, item.line)
    if isinstance(item, Header):
        return _check_section(item, source)
    if isinstance(item, Fault):
        if item.fatal:
            rest = "; neither systemd nor oomslice reads this file from here on"
            return Problem(source, shown(item.section or ""), "", "", item.message + rest)
        # Lines of other sections are systemd's to judge.
        return Problem(source, SECTION, "", "", item.message) if item.section == SECTION else None
    if item.section != SECTION:
        return _check_misplaced(item, source)

    field = SETTING_KEYS.get(item.key)
    value = shown(item.value)
    if field is None:
        if item.key.startswith("X-"):
            return None  # systemd ignores such keys everywhere, for others to use
        near = nearest(item.key, SETTING_KEYS)
        right = f"did you mean {near}=?" if near else f"keys are {', '.join(f'{key}=' for key in SETTING_KEYS)}"
        return Problem(source, SECTION, shown(item.key), value, f"is not a key of [{SECTION}] and is ignored; {right}")
    if not item.value:
        values.pop(field, None)
        sources.pop(field, None)
        return None
    try:
        values[field] = SETTING_PARSERS[field](item.value)
    except BadValueError as error:
        return Problem(source, SECTION, item.key, value, f"{error}. The value is ignored")
    sources[field] = source
    return None


def _check_section(header: Header, source: Source) -> Problem | None:
    """A section that is almost ours. Of names that begin with X- systemd says nothing, so nobody else would tell."""
    if header.section == SECTION:
        return None
    plain = header.section.strip().casefold().removeprefix("x-").replace("-", "").replace("_", "")
    if nearest(plain, ["oomslice"], cutoff=0.8) is None:
        return None
    message = f"the section is ignored; did you mean [{SECTION}]?"
    return Problem(source, shown(header.section), "", "", f"[{shown(header.section, 60)}]: {message}")


def _check_misplaced(item: Assignment, source: Source) -> Problem | None:
    """One of our keys where it has no effect."""
    if item.key not in SETTING_KEYS or (item.section is not None and item.section not in _SYSTEMD_SECTIONS):
        return None
    where = "stands above the first section" if item.section is None else f"stands in [{item.section}]"
    message = f"{where} and is ignored there; put it below [{SECTION}]"
    return Problem(source, item.section or "", item.key, shown(item.value), message)
