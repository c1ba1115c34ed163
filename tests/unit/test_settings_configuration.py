# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslice.yaml: what is read, how files are merged, what is said of mistakes, and that no file can hang us."""

from __future__ import annotations

from pathlib import Path

import pytest

from oomslice.settings.configuration import parse_configuration, with_possible_reserve
from oomslice.settings.model import (
    Amount,
    Configuration,
    KillScope,
    Limits,
    MachineTriggers,
    PressureTrigger,
    PsiKind,
    RankBy,
    Severity,
    Source,
    Step,
    UnitSettings,
)
from oomslice.settings.problems import PROBLEMS_MAX
from oomslice.settings.yamltext import TEXT_MAX

FIXTURES = Path(__file__).parent.parent / "fixtures" / "settings"


def parsed(*texts: str) -> Configuration:
    """The configuration of files that have no problem."""
    configuration, problems = parse_configuration([(f"{number}.yaml", text) for number, text in enumerate(texts)])
    assert [str(problem) for problem in problems] == []
    return configuration


def said(*texts: str) -> list[str]:
    _, problems = parse_configuration([(f"{number}.yaml", text) for number, text in enumerate(texts)])
    assert all(problem.severity is Severity.ERROR for problem in problems)
    return [str(problem) for problem in problems]


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing\n", "---\n", "{}", "null", "tiers:\nrules:\nmachine:\nlimits:\n"]
)
def test_an_empty_file_says_nothing(text: str) -> None:
    assert parsed(text) == Configuration()


def test_no_file_at_all_is_the_defaults() -> None:
    assert parsed() == Configuration()


def test_every_key_of_a_tier_is_read() -> None:
    tier = parsed(
        "tiers:\n  batch:\n    priority: -200\n    protect: no\n    actions: warn kill@15s\n    kill-scope: subtree\n"
        "    rank-by: swap\n    pressure-trigger: some 150ms/1s\n    cooldown-sec: 1min 30s\n    dry-run: yes\n"
        "    on-decision: tell@.service\n"
    ).tiers["batch"]
    assert tier == UnitSettings(
        priority=-200,
        protect=False,
        actions=(Step("warn"), Step("kill", None, 15_000_000)),
        kill_scope=KillScope.SUBTREE,
        rank_by=RankBy.SWAP,
        pressure_trigger=PressureTrigger(PsiKind.SOME, 150_000, 1_000_000),
        cooldown_usec=90_000_000,
        dry_run=True,
        on_decision="tell@.service",
    )
    assert tier.sources["priority"] == Source("0.yaml", 3)
    assert tier.sources["on_decision"] == Source("0.yaml", 11)


@pytest.mark.parametrize("value", ["yes", "'yes'", '"yes"', "on", "y", "true", "True", "1", "!!bool yes", "!!str yes"])
def test_booleans_are_the_same_however_yaml_sees_them(value: str) -> None:
    assert parsed(f"tiers: {{a: {{protect: {value}}}}}").tiers["a"].protect is True


@pytest.mark.parametrize(
    ("value", "usec"), [("2", 2_000_000), ("'2'", 2_000_000), ("2.5", 2_500_000), ("2s", 2_000_000), ("0", 0)]
)
def test_times_are_the_same_however_yaml_sees_them(value: str, usec: int) -> None:
    assert parsed(f"tiers: {{a: {{cooldown-sec: {value}}}}}").tiers["a"].cooldown_usec == usec


def test_a_sexagesimal_time_is_refused_and_not_taken_for_ninety() -> None:
    assert said("tiers: {a: {cooldown-sec: 1:30}}") == [
        '0.yaml:1: cooldown-sec=1:30: is not a time span; write one such as "150ms", "2s" or "1min 30s". '
        "The value is ignored"
    ]


@pytest.mark.parametrize("value", ["010", "-0100", "00"])
def test_a_leading_zero_is_refused_for_it_means_two_things(value: str) -> None:
    (message,) = said(f"tiers: {{a: {{priority: {value}}}}}")
    assert "leading zero" in message


def test_names_that_yaml_takes_for_booleans_are_names() -> None:
    assert set(parsed("tiers: {on: {priority: 1}, no: {priority: 2}, 12: {priority: 3}}").tiers) == {"on", "no", "12"}


