# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether somebody else's choice was that of the plan: the kernel's victim, held against the priorities.

Sizes play no part: at the moment of the kernel's kill nobody of ours wrote them down, and inside one priority either
choice is one that the plan allows. Pure: no clock, no file, no bus.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from oomslice.policy.model import Policy, PolicyUnit
from oomslice.policy.rank import below_unit

AS_PLANNED = "as-planned"
AGAINST_PLAN = "against-plan"


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the plan has to say of a victim."""

    verdict: str
    """AS_PLANNED or AGAINST_PLAN"""
    unit: PolicyUnit
    """whose the victim was"""
    planned: str
    """name of a unit that the plan would have chosen before it; empty if there is none"""


def agreement(policy: Policy, alive: Collection[int], *, victim: str, domain: str = "/") -> Agreement:
    """Compares a victim with the plan's choice, for a shortage in `domain`.

    `victim` and `domain` are cgroup paths below the root; what is no unit of the plan belongs to the nearest one above.
    `alive` are the ids of the cgroups that held a process at the moment of the choice; the victim's own may be missing.
    """
    chosen = policy.units[_at_or_above(policy, victim)]
    while chosen.taken_with:
        chosen = policy.units[chosen.parent]
    below = below_unit(policy.units, _at_or_above(policy, domain))
    others = [
        unit
        for number, unit in enumerate(policy.units)
        if below[number] and unit.cgroup_id in alive and unit is not chosen and _may_be_chosen(unit)
    ]
    first = min(others, key=lambda unit: unit.priority, default=None)
    spared = chosen.self_ or chosen.protected or chosen.left_to_oomd
    if first is not None and (spared or first.priority < chosen.priority):
        return Agreement(AGAINST_PLAN, chosen, first.name)
    return Agreement(AS_PLANNED, chosen, "")


def _may_be_chosen(unit: PolicyUnit) -> bool:
    return unit.candidate and not (unit.self_ or unit.protected or unit.left_to_oomd)


def _at_or_above(policy: Policy, path: str) -> int:
    """The number of the unit that has this cgroup, or the nearest one above it."""
    numbers = {unit.path: number for number, unit in enumerate(policy.units)}
    while path not in numbers and path not in ("", "/"):
        path = path.rpartition("/")[0]
    return numbers.get(path, 0)
