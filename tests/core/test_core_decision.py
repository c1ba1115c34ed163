# SPDX-License-Identifier: LGPL-2.1-or-later
"""The running core decides and kills, by plans over its real socket, in real cgroups."""

from __future__ import annotations

import itertools
import os
import time

import pytest

from oomslice._core import lib
from tests.core.plans import Domain
from tests.core.rig import Scene, name, verdicts, wait_until


def test_whole_unit_of_80_processes_dies_as_one(scene: Scene) -> None:
    hog = scene.add("low.service", -100, processes=80)
    service = scene.add("high.service", 100, processes=3)
    pids = set(scene.tree.pids(hog))
    records = scene.hand_over()
    scene.shortage()

    record = records.wait()
    assert record.outcome == lib.OOMSLICE_OUTCOME_FREED
    assert name(record.victim_name) == "low.service"
    assert scene.alive(hog) == 0
    assert (record.trigger, record.victim_priority) == (lib.OOMSLICE_TRIGGER_AVAILABLE, -100)
    assert (record.processes_total, record.pids_count) == (80, 64)
    assert set(record.pids) <= pids
    assert record.mem_available == 50 << 20 and record.mem_available_limit == 100 << 20
    assert verdicts(record) == {
        os.stat(hog).st_ino: "chosen",
        os.stat(service).st_ino: "eligible",
    }
    times = [record.trigger_us, record.decision_us, record.signal_us, record.death_us]
    assert times == sorted(times) and times[0] > 0
    assert record.memory_back_us >= record.death_us
    assert abs(record.trigger_realtime_us / 1e6 - time.time()) < 60
    assert (name(record.domain_name), record.plan_generation) == ("-.slice", 1)


def test_shortage_ends_with_the_memory_back(scene: Scene) -> None:
    first = scene.add("a.service", -2, processes=1)
    second = scene.add("b.service", -1, processes=1)
    records = scene.hand_over()
    time.sleep(0.2)  # the turn that took the plan looks at memory after it has answered
    scene.core.set_memory(50)
    scene.core.set_memory(4096)
    scene.core.poke()
    time.sleep(0.3)
    assert records.next() is None
    assert (scene.alive(first), scene.alive(second)) == (1, 1)


def test_victims_follow_one_another_by_priority_while_the_shortage_lasts(scene: Scene) -> None:
    scene.add("c.service", 30, processes=2)
    scene.add("a.service", -50, processes=2)
    scene.add("b.service", -20, processes=2)
    records = scene.hand_over()
    scene.shortage()
    order = [records.wait() for _ in range(4)]
    assert [name(record.victim_name) for record in order] == ["a.service", "b.service", "c.service", ""]
    for earlier, later in itertools.pairwise(order[:3]):
        assert earlier.memory_back_us <= later.signal_us, "the next one is chosen only when the memory is back"
    assert order[3].outcome == lib.OOMSLICE_OUTCOME_NO_CANDIDATE


def test_free_swap_keeps_everybody_alive(scene: Scene) -> None:
    unit = scene.add("a.service", processes=1)
    records = scene.hand_over()
    scene.core.set_memory(50, swap_total=1024, swap_free=500)
    scene.core.poke()
    time.sleep(0.5)
    assert records.next() is None and scene.alive(unit) == 1
    # The watch runs by itself now: nobody has to tell it that the swap fills up.
    scene.core.set_memory(50, swap_total=1024, swap_free=5)
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_FREED


def test_watch_sees_the_memory_fall_without_another_event(scene: Scene) -> None:
    unit = scene.add("a.service", processes=1)
    records = scene.hand_over()
    scene.core.set_memory(900)
    assert scene.core.poke().watching == 1
    scene.core.set_memory(99)
    assert records.wait(2).outcome == lib.OOMSLICE_OUTCOME_FREED
    assert scene.alive(unit) == 0


@pytest.mark.parametrize(
    ("flag", "verdict"),
    [
        (lib.OOMSLICE_UNIT_PROTECTED, "protected"),
        (lib.OOMSLICE_UNIT_SELF, "self"),
        (lib.OOMSLICE_UNIT_LEFT_TO_OOMD, "left-to-oomd"),
    ],
)
def test_exempt_unit_is_never_chosen_and_the_record_says_why(scene: Scene, flag: int, verdict: str) -> None:
    exempt = scene.add("exempt.service", -1000, flag, processes=1)
    other = scene.add("other.service", 1000, processes=1)
    records = scene.hand_over()
    scene.shortage()
    record = records.wait()
    assert name(record.victim_name) == "other.service"
    assert verdicts(record)[os.stat(exempt).st_ino] == verdict
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_NO_CANDIDATE
    assert (scene.alive(exempt), scene.alive(other)) == (1, 0)