def test_actions_can_be_a_text_or_a_list() -> None:
    text = parsed("tiers: {a: {actions: warn throttle:80%@2s 'kill@1min 30s'}}").tiers["a"].actions
    assert parsed("tiers: {a: {actions: [warn, 'throttle:80%@2s', kill@1min 30s]}}").tiers["a"].actions == text
    assert text == (Step("warn"), Step("throttle", "80", 2_000_000), Step("kill", None, 90_000_000))


def test_anchors_and_merge_keys_work_as_in_safe_load() -> None:
    tiers = parsed(
        "x-a: &a {priority: 1, dry-run: yes, cooldown-sec: 1}\nx-b: &b {priority: 2, rank-by: swap}\n"
        "tiers:\n  one: {<<: *a, priority: 5}\n  two: {<<: [*a, *b]}\n  three: *b\n"
    ).tiers
    assert tiers["one"] == UnitSettings(priority=5, dry_run=True, cooldown_usec=1_000_000)
    assert tiers["two"] == UnitSettings(priority=1, dry_run=True, cooldown_usec=1_000_000, rank_by=RankBy.SWAP)
    assert tiers["three"] == UnitSettings(priority=2, rank_by=RankBy.SWAP)


def test_rules_are_read_in_order() -> None:
    rules = parsed(
        "tiers: {batch: {}}\nrules:\n  - match: backup-*.service\n    tier: batch\n"
        "  - match: [app-*.scope, app-*.service]\n    manager: user\n    priority: -100\n"
        "  - {match: '*', manager: system}\n"
    ).rules
    assert [rule.match for rule in rules] == [("backup-*.service",), ("app-*.scope", "app-*.service"), ("*",)]
    assert [rule.manager for rule in rules] == ["system", "user", "system"]
    assert [rule.settings for rule in rules] == [
        UnitSettings(tier="batch"),
        UnitSettings(priority=-100),
        UnitSettings(),
    ]
    assert [rule.source for rule in rules] == [Source("0.yaml", 3), Source("0.yaml", 5), Source("0.yaml", 8)]


def test_machine_and_limits_are_read() -> None:
    configuration = parsed(
        "machine:\n  available-min: 64M\n  available-watch: 20%\n  swap-free-min: 2.5%\n  available-thrash: 7.25%\n"
        "  sign: some 1ms/1s\n  thrash: full 900ms/2s\n"
        "limits: {death-deadline-sec: 500ms, decisions-max: 50, leave-to-systemd-oomd: no}\n"
    )
    assert configuration.machine == MachineTriggers(
        Amount(bytes=64 << 20),
        Amount(permyriad=2000),
        Amount(permyriad=250),
        Amount(permyriad=725),
        PressureTrigger(PsiKind.SOME, 1_000, 1_000_000),
        PressureTrigger(PsiKind.FULL, 900_000, 2_000_000),
    )
    assert configuration.limits == Limits(500_000, 50, False)


def test_tiers_are_merged_key_by_key() -> None:
    tiers = parsed(
        "tiers: {a: {priority: 1, dry-run: yes}, b: {priority: 2}}", "tiers: {a: {priority: 5}, c: {priority: 3}}"
    ).tiers
    assert tiers["a"] == UnitSettings(priority=5, dry_run=True)
    assert (tiers["b"].priority, tiers["c"].priority) == (2, 3)
    assert tiers["a"].sources == {"priority": Source("1.yaml", 1), "dry_run": Source("0.yaml", 1)}


@pytest.mark.parametrize("nothing", ["", "~", "null", "''"])
def test_a_key_without_a_value_takes_back_what_an_earlier_file_said(nothing: str) -> None:
    configuration = parsed(
        "tiers: {a: {priority: 1, dry-run: yes}}\nmachine: {available-min: 5%}\nlimits: {decisions-max: 5}",
        f"tiers:\n  a:\n    priority: {nothing}\n"
        f"machine:\n  available-min: {nothing}\nlimits:\n  decisions-max: {nothing}",
    )
    assert configuration.tiers["a"] == UnitSettings(dry_run=True)
    assert "priority" not in configuration.tiers["a"].sources
    assert configuration.machine == MachineTriggers()
    assert configuration.limits == Limits()


