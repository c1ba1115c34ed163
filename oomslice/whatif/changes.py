# SPDX-License-Identifier: LGPL-2.1-or-later
"""Other settings as somebody writes them on a command line: text for the parsers of unit files and YAML, no more.

batch.slice:Priority=-200          a key of [X-OOMSlice], as in a drop-in of that unit
machine:available-min=10%          a key of the YAML's machine: or limits:
FILE.yaml                          a drop-in of oomslice.yaml
batch.slice.d/50-oomslice.conf     a drop-in: the unit is in its path
batch.slice=FILE.conf              the same for a file of any name
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from oomslice.errors import SettingsError
from oomslice.settings.keys import YAML_LIMIT_KEYS, YAML_MACHINE_KEYS
from oomslice.settings.model import SETTING_KEYS
from oomslice.settings.nearest import nearest
from oomslice.settings.unitfile import SECTION
from oomslice.settings.unitname import CGROUP_TYPES
from oomslice.whatif.state import Changes, File

YAML_SUFFIXES = (".yaml", ".yml")
YAML_KEYS = {"machine": tuple(YAML_MACHINE_KEYS), "limits": tuple(YAML_LIMIT_KEYS)}


def collect(assignments: Sequence[str], files: Iterable[tuple[str, str]]) -> Changes:
    """Changes from --set, and from --with: (what was written there, the file's text). Raises SettingsError."""
    unit_files: dict[str, list[File]] = {}
    configuration: list[File] = []
    for written, text in files:
        unit, path = unit_and_path(written)
        if unit is None:
            configuration.append((path, text))
        else:
            unit_files.setdefault(unit, []).append((path, text))
    for assignment in assignments:
        where, key, value = split(assignment)
        if where in YAML_KEYS:
            configuration.append((f"--set {assignment}", f"{where}:\n  {key}: {quoted(value)}\n"))
        else:
            unit_files.setdefault(where, []).append((f"--set {assignment}", f"[{SECTION}]\n{key}={value}\n"))
    return Changes({unit: tuple(files) for unit, files in unit_files.items()}, tuple(configuration))


def split(assignment: str) -> tuple[str, str, str]:
    """Unit (or section of the YAML), key and value of one --set. Raises SettingsError."""
    name, colon, rest = assignment.rpartition("=")[0].partition(":")
    # A unit's name may have colons in it, a key has none.
    if name and name not in YAML_KEYS:
        name, colon, rest = assignment.partition("=")[0].rpartition(":")
    key, value = rest, assignment.partition("=")[2]
    if not colon or "=" not in assignment or "\n" in assignment:
        raise SettingsError(f"{assignment!r} is no setting; write UNIT:KEY=VALUE, as in batch.slice:Priority=-200")
    known: tuple[str, ...]
    if name in YAML_KEYS:
        known = YAML_KEYS[name]
    else:
        known = tuple(SETTING_KEYS)
        check_unit(name)
    if key not in known:
        guess = nearest(key, known)
        hint = f"; did you mean {guess}?" if guess else f"; there are {', '.join(known)}"
        raise SettingsError(f"{assignment!r}: there is no key {key!r}{hint}")
    return name, key, value


def unit_and_path(written: str) -> tuple[str | None, str]:
    """Whose file it is, None for YAML, and where it is. Raises SettingsError."""
    unit, equals, path = written.partition("=")
    if equals and is_unit(unit):
        return unit, path
    if written.endswith(YAML_SUFFIXES):
        return None, written
    pure = PurePath(written)
    for name in (pure.parent.name.removesuffix(".d") if pure.parent.name.endswith(".d") else "", pure.name):
        if is_unit(name):
            return name, written
    raise SettingsError(f"{written!r}: its path names no unit; write UNIT={written}")


def is_unit(name: str) -> bool:
    """Whether it could be a slice, service or scope."""
    return "/" not in name and name.rpartition(".")[2] in CGROUP_TYPES and not name.startswith(".")


def check_unit(name: str) -> None:
    """Raises SettingsError."""
    if not is_unit(name):
        raise SettingsError(f"{name!r} is no slice, service or scope: its name ends in .slice, .service or .scope")


def quoted(value: str) -> str:
    """A scalar of YAML that is this text, whatever it looks like; numbers and plain words stay as they are."""
    if value and all(c.isalnum() or c in "%./ -" for c in value) and not value.startswith(("-", " ")):
        return value
    return "'" + value.replace("'", "''") + "'"
