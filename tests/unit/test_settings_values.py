# SPDX-License-Identifier: LGPL-2.1-or-later
"""Single values: numbers, booleans, times, sizes, triggers and names."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from oomslice.settings import values
from oomslice.settings.model import Amount, KillScope, PressureTrigger, PsiKind, RankBy
from oomslice.settings.values import BadValueError

SECOND = 1_000_000


@pytest.mark.parametrize("text", ["1", "yes", "y", "true", "t", "on", "YES", "True", "oN"])
def test_these_are_true(text: str) -> None:
    assert values.parse_boolean(text) is True


@pytest.mark.parametrize("text", ["0", "no", "n", "false", "f", "off", "NO", "False", "oFf"])
def test_these_are_false(text: str) -> None:
    assert values.parse_boolean(text) is False


@pytest.mark.parametrize("text", ["", "2", "ja", '"yes"', "yes no", "%i", "\u0131", "yes\u2003", "tr"])
def test_these_are_no_booleans(text: str) -> None:
    with pytest.raises(BadValueError, match="yes or no"):
        values.parse_boolean(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("-0", 0),
        ("1000", 1000),
        ("-1000", -1000),
        ("+5", 5),
        ("0x10", 16),
        ("-0X1f", -31),
        ("010", 8),
        ("0o17", 15),
        ("0b101", 5),
    ],
)
def test_priorities_are_read_as_systemd_reads_numbers(text: str, number: int) -> None:
    assert values.parse_priority(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "1001", "-1001", "5 5", "5.0", "1e3", "1_000", "--5", "0x", "08", "٣", "5%", "low", '"5"', "9" * 5000],
)
def test_bad_priorities_name_the_range(text: str) -> None:
    with pytest.raises(BadValueError, match=r"-1000 to 1000"):
        values.parse_priority(text)


def test_a_quoted_number_is_told_about_its_quotes() -> None:
    with pytest.raises(BadValueError, match="quotes are part of the value"):
        values.parse_priority('"5"')


def test_a_specifier_is_told_not_to_be_expanded() -> None:
    with pytest.raises(BadValueError, match=r"specifiers such as %i are not expanded"):
        values.parse_priority("%i")


@pytest.mark.parametrize(
    ("text", "usec"),
    [
        ("2", 2 * SECOND),
        ("0", 0),
        ("150ms", 150_000),
        ("1min 30s", 90 * SECOND),
        ("1min30s", 90 * SECOND),
        ("1.5", 1_500_000),
        (".5s", 500_000),
        ("5 s", 5 * SECOND),
        ("1 30", 31 * SECOND),
        ("2us", 2),
        ("2µs", 2),
        ("2μs", 2),
        ("3m", 180 * SECOND),
        ("1M", 2_629_800 * SECOND),
        ("1month", 2_629_800 * SECOND),
        ("1h 1hr 1hour", 3 * 3600 * SECOND),
        ("1d", 86_400 * SECOND),
        ("1w", 604_800 * SECOND),
        ("1y", 31_557_600 * SECOND),
        ("+5s", 5 * SECOND),
        ("  7s\t", 7 * SECOND),
        ("0.0000001", 0),
    ],
)
def test_time_spans_are_those_of_systemd_time(text: str, usec: int) -> None:
    assert values.parse_time_span(text) == usec


@pytest.mark.parametrize("text", ["infinity", " infinity "])
def test_an_infinite_time_has_no_number(text: str) -> None:
    assert values.parse_time_span(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "-1s",
        "5.s",
        "5.",
        "1:30",
        "12.34.56",
        "5x",
        "infinityx",
        "5sx",
        "3. 1",
        "--",
        ".",
        "+",
        "٣s",
        "9" * 30,
    ],
)
def test_these_are_no_time_spans(text: str) -> None:
    with pytest.raises(BadValueError):
        values.parse_time_span(text)


@pytest.mark.parametrize("text", ["infinity", "2d", "1w", "-1"])
def test_a_cooldown_is_finite_and_at_most_a_day(text: str) -> None:
    with pytest.raises(BadValueError):
        values.parse_cooldown(text)


def test_a_cooldown_may_be_nothing() -> None:
    assert values.parse_cooldown("0") == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("64K", 64 << 10),
        ("64M", 64 << 20),
        ("1.5G", 3 << 29),
        ("10.M", 10 << 20),
        ("2T", 2 << 40),
        ("1G 512M", 1536 << 20),
        ("1G512M", 1536 << 20),
        ("3 G", 3 << 30),
        ("1P", 1 << 50),
    ],
)
def test_sizes_have_base_1024(text: str, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "M", "1.5k", "1Mi", "1MB", "512M 1G", "1G 1G", "5 5", "-1M", "1e6", "99999999999E", "17E", "9" * 40, "4%x"],
)
def test_these_are_no_sizes(text: str) -> None:
    with pytest.raises(BadValueError):
        values.parse_size(text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("64M", Amount(bytes=64 << 20)),
        ("0", Amount(bytes=0)),
        ("4%", Amount(permyriad=400)),
        ("2.5%", Amount(permyriad=250)),
        ("2.25%", Amount(permyriad=225)),
        ("0%", Amount(permyriad=0)),
        ("100%", Amount(permyriad=10_000)),
        ("25‰", Amount(permyriad=250)),
        ("2.5‰", Amount(permyriad=25)),
        ("7‱", Amount(permyriad=7)),
    ],
)
def test_amounts_are_sizes_or_shares(text: str, amount: Amount) -> None:
    assert values.parse_amount(text) == amount


@pytest.mark.parametrize(
    "text",
    ["%", "101%", "-1%", "-0.5%", "1.234%", "1.%", ".5%", "1.25‰", "1.5‱", "4 %", "four%", "4%%", "2,5%", "4percent"],
)
def test_these_are_no_amounts(text: str) -> None:
    with pytest.raises(BadValueError):
        values.parse_amount(text)


@pytest.mark.parametrize(
    ("text", "trigger"),
    [
        ("some 150ms/1s", PressureTrigger(PsiKind.SOME, 150_000, 1_000_000)),
        ("full 500ms/500ms", PressureTrigger(PsiKind.FULL, 500_000, 500_000)),
        ("some  1us / 10s", PressureTrigger(PsiKind.SOME, 1, 10_000_000)),
        ("some\t1s 500ms/2s", PressureTrigger(PsiKind.SOME, 1_500_000, 2_000_000)),
        ("full .5/1", PressureTrigger(PsiKind.FULL, 500_000, 1_000_000)),
    ],
)
def test_pressure_triggers(text: str, trigger: PressureTrigger) -> None:
    assert values.parse_pressure_trigger(text) == trigger


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("150ms/1s", "some or full"),
        ("Some 150ms/1s", "some or full"),
        ('"some 150ms/1s"', "quotes"),
        ("some", "STALL/WINDOW"),
        ("some 150ms", "STALL/WINDOW"),
        ("some 150000 1000000", "STALL/WINDOW"),
        ("some 150ms/499ms", "500ms to 10s"),
        ("some 150ms/10001ms", "500ms to 10s"),
        ("some 150000/1000000", "500ms to 10s"),
        ("some 0/1s", "more than 0"),
        ("some 1001ms/1s", "at most the window"),
        ("some x/1s", "a stall that is not a time span"),
        ("some 1ms/1s/2s", "a window that is not a time span"),
        ("some 1ms/infinity", "infinite window"),
        ("some /1s", "a stall that is not a time span"),
    ],
)
def test_bad_pressure_triggers_say_what_the_kernel_takes(text: str, message: str) -> None:
    with pytest.raises(BadValueError, match=message):
        values.parse_pressure_trigger(text)


def test_kill_scopes_and_rankings_are_exact_words() -> None:
    assert [values.parse_kill_scope(kind.value) for kind in KillScope] == list(KillScope)
    assert [values.parse_rank_by(kind.value) for kind in RankBy] == list(RankBy)
    with pytest.raises(BadValueError, match="unit, subtree or process"):
        values.parse_kill_scope("Unit")
    with pytest.raises(BadValueError, match="memory, swap, growth or refault"):
        values.parse_rank_by("size")


@pytest.mark.parametrize("text", ["batch", "b", "a.b-c_9", "9", "x" * 64])
def test_names_of_tiers(text: str) -> None:
    assert values.parse_tier_name(text) == text


@pytest.mark.parametrize("text", ["", "a b", "-a", ".a", "x" * 65, "%i", "é", "a\n"])
def test_these_are_no_names_of_tiers(text: str) -> None:
    with pytest.raises(BadValueError, match="tier"):
        values.parse_tier_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "notify.service",
        "notify@oom.service",
        "notify@.service",
        "a\\x2db.service",
        "x.target",
        "a:b.timer",
        "a" * 247 + ".service",
    ],
)
def test_units_to_start_on_a_decision(text: str) -> None:
    assert values.parse_on_decision(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("notify", r"notify\.service"),
        ("notify.servic", r"notify\.service"),
        (".service", "before"),
        ("@x.service", "before"),
        ("a b.service", "systemd-escape"),
        ("ä.service", "systemd-escape"),
        ("%i.service", "not expanded"),
        ("a" * 248 + ".service", "255"),
        ("session-1.scope", "cannot be started"),
        ("dev-sda.device", "cannot be started"),
        ("x@.timer", "template of no service"),
    ],
)
def test_these_units_cannot_be_started(text: str, message: str) -> None:
    with pytest.raises(BadValueError, match=message):
        values.parse_on_decision(text)


@pytest.mark.parametrize(
    ("parser", "good", "bad"),
    [
        (
            values.parse_death_deadline,
            {"100ms": 100_000, "2": 2_000_000, "1min": 60_000_000},
            ["99ms", "61s", "infinity"],
        ),
        (values.parse_decisions_max, {"1": 1, "1000000": 1_000_000}, ["0", "-1", "1000001", "many"]),
    ],
)
def test_limits_are_bounded(parser: Callable[[str], int], good: dict[str, int], bad: list[str]) -> None:
    assert {text: parser(text) for text in good} == good
    for text in bad:
        with pytest.raises(BadValueError):
            parser(text)


def test_what_is_shown_is_fit_for_a_terminal_and_short() -> None:
    assert values.shown("a\x1b[2Jb\n\udc80") == "a\\x1b[2Jb\\n\\udc80"
    assert len(values.shown("x" * 5000)) == 120
    assert values.shown("ümläut") == "ümläut"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Amount(bytes=0), "0"),
        (Amount(bytes=64 << 20), "64M"),
        (Amount(bytes=1536 << 20), "1536M"),
        (Amount(bytes=4097), "4097"),
        (Amount(permyriad=400), "4%"),
        (Amount(permyriad=1000), "10%"),
        (Amount(permyriad=250), "2.5%"),
        (Amount(permyriad=5), "0.05%"),
        (Amount(permyriad=0), "0%"),
    ],
)
def test_amounts_are_shown_as_they_are_written(amount: Amount, text: str) -> None:
    assert str(amount) == text
    assert values.parse_amount(text) == amount
