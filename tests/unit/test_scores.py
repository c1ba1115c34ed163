# SPDX-License-Identifier: LGPL-2.1-or-later
"""The values that make the kernel's own killer follow the priorities, held against the kernel's arithmetic."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from oomslice.policy.model import Policy, PolicyUnit
from oomslice.policy.scores import LAST, MOST, PAGE, PROTECTED, Scores, SliceScore, scores
from oomslice.settings.model import KillScope
from tests.unit.policies import policies, policy, unit

MIB = 1 << 20
TOTAL = 4096 * MIB


def badness(size: int, adj: int, total: int = TOTAL) -> int:
    """mm/oom_kill.c, oom_badness."""
    return size // PAGE + adj * (total // PAGE // 1000)


def given_to(result: Scores) -> dict[int, int | None]:
    return {item.cgroup_id: item.adj for item in result.units}


def test_one_level_below_the_ordinary_goes_first_whatever_anybody_uses() -> None:
    plan = policy(unit("hog.service", 2, priority=-200), unit("big.service", 3))
    assert given_to(scores(plan, {3: TOTAL // 2}, TOTAL)) == {2: MOST, 3: None}
    assert badness(0, MOST) > badness(TOTAL * 99 // 100, 0)


def test_protected_units_are_last_and_nobody_gets_minus_1000() -> None:
    plan = policy(unit("a.service", 2), unit("vital.service", 3, protected=True), unit("good.service", 4, priority=900))
    values = given_to(scores(plan, {}, TOTAL))
    assert values[2] is None and values[3] == LAST > -1000
    assert values[4] is not None and LAST < values[4] < 0


def test_a_value_of_ones_own_is_kept_and_said() -> None:
    own = replace(unit("own.service", 2, priority=-200), oom_score_adjust=-500)
    result = scores(policy(own, unit("hog.service", 3, priority=-200)), {}, TOTAL)
    assert given_to(result) == {2: None, 3: MOST}
    kept = result.units[0]
    assert not kept.touched and "OOMScoreAdjust=-500 of its own is kept" in kept.reason


def test_what_the_machine_stands_on_and_what_is_left_to_oomd_is_not_touched() -> None:
    plan = policy(unit("init.scope", 2, self_=True), unit("x.service", 3, priority=-5, left_to_oomd=True))
    assert [(item.touched, item.adj, item.group) for item in scores(plan, {}, TOTAL).units] == [
        (False, None, False)
    ] * 2


def test_a_machine_on_which_nobody_set_anything_is_left_alone() -> None:
    result = scores(policy(unit("a.service", 2), unit("b.service", 3)), {2: TOTAL}, TOTAL)
    assert not result.wanted and all(item.touched for item in result.units)


def test_the_kernel_takes_the_whole_unit_where_oomslice_would() -> None:
    plan = policy(
        unit("unit.service", 2, priority=-1),
        unit("one.service", 3, priority=-1, kill_scope=KillScope.PROCESS),
        unit("whole.slice", 4, priority=-1, whole=True),
        replace(unit("in.service", 5, parent=3, taken_with="whole.slice", priority=-1), priority=7),
        unit("later.service", 6, priority=1),
    )
    assert {item.cgroup_id: item.group for item in scores(plan, {}, TOTAL).units} == {
        2: True,
        3: False,
        4: True,
        5: False,
        6: False,
    }
    assert given_to(scores(plan, {}, TOTAL))[5] == MOST  # with the whole, whatever its own priority


def test_a_users_units_start_from_their_managers_value_and_are_never_put_below_zero() -> None:
    manager = replace(unit("user@1000.service", 2), candidate=False, oom_score_adjust=100)
    app = replace(unit("app.scope", 3, parent=1, priority=-100), user=True)
    shell = replace(unit("shell.service", 4, parent=1, protected=True), user=True)
    other = replace(unit("other.service", 5, parent=1), user=True)
    result = scores(policy(manager, app, shell, other), {5: TOTAL // 10}, TOTAL)
    found = {item.cgroup_id: item for item in result.units}
    assert {item.baseline for item in found.values()} == {200}
    assert (found[4].adj, found[5].adj) == (0, None)
    # Before one of priority 0 that uses a tenth and has 200 from its manager.
    assert found[3].adj is not None and found[3].adj > 200 + 100


def test_at_a_limit_a_thousandth_is_less() -> None:
    jail = replace(unit("jail.slice", 2), memory_max=400 * MIB)
    plan = policy(
        jail,
        unit("bad.service", 3, parent=1, priority=-10),
        unit("good.service", 4, parent=1, priority=-5),
        unit("elsewhere.service", 5),
    )
    values = given_to(scores(plan, {4: 300 * MIB, 5: 3000 * MIB}, TOTAL))
    first, second = values[3], values[4]
    assert first is not None and second is not None
    # 3000 MiB outside and 300 of 400 inside do not fit into one thousand together: the machine comes first.
    assert badness(0, second) > badness(3000 * MIB, 0) and badness(0, first) > badness(300 * MIB, second)
    values = given_to(scores(plan, {4: 300 * MIB, 5: 100 * MIB}, TOTAL))
    first, second = values[3], values[4]
    assert first is not None and second is not None
    assert badness(0, first, 400 * MIB) > badness(300 * MIB, second, 400 * MIB)


def test_values_stay_until_the_order_would_be_wrong() -> None:
    plan = policy(unit("a.service", 2, priority=-20), unit("b.service", 3, priority=-10), unit("c.service", 4))
    first = scores(plan, {3: 100 * MIB, 4: 100 * MIB}, TOTAL)
    same = scores(plan, {3: 900 * MIB, 4: 300 * MIB}, TOTAL, first)
    assert same.levels == first.levels
    grown = scores(plan, {3: 3000 * MIB, 4: 300 * MIB}, TOTAL, same)
    assert grown.levels != first.levels
    adj = given_to(grown)
    assert adj[2] is not None and adj[3] is not None
    assert badness(0, adj[2]) > badness(3000 * MIB, adj[3])


def test_a_level_that_comes_back_finds_its_value() -> None:
    a, b = unit("a.service", 2, priority=-20), unit("b.service", 3, priority=-10)
    first = scores(policy(a, b), {}, TOTAL)
    without = scores(policy(b), {}, TOTAL, first)
    assert given_to(without)[3] == given_to(first)[3]
    assert given_to(scores(policy(a, b), {}, TOTAL, without)) == given_to(first)


def test_too_many_large_units_are_in_order_all_the_same_and_it_is_said() -> None:
    plan = policy(*(unit(f"{number}.service", number + 10, priority=-number) for number in range(8)))
    result = scores(plan, {number + 10: TOTAL // 2 for number in range(8)}, TOTAL)
    assert not result.strict and "too large for a strict order" in result.units[-1].reason
    ordered = [result.levels[-number] for number in range(1, 8)]
    assert ordered == sorted(set(ordered)) and ordered[-1] == MOST
    wobbling = scores(plan, {number + 10: TOTAL // 2 - number for number in range(8)}, TOTAL, result)
    assert wobbling.levels == result.levels


def handed_down(result: Scores) -> dict[str, int | None]:
    return {item.path: item.adj for item in result.slices}


def test_a_slice_hands_down_what_a_unit_of_its_priority_gets() -> None:
    batch = unit("batch.slice", 2, priority=-200)
    plan = policy(batch, unit("hog.service", 3, parent=1, priority=-200), unit("plain.service", 4))
    result = scores(plan, {}, TOTAL)
    assert result.slices[1] == SliceScore(2, "/batch.slice", MOST, 0, True)
    assert given_to(result)[3] == MOST
    # What is in it has other priorities, and even if there is nothing at all.
    other = scores(policy(batch, unit("hog.service", 3, parent=1, priority=-300)), {}, TOTAL)
    adj, hog = other.slices[1].adj, given_to(other)[3]
    assert adj is not None and hog is not None and 0 < adj < hog
    empty = scores(policy(batch), {}, TOTAL)
    assert empty.units == () and empty.wanted and handed_down(empty) == {"/-.slice": None, "/batch.slice": MOST}


def test_a_slice_inside_another_is_known_even_if_it_hands_nothing_down() -> None:
    plan = policy(
        unit("batch.slice", 2, priority=-200),
        unit("batch-calm.slice", 3, parent=1),
        unit("calm.service", 4, parent=2),
        unit("batch-loud.slice", 5, parent=1, priority=-400),
    )
    result = scores(plan, {}, TOTAL)
    assert result.kept == {3: "/batch-calm.slice"}
    found = handed_down(result)
    first, second = found["/batch-loud.slice"], found["/batch.slice"]
    assert first is not None and second is not None and first > second > 0


def test_a_slice_is_watched_for_those_in_it_that_may_be_started_anew() -> None:
    plan = policy(
        unit("app.slice", 2),
        unit("app-in.slice", 3, parent=1),
        unit("vital.service", 4, parent=2, protected=True),
        unit("plain.slice", 5),
        unit("plain.service", 6, parent=4),
    )
    result = scores(plan, {}, TOTAL)
    assert handed_down(result) == {"/-.slice": None, "/app.slice": None, "/app-in.slice": None}
    assert result.kept == {5: "/plain.slice"}


def test_a_protected_slice_has_who_is_new_in_it_come_last() -> None:
    vital = unit("vital.slice", 2, priority=-200, protected=True)
    plan = policy(
        vital, unit("in.service", 3, parent=1, priority=-200, protected=True), unit("dear.service", 4, priority=9)
    )
    result = scores(plan, {}, TOTAL)
    assert result.slices[1] == SliceScore(2, "/vital.slice", LAST, 0, False)
    adj = given_to(result)
    assert adj[3] == LAST and adj[4] is not None and LAST < adj[4] < 0
    empty = scores(policy(vital), {}, TOTAL)
    assert handed_down(empty) == {"/-.slice": None, "/vital.slice": LAST}
    of_a_user = scores(
        policy(unit("user@1000.service", 2), replace(vital, parent=1, cgroup_id=3, user=True)), {}, TOTAL
    )
    assert [item.adj for item in of_a_user.slices if item.cgroup_id == 3] == [0]


def test_nothing_is_handed_down_where_nobody_may_be_chosen() -> None:
    plan = policy(
        unit("oomslice.slice", 4, priority=-200, self_=True),
        unit("oomd.slice", 5, priority=-200, left_to_oomd=True),
        unit("whole.slice", 6, priority=-200, whole=True),
        replace(unit("inner.slice", 7, parent=3, priority=-200), taken_with="whole.slice"),
    )
    result = scores(plan, {}, TOTAL)
    assert handed_down(result) == {"/-.slice": None}
    assert result.kept == {4: "/oomslice.slice", 5: "/oomd.slice"}


def test_what_a_users_slice_hands_down_counts_from_his_managers_value_and_is_never_below_zero() -> None:
    manager = replace(unit("user@1000.service", 2), candidate=False, oom_score_adjust=100)
    background = replace(unit("background.slice", 3, parent=1, priority=-100), user=True)
    session = replace(unit("session.slice", 4, parent=1, priority=300), user=True)
    result = scores(policy(manager, background, session), {}, TOTAL)
    found = {item.path: item for item in result.slices}
    assert {item.baseline for path, item in found.items() if path != "/-.slice"} == {200}
    assert (found["/session.slice"].adj, found["/user@1000.service"].adj) == (0, None)
    adj = found["/background.slice"].adj
    assert adj is not None and adj > 200


shares = st.lists(st.integers(0, 1000), min_size=1, max_size=16)


@st.composite
def machines(draw: st.DrawFn) -> tuple[Policy, dict[int, int], int]:
    """Units of few levels that use no more than nine tenths of a machine, and what that has."""
    total = draw(st.integers(256, 1 << 20)) * MIB
    weights = draw(shares)
    whole = max(sum(weights), 1)
    units: list[PolicyUnit] = []
    sizes: dict[int, int] = {}
    for number, weight in enumerate(weights):
        priority = draw(st.sampled_from([-1000, -200, -50, -1, 0, 0, 1, 500, 1000]))
        units.append(unit(f"{number}.service", number + 10, priority=priority, protected=draw(st.integers(0, 7)) == 0))
        sizes[number + 10] = total * 9 // 10 * weight // whole
    return policy(*units), sizes, total


def assert_in_order(plan: Policy, result: Scores, sizes: dict[int, int], total: int) -> None:
    """However each unit divides what it has among processes."""
    levels = {item.cgroup_id: PROTECTED if item.protected else item.priority for item in plan.units[1:]}
    adj = given_to(result)
    for first, first_level in levels.items():
        for second, second_level in levels.items():
            if first_level < second_level:
                assert badness(0, adj[first] or 0, total) > badness(sizes[second], adj[second] or 0, total)


@given(machines())
def test_the_order_is_strict_whatever_the_sizes(machine: tuple[Policy, dict[int, int], int]) -> None:
    plan, sizes, total = machine
    result = scores(plan, sizes, total)
    assert result.strict
    assert_in_order(plan, result, sizes, total)


@given(machines(), st.lists(st.integers(0, 1000), min_size=16, max_size=16))
def test_it_stays_strict_whatever_was_before(machine: tuple[Policy, dict[int, int], int], weights: list[int]) -> None:
    plan, sizes, total = machine
    whole = max(sum(weights[: len(sizes)]), 1)
    then = {id: total * 9 // 10 * weight // whole for id, weight in zip(sizes, weights, strict=False)}
    result = scores(plan, sizes, total, scores(plan, then, total))
    assert_in_order(plan, result, sizes, total)
    assert scores(plan, sizes, total, result).levels == result.levels


@given(policies(), st.integers(0, 1 << 40))
def test_any_policy_gets_values_within_bounds(plan: Policy, total: int) -> None:
    sizes = {item.cgroup_id: item.cgroup_id % (1 << 33) for item in plan.units}
    result = scores(plan, sizes, total, scores(plan, {}, total))
    for item in result.units:
        assert item.adj is None or LAST <= item.adj <= MOST
        assert item.touched or (item.adj is None and not item.group)
    for slice_ in result.slices:
        assert slice_.adj is None or LAST <= slice_.adj <= MOST
    values = [result.levels[level] for level in sorted(result.levels)]
    assert values == sorted(values, reverse=True)
