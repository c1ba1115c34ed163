# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens to a policy that is larger than a plan may be: the least missed units go, and never silently.

The limits are those of core/plan.h (a test compares them).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from oomslice.cgroups.model import Cgroup
from oomslice.policy.model import PolicyUnit
from oomslice.settings.model import Problem, Source
from oomslice.units.model import Unit

UNITS_MAX = 4096
DOMAINS_MAX = 64


def drop_user_units(
    units: Iterable[Unit], cgroups: Mapping[str, Cgroup], user_cgroups: Sequence[Cgroup], problems: list[Problem]
) -> list[Cgroup]:
    """The user cgroups that there is room for. A user manager has all its units listed, or none.

    Those with the most units lose them first, so that nobody crowds others out.
    """
    system = {unit.control_group for unit in units if unit.control_group in cgroups}
    by_manager: dict[str, list[Cgroup]] = defaultdict(list)
    for cgroup in user_cgroups:
        manager = cgroup.path
        while manager and manager not in system:
            manager = manager.rpartition("/")[0]
        by_manager[manager].append(cgroup)
    count = len(system) + len(user_cgroups)
    for manager in sorted(by_manager, key=lambda manager: (-len(by_manager[manager]), manager)):
        if count <= UNITS_MAX:
            break
        dropped = by_manager.pop(manager)
        count -= len(dropped)
        problems.append(
            _problem(f"a plan holds {UNITS_MAX} units: the {len(dropped)} below {manager or '/'} count as one")
        )
    return [cgroup for cgroups_ in by_manager.values() for cgroup in cgroups_]


def drop_units(units: list[PolicyUnit], populated: Collection[int], problems: list[Problem]) -> list[PolicyUnit]:
    """The units that there is room for, with their parents' new numbers.

    Leaves go first that are empty, then those that would never be chosen, then those that would be chosen last.
    """
    if len(units) <= UNITS_MAX:
        return units
    children = [0] * len(units)
    for unit in units[1:]:
        children[unit.parent] += 1

    def key(number: int) -> tuple[bool, bool, bool, int, int]:
        unit = units[number]
        spared = unit.self_ or unit.protected or unit.left_to_oomd or not unit.candidate
        return (
            unit.settings.pressure_trigger is not None,
            unit.cgroup_id in populated,
            not spared,
            -unit.priority,
            -number,
        )

    leaves = [(key(number), number) for number in range(1, len(units)) if not children[number]]
    heapq.heapify(leaves)
    dropped: set[int] = set()
    while len(units) - len(dropped) > UNITS_MAX:
        _, number = heapq.heappop(leaves)
        dropped.add(number)
        parent = units[number].parent
        children[parent] -= 1
        if not children[parent] and parent > 0:
            heapq.heappush(leaves, (key(parent), parent))
    lost = sum(units[number].candidate and units[number].cgroup_id in populated for number in dropped)
    problems.append(
        _problem(
            f"a plan holds {UNITS_MAX} units, the machine has {len(units)}: {len(dropped)} are left out, "
            f"{lost} of them running"
        )
    )
    kept = [number for number in range(len(units)) if number not in dropped]
    renumbered = {number: place for place, number in enumerate(kept)}
    renumbered[-1] = -1
    return [replace(units[number], parent=renumbered[units[number].parent]) for number in kept]


def _problem(message: str) -> Problem:
    return Problem(Source("plan", 0), "", "", "", message)
