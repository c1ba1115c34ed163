# SPDX-License-Identifier: LGPL-2.1-or-later
"""What unit files say is worth asking systemd for. Saves most questions, and never answers one itself.

A question costs PID 1, the bus and us four switches of context; reading a file, often the same one for many units,
costs little. systemd has another value than its default only for what a file of the unit mentions: `set-property` and
transient units write files too. And a unit can only need a daemon-reload if something changed in the file system since.
Whatever is in doubt is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from oomslice.units.files import read_text

WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Delegate": ("Delegate",),
        "ManagedOOMSwap": ("ManagedOOMSwap",),
        "ManagedOOMMemoryPressure": ("ManagedOOMMemoryPressure",),
        "ManagedOOMPreference": ("ManagedOOMPreference",),
        "OOMScoreAdjust": ("OOMScoreAdjust",),
        "MemoryMin": ("MemoryMin",),
        "MemoryLow": ("MemoryLow",),
        "MemoryHigh": ("MemoryHigh",),
        "MemoryMax": ("MemoryMax", "MemoryLimit"),
    }
)
"""Property -> words of which a file has one if it sets the property."""

ALL = frozenset(WORDS)

COARSE_NS = 20_000_000
"""How far the time of a change can be behind the clock: file systems use that of the last timer tick."""

_DROP_IN_SUFFIXES = (".service.d", ".slice.d", ".scope.d")
_TYPE_DROP_INS = ("service.d", "slice.d", "scope.d")
_NOT_EDITED = ("/transient", ".control", "/generator", ".attached")
"""Parts of the search path that systemd itself writes, and knows what it wrote."""


@dataclass(frozen=True, slots=True)
class _Read:
    changed_ns: int
    """ctime: unlike mtime, no copy preserves it"""
    words: frozenset[str]


class Mentions:
    """Reads unit files below `root`, each once until forget()."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._read: dict[str, _Read | None] = {}

    def forget(self) -> None:
        """Looks at every file again from here on."""
        self._read.clear()

    def properties(self, paths: Iterable[str]) -> frozenset[str]:
        """The properties of WORDS that these files may set."""
        found: set[str] = set()
        for path in paths:
            read = self._file(path)
            if read is None:
                return ALL
            found |= read.words
        return frozenset(found)

    def changed_since(self, usec: int, paths: Iterable[str]) -> bool:
        """Whether one of these files was changed or removed after this time (CLOCK_REALTIME)."""
        return any((read := self._file(path)) is None or read.changed_ns > usec * 1000 - COARSE_NS for path in paths)

    def directories_changed_since(self, usec: int, directories: Sequence[str]) -> bool:
        """Whether a file was added to, or removed from, a search path of systemd or one of its drop-in directories."""
        after_ns = usec * 1000 - COARSE_NS
        for directory in directories:
            if any(part in directory for part in _NOT_EDITED):
                continue
            here = self._root / directory.lstrip("/")
            try:
                if os.stat(here).st_ctime_ns > after_ns:
                    return True
                with os.scandir(here) as entries:
                    for entry in entries:
                        if not entry.name.endswith(_DROP_IN_SUFFIXES) and entry.name not in _TYPE_DROP_INS:
                            continue
                        if entry.stat().st_ctime_ns > after_ns:
                            return True
            except FileNotFoundError:
                continue
            except OSError:
                return True
        return False

    def _file(self, path: str) -> _Read | None:
        """None if it cannot be read."""
        if path in self._read:
            return self._read[path]
        file = self._root / path.lstrip("/")
        read: _Read | None = None
        try:
            text = read_text(file)
            status = os.stat(file)
            words = frozenset(name for name, words in WORDS.items() if any(word in text for word in words))
            read = _Read(status.st_ctime_ns, words)
        except OSError:
            pass
        self._read[path] = read
        return read
