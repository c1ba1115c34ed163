# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ranking that is explained: whole, strict in its priorities, and with a reason for every unit."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomslice.cgroups.model import Usage
from oomslice.policy.model import Policy, PolicyDomain, PolicyUnit, RankedUnit
from oomslice.policy.rank import OUT, rank
from oomslice.settings.model import PressureVictims, RankBy, UnitSettings
from tests.unit.policies import GIB, policies, policy, unit, usages, uses


def verdicts(ranking: tuple[RankedUnit, ...]) -> dict[str, str]:
    return {one.name: one.verdict for one in ranking}


def reasons(ranking: tuple[RankedUnit, ...]) -> dict[str, str]:
    return {one.name: one.reason for one in ranking}


def domain(index: int) -> PolicyDomain:
    return PolicyDomain(index, RankBy.MEMORY, 0, False, UnitSettings())


def with_ancestors(wanted: Policy, one: PolicyUnit) -> list[PolicyUnit]:
    chain = [one]
    while chain[-1].parent >= 0:
        chain.append(wanted.units[chain[-1].parent])
    return chain


TWO_SLICES = policy(
    unit("high.slice", 10, priority=500),
    unit("low.slice", 20, priority=-200),
    unit("database.service", 11, parent=1, priority=500),
    unit("hog.service", 21, parent=2, priority=-200),
    unit("other.service", 22, parent=2, priority=-200),
    domains=(domain(2),),
)
FIGURES = {11: uses(8 * GIB), 21: uses(2 * GIB), 22: uses(1 * GIB)}


def test_the_smaller_priority_is_chosen_although_the_other_is_larger() -> None:
    ranking = rank(TWO_SLICES, FIGURES)
    assert [one.name for one in ranking[:3]] == ["hog.service", "other.service", "database.service"]
    assert [one.verdict for one in ranking[:3]] == ["chosen", "eligible", "eligible"]
    assert verdicts(ranking)["low.slice"] == verdicts(ranking)["-.slice"] == "container"
    assert len(ranking) == len(TWO_SLICES.units)


def test_a_ranking_says_with_which_numbers_it_was_made() -> None:
    first = rank(TWO_SLICES, FIGURES)[0]
    assert first == RankedUnit(
        name="hog.service",
        path="/hog.service",
        cgroup_id=21,
        priority=-200,
        priority_origin="own",
        metric=2 * GIB,
        memory=2 * GIB,
        verdict="chosen",
        reason="most memory at priority -200, compared with other.service",
    )


def test_reasons_name_what_made_the_difference() -> None:
    told = reasons(rank(TWO_SLICES, FIGURES))
    assert told["other.service"] == "less memory at priority -200, compared with hog.service"
    assert told["database.service"] == "larger priority: 500, hog.service has -200"
    told = reasons(rank(TWO_SLICES, {**FIGURES, 22: uses(2 * GIB)}))
    assert told["other.service"] == "younger than hog.service, which has the same priority and as much memory"
    assert told["hog.service"] == "older than other.service, which has the same priority and as much memory"
    told = reasons(rank(TWO_SLICES, {11: uses(1), 21: uses(1)}))
    assert told["hog.service"] == "smallest priority: -200, database.service has 500"
    assert reasons(rank(TWO_SLICES, {11: uses(1)}))["database.service"] == "the only one that may be chosen"


def test_whoever_is_kept_out_is_told_why() -> None:
    kept_out = policy(
        unit("protected.service", 10, protected=True),
        unit("init.scope", 11, self_=True),
        unit("oomd.service", 12, left_to_oomd=True),
        unit("gone.service", 13),
        unit("empty.service", 14),
        unit("tried.service", 15),
        unit("x.slice", 16),
        domains=(domain(7),),
    )
    figures = {id: uses(1) for id in (10, 11, 12, 15)} | {14: Usage()}
    ranking = rank(kept_out, figures, tried={15})
    assert verdicts(ranking) == {
        "-.slice": "container",
        "protected.service": "protected",
        "init.scope": "self",
        "oomd.service": "left-to-oomd",
        "gone.service": "gone",
        "empty.service": "empty",
        "tried.service": "tried",
        "x.slice": "container",
    }
    told = reasons(ranking)
    assert told["protected.service"] == "protected: own"
    assert "systemd-oomd" in told["oomd.service"]
    assert "gave nothing back" in told["tried.service"]
    assert len(set(told.values())) == 7  # the two containers have the same one
    assert reasons(rank(kept_out, figures, domain=1))["empty.service"] == "not below x.slice"


def test_only_units_below_the_domain_are_chosen() -> None:
    ranking = rank(TWO_SLICES, {**FIGURES, 11: uses(99 * GIB)}, domain=1)
    assert ranking[0].name == "hog.service"
    assert verdicts(ranking)["database.service"] == verdicts(ranking)["high.slice"] == "outside"


def test_who_was_tried_leaves_the_choice_to_the_next() -> None:
    assert rank(TWO_SLICES, FIGURES, tried=[21])[0].name == "other.service"
    assert rank(TWO_SLICES, FIGURES, tried={21, 22})[0].name == "database.service"
    assert "chosen" not in verdicts(rank(TWO_SLICES, FIGURES, tried={11, 21, 22})).values()