def test_nobody_to_choose_is_said_once_and_not_at_every_look(scene: Scene) -> None:
    scene.add("a.service", 0, lib.OOMSLICE_UNIT_PROTECTED, processes=1)
    records = scene.hand_over()
    scene.shortage()
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_NO_CANDIDATE
    before = scene.core.poke().wakeups
    time.sleep(1)
    assert records.next() is None
    assert scene.core.poke().wakeups - before <= 14, "looked for candidates ten times a second, not at every chance"


@pytest.mark.parametrize("where", ["unit", "domain", "option"])
def test_dry_run_records_its_choice_and_kills_nobody(scene: Scene, where: str) -> None:
    if where == "option":
        scene.core.stop()
        scene.core.options = ["--dry-run"]
        scene.core.start()
    unit = scene.add("a.service", 0, lib.OOMSLICE_UNIT_DRY_RUN if where == "unit" else 0, processes=2)
    scene.add("b.service", 5, processes=2)
    flags = lib.OOMSLICE_DOMAIN_DRY_RUN if where == "domain" else 0
    records = scene.hand_over(domains=[Domain(0, flags=flags)])
    scene.shortage()
    record = records.wait()
    assert (record.outcome, record.signal_us) == (lib.OOMSLICE_OUTCOME_DRY_RUN, 0)
    assert name(record.victim_name) == "a.service"
    assert verdicts(record)[os.stat(unit).st_ino] == "chosen"
    time.sleep(0.3)
    assert records.next() is None and scene.alive(unit) == 2


def test_empty_and_removed_units_are_passed_over(scene: Scene) -> None:
    empty = scene.add("empty.service", -30)
    gone = scene.add("gone.service", -20)
    scene.add("left.service", 10, processes=1)
    gone_id = os.stat(gone).st_ino
    records = scene.hand_over()
    gone.rmdir()
    scene.shortage()
    record = records.wait()
    assert name(record.victim_name) == "left.service"
    assert verdicts(record)[os.stat(empty).st_ino] == "empty"
    assert verdicts(record)[gone_id] == "gone"


def test_unit_started_anew_since_the_plan_keeps_its_settings_but_is_another_cgroup(scene: Scene) -> None:
    planned = scene.add("a.service", -100)
    scene.add("b.service", -50, processes=1)
    planned_id = os.stat(planned).st_ino
    scene.units[0].priority = 500  # what an unplanned child of the root inherits
    records = scene.hand_over()
    planned.rmdir()
    again = scene.tree.make("a.service")
    scene.tree.populate(again)
    scene.shortage()
    record = records.wait()
    assert name(record.victim_name) == "a.service"
    assert record.victim_cgroup_id == os.stat(again).st_ino != planned_id
    assert record.victim_priority == -100
    assert verdicts(record)[planned_id] == "gone"


def test_protected_unit_started_anew_since_the_plan_is_still_protected(scene: Scene) -> None:
    planned = scene.add("sshd.service", 0, lib.OOMSLICE_UNIT_PROTECTED)
    scene.add("b.service", 100, processes=1)
    records = scene.hand_over()
    planned.rmdir()
    again = scene.tree.make("sshd.service")
    scene.tree.populate(again)
    scene.shortage()
    record = records.wait()
    assert name(record.victim_name) == "b.service"
    assert verdicts(record)[os.stat(again).st_ino] == "protected"
    assert scene.alive(again) == 1


def test_mount_units_and_empty_cgroups_are_no_candidates_when_they_are_younger(scene: Scene) -> None:
    scene.add("b.service", 100, processes=1)
    records = scene.hand_over()
    scene.tree.make("empty.service")
    scene.tree.populate(scene.tree.make("tmp.mount"))
    scene.shortage()
    record = records.wait()
    assert name(record.victim_name) == "b.service"
    assert record.candidates_total == 1


def test_cgroups_below_a_unit_die_with_it(scene: Scene) -> None:
    unit = scene.add("delegated.service")
    inner = scene.tree.make("delegated.service/payload/deep")
    scene.tree.populate(inner, 4)
    scene.tree.populate(unit, 2)
    records = scene.hand_over()
    scene.shortage()
    record = records.wait()
    assert record.outcome == lib.OOMSLICE_OUTCOME_FREED
    assert (record.processes_total, record.pids_count) == (6, 6)
    assert scene.alive(inner) == 0


