# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a victim is chosen. Read `rank` first, then what it calls: it is all there is.

The rule, in four lines:
    1. A unit that must not or cannot be chosen is out; the first reason that fits, of those in `OUT`, is its verdict.
    2. Of the rest, the smallest priority goes first, whatever the sizes.
    3. Inside one priority, the largest metric goes first: memory, swap, growth or refaults, by the domain's RankBy=.
    4. Inside one metric, the younger cgroup goes first.

The rule is carried out by `oomslice_select` (core/select.c), the code that also runs in the kill path: what is
explained here is what would be done. Pure: no clock, no file, no bus.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from oomslice._core import ffi, lib
from oomslice.cgroups.model import Usage
from oomslice.policy.model import Policy, PolicyDomain, PolicyUnit, RankedUnit
from oomslice.settings.model import PressureVictims, RankBy

OUT: Mapping[int, str] = {
    lib.OOMSLICE_VERDICT_OUTSIDE: "not below {domain.name}",
    lib.OOMSLICE_VERDICT_CONTAINER: "holds other units or no processes of its own; those below it are the candidates",
    lib.OOMSLICE_VERDICT_SELF: "keeps the machine or oomslice itself going, so it is never chosen",
    lib.OOMSLICE_VERDICT_PROTECTED: "protected: {unit.protected_origin}",
    lib.OOMSLICE_VERDICT_LEFT_TO_OOMD: "marked for systemd-oomd, which is running",
    lib.OOMSLICE_VERDICT_GONE: "its cgroup is gone or cannot be read",
    lib.OOMSLICE_VERDICT_TRIED: "was chosen already in this shortage and gave nothing back in time",
    lib.OOMSLICE_VERDICT_EMPTY: "no process in it",
}
"""Verdicts that keep a unit out, in the order in which they are looked at, each with its reason."""


OUT_LOWER = "is not elsewhere than {domain.name} with a priority below its {domain.priority} (PressureVictims=)"
"""The first of them, of a domain whose shortage others pay for."""


def rank(
    policy: Policy,
    usage: Mapping[int, Usage],
    *,
    domain: int = 0,
    tried: Collection[int] = (),
    baseline: Mapping[int, Usage] = MappingProxyType({}),
) -> tuple[RankedUnit, ...]:
    """Every unit of the policy, ranked for a shortage in one domain (its index), each with verdict and reason.

    The first one is the victim if its verdict is "chosen"; then come the others that may be chosen ("eligible"), in
    the order in which they would be; then all that may not. The order of the policy's units has no influence.

    `usage` is cgroup id -> figures now; a unit without figures is taken for gone. `tried` are the ids of cgroups that
    were acted upon in this shortage. `baseline` is cgroup id -> figures when the shortage was first seen, for growth
    and refaults; a unit without them started from nothing. Raises IndexError if there is no such domain.
    """
    if not 0 <= domain < len(policy.domains):
        raise IndexError(f"no domain {domain}: the policy has {len(policy.domains)}")
    rank_by = policy.domains[domain].rank_by
    domain_unit = policy.domains[domain].unit
    pays = pays_for(policy, policy.domains[domain])
    candidates = ffi.new("struct oomslice_candidate[]", len(policy.units))

    for index, unit in enumerate(policy.units):
        now = usage.get(unit.cgroup_id)
        candidates[index] = {
            "unit": index,
            "cgroup_id": unit.cgroup_id,
            "priority": unit.priority,
            "metric": metric(rank_by, now, baseline.get(unit.cgroup_id, Usage())) if now else 0,
            "memory": now.memory if now else 0,
            "flags": unit_flags(unit),
            "state": state(now, is_below=pays[index], is_tried=unit.cgroup_id in tried),
        }

    eligible_count = lib.oomslice_select(candidates, len(policy.units))
    if eligible_count:
        candidates[0].verdict = lib.OOMSLICE_VERDICT_CHOSEN

    eligible = [(policy.units[candidate.unit], candidate.metric) for candidate in candidates[0:eligible_count]]
    ranking = []
    for position, candidate in enumerate(candidates):
        unit = policy.units[candidate.unit]
        if position < eligible_count:
            reason = place(position, eligible, rank_by)
        elif candidate.verdict == lib.OOMSLICE_VERDICT_CONTAINER and unit.taken_with:
            reason = f"goes with {unit.taken_with}, which is taken as a whole (KillScope=subtree)"
        elif candidate.verdict == lib.OOMSLICE_VERDICT_OUTSIDE and is_lower(policy.domains[domain]):
            reason = OUT_LOWER.format(domain=policy.units[domain_unit])
        else:
            reason = OUT[candidate.verdict].format(unit=unit, domain=policy.units[domain_unit])
        ranking.append(
            RankedUnit(
                name=unit.name,
                path=unit.path,
                cgroup_id=unit.cgroup_id,
                priority=unit.priority,
                priority_origin=unit.priority_origin,
                metric=candidate.metric,
                memory=candidate.memory,
                verdict=ffi.string(lib.oomslice_verdict_text(candidate.verdict)).decode(),
                reason=reason,
            )
        )
    return tuple(ranking)


