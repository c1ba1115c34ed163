# SPDX-License-Identifier: LGPL-2.1-or-later
"""What holds of every policy, whatever machine it is of."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from oomslice.cgroups.model import Cgroup, Usage
from oomslice.plan.encode import encode
from oomslice.policy.effective import effective
from oomslice.policy.model import Policy, PolicyUnit
from oomslice.policy.rank import rank
from oomslice.settings.model import Configuration, KillScope, Rule, UnitSettings
from oomslice.settings.steps import parse_actions, with_end
from oomslice.units.model import Unit, UnitSnapshot

USER = "/user.slice/user@1000.service"
NAMES = ("a", "b", "c")
LADDERS = tuple(map(parse_actions, ("kill", "warn", "freeze@1s", "terminate@2s", "warn kill@3s")))


@dataclass(frozen=True)
class World:
    units: tuple[Unit, ...]
    cgroups: Mapping[str, Cgroup]
    settings: Mapping[str, UnitSettings]
    user: tuple[Cgroup, ...]
    rules: tuple[Rule, ...]
    oomd: bool

    def policy(self) -> Policy:
        policy, problems = effective(
            UnitSnapshot(self.units, self.oomd), self.settings, self.cgroups, self.user, Configuration(rules=self.rules)
        )
        assert {problem.key for problem in problems} <= {"KillScope"}
        return policy

    def shuffled(self, seed: int) -> World:
        generator = random.Random(seed)
        units, user = list(self.units), list(self.user)
        paths = list(self.cgroups)
        for sequence in (units, user, paths):
            generator.shuffle(sequence)
        cgroups = {path: self.cgroups[path] for path in paths}
        return World(tuple(units), cgroups, self.settings, tuple(user), self.rules, self.oomd)


@st.composite
def settings(draw: st.DrawFn) -> UnitSettings:
    return UnitSettings(
        priority=draw(st.none() | st.integers(-1000, 1000)),
        protect=draw(st.none() | st.booleans()),
        dry_run=draw(st.none() | st.booleans()),
        actions=draw(st.sampled_from((None, *LADDERS))),
        kill_scope=draw(st.none() | st.sampled_from(KillScope)),
        on_decision=draw(st.sampled_from((None, "a.service", "b@.service"))),
    )


@st.composite
def tree(draw: st.DrawFn, top: str) -> list[str]:
    """Paths below `top`: slices in slices, and services in them; not every slice is a unit we know."""
    paths: set[str] = set()
    for _ in range(draw(st.integers(0, 12))):
        depth = draw(st.integers(0, 3))
        path = top
        for _ in range(depth):
            path += f"/{draw(st.sampled_from(NAMES))}.slice"
            if draw(st.booleans()):
                paths.add(path)
        paths.add(f"{path}/{draw(st.sampled_from(NAMES))}.service")
    return sorted(paths)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    system = ["/", "/user.slice", USER, *draw(tree(""))]
    user = draw(tree(USER))
    owners = st.sampled_from((0, 1000))
    preferences = st.sampled_from(("none", "avoid", "omit"))
    numbers = {path: number for number, path in enumerate([*system, *user], 1)}
    cgroups = {
        path: Cgroup(path, number, 1000 if path == USER else draw(owners), draw(st.booleans()), draw(preferences))
        for path, number in numbers.items()
    }
    units = [
        Unit(
            "-.slice" if path == "/" else path.rpartition("/")[2],
            path,
            managed_oom_preference=draw(preferences),
            managed_oom_swap=draw(st.sampled_from(("auto", "kill"))),
        )
        for path in system
    ]
    rules = [
        Rule((draw(st.sampled_from(("a.*", "*.slice", "b.service", "*"))),), draw(settings()), manager)
        for manager in draw(st.lists(st.sampled_from(("system", "user")), max_size=4))
    ]
    return World(
        tuple(units),
        {path: cgroups[path] for path in system if path in ("/", USER) or draw(st.integers(0, 9))},
        {unit.name: draw(settings()) for unit in units if draw(st.booleans())},
        tuple(cgroups[path] for path in user),
        tuple(rules),
        draw(st.booleans()),
    )


def ancestors(policy: Policy, unit: PolicyUnit) -> list[PolicyUnit]:
    """Nearest first."""
    found = []
    while unit.parent >= 0:
        unit = policy.units[unit.parent]
        found.append(unit)
    return found


@given(worlds())
def test_parents_come_before_children_and_hold_them(world: World) -> None:
    policy = world.policy()
    assert policy.units[0].path == "/" and policy.units[0].parent == -1
    for number, unit in enumerate(policy.units[1:], 1):
        assert 0 <= unit.parent < number
        above = policy.units[unit.parent].path.rstrip("/")
        assert unit.path.startswith(f"{above}/")
        between = [other.path for other in policy.units if unit.path.startswith(f"{other.path.rstrip('/')}/")]
        assert max(between, key=len) == policy.units[unit.parent].path


@given(worlds())
def test_units_are_those_whose_cgroup_is_there_each_once(world: World) -> None:
    expected = {path for path in world.cgroups} | {cgroup.path for cgroup in world.user}
    paths = [unit.path for unit in world.policy().units]
    assert sorted(paths) == sorted(expected)


@given(worlds(), st.integers())
def test_order_of_the_input_does_not_matter(world: World, seed: int) -> None:
    assert world.shuffled(seed).policy() == world.policy()


@given(worlds())
def test_priority_is_set_for_the_unit_or_is_that_of_the_nearest_ancestor_that_has_one(world: World) -> None:
    policy = world.policy()
    for unit in policy.units:
        if "raised" in unit.priority_origin or "held" in unit.priority_origin:
            continue
        setting = [
            above
            for above in (unit, *ancestors(policy, unit))
            if above.priority_origin.startswith(("own", "rule", "tier"))
        ]
        if setting and "raised" not in setting[0].priority_origin and "held" not in setting[0].priority_origin:
            assert unit.priority == setting[0].priority
        elif not setting:
            assert unit.priority == 0 and unit.priority_origin == "default"


@given(worlds())
def test_nothing_in_a_delegated_tree_is_above_its_user_manager(world: World) -> None:
    policy = world.policy()
    manager = next(unit for unit in policy.units if unit.path == USER)
    for unit in policy.units:
        if manager in ancestors(policy, unit) and unit.path in {cgroup.path for cgroup in world.user}:
            assert unit.priority <= manager.priority


@given(worlds())
def test_users_attributes_change_nothing(world: World) -> None:
    plain = tuple(
        Cgroup(cgroup.path, cgroup.id, cgroup.owner, cgroup.populated) if cgroup.owner else cgroup
        for cgroup in world.user
    )
    without = World(world.units, world.cgroups, world.settings, plain, world.rules, world.oomd)
    assert without.policy() == world.policy()


@given(worlds())
def test_candidates_hold_no_other_unit_and_every_user_process_is_in_one(world: World) -> None:
    policy = world.policy()
    parents = {unit.parent for unit in policy.units}
    populated = {cgroup.id for cgroup in (*world.cgroups.values(), *world.user) if cgroup.populated}
    users = {cgroup.path for cgroup in world.user}
    for number, unit in enumerate(policy.units):
        if unit.candidate:
            assert number not in parents or unit.kill_scope is KillScope.SUBTREE
        elif number not in parents and unit.path in users and not unit.taken_with:
            assert unit.cgroup_id not in populated
        if unit.name.endswith(".slice") and unit.path not in users:
            assert not unit.candidate or unit.kill_scope is KillScope.SUBTREE


@given(worlds())
def test_a_ladder_is_the_own_one_or_that_of_the_nearest_ancestor_and_always_has_an_end(world: World) -> None:
    policy = world.policy()
    for unit in policy.units:
        origin = unit.ladder_origin.removesuffix(", kill added")
        assert unit.ladder == with_end(unit.settings.actions or ())
        assert (origin == "default") == (not unit.ladder)
        if unit.ladder:
            assert unit.ladder[-1].name in ("kill", "freeze")
        if origin.startswith("inherited from "):
            above = next(one for one in ancestors(policy, unit) if one.name == origin.removeprefix("inherited from "))
            assert above.ladder == unit.ladder
            assert not above.ladder_origin.startswith("inherited")


@given(worlds())
def test_what_goes_with_a_whole_is_never_chosen_and_nothing_that_is_spared_goes_with_one(world: World) -> None:
    policy = world.policy()
    for unit in policy.units:
        if unit.taken_with:
            (whole,) = (above for above in ancestors(policy, unit) if above.candidate)
            assert whole.name == unit.taken_with and whole.kill_scope is KillScope.SUBTREE
            assert not (unit.candidate or unit.protected or unit.self_ or unit.left_to_oomd)
            assert whole.dry_run or not unit.dry_run
        else:
            assert not any(above.candidate for above in ancestors(policy, unit))
        if unit.candidate and unit.kill_scope is KillScope.SUBTREE:
            assert not (unit.protected or unit.self_ or unit.left_to_oomd) and unit.path != "/"


@given(worlds())
def test_every_policy_makes_a_plan_and_only_candidates_are_chosen_from_it(world: World) -> None:
    policy = world.policy()
    encode(policy, generation=1, made_realtime_usec=1, usage={}, memory_total=1 << 32, swap_total=0)
    usage = {unit.cgroup_id: Usage(memory=1, populated=True) for unit in policy.units}
    by_id = {unit.cgroup_id: unit for unit in policy.units}
    for ranked in rank(policy, usage):
        unit = by_id[ranked.cgroup_id]
        may = unit.candidate and not (unit.protected or unit.self_ or unit.left_to_oomd or unit.taken_with)
        assert (ranked.verdict in ("chosen", "eligible")) == may


@given(worlds())
def test_protection_without_a_word_of_ones_own_is_the_parents(world: World) -> None:
    policy = world.policy()
    for unit in policy.units[1:]:
        if unit.protected_origin.startswith("inherited"):
            assert any(above.protected for above in ancestors(policy, unit))
        if unit.protected:
            assert unit.protected_origin not in ("", "default")


@given(worlds())
def test_priorities_stay_in_range(world: World) -> None:
    assert all(-1000 <= unit.priority <= 1000 for unit in world.policy().units)
