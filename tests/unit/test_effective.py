# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which settings hold for which unit: tables of cases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from oomslice.cgroups.model import Cgroup
from oomslice.errors import PlanError
from oomslice.policy import limits
from oomslice.policy.effective import effective
from oomslice.policy.model import Policy, PolicyUnit
from oomslice.settings.model import (
    SETTING_NAMES,
    Configuration,
    Limits,
    PressureTrigger,
    Problem,
    PsiKind,
    RankBy,
    Rule,
    Source,
    UnitSettings,
)
from oomslice.units.model import Unit, UnitSnapshot

USER = "/user.slice/user-1000.slice/user@1000.service"
TRIGGER = PressureTrigger(PsiKind.SOME, 150_000, 1_000_000)


def own(**values: Any) -> UnitSettings:
    """Settings as if written from line 2 of a file on, one a line."""
    sources = {name: Source("/etc/a.conf", line) for line, name in enumerate(values, 2)}
    return UnitSettings(**values, sources=MappingProxyType(sources))


def rule(match: str | Sequence[str], manager: str = "system", **values: Any) -> Rule:
    return Rule((match,) if isinstance(match, str) else tuple(match), UnitSettings(**values), manager)


class Machine:
    """A machine to be described in a few words: paths of PID 1's units, paths below user managers, what is special."""

    def __init__(
        self,
        paths: Sequence[str],
        settings: Mapping[str, UnitSettings] | None = None,
        rules: Sequence[Rule] = (),
        tiers: Mapping[str, UnitSettings] | None = None,
        user: Sequence[str] = (),
        special: Mapping[str, Mapping[str, Any]] | None = None,
        cgroup: Mapping[str, Mapping[str, Any]] | None = None,
        oomd: bool = False,
        limits: Limits | None = None,
    ) -> None:
        numbers = {path: number for number, path in enumerate(sorted({"/", *paths, *user}), 1)}
        details = cgroup or {}

        def made(path: str, owner: int) -> Cgroup:
            values = {"owner": owner, "populated": True, **details.get(path, {})}
            return Cgroup(path=path, id=numbers[path], **values)

        units = [
            Unit("-.slice" if path == "/" else path.rpartition("/")[2], path, **(special or {}).get(path, {}))
            for path in ("/", *paths)
        ]
        cgroups = {path: made(path, 1000 if path == USER else 0) for path in ("/", *paths)}
        configuration = Configuration(
            tiers=MappingProxyType(dict(tiers or {})), rules=tuple(rules), limits=limits or Limits()
        )
        self.policy: Policy
        self.problems: tuple[Problem, ...]
        self.policy, self.problems = effective(
            UnitSnapshot(tuple(units), oomd),
            settings or {},
            cgroups,
            [made(path, 1000) for path in user],
            configuration,
        )

    def __getitem__(self, path: str) -> PolicyUnit:
        return next(unit for unit in self.policy.units if unit.path == path)

    def priority(self, path: str) -> tuple[int, str]:
        return self[path].priority, self[path].priority_origin


LOW = ("/low.slice", "/low.slice/low-a.slice", "/low.slice/low-a.slice/hog.service")
HOG = LOW[2]


def test_without_any_settings_all_is_0_by_default_and_the_rest_of_the_record_is_filled() -> None:
    machine = Machine(LOW, special={HOG: {"need_daemon_reload": True}})
    assert [unit.path for unit in machine.policy.units] == ["/", *LOW]
    assert [unit.parent for unit in machine.policy.units] == [-1, 0, 1, 2]
    assert machine.policy.units[0].name == "-.slice"
    hog = machine[HOG]
    assert machine.priority(HOG) == (0, "default")
    assert hog.candidate and hog.need_daemon_reload
    assert not (hog.protected or hog.self_ or hog.left_to_oomd or hog.dry_run)
    assert hog.cgroup_id == 4
    assert hog.settings == UnitSettings() and hog.settings_from == {}
    assert [unit.candidate for unit in machine.policy.units] == [False, False, False, True]
    assert len(machine.policy.domains) == 1
    machine_domain = machine.policy.domains[0]
    assert (machine_domain.unit, machine_domain.rank_by) == (0, RankBy.MEMORY)
    assert (machine_domain.cooldown_usec, machine_domain.dry_run) == (2_000_000, False)
    assert machine.policy.death_deadline_usec == Limits().death_deadline_usec
    assert machine.problems == ()


