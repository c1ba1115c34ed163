# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who dies when the machine runs out of memory: priority first, whatever the sizes; inside one priority, the size."""

from __future__ import annotations

import pytest

from .lab import Lab


@pytest.mark.both_kernels
def test_hog_in_low_slice_dies_and_important_service_lives(lab: Lab) -> None:
    lab.drop_in("high.slice", "Priority=500")
    lab.drop_in("low.slice", "Priority=-200")
    lab.daemon_reload()
    lab.start_service("important", 300, slice="high.slice")
    lab.start_hog("hog", slice="low.slice", wait_for="go")
    lab.wait_planned(important=500, hog=-200)
    lab.go()
    lab.wait_until_dead("hog")
    decision = lab.assert_killed("hog")
    assert lab.lives("important")
    assert lab.priorities(decision)["important.service"] == 500
    assert decision["trigger"] == "memory-available"
    assert lab.shown(decision["id"])["victim"] == "hog.service"
    assert lab.property("State")["Armed"]


def test_service_ten_times_the_hogs_size_lives_and_the_hog_is_smaller_at_every_moment(lab: Lab) -> None:
    lab.drop_in("big.service", "Priority=100")
    lab.start_service("big", 550)
    lab.start_hog("small-hog", wait_for="go", max_mb=400)
    lab.wait_planned(big=100, small_hog=0)
    lab.go()
    lab.wait_until_dead("small-hog")
    decision = lab.assert_killed("small-hog")
    assert lab.lives("big")
    sizes = {name: metric for name, _, _, metric, _ in decision["candidates"]}
    assert sizes["small-hog.service"] < sizes["big.service"]


def test_whom_the_kernel_was_told_to_spare_lives_though_nobody_wrote_a_priority(lab: Lab) -> None:
    lab.start_service("big", 550, OOMScoreAdjust="-500")
    lab.start_hog("small-hog", wait_for="go", max_mb=400)
    lab.wait_planned(big=500, small_hog=0)
    assert lab.slice("big.service")["PriorityOrigin"] == "OOMScoreAdjust=-500"
    lab.go()
    lab.wait_until_dead("small-hog")
    decision = lab.assert_killed("small-hog")
    assert lab.victims() == ["small-hog.service"] and lab.lives("big")
    sizes = {name: metric for name, _, _, metric, _ in decision["candidates"]}
    assert sizes["small-hog.service"] < sizes["big.service"]


def test_protected_service_lives_though_the_victim_is_a_tenth_of_it(lab: Lab) -> None:
    lab.drop_in("big.service", "Protect=yes")
    lab.start_service("big", 520)
    lab.start_service("bystander", 60)
    lab.wait_planned(bystander=0)
    lab.machine.wait_for("big is protected", lambda: lab.slice("big.service").get("Protect"), 60)
    # What takes the rest is protected as well, and wants a little more than there is: the victim makes room for it.
    lab.start_hog("filler", rate=40, max_mb=lab.machine.available_mb() + 30, slice="agent.slice")
    lab.wait_until_dead("bystander")
    decision = lab.assert_killed("bystander")
    verdicts = {name: verdict for name, _, _, _, verdict in decision["candidates"]}
    assert verdicts["big.service"] == "protected"
    assert lab.lives("big")


@pytest.mark.both_kernels
def test_unit_of_eighty_small_growing_processes_dies_at_once(lab: Lab) -> None:
    lab.drop_in("many.service", "Priority=-10")
    lab.start_service("single", 250)
    lab.start_hog("many", rate=60, max_mb=4000, children=80, wait_for="go")
    lab.wait_planned(many=-10, single=0)
    lab.go()
    lab.wait_until_dead("many")
    decision = lab.assert_killed("many")
    assert decision["processes"] == 81
    assert lab.victims() == ["many.service"]
    assert lab.lives("single")


def test_eighty_small_processes_count_as_one_big_unit_among_equals(lab: Lab) -> None:
    # Each of the 80 is far smaller than the service; together they are bigger.
    lab.start_service("single", 200)
    lab.start_hog("many", rate=60, max_mb=4000, children=80, wait_for="go")
    lab.wait_planned(many=0, single=0)
    lab.go()
    lab.wait_until_dead("many")
    decision = lab.assert_killed("many")
    assert decision["victim_memory_before"] > 200 << 20
    assert lab.lives("single")


