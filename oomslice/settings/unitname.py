# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which texts are names of units, by the rules of systemd.unit(5)."""

from __future__ import annotations

import enum
import re

UNIT_NAME_MAX = 255
UNIT_TYPES = (
    "service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope",
)  # fmt: skip
CGROUP_TYPES = ("slice", "service", "scope")
"""The types of units that oomslice ranks, and so the ones whose files have an [X-OOMSlice] section."""

_CHARACTERS = r"[A-Za-z0-9:_.\\@-]+"


class UnitNameKind(enum.Enum):
    PLAIN = "plain"
    INSTANCE = "instance"
    TEMPLATE = "template"


def check_unit_name(text: str) -> tuple[str, UnitNameKind | None]:
    """What is wrong with `text` as a unit's name ("" if nothing), and which kind of name it is."""
    prefix, dot, suffix = text.rpartition(".")
    if not dot or suffix not in UNIT_TYPES:
        return f'is not the name of a unit; names end in their type, as in "{_stem(text)}.service"', None
    if len(text) > UNIT_NAME_MAX:
        return f"is longer than the {UNIT_NAME_MAX} characters that a unit's name can have", None
    if not prefix or prefix.startswith("@"):
        return 'is not the name of a unit; a name has something before its "@" and its type', None
    if not re.fullmatch(_CHARACTERS, text):
        return (
            'is not the name of a unit; use letters, digits and ":_.\\@-" (systemd-escape(1) writes the others)',
            None,
        )
    at = prefix.find("@")
    if at < 0:
        return "", UnitNameKind.PLAIN
    return "", UnitNameKind.TEMPLATE if at == len(prefix) - 1 else UnitNameKind.INSTANCE


def _stem(text: str) -> str:
    stem = text.rpartition(".")[0] or text
    return stem if len(stem) <= 40 and re.fullmatch(_CHARACTERS, stem) else "notify"