@pytest.mark.parametrize(
    "rank_by, first, metric",
    [
        (RankBy.MEMORY, "large.service", 900),
        (RankBy.SWAP, "swapped.service", 80),
        (RankBy.GROWTH, "grown.service", 400),
        (RankBy.REFAULT, "thrashing.service", 70),
    ],
)
def test_inside_one_priority_the_metric_of_the_domain_decides(rank_by: RankBy, first: str, metric: int) -> None:
    names = ("large", "swapped", "grown", "thrashing")
    four = policy(*(unit(f"{name}.service", 10 + i) for i, name in enumerate(names)), rank_by=rank_by)
    now = {10: uses(900), 11: uses(100, swap=80), 12: uses(500), 13: uses(100, refaults=100)}
    before = {10: uses(890), 11: uses(200, refaults=9), 12: uses(100), 13: uses(100, refaults=30)}
    ranking = rank(four, now, baseline=before)
    assert (ranking[0].name, ranking[0].metric) == (first, metric)
    assert ranking[0].memory == now[ranking[0].cgroup_id].memory


def test_a_unit_that_shrank_has_not_grown() -> None:
    shrunk = policy(unit("a.service", 10), rank_by=RankBy.GROWTH)
    assert rank(shrunk, {10: uses(5)}, baseline={10: uses(50)})[0].metric == 0
    assert rank(shrunk, {10: uses(5)})[0].metric == 5  # new since: all of it is growth


def test_an_unknown_domain_is_an_error() -> None:
    with pytest.raises(IndexError, match="no domain 2"):
        rank(TWO_SLICES, FIGURES, domain=2)
    with pytest.raises(IndexError):
        rank(TWO_SLICES, FIGURES, domain=-1)


def test_every_verdict_that_keeps_a_unit_out_has_a_reason() -> None:
    assert len(OUT) == 8
    assert list(OUT) == sorted(OUT, reverse=True)  # in the order in which they are looked at


@given(policies(), st.data())
@settings(max_examples=150, deadline=None)
def test_no_policy_has_somebody_chosen_who_must_not_be(wanted: Policy, data: st.DataObject) -> None:
    usage = {one.cgroup_id: data.draw(usages) for one in wanted.units if data.draw(st.integers(0, 5))}
    index = data.draw(st.integers(0, len(wanted.domains) - 1))
    tried = data.draw(st.sets(st.sampled_from([one.cgroup_id for one in wanted.units])))
    ranking = rank(wanted, usage, domain=index, tried=tried)

    by_id = {one.cgroup_id: one for one in wanted.units}
    assert {one.cgroup_id for one in ranking} == set(by_id)
    assert all(one.reason for one in ranking)
    assert [one.verdict for one in ranking].count("chosen") <= 1
    may = [one for one in ranking if one.verdict in ("chosen", "eligible")]
    assert may == list(ranking[: len(may)])
    assert not may or may[0].verdict == "chosen"
    for one in may:
        source = by_id[one.cgroup_id]
        assert source.candidate
        assert not (source.protected or source.self_ or source.left_to_oomd)
        assert one.cgroup_id in usage and usage[one.cgroup_id].populated and one.cgroup_id not in tried
        place = wanted.units[wanted.domains[index].unit]
        above = {one.cgroup_id for one in with_ancestors(wanted, source)}
        if wanted.domains[index].victims is PressureVictims.BELOW:
            assert place.cgroup_id in above
        else:
            assert source.priority < place.priority and place.cgroup_id not in above
            assert source.cgroup_id not in {one.cgroup_id for one in with_ancestors(wanted, place)}
    for better, worse in itertools.pairwise(may):
        assert (better.priority, -better.metric, -better.cgroup_id) < (worse.priority, -worse.metric, -worse.cgroup_id)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_units_does_not_matter(data: st.DataObject) -> None:
    # Units directly below the root may stand in any order.
    units = [
        unit(f"{i}.service", 10 + i, priority=data.draw(st.integers(-1, 1)), protected=data.draw(st.booleans()))
        for i in range(data.draw(st.integers(0, 12)))
    ]
    usage = {one.cgroup_id: data.draw(usages) for one in units}
    shuffled = data.draw(st.permutations(units))
    assert rank(policy(*units), usage) == rank(policy(*shuffled), usage)


def test_names_are_never_taken_for_a_template() -> None:
    # A user may name a scope as he likes.
    hostile = policy(unit("{unit.path}%s.scope", 10, protected=True), unit("{0}.scope", 11), unit("b.scope", 12))
    first, second, *others = hostile.units
    hostile = replace(hostile, units=(first, replace(second, protected_origin="{x}"), *others))
    told = reasons(rank(hostile, {10: uses(1), 11: uses(1), 12: uses(2)}))
    assert told["{unit.path}%s.scope"] == "protected: {x}"
    assert told["b.scope"] == "most memory at priority 0, compared with {0}.scope"


def test_whose_shortage_others_pay_for_is_paid_for_by_smaller_priorities_elsewhere() -> None:
    tree = policy(
        unit("services.slice", 10, priority=500),
        unit("database.service", 11, parent=1, priority=500),
        unit("backup.service", 12, parent=1, priority=-100),
        unit("equal.service", 13, priority=500),
        unit("hog.service", 14, priority=-200),
        domains=(replace(domain(2), victims=PressureVictims.LOWER_PRIORITY),),
    )
    ranking = rank(tree, {id: uses(GIB) for id in range(11, 15)}, domain=1)
    assert [(one.name, one.verdict) for one in ranking[:3]] == [
        ("hog.service", "chosen"),
        ("backup.service", "eligible"),
        ("-.slice", "outside"),
    ]
    assert {one.verdict for one in ranking[2:]} == {"outside"}
    told = reasons(ranking)["equal.service"]
    assert told == "is not elsewhere than database.service with a priority below its 500 (PressureVictims=)"
