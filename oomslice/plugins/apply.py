# SPDX-License-Identifier: LGPL-2.1-or-later
"""Priorities of a policy put into a Policy. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from oomslice.plugins.wire import PolicyError
from oomslice.policy.effective import PRIORITY_MAX, PRIORITY_MIN
from oomslice.policy.model import Policy


def with_priorities(policy: Policy, priorities: Mapping[str, int], name: str) -> Policy:
    """The policy with other priorities, by cgroup path; those of candidates only. Raises PolicyError for one that no
    unit can have, and then nothing of the answer counts."""
    for path, priority in priorities.items():
        if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
            raise PolicyError(
                f"it gave {path[:200]} the priority {priority}; they are {PRIORITY_MIN} to {PRIORITY_MAX}"
            )
    units = []
    for unit in policy.units:
        priority = priorities.get(unit.path, unit.priority)
        if unit.candidate and not unit.protected and not unit.self_ and priority != unit.priority:
            unit = replace(unit, priority=priority, priority_origin=f"policy {name}")
        units.append(unit)
    return replace(policy, units=tuple(units))