def test_a_bad_value_leaves_what_an_earlier_file_said() -> None:
    files = [("a", "tiers: {a: {priority: 1}}"), ("b", "tiers: {a: {priority: much, dry-run: yes}}")]
    configuration, problems = parse_configuration(files)
    assert configuration.tiers["a"] == UnitSettings(priority=1, dry_run=True)
    assert [problem.source for problem in problems] == [Source("b", 1)]


def test_rules_of_later_files_come_later() -> None:
    rules = parsed("rules: [{match: a.service}, {match: b.service}]", "rules: [{match: c.service}]").rules
    assert [rule.match[0] for rule in rules] == ["a.service", "b.service", "c.service"]


def test_a_tier_may_be_defined_in_a_later_file_than_its_rule() -> None:
    assert parsed("rules: [{match: a.service, tier: b}]", "tiers: {b: {priority: 1}}").rules[0].settings.tier == "b"


def test_a_rule_without_its_tier_keeps_the_rest() -> None:
    text = "tiers: {batch: {}}\nrules: [{match: a.service, tier: bach, priority: 7}]"
    configuration, problems = parse_configuration([("a", text)])
    assert configuration.rules[0].settings == UnitSettings(priority=7)
    assert [str(problem) for problem in problems] == [
        "a:2: tier=bach: is no tier of oomslice.yaml; did you mean batch? The rest of the rule holds"
    ]


