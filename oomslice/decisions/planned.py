# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the plan said of everybody at a choice that was made in the kernel, whose program names nobody but its victim.

From the plan of that generation, never as the program saw it: whether a unit had a process then, how much memory it had
and whether it was left alone after a kill is not known here, so nobody is said to have been eligible. Pure.
"""

from __future__ import annotations

from oomslice._core import ffi, lib
from oomslice.decisions.record import Candidate, Decision
from oomslice.policy.model import Policy, PolicyUnit
from oomslice.policy.rank import below_unit

SOURCE = "plan"
"""`extra["candidates_from"]` of such a decision"""
PLANNED = "planned"
"""The verdict that no record of the core has: the plan lets it be chosen, and more is not known."""


def candidates(policy: Policy, domain: int, decision: Decision) -> tuple[Candidate, ...]:
    """All units below `domain`, the id of a cgroup, the victim first and then by priority, as many as a record of the
    core may have. The victim is as its record has it, also if it is younger than the plan. Empty if the plan does not
    know the domain.
    """
    ids = {unit.cgroup_id: number for number, unit in enumerate(policy.units)}
    number = 0 if domain == lib.OOMSLICE_PREKILL_MACHINE else ids.get(domain)
    if number is None:
        return ()
    chosen = Candidate(
        name=decision.victim,
        cgroup_id=decision.victim_cgroup_id,
        priority=decision.victim_priority,
        metric=decision.victim_memory_before,
        verdict=verdict_text(lib.OOMSLICE_VERDICT_CHOSEN),
    )
    others = [
        Candidate(unit.name, unit.cgroup_id, unit.priority, 0, verdict(unit))
        for unit, is_below in zip(policy.units, below_unit(policy.units, number), strict=True)
        if is_below and unit.cgroup_id != chosen.cgroup_id
    ]
    others.sort(key=lambda one: (one.verdict != PLANNED, one.priority, one.name))
    return (chosen, *others)[: lib.OOMSLICE_RECORD_CANDIDATES]


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
