# SPDX-License-Identifier: LGPL-2.1-or-later
"""One thing that was looked at, with a verdict and what to do about it."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any, NamedTuple

READ_MAX = 64 * 1024


class Verdict(enum.Enum):
    """How much it matters. A problem keeps oomslice from its work, or will; a note is good to know."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """One line of the report. `advice` is empty where there is nothing to do."""

    group: str
    name: str
    verdict: Verdict
    found: str
    advice: str = ""

    def as_data(self) -> dict[str, Any]:
        """For --json."""
        return {**self._asdict(), "verdict": self.verdict.value}


class Files:
    """Small files of the kernel, below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def text(self, path: str) -> str | None:
        """The file's text without blanks around it; None if it cannot be read."""
        try:
            with open(self.root / path, encoding="ascii", errors="replace") as file:
                return file.read(READ_MAX).strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """A file with one number in it."""
        text = self.text(path)
        return int(text) if text is not None and text.lstrip("-").isdecimal() else None

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def keyed(self, path: str) -> dict[str, int]:
        """Lines "KEY: NUMBER kB" of meminfo or "KEY NUMBER" of a cgroup file; empty if it cannot be read."""
        values = {}
        for line in (self.text(path) or "").splitlines():
            words = line.replace(":", " ", 1).split()
            if len(words) >= 2 and words[1].isdecimal():
                values[words[0]] = int(words[1]) * (1024 if words[2:] == ["kB"] else 1)
        return values