@pytest.mark.parametrize(
    ("settings", "priority", "origin"),
    [
        ({"hog.service": own(priority=7)}, 7, "own (/etc/a.conf:2)"),
        ({"low.slice": own(priority=-200)}, -200, "inherited from low.slice"),
        ({"low.slice": own(priority=-200), "low-a.slice": own(priority=5)}, 5, "inherited from low-a.slice"),
        ({"low.slice": own(priority=-200), "hog.service": own(priority=0)}, 0, "own (/etc/a.conf:2)"),
        ({"-.slice": own(priority=3)}, 3, "inherited from -.slice"),
    ],
)
def test_priority_is_the_units_own_or_the_nearest_ancestors(
    settings: dict[str, UnitSettings], priority: int, origin: str
) -> None:
    machine = Machine(LOW, settings)
    assert machine.priority(HOG) == (priority, origin)
    assert machine[HOG].settings.priority == priority


BATCH = UnitSettings(priority=-500, rank_by=RankBy.SWAP, cooldown_usec=9_000_000)


@pytest.mark.parametrize(
    ("settings", "rules", "priority", "origin"),
    [
        # a tier is the unit's own word, but weaker than the key itself
        ({"hog.service": own(tier="batch")}, [], -500, "tier batch"),
        ({"hog.service": own(tier="batch", priority=1)}, [], 1, "own (/etc/a.conf:3)"),
        # unit files win over rules, and so does the tier they name
        ({"hog.service": own(priority=1)}, [rule("hog.service", priority=2)], 1, "own (/etc/a.conf:2)"),
        ({"hog.service": own(tier="batch")}, [rule("hog.service", priority=2)], -500, "tier batch"),
        ({"low.slice": own(priority=1)}, [rule("hog.service", priority=2)], 2, "rule hog.service"),
        # later rules win
        ({}, [rule("hog.*", priority=1), rule("*.service", priority=2)], 2, "rule *.service"),
        ({}, [rule("*.service", priority=2), rule("hog.*", priority=1)], 1, "rule hog.*"),
        ({}, [rule("hog.*", priority=1), rule("*.service", protect=False)], 1, "rule hog.*"),
        # a rule's tier is below the rule, above earlier rules
        ({}, [rule("*", priority=1), rule("hog.*", tier="batch")], -500, "tier batch"),
        ({}, [rule("hog.*", tier="batch", priority=3)], 3, "rule hog.*"),
        # several globs; the one that matched is named
        ({}, [rule(["nothing", "h?g.[s]ervice"], priority=4)], 4, "rule h?g.[s]ervice"),
        ({}, [rule("hog", priority=4)], 0, "default"),
        ({}, [rule("hog.service", manager="user", priority=4)], 0, "default"),
        ({}, [rule("low.slice", priority=4)], 4, "inherited from low.slice"),
    ],
)
def test_own_over_tier_over_rules(
    settings: dict[str, UnitSettings], rules: list[Rule], priority: int, origin: str
) -> None:
    machine = Machine(LOW, settings, rules, {"batch": BATCH})
    assert machine.priority(HOG) == (priority, origin)
    assert machine.problems == ()


SHIPPED_FILE = "/usr/lib/oomslice/oomslice.yaml"
SHIPPED = Rule(("hog.service",), UnitSettings(priority=-50), source=Source(SHIPPED_FILE, 9))


@pytest.mark.parametrize(
    ("settings", "rules", "priority", "origin"),
    [
        ({}, [SHIPPED], -50, "rule hog.service"),
        # what the administrator wrote for a slice is not undone by a package
        ({"low.slice": own(priority=300)}, [SHIPPED], 300, "inherited from low.slice"),
        ({}, [SHIPPED, rule("low.slice", priority=300)], 300, "inherited from low.slice"),
        ({"hog.service": own(priority=1)}, [SHIPPED], 1, "own (/etc/a.conf:2)"),
        # but two words of packages are like any two: the nearer one holds
        (
            {},
            [SHIPPED, Rule(("low.slice",), UnitSettings(priority=9), source=Source(SHIPPED_FILE, 1))],
            -50,
            "rule hog.service",
        ),
    ],
)
def test_shipped_rules_give_way_to_what_the_administrator_wrote_for_an_ancestor(
    settings: dict[str, UnitSettings], rules: list[Rule], priority: int, origin: str
) -> None:
    machine = Machine(LOW, settings, rules)
    assert machine.priority(HOG) == (priority, origin)


