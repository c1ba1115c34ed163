# SPDX-License-Identifier: LGPL-2.1-or-later
"""Actions=: steps, ladders and their quoting."""

from __future__ import annotations

import pytest

from oomslice.settings.model import Step
from oomslice.settings.steps import STEPS, format_actions, parse_actions, parse_step, with_end
from oomslice.settings.values import BadValueError
from oomslice.settings.words import join_words, split_words

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("warn", Step("warn")),
        ("kill@15s", Step("kill", None, 15 * SECOND)),
        ("kill@15", Step("kill", None, 15 * SECOND)),
        ("kill@1min 30s", Step("kill", None, 90 * SECOND)),
        ("reclaim", Step("reclaim")),
        ("reclaim:256M", Step("reclaim", "256M")),
        ("reclaim:1.5G@2s", Step("reclaim", "1.5G", 2 * SECOND)),
        ("throttle@2s", Step("throttle", None, 2 * SECOND)),
        ("throttle:80", Step("throttle", "80")),
        ("throttle:80%@500ms", Step("throttle", "80", 500_000)),
        ("freeze@5s", Step("freeze", None, 5 * SECOND)),
        ("purge:/run/cache", Step("purge", "/run/cache")),
        ("purge:/run//cache/./x/@1s", Step("purge", "/run/cache/x", SECOND)),
        ("purge:/run/user@1/x", Step("purge", "/run/user@1/x")),
        ("purge:/run/a@5s@0", Step("purge", "/run/a@5s")),
        ("checkpoint", Step("checkpoint")),
        ("checkpoint@3s", Step("checkpoint", None, 3 * SECOND)),
        ("checkpoint:/var/lib/c@3s", Step("checkpoint", "/var/lib/c", 3 * SECOND)),
        ("start:notify.service", Step("start", "notify.service")),
        ("start:notify@1.service", Step("start", "notify@1.service")),
        ("start:notify@5s.service@5s", Step("start", "notify@5s.service", 5 * SECOND)),
        ("start:a\\x2db.service", Step("start", "a\\x2db.service")),
        ("terminate@10s", Step("terminate", None, 10 * SECOND)),
    ],
)
def test_a_step_is_name_argument_and_delay(text: str, step: Step) -> None:
    assert parse_step(text) == step


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown step"),
        ("kil", "did you mean kill"),
        ("Kill", "did you mean kill"),
        ("frobnicate", "steps are warn, reclaim"),
        ("kill:9", "takes none"),
        ("kill:", "takes none"),
        ("kill@", "delay"),
        ("kill@soon", "delay"),
        ("kill@-1s", "negative"),
        ("kill@infinity", "out of range"),
        ("kill@2d", "out of range"),
        ("reclaim:lots", "is not a size"),
        ("reclaim:0", "more than 0"),
        ("reclaim:64M@x", "delay"),
        ("reclaim:", "is not a size"),
        ("throttle:0", "1 to 100"),
        ("throttle:101", "1 to 100"),
        ("throttle:half", "1 to 100"),
        ("purge", "purge:/run/cache"),
        ("purge@2s", "purge:/run/cache"),
        ("purge:cache", "absolute"),
        ("purge:", "absolute"),
        ("purge:/", "root directory"),
        ("purge:/a/../b", r"\.\."),
        ("purge:%t/x", "absolute"),
        ("purge:/run/%i", "not expanded"),
        ("purge:/" + "a" * 255, "longer than the 255 bytes"),
        ("purge:/a\x1bb", "character"),
        ("checkpoint:var", "absolute"),
        ("start", "start:notify.service"),
        ("start:notify", r"notify\.service"),
        ("start:notify@.service", "template"),
        ("start:%n.service", "not expanded"),
        ("start:x.scope", "cannot be started"),
    ],
)
def test_a_bad_step_says_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(BadValueError, match=message):
        parse_step(text)


