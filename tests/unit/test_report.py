# SPDX-License-Identifier: LGPL-2.1-or-later
"""The page for a post-mortem, as text: what stands in it, and that nothing from outside becomes markup."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping
from datetime import UTC
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomslice.decisions.record import Candidate, Decision, StepTaken
from oomslice.decisions.words import OUTCOMES
from oomslice.report.commands import commands
from oomslice.report.html import VOID, tag, text
from oomslice.report.model import Case, Report, Sample
from oomslice.report.page import page
from oomslice.report.reasons import reasons
from oomslice.report.samples import samples_of
from oomslice.report.scale import elapsed, percent_axis, size_axis, time_axis
from tests.unit.test_cli_render import DECISION, LADDER, MIB, START

SETTINGS: Mapping[str, Any] = {
    "Name": "hog.service",
    "Priority": -200,
    "PriorityOrigin": "inherited from batch.slice",
    "Actions": "warn throttle@2s freeze@5s kill@15s",
    "KillScope": "unit",
    "DryRun": False,
    "Tier": "",
    "Sources": {"Actions": "/etc/systemd/system/hog.service.d/50-oomslice.conf:2"},
}
HOSTILE = (
    "<script>hacked=1</script>.service",
    "\"><img src=http://192.0.2.1/x onerror='hacked=1'>.service",
    "'; rm -rf ~ & $(hacked) `hacked`.service",
    "</title></style><b>.service",
    "מלך.service",
    "\u202egnp.exe\u2066.service",
    "tab\tand\x1b[31mnull\0.service",
    "很" * 100 + ".service",
    "x" * 255,
)


def samples(victim: str = "hog.service") -> list[Sample]:
    """Three quarters of a minute of a machine that fills up."""
    found = []
    for quarter in range(-120, 60):
        second = quarter / 4
        memory = {victim: int(300 + second * 8) * MIB, "database.service": 600 * MIB}
        found.append(
            Sample(
                7_000_000 + quarter * 250_000,
                memory_available=int(40 - min(second, 0) * 8) * MIB,
                swap_free=0,
                pressure_some=40 + second,
                pressure_full=max(second, 0),
                units=memory,
            )
        )
    return found


def report(*cases: Case, **values: Any) -> Report:
    """A report of fixed time and place."""
    given: dict[str, Any] = {
        "made_usec": START + 5_000_000,
        "host": "server",
        "version": "0.1.0",
        "plan_generation": 17,
        "boot_id": "b" * 32,
        "timezone": UTC,
        **values,
    }
    return Report(cases, **given)


def report_of_a_ladder() -> Report:
    """A ladder, with figures and settings."""
    return report(Case(LADDER, samples(), {"hog.service": SETTINGS}))


def two_decisions() -> Report:
    """A kill and a ladder, without figures."""
    return report(Case(DECISION), Case(LADDER, (), {"hog.service": SETTINGS}), since_usec=START - 10**9)


def hostile_report() -> Report:
    """Names and values that want to be more than text, wherever there can be text from outside."""
    bad = HOSTILE[1]
    decision = dataclasses.replace(
        LADDER,
        id=bad,
        victim=bad,
        domain=HOSTILE[0],
        trigger=HOSTILE[3],
        outcome=HOSTILE[2],
        kill_scope=bad,
        flags=(bad,),
        boot_id=bad,
        steps=tuple(StepTaken(name, name, name, 0, 0, 7_000_500, 8_000_000, MIB, MIB) for name in HOSTILE),
        candidates=tuple(Candidate(name, 7, 0, MIB, "chosen" if name == bad else "eligible") for name in HOSTILE),
    )
    settings = {name: {"Priority": name, "Sources": {"Priority": name}} for name in HOSTILE}
    figures = [dataclasses.replace(one, units=dict.fromkeys(HOSTILE, MIB)) for one in samples()]
    kernel = dataclasses.replace(decision, carrier="kernel", extra={"constraint": bad, "source": bad, "task": bad})
    return report(Case(decision, figures, settings), Case(kernel), host=bad, version=bad)


class Strict(HTMLParser):
    """Reads a page, and fails if an element is not closed in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(made: Report) -> Strict:
    """The page, read."""
    parser = Strict()
    parser.feed(page(made))
    parser.close()
    assert parser.open == []
    return parser


def words(made: Report) -> str:
    """What stands on the page, blanks made one."""
    return " ".join(" ".join(read(made).text).split())


def test_a_page_says_what_happened_in_one_sentence() -> None:
    shown = words(report(Case(DECISION)))
    assert "hog.service was killed because memory was short" in shown
    assert "299.0 MiB back after 40 ms ." in shown.replace("back after 40 ms.", "back after 40 ms .")
    assert "Decision 5f3a09c2e4b1d786-4 ." in shown
    assert "2025-11-21 10:00:00.500 UTC" in shown