def test_other_keys_come_from_the_same_layers_but_are_not_inherited() -> None:
    machine = Machine(
        LOW,
        {"low.slice": own(rank_by=RankBy.GROWTH), "hog.service": own(tier="batch", cooldown_usec=1)},
        [rule("*", on_decision="tell.service")],
        {"batch": BATCH},
    )
    settings = machine[HOG].settings
    assert (settings.rank_by, settings.cooldown_usec, settings.on_decision) == (RankBy.SWAP, 1, "tell.service")
    assert machine[HOG].settings_from == {
        "tier": "/etc/a.conf:2",
        "cooldown_usec": "/etc/a.conf:3",
        "rank_by": "tier batch",
        "priority": "tier batch",
        "on_decision": "rule *",
    }
    assert machine[LOW[1]].settings.rank_by is None


def test_tier_that_does_not_exist_is_a_problem_at_its_line_and_the_rest_holds() -> None:
    machine = Machine(LOW, {"hog.service": own(priority=3, tier="bacth")}, tiers={"batch": BATCH})
    assert machine.priority(HOG) == (3, "own (/etc/a.conf:2)")
    assert [str(problem.source) for problem in machine.problems] == [str(Source("/etc/a.conf", 3))]
    assert machine.problems[0].key == "Tier" and "batch" in machine.problems[0].message


@pytest.mark.parametrize(
    ("settings", "protected", "origin"),
    [
        ({"hog.service": own(protect=True)}, True, "own (/etc/a.conf:2)"),
        ({"low.slice": own(protect=True)}, True, "inherited from low.slice"),
        ({"low.slice": own(protect=True), "hog.service": own(protect=False)}, False, ""),
        ({"low.slice": own(protect=True), "low-a.slice": own(priority=-900)}, True, "inherited from low.slice"),
        ({}, False, ""),
    ],
)
def test_protection_covers_all_below(settings: dict[str, UnitSettings], protected: bool, origin: str) -> None:
    hog = Machine(LOW, settings)[HOG]
    assert (hog.protected, hog.protected_origin) == (protected, origin)


def test_dry_run_covers_all_below_and_the_domain() -> None:
    settings = {"low.slice": own(dry_run=True, pressure_trigger=TRIGGER), "hog.service": own(dry_run=False)}
    machine = Machine([*LOW, "/low.slice/b.service"], settings)
    assert machine["/low.slice/b.service"].dry_run and not machine[HOG].dry_run and not machine["/"].dry_run
    assert [domain.dry_run for domain in machine.policy.domains] == [False, True]
    assert Machine(LOW, {"-.slice": own(dry_run=True)}).policy.domains[0].dry_run


def test_units_with_a_trigger_are_domains_with_their_own_terms() -> None:
    machine = Machine(
        LOW,
        {
            "-.slice": own(rank_by=RankBy.REFAULT, cooldown_usec=5, pressure_trigger=TRIGGER),
            "hog.service": own(pressure_trigger=TRIGGER, rank_by=RankBy.SWAP, cooldown_usec=0),
            "low.slice": own(pressure_trigger=TRIGGER),
        },
    )
    told = [(d.unit, d.rank_by, d.cooldown_usec, d.settings.pressure_trigger) for d in machine.policy.domains]
    assert told == [
        (0, RankBy.REFAULT, 5, TRIGGER),
        (1, RankBy.MEMORY, 2_000_000, TRIGGER),
        (3, RankBy.SWAP, 0, TRIGGER),
    ]


@pytest.mark.parametrize(
    ("special", "cgroup", "settings", "priority", "protected"),
    [
        ({"managed_oom_preference": "avoid"}, {}, {}, 100, False),
        ({}, {"preference": "avoid"}, {}, 100, False),
        ({}, {"preference": "avoid"}, {"low.slice": own(priority=-300)}, -200, False),
        ({}, {"preference": "avoid"}, {"low.slice": own(priority=950)}, 1000, False),
        ({}, {"preference": "avoid"}, {"hog.service": own(priority=-300)}, -300, False),
        ({}, {"preference": "avoid"}, {"hog.service": own(tier="batch")}, -500, False),
        ({"managed_oom_preference": "omit"}, {}, {}, 0, True),
        ({}, {"preference": "omit"}, {}, 0, True),
        ({}, {"preference": "omit"}, {"hog.service": own(protect=False)}, 0, False),
        # Only root's attribute counts; what systemd itself says does always.
        ({}, {"preference": "omit", "owner": 33}, {}, 0, False),
        ({}, {"preference": "avoid", "owner": 33}, {}, 0, False),
        ({"managed_oom_preference": "omit"}, {"owner": 33}, {}, 0, True),
    ],
)
def test_preference_of_systemd_raises_or_protects_unless_the_unit_says_otherwise(
    special: dict[str, Any],
    cgroup: dict[str, Any],
    settings: dict[str, UnitSettings],
    priority: int,
    protected: bool,
) -> None:
    machine = Machine(LOW, settings, tiers={"batch": BATCH}, special={HOG: special}, cgroup={HOG: cgroup})
    assert (machine[HOG].priority, machine[HOG].protected) == (priority, protected)
    if protected:
        assert machine[HOG].protected_origin in ("ManagedOOMPreference=omit", "user.oomd_omit")


