# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ladders and kill scopes on their way down the tree, and what is taken as a whole."""

from __future__ import annotations

from typing import Any

import pytest

from oomslice.cgroups.model import Usage
from oomslice.plan.encode import decode, encode
from oomslice.policy.rank import rank
from oomslice.settings.model import Configuration, KillScope, PressureTrigger, PsiKind, Rule, Source, UnitSettings
from oomslice.settings.steps import format_actions, parse_actions
from tests.unit.test_effective import HOG, LOW, USER, Machine, own

BATCH = ("/batch.slice", "/batch.slice/batch-a.slice", "/batch.slice/batch-a.slice/a.service", "/batch.slice/b.service")
SLICE, INNER, A, B = BATCH
SUBTREE = KillScope.SUBTREE
TRIGGER = PressureTrigger(PsiKind.SOME, 150_000, 1_000_000)


def whole(paths: tuple[str, ...] = (*BATCH, "/c.service"), **changes: Any) -> Machine:
    return Machine(
        paths, {"batch.slice": own(priority=-200, kill_scope=SUBTREE), **changes.pop("settings", {})}, **changes
    )


def standing(machine: Machine) -> dict[str, str]:
    """Each unit: what it is to the choice."""
    return {
        unit.path: "candidate" if unit.candidate else f"with {unit.taken_with}" if unit.taken_with else "-"
        for unit in machine.policy.units
    }


def test_a_ladder_is_the_own_one_or_that_of_the_nearest_ancestor() -> None:
    machine = Machine(
        (*LOW, "/low.slice/own.service", "/other.service"),
        {
            "low.slice": own(actions=parse_actions("warn kill@2s")),
            "own.service": own(actions=parse_actions("freeze@1s")),
        },
    )
    assert format_actions(machine[HOG].ladder) == "warn kill@2s"
    assert machine[HOG].ladder_origin == "inherited from low.slice"
    assert machine[HOG].settings_from["actions"] == "inherited from low.slice"
    assert machine["/low.slice"].ladder_origin == "own (/etc/a.conf:2)"
    assert format_actions(machine["/low.slice/own.service"].ladder) == "freeze@1s"
    assert (machine["/other.service"].ladder, machine["/other.service"].ladder_origin) == ((), "default")


def test_an_added_kill_is_in_the_ladder_and_not_in_what_was_written() -> None:
    machine = Machine(LOW, {"low.slice": own(actions=parse_actions("terminate@10s"))})
    assert format_actions(machine[HOG].ladder) == "terminate@10s kill@20s"
    assert machine[HOG].ladder_origin == "inherited from low.slice, kill added"
    assert machine[HOG].settings.actions == parse_actions("terminate@10s")


def test_scope_and_unit_to_start_go_down_the_tree_too() -> None:
    machine = Machine(LOW, {"low.slice": own(kill_scope=KillScope.PROCESS, on_decision="report@.service")})
    assert (machine[HOG].kill_scope, machine[HOG].kill_scope_origin) == (KillScope.PROCESS, "inherited from low.slice")
    assert machine[HOG].settings.on_decision == "report@.service"
    assert machine["/"].settings.on_decision is None


def test_rules_and_tiers_say_ladders_too_and_a_shipped_rule_gives_way_to_an_administrators_slice() -> None:
    warn, freeze = parse_actions("warn kill@1s"), parse_actions("freeze@1s")
    shipped = Rule(("hog.service",), UnitSettings(actions=freeze), source=Source("/usr/lib/oomslice/oomslice.yaml", 3))
    site = Rule(
        ("hog.service",), UnitSettings(actions=freeze), source=Source("/etc/oomslice/oomslice.yaml.d/a.yaml", 3)
    )
    assert Machine(LOW, rules=[shipped])[HOG].ladder_origin == "rule hog.service"
    with_slice = {"low.slice": own(actions=warn)}
    assert Machine(LOW, with_slice, rules=[shipped])[HOG].ladder == warn
    assert Machine(LOW, with_slice, rules=[site])[HOG].ladder == freeze
    tiers = {"gentle": UnitSettings(actions=warn)}
    machine = Machine(LOW, {"hog.service": own(tier="gentle")}, tiers=tiers)
    assert (machine[HOG].ladder, machine[HOG].ladder_origin) == (warn, "tier gentle")


def test_units_of_users_have_the_ladder_of_what_is_above_them() -> None:
    paths = ("/user.slice", "/user.slice/user-1000.slice", USER)
    ladder = parse_actions("throttle kill@5s")
    machine = Machine(paths, {"user.slice": own(actions=ladder)}, user=(f"{USER}/app.slice/x.scope",))
    assert machine[f"{USER}/app.slice/x.scope"].ladder == ladder


def test_a_slice_that_is_taken_as_a_whole_is_one_candidate() -> None:
    machine = whole()
    assert standing(machine) == {
        "/": "-",
        SLICE: "candidate",
        B: "with batch.slice",
        INNER: "with batch.slice",
        A: "with batch.slice",
        "/c.service": "candidate",
    }
    assert machine[SLICE].kill_scope is SUBTREE
    assert machine.problems == ()


