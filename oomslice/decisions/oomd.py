# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd-oomd killed, as a decision beside ours: made of what it says on the bus and of the plans that held then,
or, of what nobody heard, of the journal.

Source: the signal Killed() of org.freedesktop.oom1(5).
"""

from __future__ import annotations

from collections import deque

from oomslice.decisions.oomdlog import SAME_USEC, Told
from oomslice.decisions.record import Decision
from oomslice.policy.model import Policy, PolicyUnit

ROOT_SLICE = "-.slice"
PLANS_KEPT = 8
"""A kill is followed by a new plan without the victim, maybe before we hear of it; the one that held then is wanted."""
TOLD_KEPT = 64
CARRIER = "systemd-oomd"
MEMORY_USED = "memory-used"
"""The reason of a kill for lack of memory and swap of the machine; another is memory-pressure."""
SUFFIXES = (".service", ".scope", ".slice")


class OomdKills:
    """Knows the last plans, and so who was killed."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._plans: deque[Policy] = deque(maxlen=PLANS_KEPT)
        self._from_journal: dict[str, int] = {}
        """cgroup -> when it was killed, of kills that the journal told first"""

    def follow(self, policy: Policy) -> None:
        """Takes a new plan."""
        self._plans.append(policy)

    def decision(self, cgroup: str, reason: str, realtime_usec: int, usec: int) -> Decision:
        """The record of one kill, heard of at these times (CLOCK_REALTIME and CLOCK_MONOTONIC, microseconds)."""
        path = "/" + cgroup.strip("/")
        known = self._known(path)
        unit = known[0] if known else None
        exact = unit is not None and unit.path == path
        domain = ROOT_SLICE
        if known and reason != MEMORY_USED:
            # It looks at the pressure of a unit and kills below it: which one it does not say, so the nearest.
            domain = next((above.name for above in known if above.path != path), ROOT_SLICE)
        return Decision(
            id=f"{self._boot_id[:16]}-o{realtime_usec}",
            boot_id=self._boot_id,
            carrier=CARRIER,
            trigger="oomd",
            domain=domain,
            outcome="killed-by-oomd",
            realtime_usec=realtime_usec,
            trigger_usec=usec,
            victim=unit.name if unit is not None and exact else unit_name(path),
            victim_cgroup_id=unit.cgroup_id if unit is not None and exact else 0,
            victim_priority=unit.priority if unit is not None else 0,
            extra={"cgroup": path, "reason": reason},
        )

    def is_known(self, cgroup: str, usec: int) -> bool:
        """Whether what is heard now was read in the journal already: its entry is written before the signal is sent."""
        told_usec = self._from_journal.pop("/" + cgroup.strip("/"), None)
        return told_usec is not None and abs(usec - told_usec) <= SAME_USEC

    def missed(self, told: Told) -> Decision:
        """The record of a kill that only the journal tells of. Which plan held then is not known, and a unit of that
        place may have been started anew since: so its priority is that of now, and whose cgroup it was stays open."""
        path = "/" + told.cgroup.strip("/")
        known = self._known(path)
        if told.boot_id == self._boot_id:
            self._from_journal[path] = told.usec
            while len(self._from_journal) > TOLD_KEPT:
                del self._from_journal[next(iter(self._from_journal))]
        under = self._known("/" + told.under.strip("/")) if told.under else []
        domain = ROOT_SLICE
        if told.under:
            exact = under and under[0].path == "/" + told.under.strip("/")
            domain = under[0].name if exact else unit_name(told.under)
        return Decision(
            id=f"{told.boot_id[:16]}-o{told.realtime_usec}",
            boot_id=told.boot_id,
            carrier=CARRIER,
            trigger="oomd",
            domain=domain,
            outcome="killed-by-oomd",
            realtime_usec=told.realtime_usec,
            trigger_usec=told.usec,
            victim=known[0].name if known and known[0].path == path else unit_name(path),
            victim_priority=known[0].priority if known else 0,
            extra={"cgroup": path, "reason": told.reason, "source": "journal"},
        )

    def _known(self, path: str) -> list[PolicyUnit]:
        """Units at and above a path, the nearest first, of the newest plan that has that very path, else the newest."""
        best: list[PolicyUnit] = []
        for policy in reversed(self._plans):
            above = [unit for unit in policy.units if unit.path == "/" or f"{path}/".startswith(f"{unit.path}/")]
            above.sort(key=lambda unit: len(unit.path), reverse=True)
            if above and above[0].path == path:
                return above
            best = best or above
        return best


def unit_name(path: str) -> str:
    """The unit of a cgroup that is in no plan: its path says it."""
    names = [part for part in path.split("/") if part.endswith(SUFFIXES)]
    return names[-1].removeprefix("_") if names else ROOT_SLICE
