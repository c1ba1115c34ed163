# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `oomslicectl verify` says beyond what the parsers say."""

from __future__ import annotations

import pytest

from oomslice.settings.configuration import parse_configuration
from oomslice.settings.model import Configuration, Problem, Severity, Source
from oomslice.settings.verify import has_errors, render, verify_configuration, verify_unit_files

HEAD = "[X-OOMSlice]\n"
TIERS = parse_configuration([("t", "tiers: {batch: {priority: -5}, important: {priority: 5}}")])[0]


def lines(text: str, file: str = "/etc/a.slice", configuration: Configuration = TIERS) -> list[str]:
    return [render(problem) for problem in verify_unit_files([(file, text)], configuration)]


def test_a_good_file_is_nothing_to_speak_of() -> None:
    text = "Priority=-5\nActions=kill@2s\nKillScope=unit\nDryRun=no\nTier=batch\nPressureTrigger=some 150ms/1s\n"
    assert lines(HEAD + text) == []


@pytest.mark.parametrize("file", ["/etc/a.slice", "/etc/a.service", "/run/x-1.scope", "/etc/app-.scope.d/50.conf"])
def test_a_trigger_is_fine_on_every_kind_of_unit(file: str) -> None:
    assert lines(HEAD + "PressureTrigger=some 150ms/1s\n", file) == []


def test_an_error_is_printed_as_systemd_analyze_does() -> None:
    assert lines(HEAD + "Priority=x\n") == [
        "/etc/a.slice:2: Priority=x: is not a whole number; write one from -1000 to 1000. The value is ignored"
    ]


def test_a_tier_that_is_not_there_is_an_error() -> None:
    assert lines(HEAD + "Priority=5\nTier=bathc\n") == [
        "/etc/a.slice:3: Tier=bathc: is no tier of oomslice.yaml; did you mean batch? The other keys hold"
    ]
    assert lines(HEAD + "Tier=zzz\n") == [
        "/etc/a.slice:2: Tier=zzz: is no tier of oomslice.yaml; tiers are batch, important. The other keys hold"
    ]
    assert lines(HEAD + "Tier=zzz\n", configuration=Configuration()) == [
        "/etc/a.slice:2: Tier=zzz: is no tier: oomslice.yaml has none. The other keys hold"
    ]


def test_only_the_tier_that_wins_is_looked_up() -> None:
    files = [("/a", HEAD + "Tier=gone\n"), ("/b", HEAD + "Tier=batch\n")]
    assert verify_unit_files(files, TIERS) == ()


@pytest.mark.parametrize(
    ("ladder", "why", "added"),
    [
        ("warn", "the ladder ends in none of freeze, checkpoint, kill", "kill@5s"),
        ("warn throttle@2s", "the ladder ends in none of freeze, checkpoint, kill", "kill@7s"),
        ("terminate@3s", "the ladder ends in none of freeze, checkpoint, kill", "kill@13s"),
        ("start:a.service@1min", "the ladder ends in none of freeze, checkpoint, kill", '"kill@1min 5s"'),
        ("terminate freeze@2s", "nothing kills what terminate leaves", "kill@7s"),
    ],
)
def test_a_ladder_without_an_end_gets_kill(ladder: str, why: str, added: str) -> None:
    assert lines(HEAD + f"Actions={ladder}\n") == [
        f"/etc/a.slice:2: notice: Actions={ladder}: {why}, so {added} is added to it"
    ]


@pytest.mark.parametrize("ladder", ["kill", "warn freeze@2s", "warn checkpoint:/var/c@2s", "terminate kill@3s"])
def test_a_ladder_with_an_end_is_left_alone(ladder: str) -> None:
    assert lines(HEAD + f"Actions={ladder}\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "KillScope=process\n",
        "KillScope=subtree\n",
        "OnDecision=report@.service\n",
        "Actions=warn reclaim:1M throttle freeze@2s purge:/run/x@3s start:a.service@4s terminate@5s kill@6s\n",
    ],
)
def test_what_is_carried_out_is_nothing_to_speak_of(text: str) -> None:
    assert lines(HEAD + text) == []