def test_each_candidate_has_its_reason() -> None:
    assert reasons(DECISION) == [
        "smallest priority: -200, database.service has 100",
        "larger priority: 100, hog.service has -200",
        "protected by its settings",
    ]
    shown = words(report(Case(DECISION)))
    for reason in reasons(DECISION):
        assert reason in shown
    assert "27 more ranked behind these" in shown


def test_of_the_plans_candidates_no_more_is_said_than_the_plan_knew() -> None:
    listed = (Candidate("hog.service", 1, 0, 9 << 20, "chosen"), Candidate("other.service", 2, 0, 0, "planned"))
    made = dataclasses.replace(DECISION, carrier="bpf", candidates=listed, extra={"candidates_from": "plan"})
    assert reasons(made) == [
        "chosen by the program in the kernel, by priority and size at that moment",
        "might have been chosen by the plan",
    ]
    shown = words(report(Case(made)))
    assert "not as the program in the kernel saw them" in shown and "Of all, 30 could be chosen." in shown
    assert "other.service 0 - planned" in shown and "hog.service 0 9.0 MiB chosen" in shown


def test_a_reason_inside_one_priority_is_the_metric_and_then_the_age() -> None:
    def of(*candidates: Candidate, rank_by: str = "memory") -> list[str]:
        return reasons(dataclasses.replace(DECISION, candidates=candidates, rank_by=rank_by))

    big, small = Candidate("big", 1, 0, 9, "chosen"), Candidate("small", 2, 0, 3, "eligible")
    assert of(big, small) == [
        "most memory at priority 0, compared with small",
        "less memory at priority 0, compared with big",
    ]
    assert of(big, small, rank_by="refault")[0] == "most refaults at priority 0, compared with small"
    same = dataclasses.replace(small, metric=9)
    assert of(big, same) == [
        "younger than small, which has the same priority and as much memory",
        "older than big, which has the same priority and as much memory",
    ]
    assert of(big) == ["the only one that might be chosen"]
    assert of(dataclasses.replace(big, verdict="of-the-future")) == ["of-the-future"]


def test_settings_have_file_and_line_or_their_origin() -> None:
    shown = words(report(Case(DECISION, (), {"hog.service": SETTINGS})))
    assert "Priority= -200 inherited from batch.slice" in shown
    assert "Actions= warn throttle@2s freeze@5s kill@15s /etc/systemd/system/hog.service.d/50-oomslice.conf:2" in shown
    assert "DryRun= no default" in shown
    assert "Tier=" not in shown


@pytest.mark.parametrize(
    ("generation", "boot", "expected"),
    [
        (17, "b" * 32, "By plan 17, which was still in force"),
        (18, "b" * 32, "decided by plan 17; what is shown are the settings when this page was made, by plan 18"),
        (17, "c" * 32, "decided by plan 17; what is shown are the settings when this page was made, by plan 17"),
    ],
)
def test_settings_of_now_are_not_taken_for_those_of_then(generation: int, boot: str, expected: str) -> None:
    made = report(Case(DECISION, (), {"hog.service": SETTINGS}), plan_generation=generation, boot_id=boot)
    assert expected in words(made)


def test_what_was_not_recorded_is_said_and_not_drawn() -> None:
    shown = words(report(Case(DECISION)))
    assert "Figures before and after the decision were not recorded" in shown
    assert "too few figures for a picture of pressure" in shown
    pictures = [
        given["aria-labelledby"] for name, given in read(report(Case(DECISION))).seen if given.get("role") == "img"
    ]
    assert pictures == ["d1-steps-title", "d1-machine-title", "d1-units-title"]
    assert "were not recorded" not in words(report_of_a_ladder())


def test_stalls_are_shares_of_the_time_between_moments() -> None:
    machine = [(0, 9, 5, 100, 50), (1_000_000, 8, 5, 500_100, 100_050), (1_005_000, 7, 5, 505_100, 100_050)]
    machine.append((2_005_000, 6, 5, 9_000_000, 100_050))
    found = samples_of(machine, [(0, "a", 1), (0, "b", 2), (500_000, "a", 3)])
    assert [(one.usec, one.memory_available) for one in found] == [(0, 9), (500_000, None)] + [
        (usec, available) for usec, available, *_ in machine[1:]
    ]
    assert [(one.pressure_some, one.pressure_full) for one in found] == [
        (None, None),
        (None, None),
        (50.0, 10.0),
        (None, None),
        (100.0, 0.0),
    ]
    assert [dict(one.units) for one in found][:2] == [{"a": 1, "b": 2}, {"a": 3}]
    assert [one.usec for one in samples_of(machine, [], since_usec=1_000_000)] == [1_000_000, 1_005_000, 2_005_000]
    assert samples_of([(1, 2, 3, 0, 0), (1_000_000, 2, 3, 0, 0)], [])[1].pressure_some is None


