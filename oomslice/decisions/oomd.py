# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd-oomd killed, as a decision beside ours: made of what it says on the bus and of the plans that held then.

Source: the signal Killed() of org.freedesktop.oom1(5).
"""

from __future__ import annotations

from collections import deque

from oomslice.decisions.record import Decision
from oomslice.policy.model import Policy, PolicyUnit

ROOT_SLICE = "-.slice"
PLANS_KEPT = 8
"""A kill is followed by a new plan without the victim, maybe before we hear of it; the one that held then is wanted."""
CARRIER = "systemd-oomd"
MEMORY_USED = "memory-used"
"""The reason of a kill for lack of memory and swap of the machine; another is memory-pressure."""
SUFFIXES = (".service", ".scope", ".slice")


class OomdKills:
    """Knows the last plans, and so who was killed."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._plans: deque[Policy] = deque(maxlen=PLANS_KEPT)

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