def test_preference_is_not_handed_down() -> None:
    preferred = {"managed_oom_preference": "omit"}
    machine = Machine([USER], user=[f"{USER}/a.scope"], special={USER: preferred}, cgroup={"/": {"preference": "omit"}})
    assert not machine[f"{USER}/a.scope"].protected
    assert Machine([USER], special={USER: preferred})[USER].protected


def test_origin_of_a_raised_priority_names_both_reasons() -> None:
    machine = Machine(LOW, {"low.slice": own(priority=5)}, special={HOG: {"managed_oom_preference": "avoid"}})
    assert machine.priority(HOG) == (105, "inherited from low.slice, raised by ManagedOOMPreference=avoid")


@pytest.mark.parametrize(
    ("adjust", "settings", "priority", "origin", "protected"),
    [
        (-500, {}, 500, "OOMScoreAdjust=-500", False),
        (300, {}, -300, "OOMScoreAdjust=300", False),
        (1000, {}, -1000, "OOMScoreAdjust=1000", False),
        (-1000, {}, 1000, "OOMScoreAdjust=-1000", True),
        (0, {}, 0, "default", False),
        (None, {}, 0, "default", False),
        # Whoever says Priority= knows of both.
        (-500, {"hog.service": own(priority=-5)}, -5, "own (/etc/a.conf:2)", False),
        (-500, {"hog.service": own(priority=0)}, 0, "own (/etc/a.conf:2)", False),
        (-1000, {"low.slice": own(priority=-5)}, -5, "inherited from low.slice", False),
        (-1000, {"hog.service": own(protect=False)}, 1000, "OOMScoreAdjust=-1000", False),
    ],
)
def test_what_systemd_tells_the_kernel_is_the_priority_of_whom_nobody_gave_one(
    adjust: int | None, settings: dict[str, UnitSettings], priority: int, origin: str, protected: bool
) -> None:
    machine = Machine(LOW, settings, special={HOG: {"oom_score_adjust": adjust}})
    assert machine.priority(HOG) == (priority, origin)
    assert (machine[HOG].protected, machine[HOG].protected_origin) == (protected, origin if protected else "")


def test_rules_are_stronger_than_what_systemd_tells_the_kernel_and_a_preference_is_added() -> None:
    special = {HOG: {"oom_score_adjust": -500, "managed_oom_preference": "avoid"}}
    raised = "OOMScoreAdjust=-500, raised by ManagedOOMPreference=avoid"
    assert Machine(LOW, special=special).priority(HOG) == (600, raised)
    assert Machine(LOW, rules=[rule("hog.service", priority=7)], special=special)[HOG].priority == 107


def test_what_a_user_manager_tells_the_kernel_is_not_handed_down() -> None:
    machine = Machine([USER], user=[f"{USER}/a.scope"], special={USER: {"oom_score_adjust": 100}})
    assert machine[f"{USER}/a.scope"].priority == 0
    assert machine[USER].priority == 0


@pytest.mark.parametrize(
    ("special", "oomd", "leave", "left"),
    [
        ({"managed_oom_swap": "kill"}, True, True, True),
        ({"managed_oom_memory_pressure": "kill"}, True, True, True),
        ({"managed_oom_memory_pressure": "kill"}, False, True, False),
        ({"managed_oom_memory_pressure": "kill"}, True, False, False),
        ({}, True, True, False),
    ],
)
def test_units_marked_for_oomd_and_all_below_are_left_to_it(
    special: dict[str, Any], oomd: bool, leave: bool, left: bool
) -> None:
    machine = Machine(
        [*LOW, "/b.service"],
        special={LOW[0]: special},
        oomd=oomd,
        limits=Limits(leave_to_systemd_oomd=leave),
    )
    assert [machine[path].left_to_oomd for path in ("/", *LOW, "/b.service")] == [False, left, left, left, False]