@pytest.mark.both_kernels
def test_two_hogs_in_two_priorities_die_in_order_and_one_at_a_time(lab: Lab) -> None:
    lab.drop_in("first.service", "Priority=-300")
    lab.drop_in("second.service", "Priority=-100")
    # The first holds little and no longer grows: it goes first all the same, and is not enough.
    lab.start_service("first", 60)
    lab.start_service("kept", 150)
    lab.start_hog("second", rate=60, wait_for="go")
    lab.wait_planned(first=-300, second=-100, kept=0)
    lab.go()
    lab.wait_until_dead("second")
    one = lab.assert_killed("first")
    two = lab.assert_killed("second")
    assert lab.victims() == ["first.service", "second.service"]
    assert one["memory_back_usec"] <= two["decision_usec"], (
        "the second was chosen before the first one's memory was back"
    )
    assert lab.lives("kept")


def test_among_equal_priorities_the_rank_metric_decides(lab: Lab) -> None:
    lab.start_service("smaller", 120)
    lab.start_service("bigger", 350)
    lab.start_hog("growing", rate=60, max_mb=240, wait_for="go")
    lab.start_hog("filler", rate=60, max_mb=300, wait_for="fill", slice="agent.slice")
    lab.wait_planned(smaller=0, bigger=0, growing=0)
    lab.go()
    lab.go("fill")
    lab.wait_until_dead("bigger")
    decision = lab.assert_killed("bigger")
    eligible = [row for row in decision["candidates"] if row[4] in ("chosen", "eligible")]
    assert eligible[0][0] == "bigger.service"
    assert [row[3] for row in eligible] == sorted((row[3] for row in eligible), reverse=True)
    assert lab.lives("smaller")


def test_protected_unit_is_never_chosen_even_if_it_is_the_one_that_grows(lab: Lab) -> None:
    lab.drop_in("shielded.service", "Protect=yes\nPriority=-1000")
    lab.start_hog("shielded", rate=60, max_mb=600, wait_for="go")
    lab.start_service("victim", 200)
    lab.wait_planned(victim=0)
    lab.machine.wait_for("shielded is protected", lambda: lab.slice("shielded.service").get("Protect"), 60)
    lab.go()
    lab.wait_until_dead("victim")
    decision = lab.assert_killed("victim")
    verdicts = {name: verdict for name, _, _, _, verdict in decision["candidates"]}
    assert verdicts["shielded.service"] == "protected"
    assert lab.machine.active("shielded")


def test_dry_run_decides_and_records_but_nobody_dies_of_it(lab: Lab) -> None:
    # A slice at its MemoryHigh= stalls for as long as one likes; the whole machine would end with the kernel's killer.
    lab.write("/etc/systemd/system/jail.slice", "[Slice]\nMemoryHigh=100M\nMemoryMax=400M\nMemorySwapMax=0\n")
    lab.drop_in("jail.slice", "PressureTrigger=some 100ms/1s\nDryRun=yes")
    lab.daemon_reload()
    lab.start_hog("rehearsal", rate=40, max_mb=200, slice="jail.slice", wait_for="go")
    lab.wait_planned(rehearsal=0)
    lab.go()
    lab.machine.wait_for("a decision", lab.victims, 120)
    decision = lab.decisions()[0]
    assert decision["victim"] == "rehearsal.service"
    assert decision["domain"] == "jail.slice"
    assert decision["outcome"] == "dry-run"
    assert decision["signal_usec"] == 0
    assert lab.machine.active("rehearsal")
    assert lab.kernel_killed() == 0


def test_tier_and_rule_by_glob_reach_units_nobody_edits(lab: Lab) -> None:
    lab.configure(
        "tiers:\n  nightly:\n    priority: -400\n  precious:\n    priority: 400\n"
        "rules:\n  - match: 'batch-*.service'\n    tier: nightly\n"
    )
    lab.drop_in("precious.service", "Tier=precious")
    lab.start_service("precious", 250)
    lab.start_service("plain", 60)
    lab.start_hog("batch-report", wait_for="go")
    lab.wait_planned(precious=400, plain=0, batch_report=-400)
    lab.go()
    lab.wait_until_dead("batch-report")
    lab.assert_killed("batch-report")
    assert lab.lives("precious")
    assert lab.lives("plain")


def test_transient_unit_gets_its_settings_by_prefix_drop_in(lab: Lab) -> None:
    lab.drop_in("job-.service", "Priority=-250")
    lab.start_service("other", 250)
    lab.start_hog("job-4711", wait_for="go")
    lab.wait_planned(job_4711=-250, other=0)
    lab.go()
    lab.wait_until_dead("job-4711")
    lab.assert_killed("job-4711")
    assert lab.lives("other")
