# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslice_select, the choice in C, against the same rule written once more in Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from oomslice._core import ffi, lib

ELIGIBLE_STATE = lib.OOMSLICE_CANDIDATE_BELOW | lib.OOMSLICE_CANDIDATE_POPULATED
NEVER = (
    lib.OOMSLICE_UNIT_PROTECTED | lib.OOMSLICE_UNIT_SELF | lib.OOMSLICE_UNIT_LEFT_TO_OOMD
)  # flags that keep a unit out whatever else it is


@dataclass(frozen=True)
class Candidate:
    cgroup_id: int
    metric: int = 0
    memory: int = 0
    unit: int = 0
    priority: int = 0
    flags: int = lib.OOMSLICE_UNIT_CANDIDATE
    state: int = ELIGIBLE_STATE


def select(candidates: list[Candidate]) -> tuple[int, list[tuple[Candidate, int]]]:
    """How many are eligible, and all in order, each with its verdict."""
    array = ffi.new("struct oomslice_candidate[]", [vars(candidate) for candidate in candidates])
    eligible = lib.oomslice_select(array, len(candidates))
    fields = Candidate.__dataclass_fields__
    return eligible, [(Candidate(**{name: getattr(one, name) for name in fields}), one.verdict) for one in array]


def expected_verdict(candidate: Candidate) -> int:
    reasons = [
        (not candidate.state & lib.OOMSLICE_CANDIDATE_BELOW, lib.OOMSLICE_VERDICT_OUTSIDE),
        (not candidate.flags & lib.OOMSLICE_UNIT_CANDIDATE, lib.OOMSLICE_VERDICT_CONTAINER),
        (candidate.flags & lib.OOMSLICE_UNIT_SELF, lib.OOMSLICE_VERDICT_SELF),
        (candidate.flags & lib.OOMSLICE_UNIT_PROTECTED, lib.OOMSLICE_VERDICT_PROTECTED),
        (candidate.flags & lib.OOMSLICE_UNIT_LEFT_TO_OOMD, lib.OOMSLICE_VERDICT_LEFT_TO_OOMD),
        (candidate.state & lib.OOMSLICE_CANDIDATE_GONE, lib.OOMSLICE_VERDICT_GONE),
        (candidate.state & lib.OOMSLICE_CANDIDATE_TRIED, lib.OOMSLICE_VERDICT_TRIED),
        (not candidate.state & lib.OOMSLICE_CANDIDATE_POPULATED, lib.OOMSLICE_VERDICT_EMPTY),
    ]
    return next((verdict for applies, verdict in reasons if applies), lib.OOMSLICE_VERDICT_ELIGIBLE)


def expected_order(candidates: list[Candidate]) -> list[tuple[Candidate, int]]:
    judged = [(candidate, expected_verdict(candidate)) for candidate in candidates]
    may = [pair for pair in judged if pair[1] == lib.OOMSLICE_VERDICT_ELIGIBLE]
    may_not = [pair for pair in judged if pair[1] != lib.OOMSLICE_VERDICT_ELIGIBLE]
    may.sort(key=lambda pair: (pair[0].priority, -pair[0].metric, -pair[0].cgroup_id))
    may_not.sort(key=lambda pair: (pair[1], pair[0].priority, pair[0].cgroup_id))
    return may + may_not


# Eligible often, and everything else in all combinations; few values, so that ties are common.
flags = st.just(lib.OOMSLICE_UNIT_CANDIDATE) | st.integers(0, 31)
states = st.just(ELIGIBLE_STATE) | st.integers(0, 15)
metrics = st.sampled_from([0, 1, 4096, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
priorities = st.sampled_from([-1000, -1, 0, 1, 1000])


@st.composite
def candidate_lists(draw: st.DrawFn) -> list[Candidate]:
    ids = draw(st.lists(st.integers(1, (1 << 64) - 1), unique=True, max_size=40))
    return [
        Candidate(id, draw(metrics), draw(metrics), unit, draw(priorities), draw(flags), draw(states))
        for unit, id in enumerate(ids)
    ]


@given(candidate_lists())
@settings(max_examples=400, deadline=None)
def test_the_order_is_that_of_the_rule(candidates: list[Candidate]) -> None:
    eligible, ranking = select(candidates)
    expected = expected_order(candidates)
    assert ranking == expected
    assert eligible == sum(verdict == lib.OOMSLICE_VERDICT_ELIGIBLE for _, verdict in expected)


@given(candidate_lists(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_the_order_of_the_input_does_not_matter(candidates: list[Candidate], random: Random) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert select(shuffled) == select(candidates)


@given(candidate_lists())
@settings(max_examples=200, deadline=None)
def test_nobody_is_eligible_who_must_not_be(candidates: list[Candidate]) -> None:
    eligible, ranking = select(candidates)
    for candidate, verdict in ranking[:eligible]:
        assert verdict == lib.OOMSLICE_VERDICT_ELIGIBLE
        assert candidate.flags & lib.OOMSLICE_UNIT_CANDIDATE
        assert not candidate.flags & NEVER
        assert candidate.state == ELIGIBLE_STATE


@given(candidate_lists(), metrics)
@settings(max_examples=200, deadline=None)
def test_a_smaller_priority_is_chosen_first_whatever_the_metric(candidates: list[Candidate], metric: int) -> None:
    lowest = Candidate(1 << 64 >> 1, metric=metric, unit=99, priority=-1001)
    _, ranking = select([*(one for one in candidates if one.cgroup_id != lowest.cgroup_id), lowest])
    assert ranking[0] == (lowest, lib.OOMSLICE_VERDICT_ELIGIBLE)


def test_dry_run_does_not_keep_a_unit_out() -> None:
    # What would be chosen is what is decided and recorded; only the act is left out.
    dry = Candidate(7, flags=lib.OOMSLICE_UNIT_CANDIDATE | lib.OOMSLICE_UNIT_DRY_RUN)
    assert select([dry]) == (1, [(dry, lib.OOMSLICE_VERDICT_ELIGIBLE)])


def test_of_equals_the_younger_cgroup_goes_first() -> None:
    older, younger = Candidate(41, metric=5), Candidate(42, metric=5)
    assert [one.cgroup_id for one, _ in select([older, younger])[1]] == [42, 41]


def test_the_strongest_reason_is_the_verdict() -> None:
    everything = Candidate(1, flags=31, state=15)
    assert select([everything])[1][0][1] == lib.OOMSLICE_VERDICT_SELF
    assert select([replace(everything, flags=31 & ~lib.OOMSLICE_UNIT_SELF)])[1][0][1] == lib.OOMSLICE_VERDICT_PROTECTED
    assert select([replace(everything, flags=0, state=0)])[1][0][1] == lib.OOMSLICE_VERDICT_OUTSIDE


def test_every_verdict_has_a_word_of_its_own() -> None:
    verdicts = [getattr(lib, name) for name in dir(lib) if name.startswith("OOMSLICE_VERDICT_")]
    words = {ffi.string(lib.oomslice_verdict_text(verdict)).decode() for verdict in verdicts}
    assert len(words) == len(verdicts) == 10
    assert "unknown" not in words
    assert ffi.string(lib.oomslice_verdict_text(10)) == b"unknown"
