# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sources of the manual pages, and what they define."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.scd"))


def page(name: str) -> str:
    """Source of a manual page."""
    return (DOCS / f"{name}.scd").read_text(encoding="utf-8")


def section(name: str, title: str) -> str:
    """One section of a manual page."""
    found = re.search(rf"^# {re.escape(title)}\n(.*?)(?=^# [A-Z]|\Z)", page(name), re.MULTILINE | re.DOTALL)
    assert found, f"{name} has no section {title}"
    return found.group(1)


def entries(text: str) -> set[str]:
    """What a section defines: the marked words of the lines that stand before an indented one."""
    lines = text.splitlines()
    heads = [line for line, following in itertools.pairwise(lines) if following.startswith("\t" + leading_tabs(line))]
    return {word for line in heads for word in re.findall(r"[*_]+([^*_\s][^*\s]*?)[*_]+(?=[\s,(\[@]|$)", line)}


def leading_tabs(line: str) -> str:
    return line[: len(line) - len(line.lstrip("\t"))]


def code_blocks(text: str, language: str = "") -> list[str]:
    """Fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