def metric(rank_by: RankBy, now: Usage, before: Usage) -> int:
    """What orders units of the same priority: bytes, or pages for refaults. A fall counts as 0."""
    match rank_by:
        case RankBy.MEMORY:
            return now.memory
        case RankBy.SWAP:
            return now.swap
        case RankBy.GROWTH:
            return max(0, now.memory - before.memory)
        case RankBy.REFAULT:
            return max(0, now.refaults - before.refaults)


def is_lower(domain: PolicyDomain) -> bool:
    """Whether others pay for the domain's shortage, those with a smaller priority."""
    return domain.victims is PressureVictims.LOWER_PRIORITY


def pays_for(policy: Policy, domain: PolicyDomain) -> list[bool]:
    """For each unit whether it may be chosen for the domain, as oomslice_plan_pays_for() in core/plan.c says it."""
    below = below_unit(policy.units, domain.unit)
    if not is_lower(domain):
        return below
    above = set()
    number = domain.unit
    while number >= 0:
        above.add(number)
        number = policy.units[number].parent
    own = policy.units[domain.unit].priority
    return [
        not below[number] and number not in above and unit.priority < own for number, unit in enumerate(policy.units)
    ]


def below_unit(units: Sequence[PolicyUnit], ancestor: int) -> list[bool]:
    """For each unit whether it is `ancestor` or below it. Parents come before their children."""
    below: list[bool] = []
    for index, unit in enumerate(units):
        below.append(index == ancestor or (unit.parent >= 0 and below[unit.parent]))
    return below


def unit_flags(unit: PolicyUnit) -> int:
    """What a unit is, as enum oomslice_unit_flag: the same in a plan as in a ranking."""
    return (
        (lib.OOMSLICE_UNIT_CANDIDATE if unit.candidate else 0)
        | (lib.OOMSLICE_UNIT_PROTECTED if unit.protected else 0)
        | (lib.OOMSLICE_UNIT_SELF if unit.self_ else 0)
        | (lib.OOMSLICE_UNIT_LEFT_TO_OOMD if unit.left_to_oomd else 0)
        | (lib.OOMSLICE_UNIT_DRY_RUN if unit.dry_run else 0)
        | (lib.OOMSLICE_UNIT_TAKEN if unit.taken_with else 0)
    )


def state(now: Usage | None, *, is_below: bool, is_tried: bool) -> int:
    """How a unit was found, as enum oomslice_candidate_state."""
    return (
        (lib.OOMSLICE_CANDIDATE_POPULATED if now and now.populated else 0)
        | (lib.OOMSLICE_CANDIDATE_GONE if now is None else 0)
        | (lib.OOMSLICE_CANDIDATE_TRIED if is_tried else 0)
        | (lib.OOMSLICE_CANDIDATE_BELOW if is_below else 0)
    )


def place(position: int, eligible: Sequence[tuple[PolicyUnit, int]], rank_by: RankBy) -> str:
    """Why a unit that may be chosen stands where it does. `eligible` are all of them in order, each with its metric."""
    if len(eligible) == 1:
        return "the only one that may be chosen"
    is_first = position == 0
    unit, amount = eligible[position]
    other, other_amount = eligible[1 if is_first else 0]
    if unit.priority != other.priority:
        which = "smallest" if is_first else "larger"
        return f"{which} priority: {unit.priority}, {other.name} has {other.priority}"
    if amount != other_amount:
        which = "most" if is_first else "less"
        return f"{which} {rank_by.value} at priority {unit.priority}, compared with {other.name}"
    which = "younger" if is_first else "older"
    return f"{which} than {other.name}, which has the same priority and as much {rank_by.value}"
