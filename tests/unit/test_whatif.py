# SPDX-License-Identifier: LGPL-2.1-or-later
"""What would be done: other settings, storms and traces, judged and chosen by the code of an emergency."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from oomslice._core import ffi, lib
from oomslice.errors import SettingsError
from oomslice.settings.model import RankBy
from oomslice.whatif import replay as replay_module
from oomslice.whatif.changes import collect
from oomslice.whatif.present import only_section
from oomslice.whatif.replay import Replay, WouldBe, order, replay
from oomslice.whatif.state import Changes, Frame
from oomslice.whatif.storm import FAST, MANY, NEW_ID, frames, parse_storm
from tests.unit.whatif import GIB, MIB, figures, state, with_stall

CORE = Path(__file__).parents[2] / "core"
BATCH = "Priority=-200"


def names(places: list[replay_module.Place]) -> list[str]:
    return [place.name for place in places]


def made(decisions: list[WouldBe]) -> list[tuple[str, str, str]]:
    return [(decision.trigger, decision.victim, decision.outcome) for decision in decisions]


# Who would go


def test_all_go_in_the_order_of_the_choice_until_there_is_enough() -> None:
    rank_by, places, problems = order(state(), figures(), Changes(), domain="-.slice", target=5 * GIB)
    assert (rank_by, problems) == (RankBy.MEMORY, ())
    assert names(places) == ["db.service", "web.service", "job.service"]
    assert [place.available_after for place in places] == [6 * GIB, 7 * GIB, 7 * GIB + 512 * MIB]
    assert [place.enough for place in places] == [True, True, True]


def test_changes_are_read_after_all_files() -> None:
    before = state(batch_slice="Priority=100", db_service="Priority=500")
    assert names(order(before, figures(), Changes(), domain="-.slice", target=0)[1])[0] == "web.service"
    changes = collect(["batch.slice:Priority=-200", "web.service:Protect=yes"], [])
    places = order(before, figures(), changes, domain="-.slice", target=0)[1]
    assert names(places) == ["job.service", "db.service"]
    yaml = collect([], [("site.yaml", "rules:\n  - match: db.service\n    priority: -5\n")])
    assert names(order(state(), figures(), yaml, domain="-.slice", target=0)[1])[0] == "db.service"


def test_a_bad_change_is_a_problem_with_its_place() -> None:
    changes = collect(["batch.slice:Priority=9999"], [])
    problems = order(state(), figures(), changes, domain="-.slice", target=0)[2]
    assert [problem.source.file for problem in problems] == ["--set batch.slice:Priority=9999"]


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("batch.slice", "UNIT:KEY=VALUE"),
        ("batch.slice:Priority", "UNIT:KEY=VALUE"),
        ("batch.slice:Prioritty=1", "did you mean Priority?"),
        ("batch.timer:Priority=1", "ends in .slice"),
        ("machine:available=1", "available-min"),
        ("a.slice:Priority=1\n[X]", "UNIT:KEY=VALUE"),
    ],
)
def test_what_is_no_setting_is_refused(assignment: str, says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)):
        collect([assignment], [])


def test_units_with_colons_and_values_with_anything_are_settings() -> None:
    changes = collect(["dev-disk:0.service:Actions=purge:/a=b kill@2s", "machine:sign=some 5ms/1s"], [])
    assert changes.unit_files["dev-disk:0.service"][0][1] == "[X-OOMSlice]\nActions=purge:/a=b kill@2s\n"
    assert state().policy(changes)[0].machine.sign.stall_usec == 5000


@pytest.mark.parametrize(
    ("written", "unit"),
    [("x/batch.slice.d/5.conf", "batch.slice"), ("batch.slice", "batch.slice"), ("a.service=/x.conf", "a.service")],
)
def test_a_file_is_of_the_unit_that_its_path_names(written: str, unit: str) -> None:
    assert list(collect([], [(written, "")]).unit_files) == [unit]
    with pytest.raises(SettingsError, match="names no unit"):
        collect([], [("x.conf", "")])


def test_nothing_of_a_unit_file_is_kept_but_our_section() -> None:
    text = "[Service]\nEnvironment=SECRET=1\n[X-OOMSlice]\nPriority=1\n[Install]\nX=secret\n"
    assert only_section(text) == "\n\n[X-OOMSlice]\nPriority=1\n"


# Figures over time


def falling(total: int = 8 * GIB, swap: int = 0) -> list[Frame]:
    """Memory that runs out within ten seconds, taken by the job."""
    machine = state(swap=swap, batch_slice=BATCH)
    return [
        Frame(
            machine,
            figures(moment, 3 * GIB - moment * 300 * MIB, swap_free=swap, job_service=512 * MIB + moment * 300 * MIB),
        )
        for moment in range(11)
    ]


def test_who_is_chosen_when_the_limits_are_reached_gives_back_what_he_has() -> None:
    decisions = list(replay(falling()))
    # 4 % of 8 GiB are 327 MiB: reached by the tenth frame.
    assert made(decisions) == [("memory-available", "job.service", "killed")]
    assert decisions[0].moment_usec == 10_000_000
    assert decisions[0].available == 3 * GIB - 3000 * MIB
    assert decisions[0].frees == 512 * MIB + 3000 * MIB


def test_limits_can_be_others() -> None:
    decisions = list(replay(falling(), collect(["machine:available-min=10%"], [])))
    assert made(decisions) == [("memory-available", "job.service", "killed")]
    assert decisions[0].moment_usec == 8_000_000
    assert list(replay(falling(), collect(["machine:available-min=0.5%"], []))) == []


def test_free_swap_puts_it_off() -> None:
    assert list(replay(falling(swap=GIB))) == []


def test_the_dead_stay_dead_and_the_next_one_follows() -> None:
    machine = state(batch_slice=BATCH)
    short = [Frame(machine, figures(moment, 100 * MIB, job_service=100 * MIB)) for moment in range(3)]
    assert made(list(replay(short))) == [
        ("memory-available", "job.service", "killed"),
        ("memory-available", "db.service", "killed"),
    ]


def test_when_nobody_may_be_chosen_it_is_said_once_in_ten_seconds() -> None:
    machine = state(**{name: "Protect=yes" for name in ("db_service", "web_service", "job_service")})
    decisions = list(replay(Frame(machine, figures(moment, 100 * MIB)) for moment in range(25)))
    assert made(decisions) == [("memory-available", "", "no-candidate")] * 3


def test_a_dry_run_changes_nothing() -> None:
    machine = state(batch_slice="Priority=-200\nDryRun=yes")
    decisions = list(replay(Frame(machine, figures(moment, 100 * MIB)) for moment in range(15)))
    assert made(decisions) == [("memory-available", "job.service", "dry-run")] * 2


def test_a_ladder_is_climbed_while_the_pressure_of_its_domain_lasts() -> None:
    machine = state(batch_slice="Priority=-200\nActions=freeze kill@5s\nPressureTrigger=some 150ms/1s")
    stalled = [
        with_stall(Frame(machine, figures(moment)), some=moment * 200_000, unit="batch.slice") for moment in range(7)
    ]
    run = Replay()
    decisions = [decision for frame in stalled for decision in run.take(frame)]
    assert made(decisions) == [("pressure", "job.service", "climbs"), ("pressure", "job.service", "killed")]
    assert decisions[1].moment_usec - decisions[0].moment_usec == 5_000_000
    assert decisions[0].domain == "batch.slice"
    assert len(run.gone) == 1
    short = Replay()
    for frame in stalled[:4]:
        short.take(frame)
    assert short.gone == set()


def test_stall_of_the_machine_counts_only_with_little_memory() -> None:
    machine = state()
    for available, count in ((700 * MIB, 1), (2 * GIB, 0)):
        stalled = [
            with_stall(Frame(machine, figures(moment, available)), some=moment * 900_000, full=moment * 600_000)
            for moment in range(14)
        ]
        assert [decision.trigger for decision in replay(stalled)][:1] == ["thrash"] * count


def test_low_memory_is_for_ladders_that_begin_gently() -> None:
    for actions, count in (("freeze kill@1min", 1), ("terminate kill@1min", 0), ("kill", 0)):
        machine = state(batch_slice=f"Priority=-200\nActions={actions}")
        low = [with_stall(Frame(machine, figures(moment, 500 * MIB)), some=moment * 100_000) for moment in range(4)]
        assert made(list(replay(low))) == [("memory-low", "job.service", "climbs")] * count
        harsh = state(batch_slice="Priority=-200\nActions=freeze kill@1s")
        assert {decision.outcome for decision in replay(replace(frame, state=harsh) for frame in low)} == {"climbs"}
        held = state(batch_slice="Priority=-200\nActions=warn freeze@1s")
        run = Replay()
        outcomes = [decision.outcome for frame in low for decision in run.take(replace(frame, state=held))]
        assert outcomes[:2] == ["climbs", "held"]
        assert run.gone == set()


def test_the_judge_is_the_cores() -> None:
    machine, info = ffi.new("struct oomslice_machine *"), ffi.new("struct oomslice_meminfo *")
    machine.available_min, machine.available_thrash, machine.available_ladder = 100, 200, 300
    machine.swap_free_min, machine.swap_free_ladder = 10, 20
    judged = {}
    for available, swap_free in ((100, 10), (101, 10), (100, 11), (200, 50), (201, 20), (300, 20), (301, 20)):
        info.available, info.swap_free = available, swap_free
        for thrashing in (False, True):
            for waited in (False, True):
                judged[available, swap_free, thrashing, waited] = lib.oomslice_watch_judge(
                    machine, info, thrashing, waited
                )
    assert {judged[100, 10, thrashing, waited] for thrashing in (0, 1) for waited in (0, 1)} == {
        lib.OOMSLICE_TRIGGER_AVAILABLE
    }
    assert judged[101, 10, False, False] == 0
    assert judged[101, 10, True, False] == judged[200, 50, True, True] == lib.OOMSLICE_TRIGGER_THRASH
    assert judged[100, 11, False, True] == judged[300, 20, True, True] == lib.OOMSLICE_TRIGGER_LOW
    # What is left is swap: ladders begin before anybody has waited. Above the limit of memory somebody must have.
    assert judged[100, 11, False, False] == lib.OOMSLICE_TRIGGER_LOW
    assert judged[300, 20, False, False] == 0
    assert judged[301, 20, True, True] == judged[200, 50, False, True] == 0


def test_times_that_are_modelled_are_those_of_the_core() -> None:
    text = (CORE / "machine.c").read_text() + (CORE / "decide.c").read_text()
    for name, value in (
        ("SIGN_LASTS", replay_module.SIGN_LASTS_USEC),
        ("QUIET_NOBODY", replay_module.QUIET_NOBODY_USEC),
        ("REST_DRY_RUN", replay_module.REST_DRY_RUN_USEC),
        ("LASTS_LOW", replay_module.LASTS_LOW_USEC),
    ):
        assert f"#define {name}_US UINT64_C({value})" in text, name


# Storms


def test_a_storm_ends_with_whoever_has_the_smallest_priority() -> None:
    machine = state(batch_slice=BATCH)
    decisions = list(replay(frames(machine, figures(), parse_storm("fast:web.service"))))
    assert decisions[0].victim == "job.service"
    # The web server has grown beyond the database by then, at the same priority.
    assert made(decisions[1:]) == [("memory-available", "web.service", "killed")]


def test_a_new_unit_is_in_the_slice_that_is_named() -> None:
    machine = state(batch_slice=BATCH)
    decisions = list(replay(frames(machine, figures(), parse_storm("fast:new.service@batch.slice"))))
    assert made(decisions) == [("memory-available", "new.service", "killed")]
    with pytest.raises(SettingsError, match=re.escape("nosuch.slice does not run")):
        next(frames(machine, figures(), parse_storm("fast:new.service@nosuch.slice")))


def test_many_small_ones_grow_together() -> None:
    storm = parse_storm("many:x.service@batch.slice")
    assert len(storm.units) == MANY
    last = list(frames(state(batch_slice=BATCH), figures(), storm))[-1]
    sizes = [usage.memory for id, usage in last.figures.usage.items() if id >= NEW_ID]
    assert len(sizes) == MANY and sum(sizes) == 8 * GIB and max(sizes) - min(sizes) <= 1


def test_swap_is_filled_when_memory_is_nearly_gone() -> None:
    machine = state(swap=GIB)
    all_ = list(frames(machine, figures(swap_free=GIB), parse_storm("1G:web.service")))
    for frame in all_:
        taken = 4 * GIB - frame.figures.available - frame.figures.swap_free
        assert frame.figures.usage[7].memory == GIB + taken
        if frame.figures.swap_free < GIB:
            assert frame.figures.available <= 8 * GIB * 6 // 100
    assert (all_[-1].figures.available, all_[-1].figures.swap_free) == (-5 * GIB, 0)


@pytest.mark.parametrize("text", ["fast", "fast:x", "quick:x.service", "0:x.service", "-5:x.service", "fast:.service"])
def test_what_is_no_storm_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_storm(text)
    assert parse_storm("fast:x.service").rate == FAST
    assert parse_storm("200M:x@1.service").units == ("x@1.service",)


def test_the_dead_take_no_more_memory_in_a_storm() -> None:
    machine = state(batch_slice=BATCH)
    run = Replay()
    seen = [run.take(frame) for frame in frames(machine, figures(), parse_storm("fast:job.service"))]
    assert len([decision for of_frame in seen for decision in of_frame]) == 1
    assert run.gone == {3}
