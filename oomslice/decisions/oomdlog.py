# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd-oomd wrote into the journal about its kills, and which of those nobody has recorded yet. Pure.

It says "Killed PATH due to REASON" until version 259 and "Marked PATH for killing due to REASON" since, when it began
to ask others before. No field of the entry has more than that text. PID 1's own entry about a unit with processes that
systemd-oomd killed is of no use here: it goes by attributes that oomslice writes as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from oomslice.decisions.record import Decision

UNIT = "systemd-oomd.service"
SAME_USEC = 60_000_000
"""So far apart may an entry and what was heard on the bus be, and still be of one kill: either may have been stuck.
systemd-oomd itself waits for 15 s after each."""
REASON_MAX = 120

_KILL = r"(?:Killed (/.*?)|Marked (/.*?) for killing) due to (.+)"
_PRESSURE = r"memory pressure for (/.*?) being .*"


class Told(NamedTuple):
    """A kill as the journal has it."""

    cgroup: str
    reason: str
    """as the signal Killed() has it, where that is known; else as it was written"""
    under: str
    """the cgroup whose pressure it was; empty if that is not the reason"""
    boot_id: str
    realtime_usec: int
    usec: int
    """CLOCK_MONOTONIC of that boot"""


class Page(NamedTuple):
    """Some entries of the journal, oldest first."""

    kills: tuple[Told, ...] = ()
    cursor: str = ""
    """of the last entry, empty if there was none"""
    entries: int = 0


def parse(output: bytes) -> Page:
    """What `journalctl --output=json` printed. Lines that are no entry are left out, and so is a last one cut off."""
    kills: list[Told] = []
    cursor = ""
    lines = output.split(b"\n")[:-1]
    for line in lines:
        try:
            entry = json.loads(line)
            told = _told(entry)
            cursor = str(entry["__CURSOR"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if told is not None:
            kills.append(told)
    return Page(tuple(kills), cursor, len(lines))


def _told(entry: dict[str, str]) -> Told | None:
    message = entry.get("MESSAGE")
    # What is no text, or has more than one line, is not of systemd-oomd.
    found = re.fullmatch(_KILL, message) if isinstance(message, str) else None
    if found is None:
        return None
    why = found[3]
    pressure = re.fullmatch(_PRESSURE, why)
    reason = "memory-pressure" if pressure else "memory-used" if why.startswith("memory used ") else why[:REASON_MAX]
    return Told(
        cgroup=found[1] or found[2],
        reason=reason,
        under=pressure[1] if pressure else "",
        boot_id=str(entry["_BOOT_ID"]),
        realtime_usec=int(entry["__REALTIME_TIMESTAMP"]),
        usec=int(entry["__MONOTONIC_TIMESTAMP"]),
    )


def unrecorded(told: Sequence[Told], recorded: Sequence[Decision]) -> Sequence[Told]:
    """Those that no decision is about: each decision is of one kill of the same cgroup, and the nearest two belong
    together."""
    pairs = sorted(
        (abs(decision.trigger_usec - kill.usec), number, decision.id)
        for number, kill in enumerate(told)
        for decision in recorded
        if decision.boot_id == kill.boot_id and decision.extra.get("cgroup") == kill.cgroup
    )
    found: set[int] = set()
    taken: set[str] = set()
    for distance, number, id in pairs:
        if distance <= SAME_USEC and number not in found and id not in taken:
            found.add(number)
            taken.add(id)
    return [kill for number, kill in enumerate(told) if number not in found]