def test_user_units_below_a_marked_user_service_are_left_to_oomd_too() -> None:
    machine = Machine(
        [USER], user=[f"{USER}/a.scope"], special={USER: {"managed_oom_memory_pressure": "kill"}}, oomd=True
    )
    assert machine[f"{USER}/a.scope"].left_to_oomd


def test_what_the_machine_and_we_need_is_self_with_all_below() -> None:
    inside = [
        "/init.scope",
        "/system.slice/systemd-journald.service",
        "/system.slice/system-systemd\\x2djournald.slice/systemd-journald@ns.service",
        "/system.slice/dbus.service",
        "/system.slice/dbus-broker.service",
        "/oomslice.slice",
        "/oomslice.slice/oomsliced.service",
        "/oomslice.slice/oomslice-core.service",
        "/oomslice.slice/oomslice-bpf.service",
    ]
    machine = Machine([*inside, "/system.slice/ssh.service", USER], user=[f"{USER}/init.scope", f"{USER}/dbus.service"])
    assert {unit.path for unit in machine.policy.units if unit.self_} == set(inside)


# --- user managers ---


def test_user_manager_with_listed_units_is_no_candidate_and_its_leaves_are() -> None:
    user = [f"{USER}/app.slice", f"{USER}/app.slice/a.scope", f"{USER}/init.scope", f"{USER}/empty.slice"]
    machine = Machine([USER], user=user, cgroup={f"{USER}/empty.slice": {"populated": False}})
    assert {unit.path for unit in machine.policy.units if unit.candidate} == {user[1], user[2]}
    assert Machine([USER])[USER].candidate


def test_users_slice_that_was_not_taken_apart_is_a_candidate_or_it_would_be_out_of_reach() -> None:
    machine = Machine([USER], user=[f"{USER}/app.slice", f"{USER}/init.scope"])
    assert machine[f"{USER}/app.slice"].candidate


def test_users_cgroup_names_are_unescaped_for_rules_and_display() -> None:
    machine = Machine([USER], rules=[rule("memory.*", "user", priority=-1)], user=[f"{USER}/_memory.service"])
    assert machine[f"{USER}/_memory.service"].name == "memory.service"
    assert machine.priority(f"{USER}/_memory.service") == (-1, "rule memory.*")


SHELL = f"{USER}/session.slice/shell.service"
SESSION = [f"{USER}/session.slice", SHELL]


@pytest.mark.parametrize(
    ("manager", "rules", "priority", "protected"),
    [
        (None, [rule("shell.*", "user", priority=-50)], -50, False),
        (None, [rule("shell.*", "user", priority=50)], 0, False),
        (own(priority=-100), [rule("shell.*", "user", priority=50)], -100, False),
        (own(priority=100), [rule("shell.*", "user", priority=50)], 50, False),
        (own(priority=100), [], 100, False),
        (None, [rule("session.slice", "user", priority=-50), rule("shell.*", "user", priority=-20)], -20, False),
        (None, [rule("session.slice", "user", priority=-50)], -50, False),
        (None, [rule("session.slice", "user", priority=60)], 0, False),
        (None, [rule("shell.*", "user", protect=True)], 0, True),
        (None, [rule("session.slice", "user", protect=True)], 0, True),
        (None, [rule("shell.*", protect=True, priority=-1)], 0, False),  # a rule for PID 1's units
    ],
)
def test_users_units_are_lowered_or_protected_by_roots_rules_but_never_raised(
    manager: UnitSettings | None, rules: list[Rule], priority: int, protected: bool
) -> None:
    machine = Machine([USER], {"user@1000.service": manager} if manager else {}, rules, user=SESSION)
    assert (machine[SHELL].priority, machine[SHELL].protected) == (priority, protected)


@pytest.mark.parametrize("preference", ["avoid", "omit"])
def test_users_own_attributes_do_nothing_for_him(preference: str) -> None:
    machine = Machine([USER], user=SESSION, cgroup={SHELL: {"preference": preference}})
    assert (machine[SHELL].priority, machine[SHELL].protected) == (0, False)


def test_root_may_spare_a_cgroup_in_a_users_tree_but_not_raise_it() -> None:
    by_root = {"owner": 0}
    machine = Machine([USER], user=SESSION, cgroup={SHELL: {**by_root, "preference": "omit"}})
    assert machine[SHELL].protected
    machine = Machine([USER], user=SESSION, cgroup={SHELL: {**by_root, "preference": "avoid"}})
    assert machine[SHELL].priority == 0


