# SPDX-License-Identifier: LGPL-2.1-or-later
"""What holds for every text: nothing raises, problems point into the file, and what is written parses back."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from oomslice.settings.configuration import parse_configuration
from oomslice.settings.keys import SETTING_PARSERS, yaml_key
from oomslice.settings.model import (
    SETTING_KEYS,
    SETTING_NAMES,
    Amount,
    Configuration,
    PressureTrigger,
    Problem,
    PsiKind,
    Step,
    UnitSettings,
    format_usec,
)
from oomslice.settings.steps import STEPS, format_actions, parse_actions, parse_step
from oomslice.settings.unitfile import parse_unit_files
from oomslice.settings.values import (
    PRIORITY_MAX,
    PRIORITY_MIN,
    TIME_MAX_USEC,
    WINDOW_MAX_USEC,
    WINDOW_MIN_USEC,
    BadValueError,
    parse_amount,
    parse_pressure_trigger,
    parse_priority,
    parse_time_span,
)
from oomslice.settings.verify import render, verify_configuration, verify_unit_files
from oomslice.settings.words import join_words, split_words

ANY = st.text(st.characters(codec=None), max_size=80)
SPACE = st.sampled_from(["", " ", "\t", "\\\n", "\\\n# comment\n "])
NAMES = st.sampled_from([*SETTING_KEYS, "Prioritty", "X-Foo", "priority", ""])
VALUES = st.one_of(
    st.sampled_from(["5", "-1000", "yes", "no", "kill", "warn kill@5s", "some 150ms/1s", "unit", "swap", "a.service"]),
    ANY,
)
ASSIGNMENT = st.builds(lambda *parts: "".join(parts), SPACE, NAMES, SPACE, st.just("="), SPACE, VALUES)
LINE = st.one_of(
    ASSIGNMENT,
    st.sampled_from(["[X-OOMSlice]", "[X-OOMSlice]", "[Slice]", "[X-oomslice]", "[", "# x", "; y", "", "\\", "\ufeff"]),
    ANY,
)
UNIT_FILE = st.builds(
    lambda lines, end: end.join(lines), st.lists(LINE, max_size=12), st.sampled_from(["\n", "\r\n", "\r"])
)

YAML_KEYS = st.sampled_from(
    [*map(yaml_key, SETTING_KEYS), "tiers", "rules", "machine", "limits", "match", "manager", "available-min", "sign",
     "available-watch", "decisions-max", "<<", "x-a", "foo", "yes", "~"]
)  # fmt: skip
YAML_SCALAR = st.one_of(
    VALUES.map(lambda text: "'" + text.replace("'", "''") + "'"),
    st.sampled_from(
        ["5", "yes", "~", "4%", "64M", "*a", "&a 5", "!!x y", "1:30", "010", "some 150ms/1s", "a*.service", "|"]
    ),
)
YAML_VALUE = st.recursive(
    YAML_SCALAR,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]"),
        st.lists(st.tuples(YAML_KEYS, inner), max_size=4).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=12,
)
YAML_FILE = st.one_of(
    ANY,
    st.text("{}[],:-?&*!|>'\"%@`#\n\t ab1~<", max_size=60),
    st.lists(st.tuples(st.sampled_from(["tiers", "rules", "machine", "limits", "x-a"]), YAML_VALUE), max_size=4).map(
        lambda pairs: "\n".join(f"{key}: {value}" for key, value in pairs)
    ),
)


def check(problems: tuple[Problem, ...], texts: dict[str, str]) -> None:
    for problem in problems:
        text = texts[problem.source.file]
        # The widest idea of what a line is: systemd's ends of lines and YAML's.
        lines = len(re.findall("[\n\r\0\x85\u2028\u2029]", text)) + 1
        assert 0 <= problem.source.line <= lines
        assert problem.message
        shown = render(problem)
        assert shown.startswith(problem.source.file)
        assert all(character.isprintable() for character in shown)


@given(st.lists(UNIT_FILE, max_size=3))
@settings(max_examples=300)
def test_unit_files_never_raise_and_problems_point_into_them(texts: list[str]) -> None:
    files = [(f"/f{number}", text) for number, text in enumerate(texts)]
    found, problems = parse_unit_files(files)
    check(problems, dict(files))
    check(verify_unit_files(files, Configuration()), dict(files))
    assert set(found.sources) == {name for name in SETTING_NAMES if getattr(found, name) is not None}
    check(tuple(Problem(source, "", "", "", "x") for source in found.sources.values()), dict(files))


@given(st.lists(YAML_FILE, max_size=3))
@settings(max_examples=300, deadline=None)
def test_yaml_never_raises_and_problems_point_into_it(texts: list[str]) -> None:
    files = [(f"f{number}", text) for number, text in enumerate(texts)]
    configuration, problems = parse_configuration(files)
    check(problems, dict(files))
    check(verify_configuration(files), dict(files))
    for rule in configuration.rules:
        assert rule.match
        assert rule.settings.tier is None or rule.settings.tier in configuration.tiers


@given(ANY)
def test_parsers_of_values_raise_nothing_but_what_they_say(text: str) -> None:
    for parse in (*SETTING_PARSERS.values(), parse_amount, parse_time_span, parse_step, split_words):
        try:
            parse(text)
        except BadValueError as error:
            assert str(error)


@given(st.integers(0, 2**63))
def test_times_parse_back(usec: int) -> None:
    if usec < 2**64 - 1:
        assert parse_time_span(format_usec(usec)) == usec


@given(st.integers(PRIORITY_MIN, PRIORITY_MAX))
def test_priorities_parse_back(priority: int) -> None:
    assert parse_priority(str(priority)) == priority


@given(st.one_of(st.builds(Amount, bytes=st.integers(0, 2**63)), st.builds(Amount, permyriad=st.integers(0, 10_000))))
def test_amounts_parse_back(amount: Amount) -> None:
    assert parse_amount(str(amount)) == amount


@st.composite
def triggers(draw: st.DrawFn) -> PressureTrigger:
    window = draw(st.integers(WINDOW_MIN_USEC, WINDOW_MAX_USEC))
    return PressureTrigger(draw(st.sampled_from(PsiKind)), draw(st.integers(1, window)), window)


@given(triggers())
def test_triggers_parse_back(trigger: PressureTrigger) -> None:
    assert parse_pressure_trigger(str(trigger)) == trigger


PATHS = st.lists(
    st.text(st.sampled_from("abc @:5s.'\"\\-é"), min_size=1, max_size=8).filter(lambda part: part not in (".", "..")),
    min_size=1,
    max_size=4,
).map(lambda parts: "/" + "/".join(parts))
UNIT_NAMES = st.from_regex(
    r"[A-Za-z0-9:_.\\-]{1,10}(@[A-Za-z0-9:_.\\@-]{1,10})?\.(service|target|timer)", fullmatch=True
)
ARGUMENTS = {
    "warn": st.none(),
    "freeze": st.none(),
    "terminate": st.none(),
    "kill": st.none(),
    "reclaim": st.one_of(st.none(), st.sampled_from(["64M", "1.5G", "1G 512M", "4096"])),
    "throttle": st.one_of(st.none(), st.integers(1, 100).map(str)),
    "purge": PATHS,
    "checkpoint": st.one_of(st.none(), PATHS),
    "start": UNIT_NAMES,
}
DELAYS = st.one_of(st.just(0), st.sampled_from([500_000, 2_000_000, 90_000_000]), st.integers(0, TIME_MAX_USEC))


@st.composite
def steps(draw: st.DrawFn) -> Step:
    name = draw(st.sampled_from(sorted(STEPS)))
    return Step(name, draw(ARGUMENTS[name]), draw(DELAYS))


@given(steps())
@settings(max_examples=300)
def test_steps_parse_back(step: Step) -> None:
    assert parse_step(str(step)) == step


@given(st.lists(steps(), min_size=1, max_size=6))
def test_ladders_parse_back(ladder: list[Step]) -> None:
    ladder.sort(key=lambda step: (step.delay_usec, step.name == "kill"))
    kept = [step for step in ladder[:-1] if step.name != "kill"] + ladder[-1:]
    assert list(parse_actions(format_actions(kept))) == kept


@given(st.lists(st.text(st.sampled_from("ab '\"\\\t\n"), max_size=6), max_size=5))
def test_words_split_back(words: list[str]) -> None:
    assert split_words(join_words(words)) == words


@given(st.integers(PRIORITY_MIN, PRIORITY_MAX), st.booleans(), st.integers(0, TIME_MAX_USEC), st.sampled_from("ab"))
def test_unit_files_and_yaml_say_the_same(priority: int, protect: bool, cooldown: int, name: str) -> None:
    written = {"Priority": str(priority), "Protect": "yes" if protect else "no", "CooldownSec": format_usec(cooldown)}
    unit, problems = parse_unit_files([("u", "[X-OOMSlice]\n" + "".join(f"{k}={v}\n" for k, v in written.items()))])
    body = "".join(f"    {yaml_key(key)}: {value}\n" for key, value in written.items())
    configuration, more = parse_configuration([("y", f"tiers:\n  {name}:\n{body}")])
    assert (problems, more) == ((), ())
    assert configuration.tiers[name] == unit == UnitSettings(priority=priority, protect=protect, cooldown_usec=cooldown)
