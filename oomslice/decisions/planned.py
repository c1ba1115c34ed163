# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the plan said of everybody at a choice that was made in the kernel, whose program names nobody but its victim.

From the plan of that generation, never as the program saw it: whether a unit had a process then, how much memory it had
and whether it was left alone after a kill is not known here, so nobody is said to have been eligible. Pure.
"""

from __future__ import annotations

from oomslice._core import ffi, lib
from oomslice.decisions.record import Candidate
from oomslice.policy.model import Policy, PolicyUnit
from oomslice.policy.rank import below_unit

SOURCE = "plan"
"""`extra["candidates_from"]` of such a decision"""
PLANNED = "planned"
"""The verdict that no record of the core has: the plan lets it be chosen, and more is not known."""


def candidates(policy: Policy, domain: int, victim: int, usage: int) -> tuple[Candidate, ...]:
    """All units below `domain`, the victim first and then by priority, as many as a record of the core may have.

    `domain` and `victim` are ids of cgroups; `usage` is what the victim had. Empty if the plan does not know them.
    """
    ids = {unit.cgroup_id: number for number, unit in enumerate(policy.units)}
    number = 0 if domain == lib.OOMSLICE_PREKILL_MACHINE else ids.get(domain)
    if number is None or victim not in ids:
        return ()
    below = below_unit(policy.units, number)
    listed = [
        Candidate(
            name=unit.name,
            cgroup_id=unit.cgroup_id,
            priority=unit.priority,
            metric=usage if unit.cgroup_id == victim else 0,
            verdict=verdict_text(lib.OOMSLICE_VERDICT_CHOSEN) if unit.cgroup_id == victim else verdict(unit),
        )
        for unit, is_below in zip(policy.units, below, strict=True)
        if is_below
    ]
    listed.sort(key=lambda one: (one.cgroup_id != victim, one.verdict != PLANNED, one.priority, one.name))
    return tuple(listed[: lib.OOMSLICE_RECORD_CANDIDATES])


def verdict(unit: PolicyUnit) -> str:
    """What never changes while a plan holds, in the order of rule.h."""
    if not unit.candidate:
        return verdict_text(lib.OOMSLICE_VERDICT_CONTAINER)
    if unit.self_:
        return verdict_text(lib.OOMSLICE_VERDICT_SELF)
    if unit.protected:
        return verdict_text(lib.OOMSLICE_VERDICT_PROTECTED)
    return verdict_text(lib.OOMSLICE_VERDICT_LEFT_TO_OOMD) if unit.left_to_oomd else PLANNED


def verdict_text(number: int) -> str:
    """As in every record."""
    text: str = ffi.string(lib.oomslice_verdict_text(number)).decode()
    return text