# Text -> (line, part of the message) of each problem, in order.
MISTAKES: dict[str, list[tuple[int, str]]] = {
    "tires: {}": [(1, "tires: is no key here and is ignored; did you mean tiers?")],
    "Rules: []": [(1, "did you mean rules?")],
    "priority: 5": [(1, "it belongs in tiers or rules")],
    "available-min: 5%": [(1, "it belongs below machine:")],
    "[tiers]": [(1, "the file is no mapping")],
    "tiers": [(1, "the file is no mapping")],
    "tiers: [a]": [(1, "tiers is no mapping")],
    "tiers: {a: 5}": [(1, "tiers.a is no mapping")],
    "tiers:\n  a b: {priority: 5}": [(2, "is not the name of a tier")],
    "tiers:\n  a:\n    prioritty: 5": [(3, "prioritty=5: is no key here and is ignored; did you mean priority?")],
    "tiers: {a: {Priority: 5}}": [(1, "did you mean priority?")],
    "tiers: {a: {KillScope: unit}}": [(1, "did you mean kill-scope?")],
    "tiers: {a: {cooldown_sec: 5}}": [(1, "did you mean cooldown-sec?")],
    "tiers: {a: {tier: b}}": [(1, "a tier cannot name another tier")],
    "tiers: {a: {decisions-max: 5}}": [(1, "it belongs below limits:")],
    "tiers: {a: {xyzzy: 5}}": [(1, "keys are priority, protect, actions")],
    "tiers: {a: {priority: [5]}}": [(1, "priority: is a list; write a single value")],
    "tiers: {a: {priority: {b: 5}}}": [(1, "priority: is a mapping; write a single value")],
    "tiers: {a: {priority: 5000}}": [(1, "priority=5000: is out of range")],
    "tiers: {a: {priority: 1_000}}": [(1, "whole number")],
    "tiers: {a: {priority: 5.0}}": [(1, "whole number")],
    "tiers:\n  a:\n    priority: 1\n    dry-run: no\n    priority: 2": [
        (5, "priority=2: is there twice; the one in line 3 holds")
    ],
    "tiers:\n  a: {}\n  a: {}": [(3, "a: is there twice; the one in line 2 holds")],
    "limits: {}\nlimits: {}": [(2, "is there twice")],
    "tiers: {a: {actions: [warn, [kill]]}}": [(1, "is a list")],
    "tiers: {a: {actions: []}}": [(1, "has no step")],
    "tiers: {a: {actions: [warn kill]}}": [(1, 'unknown step "warn kill"')],
    "tiers: {a: {actions: {warn: 1}}}": [(1, "is a mapping")],
    "tiers: {a: {on-decision: tell}}": [(1, "tell.service")],
    "tiers: {a: {priority: !!python/object:os.system 5}}": [(1, "has the tag")],
    "tiers: {a: !!python/object:os.system {priority: 5}}": [(1, "no mapping")],
    "tiers: {a: {<<: 5}}": [(1, "<< takes a mapping")],
    "tiers: {[a]: {}}": [(1, "tiers has a key that is a list")],
    "rules: {match: a.service}": [(1, 'begin each rule with "- match:"')],
    "rules: [a.service]": [(1, "the rule is no mapping")],
    "rules:\n  - priority: 5": [(2, "has no match")],
    "rules: [{match: }]": [(1, "match: is empty")],
    "rules: [{match: []}]": [(1, "match: is empty")],
    "rules: [{match: [[a.service]]}]": [(1, "is a list")],
    "rules: [{match: {a: b}}]": [(1, "is a mapping")],
    "rules: [{match: sshd}]": [(1, "match=sshd: matches no slice, service or scope")],
    "rules: [{match: a.timer}]": [(1, "matches no slice, service or scope")],
    "rules: [{match: system.slice/a.service}]": [(1, "no slash")],
    "rules: [{match: a b.service}]": [(1, "no white space")],
    "rules: [{match: a.service, manager: usr}]": [(1, "write system or user. The rule is ignored")],
    "rules: [{match: a.service, manager: [user]}]": [(1, "is a list")],
    "rules: [{mtach: a.service, match: b.service}]": [(1, "did you mean match?")],
    "rules: [{match: a.service, tier: x}]": [(1, "is no tier: oomslice.yaml has none.")],
    "machine: {available-min: lots}": [(1, 'or a percentage such as "4%"')],
    "machine: {available-min: 4.125%}": [(1, "two decimals")],
    "machine: {sign: some 1ms/100ms}": [(1, "500ms to 10s")],
    "machine: {available_mni: 5%}": [(1, "did you mean available-min?")],
    "limits: {death-deadline-sec: 0}": [(1, "100ms to 1min")],
    "limits: {decisions-max: 0}": [(1, "1 to 1000000")],
    "limits: {leave-to-systemd-oomd: maybe}": [(1, "yes or no")],
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_named_with_line_and_cure(text: str) -> None:
    messages = said(text)
    assert len(messages) == len(MISTAKES[text])
    for message, (line, part) in zip(messages, MISTAKES[text], strict=True):
        assert message.startswith(f"0.yaml:{line}: ")
        assert part in message


def test_one_mistake_of_each_kind_leaves_all_the_rest() -> None:
    text = (
        "tires: {}\ntiers:\n  a: {priority: x, dry-run: yes}\n  b: 5\nrules:\n  - match: [x, a.service]\n    foo: 1\n"
        "    priority: 3\n  - nothing\nmachine: {available-min: x, swap-free-min: 5%}\n"
        "limits: {decisions-max: 7, foo: 1}\n"
    )
    configuration, problems = parse_configuration([("a", text)])
    assert [problem.source.line for problem in problems] == [1, 3, 4, 6, 7, 9, 10, 11]
    assert configuration.tiers["a"] == UnitSettings(dry_run=True)
    assert [(rule.match, rule.settings.priority) for rule in configuration.rules] == [(("a.service",), 3)]
    assert configuration.machine == MachineTriggers(swap_free_min=Amount(permyriad=500))
    assert configuration.limits == Limits(decisions_max=7)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("tiers:\n  a: [b\n  c: d\n", 3),
        ("tiers:\n\ta: b\n", 2),
        ("a: b: c\n", 1),
        ("tiers: {}\n---\ntiers: {}\n", 2),
        ("tiers: *nowhere\n", 1),
        ("tiers:\n  a: \x01\n", 2),
        ("tiers:\n  a: '\udcff'\n", 2),
        ("tiers: '", 1),
        ("%FOO\n%YAML 3.0\n--- a\n", 2),
    ],
)
def test_a_file_that_is_no_yaml_contributes_nothing_and_is_one_problem(text: str, line: int) -> None:
    configuration, problems = parse_configuration(
        [("good", "tiers: {a: {priority: 1}}"), ("bad", "limits: {decisions-max: 5}\n" + text), ("also", "rules: []")]
    )
    assert configuration == parsed("tiers: {a: {priority: 1}}")
    assert [(problem.source, problem.key) for problem in problems] == [(Source("bad", line + 1), "")]
    assert "column" in problems[0].message
    assert "nothing of it is used" in problems[0].message


