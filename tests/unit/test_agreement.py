# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's victims, held against the plan."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from hypothesis import given

from oomslice.cgroups.model import Usage
from oomslice.policy.agreement import AGAINST_PLAN, AS_PLANNED, Agreement, agreement
from oomslice.policy.model import Policy, PolicyUnit
from oomslice.policy.rank import rank
from tests.unit.policies import policies, policy, unit

LOW = unit("low.slice", 2, priority=-200)
HOG = replace(unit("hog.service", 3, parent=1, priority=-200), path="/low.slice/hog.service")
BIG = unit("big.service", 4)
VITAL = unit("vital.service", 5, protected=True, priority=-900)
PLAN = policy(LOW, HOG, BIG, VITAL)
ALL = {3, 4, 5}


def judged(victim: str, alive: Collection[int] = ALL, domain: str = "/", plan: Policy = PLAN) -> tuple[str, str, str]:
    made: Agreement = agreement(plan, alive, victim=victim, domain=domain)
    return made.verdict, made.unit.name, made.planned


def test_the_smallest_priority_is_as_planned_whatever_else_lives() -> None:
    assert judged("/low.slice/hog.service") == (AS_PLANNED, "hog.service", "")


def test_a_larger_priority_is_against_the_plan_while_a_smaller_one_lives() -> None:
    assert judged("/big.service") == (AGAINST_PLAN, "big.service", "hog.service")
    assert judged("/big.service", alive={4, 5}) == (AS_PLANNED, "big.service", "")


def test_who_is_protected_is_against_the_plan_whatever_its_priority() -> None:
    assert judged("/vital.service", alive={4}) == (AGAINST_PLAN, "vital.service", "big.service")
    assert judged("/vital.service", alive={5}) == (AS_PLANNED, "vital.service", "")


def test_only_units_below_the_domain_count() -> None:
    assert judged("/big.service", domain="/big.service") == (AS_PLANNED, "big.service", "")
    other = replace(unit("other.service", 6, parent=1, priority=5), path="/low.slice/other.service")
    plan = policy(LOW, HOG, BIG, other)
    assert judged("/low.slice/other.service", {3, 4, 6}, "/low.slice", plan) == (
        AGAINST_PLAN,
        "other.service",
        "hog.service",
    )


def test_what_is_inside_a_unit_is_the_unit_and_what_no_plan_knows_is_the_slice() -> None:
    assert judged("/low.slice/hog.service/worker/1")[1] == "hog.service"
    assert judged("/low.slice/new.service") == (AS_PLANNED, "low.slice", "")
    assert judged("/nowhere") == (AGAINST_PLAN, "-.slice", "hog.service")


def test_a_unit_that_goes_with_another_has_that_ones_priority() -> None:
    whole = unit("whole.slice", 7, priority=-300, whole=True)
    inner = replace(unit("in.service", 8, parent=1, priority=500, taken_with="whole.slice"), path="/whole.slice/in")
    assert judged("/whole.slice/in", {3, 8}, plan=policy(whole, inner)) == (AS_PLANNED, "whole.slice", "")


@given(policies())
def test_the_plans_own_choice_is_always_as_planned(plan: Policy) -> None:
    usage = {item.cgroup_id: Usage(memory=item.cgroup_id % 97, populated=True) for item in plan.units}
    ranking = rank(plan, usage)
    by_id: dict[int, PolicyUnit] = {item.cgroup_id: item for item in plan.units}
    if ranking[0].verdict == "chosen":
        chosen = by_id[ranking[0].cgroup_id]
        assert agreement(plan, usage.keys(), victim=chosen.path).verdict == AS_PLANNED
    for ranked in ranking[1:]:
        loser = by_id[ranked.cgroup_id]
        if ranking[0].verdict == "chosen" and loser.candidate and ranked.priority > ranking[0].priority:
            assert agreement(plan, usage.keys(), victim=loser.path).verdict == AGAINST_PLAN