def test_a_dry_run_is_a_notice() -> None:
    assert lines(HEAD + "DryRun=yes\n") == [
        "/etc/a.slice:2: notice: DryRun=yes: oomslice decides and records here, but does nothing"
    ]


def test_notices_are_of_the_values_that_win() -> None:
    files = [("/a", HEAD + "DryRun=yes\nActions=warn\n"), ("/b", HEAD + "DryRun=no\nActions=kill\n")]
    assert verify_unit_files(files, TIERS) == ()


@pytest.mark.parametrize("file", ["/etc/systemd/system/a.timer", "/etc/systemd/system/a.timer.d/x.conf", "b.socket"])
def test_settings_of_other_kinds_of_units_have_no_effect(file: str) -> None:
    (line,) = lines("[Unit]\nDescription=x\n[X-OOMSlice]\nPriority=5\n", file)
    assert line.startswith(f"{file}:4: notice: [X-OOMSlice] has no effect in a ")
    assert lines("[Unit]\nDescription=x\n", file) == []


@pytest.mark.parametrize("file", ["/tmp/50-oomslice.conf", "/tmp/x", "relative.conf", ""])
def test_a_name_that_says_no_type_is_fine(file: str) -> None:
    assert lines(HEAD + "Priority=5\n", file) == []


def test_problems_come_in_the_order_of_files_and_lines() -> None:
    files = [
        ("/z", HEAD + "DryRun=yes\nPriority=x\n"),
        ("/a", HEAD + "Foo=1\nActions=warn\nTier=nope\nRankBy=x\n"),
    ]
    found = [(problem.source.file, problem.source.line) for problem in verify_unit_files(files, TIERS)]
    assert found == [("/z", 2), ("/z", 3), ("/a", 2), ("/a", 3), ("/a", 4), ("/a", 5)]


def test_only_errors_make_it_fail() -> None:
    notice = Problem(Source("a", 1), "", "", "", "x", Severity.NOTICE)
    assert not has_errors([])
    assert not has_errors([notice])
    assert has_errors([notice, Problem(Source("a", 1), "", "", "", "x")])


def test_a_problem_of_a_whole_file_has_no_line() -> None:
    assert render(Problem(Source("/a", 0), "", "", "", "was removed", Severity.NOTICE)) == "/a: notice: was removed"
    assert render(Problem(Source("/a", 0), "", "", "", "was removed")) == "/a: was removed"


def test_tiers_and_rules_get_the_same_notices() -> None:
    files = [
        ("/b.yaml", "tiers:\n  a:\n    actions: warn\n    dry-run: yes\n"),
        ("/a.yaml", "rules:\n  - match: a.service\n    actions: [terminate]\n    kill-scope: process\n    tier: b\n"),
    ]
    found = verify_configuration(files)
    assert [(problem.source.file, problem.source.line, problem.key) for problem in found] == [
        ("/b.yaml", 3, "actions"),
        ("/b.yaml", 4, "dry-run"),
        ("/a.yaml", 3, "actions"),
        ("/a.yaml", 5, "tier"),
    ]
    assert [problem.severity for problem in found] == [Severity.NOTICE] * 3 + [Severity.ERROR]


def test_a_score_of_its_own_stands_against_the_priority() -> None:
    own = "[Service]\nOOMScoreAdjust={}\n" + HEAD
    (said,) = lines(own.format("-500") + "Priority=-5\n", "/etc/a.service")
    assert said == (
        "/etc/a.service:2: notice: OOMScoreAdjust=-500: is kept: the kernel's own killer follows it, and not Priority="
    )
    assert "not Protect=" in lines(own.format(300) + "Protect=yes\n", "/etc/a.service")[0]
    for score, settings in (("0", "Priority=-5\n"), ("", "Priority=-5\n"), ("-500", "Priority=0\n"), ("-500", "")):
        assert lines(own.format(score) + settings, "/etc/a.service") == []
    assert lines(own.format("-500") + "[Service]\nOOMScoreAdjust=\n" + HEAD + "Priority=-5\n", "/etc/a.service") == []