@pytest.mark.parametrize("text", ['tiers: "\\UFFFFFFFF"', f"%YAML {'9' * 5000}.1\n--- a"])
def test_numbers_that_python_refuses_are_a_problem_like_others(text: str) -> None:
    assert said(text) == [
        "0.yaml: the file is not YAML: it has a number or character out of range; nothing of it is used"
    ]


def test_nothing_is_ever_made_from_a_tag(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    messages = said(
        f"tiers: !!python/object/apply:os.mkdir ['{witness}']\nlimits: {{decisions-max: !!python/name:os.x 5}}"
    )
    assert not witness.exists()
    assert len(messages) == 2


LAUGHS = "x-a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"x-{name}: &{name} [{','.join([f'*{previous}'] * 9)}]\n"
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "x-a: &a {priority: 5}\n" + "".join(
    f"x-{name}: &{name} {{<<: [{','.join([f'*{previous}'] * 9)}]}}\n"
    for previous, name in zip("abcdef", "bcdefg", strict=True)
)
BOMBS = {
    "laughs": (LAUGHS + "tiers: *i", "no mapping"),
    "laughs as globs": (LAUGHS + "rules: [{match: *i}]", "is a list"),
    "laughs as steps": (LAUGHS + "tiers: {a: {actions: *i}}", "is a list"),
    "merges": (MERGES + "tiers: {a: {<<: *g}}", "holds more than"),
    "merged into itself": ("tiers: {a: &a {<<: *a, priority: 1}}", "merges mappings more than"),
    "itself as its own value": ("tiers: &a {b: *a}", "is no key here"),
    "one rule very often": (
        "x-a: &a {match: b.service, priority: 1}\nrules: [" + "*a," * 60_000 + "]",
        "holds more than",
    ),
    "deep lists": ("tiers: " + "[" * 100_000, "nested"),
    "deep mappings": ("{a: " * 60_000, "nested"),
    "deep block lists": ("- " * 100_000, "nested"),
    "deep keys": ("? " * 100_000, "nested"),
    "too large": ("#" + "x" * TEXT_MAX, "larger than 256 KiB"),
    "many keys": ("".join(f"k{number}: 1\n" for number in range(20_000)), "is no key here"),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.timeout(60)  # without the bounds these would go on for hours
def test_no_file_takes_for_ever(bomb: str) -> None:
    text, message = BOMBS[bomb]
    _, problems = parse_configuration([("a", text)])
    assert 0 < len(problems) <= PROBLEMS_MAX + 1
    assert message in str(problems[0])


def test_a_file_of_reasonable_size_is_within_the_bounds() -> None:
    text = "rules:\n" + "".join(f"  - {{match: a{number}.service, priority: 4}}\n" for number in range(3000))
    assert len(parsed(text).rules) == 3000


@pytest.mark.parametrize(
    ("machine", "key"),
    [
        ("{available-min: 30%}", "available-min"),
        ("{available-watch: 2%}", "available-watch"),
        ("{available-thrash: 3%}", "available-thrash"),
        ("{available-thrash: 26%}", "available-thrash"),
        ("{available-min: 64M, available-watch: 32M}", "available-min"),
        ("{available-min: 64M, available-thrash: 32M, available-watch: 1G}", "available-min"),
    ],
)
def test_amounts_of_available_memory_must_be_in_order(machine: str, key: str) -> None:
    configuration, problems = parse_configuration([("a", f"machine: {machine}")])
    assert configuration.machine == MachineTriggers()
    assert [(problem.key, problem.source.line) for problem in problems] == [(key, 1)]
    assert "available-watch >= available-thrash >= available-min" in problems[0].message
    assert "keep their defaults" in problems[0].message


def test_amounts_that_only_a_machine_can_compare_are_left_to_it() -> None:
    machine = parsed(
        "machine: {available-min: 64M, available-watch: 5%, available-thrash: 5%, swap-free-min: 0}"
    ).machine
    assert machine.available_min == Amount(bytes=64 << 20)
    assert machine.available_watch == machine.available_thrash == Amount(permyriad=500)


def test_amounts_may_be_equal() -> None:
    machine = parsed("machine: {available-min: 5%, available-thrash: 5%, available-watch: 5%}").machine
    assert machine.available_min == machine.available_watch == Amount(permyriad=500)


@pytest.mark.parametrize(
    ("machine", "key", "message"),
    [
        ("{available-ladder: 3%}", "available-ladder", "is less than available-min, which is 4%; write at least that"),
        (
            "{available-ladder: 30%}",
            "available-ladder",
            "is more than available-watch, which is 25%; write at most that",
        ),
        ("{swap-free-ladder: 5%}", "swap-free-ladder", "is less than swap-free-min, which is 10%; write at least that"),
    ],
)
def test_ladders_begin_between_the_limits_and_the_watch(machine: str, key: str, message: str) -> None:
    configuration, problems = parse_configuration([("a", f"machine: {machine}")])
    assert [(problem.key, problem.source.line) for problem in problems] == [(key, 1)]
    assert problems[0].message.startswith(message)
    ladder = configuration.machine
    assert ladder.available_min.permyriad is not None and ladder.available_ladder.permyriad is not None
    assert ladder.available_min.permyriad <= ladder.available_ladder.permyriad <= 2500


def test_where_ladders_begin_gives_way_to_limits_that_were_written() -> None:
    machine = parsed("machine: {available-min: 10%, available-thrash: 12%, swap-free-min: 60%}").machine
    assert machine.available_ladder == Amount(permyriad=1000) and machine.swap_free_ladder == Amount(permyriad=6000)
    machine = parsed("machine: {available-min: 2%, available-thrash: 5%, available-watch: 6%}").machine
    assert machine.available_ladder == Amount(permyriad=600)


def test_no_ladder_before_the_limits_may_be_asked_for() -> None:
    assert parsed("machine: {available-ladder: 0}").machine.available_ladder.is_zero
    assert parsed("machine: {available-ladder: 0%}").machine.available_ladder.is_zero


def test_a_reserve_is_at_most_a_quarter_of_memory() -> None:
    assert parsed("limits: {reserve: 25%}").limits.reserve == Amount(permyriad=2500)
    configuration, problems = parse_configuration([("a", "limits:\n  reserve: 26%\n")])
    assert configuration.limits.reserve == Limits().reserve
    assert [(problem.source.line, problem.key) for problem in problems] == [(2, "reserve")]
    assert "at most 25%" in problems[0].message

    limits = parsed("limits:\n  reserve: 256M\n").limits
    assert with_possible_reserve(limits, 1 << 30) == (limits, ())
    kept, (problem,) = with_possible_reserve(limits, (1 << 30) - 4)
    assert kept.reserve == Limits().reserve and kept.decisions_max == limits.decisions_max
    assert (problem.source.line, problem.key, problem.value) == (2, "reserve", "256M")
    assert "more than a quarter of memory, which is 268435455 bytes here" in problem.message


def test_a_drop_in_of_a_site_is_merged_with_the_shipped_file() -> None:
    shipped = (FIXTURES.parent.parent.parent / "units" / "oomslice.yaml").read_text(encoding="utf-8")
    configuration = parsed(shipped, (FIXTURES / "site.yaml").read_text(encoding="utf-8"))
    assert configuration.tiers["background"].priority == -700
    assert configuration.tiers["nightly"] == UnitSettings(
        priority=-800,
        rank_by=RankBy.GROWTH,
        cooldown_usec=90_000_000,
        actions=(Step("warn"), Step("kill", None, 90_000_000)),
        dry_run=False,
    )
    assert configuration.rules[-1].manager == "user"
    assert configuration.rules[-1].settings.on_decision == "tell-user@.service"
    assert configuration.machine.available_min == Amount(bytes=256 << 20)
    assert configuration.machine.available_watch == Amount(permyriad=1250)
    assert configuration.limits.leave_to_systemd_oomd is False