def test_a_kernel_kill_has_what_the_kernel_told() -> None:
    kernel = dataclasses.replace(
        DECISION,
        carrier="kernel",
        trigger="kernel-oom",
        outcome="killed-by-kernel",
        candidates=(),
        trigger_usec=0,
        extra={"constraint": "CONSTRAINT_MEMCG", "source": "kernel-log"},
        agreement="against-plan",
        planned_victim="batch.service",
    )
    shown = words(report(Case(kernel)))
    assert "hog.service lost processes to the kernel's own killer" in shown
    assert "the kernel chose by its own score" in shown
    assert "The kernel was short of memory for the memory limit of a cgroup." in shown
    assert "The kernel's choice was against the plan: batch.service was to go first." in shown
    assert "there is nothing to draw" in shown


@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
def test_every_outcome_has_a_page(outcome: str) -> None:
    shown = words(report(Case(dataclasses.replace(DECISION, outcome=outcome))))
    assert outcome in shown
    assert OUTCOMES[outcome] in shown


def test_a_decision_that_knows_nothing_has_a_page() -> None:
    empty = Decision("x-1", "", "core", "", "", "", 0)
    assert "No candidates were looked at" in words(report(Case(empty)))
    assert "oomslice made no decision in this time" in words(report(since_usec=START))


def test_what_is_left_out_is_said() -> None:
    assert "3 older ones are not in this page" in words(dataclasses.replace(two_decisions(), left_out=3))


def test_hostile_text_stays_text() -> None:
    parser = read(hostile_report())
    names = {name for name, _ in parser.seen}
    assert not names & {"script", "img", "iframe", "object", "link", "b"}
    for _, attributes in parser.seen:
        assert not [key for key in attributes if key.startswith("on")]
        assert attributes.get("href", "#")[:1] == "#"  # type: ignore[index]
    shown = "".join(parser.text)
    for name in HOSTILE:
        if name.isprintable():
            assert name in shown
    assert not re.search("[\u202a-\u202e\u2066-\u2069\0\x1b]", page(hostile_report()))


@given(st.text(max_size=50))
def test_any_text_is_one_piece_of_text(value: str) -> None:
    parser = Strict()
    parser.feed(tag("p", value, title=value, aria_label=text(value)))
    parser.close()
    assert [name for name, _ in parser.seen] == ["p"]
    assert parser.open == []


def test_commands_are_quoted_for_a_shell() -> None:
    for name in HOSTILE:
        decision = dataclasses.replace(DECISION, victim=name, id=name, boot_id=name)
        for _, command in commands(Case(decision)):
            parts = shlex.split(command)
            assert parts[0] in ("oomslicectl", "journalctl")
            assert not {"rm", "&", ";"} & set(parts)
    listed = dict(commands(Case(DECISION)))
    assert listed["Its entries in the journal"] == "journalctl -o verbose OOMSLICE_DECISION=5f3a09c2e4b1d786-4"
    assert listed["What the unit wrote before it"] == (
        f"journalctl --boot={'b' * 32} --since=@1763719080 --until=@1763719260 --unit=hog.service"
    )


def test_the_page_may_load_and_run_nothing() -> None:
    made = page(report_of_a_ladder())
    assert "default-src &#x27;none&#x27;" in made
    assert "<script" not in made
    assert not re.search(r"(?:src|href)=\"(?!#)|url\(|@import", made)


@given(st.floats(min_value=-1e9, max_value=1e9), st.floats(min_value=1, max_value=1e12))
def test_ticks_are_few_and_within_the_axis(low: float, span: float) -> None:
    axis = time_axis(low, low + span)
    assert 1 <= len(axis.ticks) <= 7
    assert all(axis.low - span / 100 <= tick <= axis.high + span / 100 for tick in axis.ticks)


@given(st.integers(min_value=0, max_value=1 << 62))
def test_an_axis_of_sizes_reaches_its_largest(high: int) -> None:
    axis = size_axis(high)
    assert axis.ticks[0] == 0
    assert axis.high >= high * (1 - 1e-9)
    assert 2 <= len(axis.ticks) <= 6


def test_labels_of_ticks_are_short() -> None:
    axis = size_axis(300 * MIB)
    assert ([axis.label(tick) for tick in axis.ticks], axis.unit) == (["0", "100", "200", "300"], "MiB")
    axis = percent_axis(54)
    assert [axis.label(tick) for tick in axis.ticks] == ["0", "20", "40", "60"]
    axis = time_axis(-30_000_000, 15_000_000)
    assert ([axis.label(tick) for tick in axis.ticks], axis.unit) == (
        [*(f"\N{MINUS SIGN}{number}" for number in (30, 20, 10)), "0", "10"],
        "s",
    )


def test_time_spans_are_written_in_one_unit() -> None:
    assert [elapsed(usec) for usec in (-5, 45, 12_300, 3_500_000, 125_000_000)] == [
        "0 µs",
        "45 µs",
        "12.3 ms",
        "3.5 s",
        "2 min 5 s",
    ]
