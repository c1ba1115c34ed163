# SPDX-License-Identifier: LGPL-2.1-or-later
"""What changes while memory runs out: priorities, units, and the plan that is older than both."""

from __future__ import annotations

from .lab import Lab


def test_daemon_reload_changes_a_priority_while_the_hog_grows(lab: Lab) -> None:
    lab.drop_in("left.service", "Priority=-100")
    lab.drop_in("right.service", "Priority=-50")
    lab.start_service("left", 150)
    lab.start_service("right", 150)
    lab.wait_planned(left=-100, right=-50)
    lab.start_hog("filler", rate=25, max_mb=lab.machine.available_mb() + 30, slice="agent.slice", ahead=400)
    lab.drop_in("right.service", "Priority=-400")
    lab.daemon_reload()
    lab.wait_until_dead("right")
    decision = lab.assert_killed("right")
    assert decision["victim_priority"] == -400
    assert lab.lives("left")


def test_unit_removed_between_plan_and_kill_costs_nobody_else_his_life(lab: Lab) -> None:
    lab.drop_in("gone.service", "Priority=-500")
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("gone", 50)
    lab.start_service("kept", 100)
    lab.start_hog("hog", wait_for="go")
    lab.wait_planned(gone=-500, hog=-100, kept=0)
    # The daemon stands still, so the core's plan still names the unit that is no more.
    pid = lab.machine.main_pid("oomsliced.service")
    lab.machine.check(f"kill -STOP {pid} && systemctl stop gone.service")
    lab.go()
    lab.wait_until_dead("hog")
    assert lab.lives("kept")
    lab.machine.check(f"kill -CONT {pid}")
    lab.assert_killed("hog")
    assert "freed" not in [decision["outcome"] for decision in lab.decisions() if decision["victim"] == "gone.service"]


def test_unit_that_came_anew_keeps_its_settings_and_is_known_as_another_cgroup(lab: Lab) -> None:
    lab.drop_in("reborn.service", "Priority=-500")
    lab.drop_in("precious.service", "Protect=yes")
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("reborn", 50)
    lab.start_service("precious", 50)
    lab.start_hog("hog", wait_for="go")
    lab.wait_planned(reborn=-500, hog=-100)
    planned = lab.slice("reborn.service")["CgroupId"]
    pid = lab.machine.main_pid("oomsliced.service")
    lab.machine.check(f"kill -STOP {pid} && systemctl stop reborn.service precious.service")
    # Same names, same paths, other cgroups: no plan has spoken of these.
    lab.start_service("reborn", 50)
    lab.start_service("precious", 50)
    lab.go()
    lab.wait_until_dead("hog")
    assert lab.lives("precious")
    lab.machine.check(f"kill -CONT {pid}")
    decision = lab.assert_killed("reborn")
    assert decision["victim_priority"] == -500
    assert decision["victim_cgroup_id"] != planned
    lab.assert_killed("hog")