def test_unit_younger_than_the_plan_is_chosen_by_its_slices_priority(scene: Scene) -> None:
    low = scene.add_slice("low.slice", -100)
    scene.add("low.slice/old.service", -50, parent=low)
    scene.add("other.service", 0, processes=1)
    records = scene.hand_over()
    young = scene.tree.make("low.slice/young.service")
    scene.tree.populate(young, 3)
    scene.shortage()
    record = records.wait()
    assert name(record.victim_name) == "young.service"
    assert (record.victim_priority, record.processes_total) == (-100, 3)
    assert record.victim_cgroup_id == os.stat(young).st_ino
    assert scene.alive(young) == 0


def test_unit_in_a_slice_younger_than_the_plan_is_found_too(scene: Scene) -> None:
    scene.add("other.service", 10, processes=1)
    records = scene.hand_over()
    young = scene.tree.make("new.slice/new-inner.slice/young.scope")
    scene.tree.populate(young)
    manager = scene.tree.make("new.slice/user@7.service/init.scope")
    scene.tree.populate(manager)
    scene.shortage()
    assert name(records.wait().victim_name) == "young.scope"
    assert name(records.wait().victim_name) == "other.service"
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_NO_CANDIDATE
    assert scene.alive(manager) == 1, "a user manager's own scope is not taken for a unit"


def test_young_unit_in_a_protected_slice_is_protected(scene: Scene) -> None:
    scene.add_slice("safe.slice", 0, lib.OOMSLICE_UNIT_PROTECTED)
    records = scene.hand_over()
    young = scene.tree.make("safe.slice/young.service")
    scene.tree.populate(young)
    scene.shortage()
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_NO_CANDIDATE
    assert scene.alive(young) == 1


def test_cgroup_with_the_core_in_it_is_refused_and_the_next_one_taken(scene: Scene) -> None:
    unit = scene.add("trap.service", -100, processes=1)
    scene.add("other.service", 0, processes=1)
    records = scene.hand_over()
    (unit / "cgroup.procs").write_text(str(scene.core.pid), encoding="ascii")
    scene.shortage()
    refused, taken = records.wait(), records.wait()
    assert (refused.outcome, name(refused.victim_name)) == (lib.OOMSLICE_OUTCOME_REFUSED, "trap.service")
    assert (taken.outcome, name(taken.victim_name)) == (lib.OOMSLICE_OUTCOME_FREED, "other.service")
    assert scene.alive(unit) == 2
    (scene.tree.mount / "cgroup.procs").write_text(str(scene.core.pid), encoding="ascii")


def test_victim_that_is_too_slow_is_given_up_for_the_next(scene: Scene) -> None:
    scene.add("slow.service", -100, processes=200)
    scene.add("next.service", 0, processes=1)
    records = scene.hand_over(deadline_us=1)
    scene.shortage()
    slow, following = records.wait(), records.wait()
    assert (slow.outcome, name(slow.victim_name)) == (lib.OOMSLICE_OUTCOME_DEADLINE, "slow.service")
    assert name(following.victim_name) == "next.service"
    assert "tried" in verdicts(following).values() or "empty" in verdicts(following).values()


def test_decisions_go_on_over_a_full_ring_and_are_counted(scene: Scene) -> None:
    directories = [scene.add(f"{index}.service", index, processes=1) for index in range(lib.OOMSLICE_RING_SLOTS + 3)]
    records = scene.hand_over()
    scene.shortage()
    wait_until(lambda: all(scene.alive(directory) == 0 for directory in directories), 30)
    wait_until(lambda: scene.core.poke().dropped >= 3)
    for index in range(lib.OOMSLICE_RING_SLOTS):
        assert name(records.wait().victim_name) == f"{index}.service"


def test_cgroup_of_an_old_victim_wakes_nobody_any_more(scene: Scene) -> None:
    unit = scene.add("a.service", processes=1)
    scene.add("b.service", 0, lib.OOMSLICE_UNIT_PROTECTED)
    records = scene.hand_over()
    scene.shortage()
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_FREED
    scene.core.set_memory(8192)
    scene.core.poke()
    before = scene.core.poke().wakeups
    scene.tree.populate(unit)  # systemd has started it again
    (unit / "cgroup.kill").write_text("1", encoding="ascii")
    wait_until(lambda: not scene.alive(unit))
    time.sleep(0.2)
    assert scene.core.poke().wakeups - before <= 3