def test_the_ladder_of_the_design_is_read() -> None:
    ladder = parse_actions("warn throttle@2s freeze@5s terminate@10s kill@15s")
    assert [step.name for step in ladder] == ["warn", "throttle", "freeze", "terminate", "kill"]
    assert [step.delay_usec // SECOND for step in ladder] == [0, 2, 5, 10, 15]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("warn@5s kill@2s", "cannot become smaller"),
        ("freeze@5s kill", "cannot become smaller"),
        ("kill warn", "put kill last"),
        ("kill kill@5s", "put kill last"),
        ("warn frobnicate kill", "frobnicate"),
        (" ".join(["warn"] * 13), "more than 12"),
        (" ".join(["warn"] * 12), "one step less"),
        (" ".join(["terminate"] + ["freeze"] * 11), "one step less"),
        ("warn 'kill", "not closed"),
        ("''", "unknown step"),
        ("warn, kill", "did you mean warn"),
    ],
)
def test_ladders_that_make_no_sense_are_refused_as_a_whole(text: str, message: str) -> None:
    with pytest.raises(BadValueError, match=message):
        parse_actions(text)


def test_steps_of_one_moment_and_repeated_steps_are_fine() -> None:
    assert len(parse_actions("warn reclaim:64M reclaim:512M@5s terminate@5s kill@5s")) == 5


@pytest.mark.parametrize(
    ("text", "climbed"),
    [
        ("kill", "kill"),
        ("warn kill@2s", "warn kill@2s"),
        ("warn", "warn kill@5s"),
        ("reclaim@2s", "reclaim@2s kill@7s"),
        ("terminate@2s", "terminate@2s kill@12s"),
        ("freeze@2s", "freeze@2s"),
        ("checkpoint@2s", "checkpoint@2s"),
        ("freeze@2s warn@3s", "freeze@2s warn@3s kill@8s"),
        ("terminate@2s freeze@3s", "terminate@2s freeze@3s kill@8s"),
        ("terminate@2s checkpoint@3s", "terminate@2s checkpoint@3s kill@8s"),
        ("terminate@2s kill@3s", "terminate@2s kill@3s"),
        (" ".join(["warn"] * 11), " ".join(["warn"] * 11) + " kill@5s"),
        (" ".join(["warn"] * 11 + ["freeze"]), " ".join(["warn"] * 11 + ["freeze"])),
    ],
)
def test_a_ladder_without_an_end_gets_a_kill(text: str, climbed: str) -> None:
    assert format_actions(with_end(parse_actions(text))) == climbed
    assert with_end(with_end(parse_actions(text))) == with_end(parse_actions(text))


def test_every_step_of_the_design_is_known_and_three_of_them_end_a_ladder() -> None:
    assert set(STEPS) == {
        "warn", "reclaim", "throttle", "freeze", "purge", "checkpoint", "start", "terminate", "kill",
    }  # fmt: skip
    assert {name for name, kind in STEPS.items() if kind.ends} == {"kill", "freeze", "checkpoint"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\n", []),
        ("a b\tc\nd", ["a", "b", "c", "d"]),
        ("'a b' \"c d\"", ["a b", "c d"]),
        ("a'b c'd", ["ab cd"]),
        ("''", [""]),
        ("a '' b", ["a", "", "b"]),
        ('"it\'s"', ["it's"]),
        ("a\\x2db \\", ["a\\x2db", "\\"]),
        ("'a\\' b", ["a\\", "b"]),
        ("a\u00a0b", ["a\u00a0b"]),
    ],
)
def test_words_are_split_and_unquoted_but_not_unescaped(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize("text", ["'", 'a "b', "\"a'", "'a\\'b'"])
def test_open_quotes_are_refused(text: str) -> None:
    with pytest.raises(BadValueError, match="not closed"):
        split_words(text)


def test_words_are_quoted_only_where_they_must_be() -> None:
    assert join_words(["kill@1s", "purge:/a b", "", 'x"y', "x'y"]) == 'kill@1s "purge:/a b" "" "x"\'"\'"y" "x\'y"'
    assert format_actions(parse_actions("warn 'kill@1min 30s'")) == 'warn "kill@1min 30s"'
