# SPDX-License-Identifier: LGPL-2.1-or-later
"""[X-OOMSlice] of unit files: systemd's syntax, case by case, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from oomslice.settings.model import KillScope, PressureTrigger, PsiKind, RankBy, Severity, Source, Step, UnitSettings
from oomslice.settings.problems import PROBLEMS_MAX
from oomslice.settings.unitfile import LONG_LINE_MAX, parse_unit_files

FIXTURES = Path(__file__).parent.parent / "fixtures" / "settings"
HEAD = "[X-OOMSlice]\n"


def parsed(*texts: str) -> UnitSettings:
    """The settings of files that have no problem."""
    settings, problems = parse_unit_files([(f"/{number}", text) for number, text in enumerate(texts)])
    assert [str(problem) for problem in problems] == []
    return settings


def said(*texts: str) -> list[str]:
    """What is said of files, as FILE:LINE: text."""
    return [str(problem) for problem in parse_unit_files([(f"/{n}", text) for n, text in enumerate(texts)])[1]]


def test_every_key_is_read() -> None:
    settings = parsed(
        "[X-OOMSlice]\nPriority=-200\nProtect=no\nActions=warn kill@15s\nKillScope=subtree\nRankBy=refault\n"
        "PressureTrigger=some 150ms/1s\nCooldownSec=2s\nDryRun=yes\nTier=batch\nOnDecision=tell@.service\n"
    )
    assert settings == UnitSettings(
        priority=-200,
        protect=False,
        actions=(Step("warn"), Step("kill", None, 15_000_000)),
        kill_scope=KillScope.SUBTREE,
        rank_by=RankBy.REFAULT,
        pressure_trigger=PressureTrigger(PsiKind.SOME, 150_000, 1_000_000),
        cooldown_usec=2_000_000,
        dry_run=True,
        tier="batch",
        on_decision="tell@.service",
    )
    assert settings.sources["priority"] == Source("/0", 2)
    assert settings.sources["on_decision"] == Source("/0", 11)


# Text of a file -> the priority that is in force after it, or None. None of them is a problem.
SYNTAX: dict[str, tuple[str, int | None]] = {
    "an empty file": ("", None),
    "only comments": ("# a\n; b\n", None),
    "plain": (HEAD + "Priority=5\n", 5),
    "no newline at the end": (HEAD + "Priority=5", 5),
    "space around the equals sign": (HEAD + "Priority \t=\t 5 \n", 5),
    "space before the key": (HEAD + "  \tPriority=5\n", 5),
    "space before the header": (" \t[X-OOMSlice] \nPriority=5\n", 5),
    "blank lines": ("\n\n" + HEAD + "\n \t\nPriority=5\n\n", 5),
    "the last one wins": (HEAD + "Priority=5\nPriority=6\n", 6),
    "an empty one resets": (HEAD + "Priority=5\nPriority=\n", None),
    "an empty one with space resets": (HEAD + "Priority=5\nPriority= \t\n", None),
    "set again after a reset": (HEAD + "Priority=5\nPriority=\nPriority=7\n", 7),
    "the section again": (HEAD + "Priority=5\n[Slice]\nCPUWeight=1\n" + HEAD + "Priority=6\n", 6),
    "hash comment": (HEAD + "#Priority=5\n", None),
    "semicolon comment": (HEAD + "  ;Priority=5\n", None),
    "a comment needs its own line": (HEAD + "Tier=a\nPriority=5\n# Priority=6\\\n", 5),
    "continued": (HEAD + "Priority=\\\n5\n", 5),
    "continued with indentation": (HEAD + "Priority= \\\n     5\n", 5),
    "continued key": (HEAD + "Priority\\\n=5\n", 5),
    "continued over a comment": (HEAD + "Priority=\\\n# 6\n5\n", 5),
    "continued over comments of both kinds that end in backslashes": (HEAD + "Priority=\\\n# 6\\\n  ; 7\\\n5\n", 5),
    "continued and ended by a blank line": (HEAD + "Priority=5\\\n\nPriority=6\n", 6),
    "continued to the end of the file": (HEAD + "Priority=5\\", 5),
    "continued to the end of the file over a newline": (HEAD + "Priority=5\\\n", 5),
    "continued to the end of the file over a comment": (HEAD + "Priority=5\\\n# end\n", 5),
    "continued header": ("[X-OOMSlice]\\\n\nPriority=5\n", 5),
    "two backslashes do not continue": (HEAD + "Priority=5\n[X-Other]\na=b\\\\\n" + HEAD + "Priority=6\n", 6),
    "three backslashes continue": (HEAD + "Priority=5\n[X-Other]\na=b\\\\\\\n" + HEAD + "Priority=6\n", 5),
    "a continued line hides a header": ("[X-Other]\na=b\\\n" + HEAD + "Priority=6\n", None),
    "a header within a continued value": (HEAD + "Priority=5\n[X-Other]\nA=\\\n[X-OOMSlice]\nPriority=6\n", 5),
    "byte order mark": ("\ufeff" + HEAD + "Priority=5\n", 5),
    "byte order mark before a comment": ("\ufeff# hello\n" + HEAD + "Priority=5\n", 5),
    "CRLF": ("[X-OOMSlice]\r\nPriority=5\r\n", 5),
    "CRLF continued": ("[X-OOMSlice]\r\nPriority=\\\r\n5\r\n", 5),
    "CR alone": ("[X-OOMSlice]\rPriority=5\r", 5),
    "NUL ends a line": ("[X-OOMSlice]\0Priority=5\0", 5),
    "other X- section": ("[X-Foo]\nPriority=high\n" + HEAD + "Priority=5\n", 5),
    "other sections are systemd's": ("[Service]\nnonsense\n=\nFoo=\n" + HEAD + "Priority=5\n", 5),
    "X- keys are others'": (HEAD + "X-Ours=1\nX-Priority=6\nPriority=5\n", 5),
    "an unknown section": ("[Foo]\nPriority=9\n" + HEAD + "Priority=5\n", 5),
    "an equals sign in a value": (HEAD + "Priority=5\nX-A=b=c\n", 5),
    "after the last section": (HEAD + "Priority=5\n[Install]\nWantedBy=x.target\n", 5),
}  # fmt: skip


@pytest.mark.parametrize("case", SYNTAX)
def test_syntax_is_systemds(case: str) -> None:
    text, priority = SYNTAX[case]
    assert parsed(text).priority == priority


# Text of a file -> what is said, in order, as (line, part of the message); and the priority in force after it.
MISTAKES: dict[str, tuple[str, list[tuple[int, str]], int | None]] = {
    "bad value": (HEAD + "Priority=high\n", [(2, "Priority=high: is not a whole number")], None),
    "a bad value leaves the one before": (HEAD + "Priority=5\nPriority=2000\n", [(3, "-1000 to 1000")], 5),
    "a bad value leaves the ones after": (HEAD + "DryRun=ja\nPriority=5\n", [(2, "yes or no")], 5),
    "quotes are part of a number": (HEAD + 'Priority="5"\n', [(2, "quotes are part of the value")], None),
    "unknown key": (HEAD + "Prioritty=5\n", [(2, "did you mean Priority=?")], None),
    "keys have cases": (HEAD + "priority=5\n", [(2, "did you mean Priority=?")], None),
    "unknown key unlike any": (HEAD + "Foo=5\n", [(2, "keys are Priority=, Protect=")], None),
    "no equals sign": (HEAD + "Priority\nPriority=5\n", [(2, 'no "="')], 5),
    "no key": (HEAD + "=5\nPriority=5\n", [(2, "no key")], 5),
    "the line of a continued value is its first": (HEAD + "#\nPriority=\\\n#\n  high\n", [(3, "whole number")], None),
    "above any section": ("Priority=5\n", [(1, "above the first section")], None),
    "above any section after a byte order mark": ("\ufeffPriority=5\n", [(1, "above the first section")], None),
    "in a section of systemd": ("[Slice]\nPriority=5\n", [(2, "stands in [Slice]")], None),
    "section in another case": ("[X-oomslice]\nPriority=5\n", [(1, "did you mean [X-OOMSlice]?")], None),
    "section misspelt": ("[X-OOMSlise]\nPriority=5\n", [(1, "did you mean [X-OOMSlice]?")], None),
    "section without X-": ("[OOMSlice]\nPriority=5\n", [(1, "did you mean [X-OOMSlice]?")], None),
    "section with spaces": ("[ X-OOMSlice ]\nPriority=5\n", [(1, "did you mean [X-OOMSlice]?")], None),
    "open header": (HEAD + "Priority=5\n[X-\nPriority=6\n", [(3, "no closing ]")], 5),
    "header with something after it": (HEAD + "Priority=5\n[Slice] # x\n" + HEAD + "Priority=6\n", [(3, "closing")], 5),
    "header with a quote": (HEAD + "Priority=5\n['a']\n" + HEAD + "Priority=6\n", [(3, "quote")], 5),
    "invalid UTF-8": (HEAD + "Priority=5\nX-A=\udcff\nPriority=6\n", [(3, "UTF-8")], 5),
    "invalid UTF-8 in another section": ("[Unit]\nA=\udcff\n" + HEAD + "Priority=6\n", [(2, "UTF-8")], None),
    "a character that is none": (HEAD + "Priority=5\nX-A=\ufffe\nPriority=6\n", [(3, "UTF-8")], 5),
    "other white space is no white space": (HEAD + "Priority=\u00a05\n", [(2, "whole number")], None),
    "a comment after a value is part of it": (HEAD + "Priority=5 # five\n", [(2, "whole number")], None),
    "specifier": (HEAD + "Tier=%p\n", [(2, "not expanded")], None),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named_with_their_line_and_cost_nothing_else(case: str) -> None:
    text, expected, priority = MISTAKES[case]
    settings, problems = parse_unit_files([("/etc/a.slice", text)])
    assert [problem.source for problem in problems] == [Source("/etc/a.slice", line) for line, _ in expected]
    for problem, (line, message) in zip(problems, expected, strict=True):
        assert message in str(problem)
        assert str(problem).startswith(f"/etc/a.slice:{line}: ")
        assert problem.severity is Severity.ERROR
    assert settings.priority == priority


def test_invalid_utf8_in_a_comment_is_nobodys_business() -> None:
    assert parsed("# \udcff\n" + HEAD + "Priority=5\n").priority == 5


def test_files_apply_in_the_order_given() -> None:
    one, two, three = HEAD + "Priority=1\nTier=a\n", HEAD + "Priority=2\n", HEAD + "Tier=\n"
    assert parsed(one, two).priority == 2
    assert parsed(two, one).priority == 1
    assert parsed(one, two, three).tier is None
    assert parsed(three, one).tier == "a"
    assert parsed(one, two).sources == {"priority": Source("/1", 2), "tier": Source("/0", 3)}
    assert "tier" not in parsed(one, three).sources


def test_a_section_ends_with_its_file() -> None:
    assert said(HEAD + "Priority=5\n", "Priority=6\n") == [
        "/1:1: Priority=6: stands above the first section and is ignored there; put it below [X-OOMSlice]"
    ]


def test_a_broken_file_leaves_the_other_files() -> None:
    settings, problems = parse_unit_files([("/a", HEAD + "Priority=5\n[\n"), ("/b", HEAD + "Protect=yes\n")])
    assert (settings.priority, settings.protect) == (5, True)
    assert [str(problem.source.file) for problem in problems] == ["/a"]


def test_actions_are_replaced_and_not_added_to() -> None:
    settings = parsed(HEAD + "Actions=warn freeze@5s\nActions=kill@2s\n")
    assert settings.actions == (Step("kill", None, 2_000_000),)


def test_a_continuation_puts_a_space_between_words() -> None:
    assert parsed(HEAD + "Actions=warn\\\nkill@5s\n").actions == (Step("warn"), Step("kill", None, 5_000_000))


def test_one_bad_step_leaves_the_earlier_ladder() -> None:
    text = HEAD + "Actions=warn kill@5s\nActions=warn frezze@5s kill@9s\n"
    settings, problems = parse_unit_files([("/a", text)])
    assert settings.actions == (Step("warn"), Step("kill", None, 5_000_000))
    assert "did you mean freeze?" in problems[0].message


def test_a_line_of_more_than_a_mebibyte_ends_the_reading() -> None:
    text = HEAD + "Priority=5\nX-A=" + "x" * LONG_LINE_MAX + "\nPriority=6\n"
    settings, problems = parse_unit_files([("/a", text)])
    assert settings.priority == 5
    assert (problems[0].source.line, len(problems)) == (3, 1)
    assert "longer than 1 MiB" in problems[0].message


def test_continuations_count_as_one_line() -> None:
    text = HEAD + "Priority=5\nX-A=" + ("x" * 1000 + "\\\n") * 1100 + "\nPriority=6\n"
    settings, problems = parse_unit_files([("/a", text)])
    assert settings.priority == 5
    assert (problems[0].source.line, len(problems)) == (3, 1)


def test_a_line_of_almost_a_mebibyte_is_read() -> None:
    assert parsed(HEAD + "X-A=" + "x" * (LONG_LINE_MAX - 10) + "\nPriority=6\n").priority == 6


def test_what_is_shown_of_a_value_is_short_and_safe() -> None:
    (message,) = said(HEAD + "Tier=\x1b[31m" + "x" * 1000 + "\n")
    assert "\x1b" not in message
    assert len(message) < 400


def test_a_file_full_of_mistakes_does_not_fill_the_log() -> None:
    settings, problems = parse_unit_files([("/a", HEAD + "Foo=1\n" * 5000 + "Priority=5\n")])
    assert len(problems) == PROBLEMS_MAX + 1
    assert "4900 more problems" in problems[-1].message
    assert settings.priority == 5


def test_a_slice_and_its_drop_in_from_disk() -> None:
    files = [(name, (FIXTURES / name).read_text(encoding="utf-8")) for name in ("batch.slice", "50-oomslice.conf")]
    settings, problems = parse_unit_files(files)
    assert settings.priority == -300
    assert settings.tier is None
    assert [str(step) for step in settings.actions or ()] == [
        "warn", "throttle:80@2s", "freeze@5s", "terminate@10s", "kill@15s",
    ]  # fmt: skip
    assert settings.cooldown_usec == 5_000_000
    assert settings.sources["actions"] == Source("batch.slice", 12)
    assert [str(problem) for problem in problems] == [
        "50-oomslice.conf:5: RankBy=size: is not known; write memory, swap, growth or refault. The value is ignored"
    ]