def test_the_ranking_knows_the_whole_and_what_goes_with_it() -> None:
    machine = whole()
    usage = {unit.cgroup_id: Usage(memory=10, populated=True) for unit in machine.policy.units}
    ranking = {unit.name: unit for unit in rank(machine.policy, usage)}
    assert ranking["batch.slice"].verdict == "chosen"
    assert ranking["a.service"].verdict == "container"
    assert ranking["a.service"].reason == "goes with batch.slice, which is taken as a whole (KillScope=subtree)"


def test_the_plan_of_a_whole_is_one_that_the_core_takes() -> None:
    plan = encode(whole().policy, generation=1, made_realtime_usec=1, usage={}, memory_total=1 << 30, swap_total=0)
    assert len(decode(plan)["units"]) == 6


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"settings": {"a.service": own(protect=True)}}, "a.service is protected"),
        ({"settings": {"batch-a.slice": own(protect=True)}}, "batch-a.slice is protected"),
        ({"settings": {"a.service": own(dry_run=True)}}, "a.service has DryRun=yes"),
        ({"special": {A: {"managed_oom_swap": "kill"}}, "oomd": True}, "a.service is left to systemd-oomd"),
        ({"special": {A: {"managed_oom_preference": "omit"}}}, "a.service is protected"),
        ({"special": {SLICE: {"managed_oom_preference": "omit"}}}, "batch.slice is protected"),
    ],
)
def test_a_slice_with_something_in_it_that_is_spared_is_not_taken_as_a_whole(changes: dict[str, Any], why: str) -> None:
    machine = whole(**changes)
    assert [unit.path for unit in machine.policy.units if unit.taken_with] == []
    assert not machine[SLICE].candidate and machine[B].candidate
    assert {machine[path].kill_scope for path in BATCH} == {KillScope.UNIT}
    (problem,) = machine.problems
    assert (problem.source, problem.key, problem.value) == (Source("/etc/a.conf", 3), "KillScope", "subtree")
    assert problem.message == (
        f"batch.slice cannot be taken as a whole: {why}. The units below it are chosen one by one"
    )
    assert machine[SLICE].kill_scope_origin == f"own (/etc/a.conf:3), not as a whole: {why}"


def test_what_falls_back_leaves_a_whole_of_its_own_below_it() -> None:
    machine = whole(settings={"b.service": own(protect=True), "batch-a.slice": own(kill_scope=SUBTREE)})
    assert standing(machine)[INNER] == "candidate" and standing(machine)[A] == "with batch-a.slice"
    assert [problem.message.split(":")[0] for problem in machine.problems] == ["batch.slice cannot be taken as a whole"]


def test_the_highest_whole_wins() -> None:
    machine = whole(settings={"batch-a.slice": own(kill_scope=SUBTREE), "a.service": own(kill_scope=KillScope.PROCESS)})
    assert standing(machine)[INNER] == standing(machine)[A] == "with batch.slice"


def test_the_machine_is_never_taken_as_a_whole() -> None:
    machine = Machine(LOW, {"-.slice": own(kill_scope=SUBTREE)})
    assert standing(machine) == {"/": "-", LOW[0]: "-", LOW[1]: "-", HOG: "candidate"}
    assert "the root slice is never killed" in machine.problems[0].message


def test_of_a_unit_without_others_the_subtree_is_the_unit() -> None:
    machine = Machine(
        (*LOW, "/empty.slice"), {"hog.service": own(kill_scope=SUBTREE), "empty.slice": own(kill_scope=SUBTREE)}
    )
    assert machine[HOG].candidate and machine[HOG].kill_scope is KillScope.UNIT
    assert not machine["/empty.slice"].candidate
    assert machine.problems == ()


def test_a_dry_run_of_the_whole_is_no_obstacle_to_it() -> None:
    machine = whole(settings={"batch.slice": own(kill_scope=SUBTREE, dry_run=True)})
    assert standing(machine)[SLICE] == "candidate" and machine[SLICE].dry_run
    assert machine.problems == ()


def test_a_domain_inside_a_whole_is_none() -> None:
    machine = whole(settings={"batch-a.slice": own(pressure_trigger=TRIGGER)})
    assert [machine.policy.units[domain.unit].name for domain in machine.policy.domains] == ["-.slice"]
    (problem,) = machine.problems
    assert problem.key == "PressureTrigger" and "batch.slice is taken as a whole" in problem.message
    outside = Machine(
        ("/top.slice", "/top.slice/batch.slice", "/top.slice/batch.slice/a.service"),
        {"top.slice": own(pressure_trigger=TRIGGER), "batch.slice": own(kill_scope=SUBTREE)},
    )
    assert len(outside.policy.domains) == 2 and outside.problems == ()


def test_the_reserve_is_in_the_policy() -> None:
    assert Machine(LOW).policy.reserve == Configuration().limits.reserve