def test_roots_own_user_manager_is_held_by_nothing() -> None:
    path = "/user.slice/user-0.slice/user@0.service"
    shell = f"{path}/shell.service"
    machine = Machine([path], rules=[rule("shell.*", "user", priority=50)], user=[shell], cgroup={shell: {"owner": 0}})
    assert machine[shell].priority == 50


def test_name_of_a_users_unit_does_not_take_the_settings_of_a_system_unit() -> None:
    machine = Machine([USER, "/ssh.service"], {"ssh.service": own(protect=True)}, user=[f"{USER}/ssh.service"])
    assert machine["/ssh.service"].protected and not machine[f"{USER}/ssh.service"].protected


# --- what is missing or too much ---


def test_units_whose_cgroup_is_gone_are_left_out_and_children_go_to_the_next_above() -> None:
    units = (Unit("-.slice", "/"), Unit("low.slice", "/low.slice"), Unit("a.service", "/low.slice/a.service"))
    cgroups = {"/": Cgroup("/", 1, 0, True), "/low.slice/a.service": Cgroup("/low.slice/a.service", 3, 0, True)}
    policy, _ = effective(UnitSnapshot(units), {}, cgroups, [], Configuration())
    assert [(unit.name, unit.parent) for unit in policy.units] == [("-.slice", -1), ("a.service", 0)]


def test_no_root_slice_is_an_error() -> None:
    with pytest.raises(PlanError, match=r"-\.slice"):
        effective(UnitSnapshot(()), {}, {}, [], Configuration())


def test_limits_are_those_of_the_core() -> None:
    header = (Path(__file__).parents[2] / "core/plan.h").read_text()
    for name, value in (("UNITS", limits.UNITS_MAX), ("DOMAINS", limits.DOMAINS_MAX)):
        found = re.search(rf"OOMSLICE_PLAN_{name}_MAX = (\d+)", header)
        assert found is not None and int(found[1]) == value


def test_too_many_domains_are_dropped_from_the_end_each_with_a_problem() -> None:
    paths = [f"/d{number:02}.slice" for number in range(70)]
    settings = {path[1:]: own(pressure_trigger=TRIGGER) for path in paths}
    machine = Machine(paths, settings)
    assert len(machine.policy.domains) == 64
    assert machine.policy.domains[63].unit == 63
    assert len(machine.problems) == 7
    assert all(problem.key == "PressureTrigger" and problem.source.line == 2 for problem in machine.problems)
    assert "d63.slice" in machine.problems[0].message


def test_too_many_user_units_make_the_largest_manager_count_as_one() -> None:
    other = "/user.slice/user-1001.slice/user@1001.service"
    user = [f"{USER}/u{number:04}.scope" for number in range(4000)] + [f"{other}/v{n:03}.scope" for n in range(200)]
    machine = Machine([USER, other], user=user)
    assert len(machine.policy.units) == 3 + 200
    assert machine[USER].candidate and not machine[other].candidate
    assert len(machine.problems) == 1 and "4000" in machine.problems[0].message


def test_too_many_units_lose_those_that_are_least_missed() -> None:
    empty = [f"/system.slice/e{number:04}.service" for number in range(10)]
    spared = [f"/system.slice/p{number:04}.service" for number in range(10)]
    high = [f"/system.slice/h{number:04}.service" for number in range(10)]
    rest = [f"/system.slice/r{number:04}.service" for number in range(4080)]
    machine = Machine(
        ["/system.slice", *empty, *spared, *high, *rest],
        rules=[rule("p*", protect=True), rule("h*", priority=10)],
        cgroup={path: {"populated": False} for path in empty},
    )
    left = {unit.path for unit in machine.policy.units}
    assert len(left) == 4096
    assert left == {"/", "/system.slice", *high, *rest, *spared[:4]}
    assert all(unit.parent == 1 for unit in machine.policy.units[2:])
    assert len(machine.problems) == 1 and "16 are left out, 6 of them running" in machine.problems[0].message


def test_every_setting_has_a_place_it_came_from() -> None:
    machine = Machine(
        LOW, {"hog.service": own(priority=1, protect=True, dry_run=True, tier="batch")}, tiers={"batch": BATCH}
    )
    hog = machine[HOG]
    assert set(hog.settings_from) == {name for name in SETTING_NAMES if getattr(hog.settings, name) is not None}
