# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings that are given one by one, as by `oomslicectl set`: what is wrong with them, and the drop-in they make.

Checked by the parsers that read unit files, so what is written here is also read. Pure: no file is touched.
"""

from __future__ import annotations

from collections.abc import Mapping

from oomslice.errors import InvalidSettingError
from oomslice.settings.keys import SETTING_PARSERS
from oomslice.settings.model import SETTING_KEYS
from oomslice.settings.nearest import nearest
from oomslice.settings.unitfile import SECTION, Assignment, parse_lines
from oomslice.settings.unitname import CGROUP_TYPES, UnitNameKind, check_unit_name
from oomslice.settings.values import BadValueError, shown

PERSISTENT_NAME = "50-oomslice-set.conf"
RUNTIME_NAME = "51-oomslice-set.conf"
"""Of another name, or systemd would not read the one in /run; and later, so that it holds until the next boot."""
HEADER = "# Written by `oomslicectl set`, which reads nothing here but its own lines.\n"


def check_unit(name: str) -> None:
    """Raises InvalidSettingError if no drop-in for a unit of this name has our settings."""
    wrong, kind = check_unit_name(name)
    if not wrong and name.rpartition(".")[2] not in CGROUP_TYPES:
        wrong = f"has no memory of its own; units that have settings are {', '.join(CGROUP_TYPES)}"
    if not wrong and kind is UnitNameKind.TEMPLATE:
        wrong = "is a template; name an instance of it, or write the drop-in by hand"
    if wrong:
        raise InvalidSettingError(f"{shown(name, 100)} {wrong}")


def check_assignments(assignments: Mapping[str, str]) -> None:
    """Raises InvalidSettingError for the first one that a unit file could not have. An empty value is a reset."""
    for key, value in assignments.items():
        field = SETTING_KEYS.get(key)
        if field is None:
            near = nearest(key, SETTING_KEYS)
            right = f"did you mean {near}=?" if near else f"keys are {', '.join(f'{known}=' for known in SETTING_KEYS)}"
            raise InvalidSettingError(f"{shown(key, 60)}= is not a key of [{SECTION}]; {right}")
        if not value.isprintable():
            raise InvalidSettingError(f"{key}={shown(value)}: is not one line of text that can be printed")
        if value != value.strip() or value.endswith("\\"):
            raise InvalidSettingError(f"{key}={shown(value)}: begins or ends with what a unit file would not keep")
        try:
            if value:
                SETTING_PARSERS[field](value)
        except BadValueError as error:
            raise InvalidSettingError(f"{key}={shown(value)}: {error}") from None


def assignments_in(text: str) -> dict[str, str]:
    """What a drop-in of ours sets. What somebody else wrote into it is not kept, unless it is a setting."""
    found: dict[str, str] = {}
    for line in parse_lines(text):
        if isinstance(line, Assignment) and line.section == SECTION:
            try:
                check_assignments({line.key: line.value})
            except InvalidSettingError:
                continue
            found.pop(line.key, None)
            found[line.key] = line.value
    return found


def drop_in(assignments: Mapping[str, str]) -> str:
    """The text of a drop-in, empty if there is nothing to say."""
    if not assignments:
        return ""
    return f"{HEADER}[{SECTION}]\n" + "".join(f"{key}={value}\n" for key, value in assignments.items())
