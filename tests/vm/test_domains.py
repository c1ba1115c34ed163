# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shortages that are not the machine's: a slice with a trigger of its own, a user's units, the kernel's own kills."""

from __future__ import annotations

import pytest

from .lab import AHEAD_MB, HOG, Lab


@pytest.mark.both_kernels
def test_slice_with_its_own_trigger_pays_itself_while_the_machine_has_memory_to_spare(lab: Lab) -> None:
    lab.write("/etc/systemd/system/jail.slice", "[Slice]\nMemoryHigh=160M\nMemoryMax=400M\nMemorySwapMax=0\n")
    lab.drop_in("jail.slice", "PressureTrigger=some 100ms/1s")
    lab.drop_in("jailed-hog.service", "Priority=-10")
    lab.drop_in("outsider.service", "Priority=-900")
    lab.daemon_reload()
    lab.start_service("outsider", 80)
    lab.start_service("jailed-good", 60, slice="jail.slice")
    lab.start_hog("jailed-hog", rate=40, max_mb=300, slice="jail.slice", wait_for="go")
    lab.wait_planned(outsider=-900, jailed_good=0, jailed_hog=-10)
    assert "jail.slice" in lab.property("State")["Domains"]
    lab.go()
    lab.wait_until_dead("jailed-hog")
    decision = lab.assert_killed("jailed-hog", domain="jail.slice")
    assert decision["trigger"] == "pressure"
    assert decision["pressure"] == "some 100ms/1s"
    assert "outsider.service" not in [row[0] for row in decision["candidates"] if row[4] != "outside"]
    assert lab.machine.available_mb() > 300
    assert lab.victims() == ["jailed-hog.service"]
    assert lab.lives("outsider")
    assert lab.lives("jailed-good")


def test_application_of_a_user_goes_before_a_bigger_service_of_the_system(lab: Lab) -> None:
    lab.start_user_manager()
    lab.start_service("system-service", 350)
    lab.as_user(f"systemd-run --user --quiet --unit=app-editor.service --slice=app.slice {HOG} 60 250")
    lab.machine.wait_for(
        "the plan has the application", lambda: lab.slice("app-editor.service").get("Priority") == -100, 60
    )
    current = f"/sys/fs/cgroup{lab.slice('app-editor.service')['ControlGroup']}/memory.current"
    lab.machine.wait_for("it has grown", lambda: int(lab.machine.check(f"cat {current}")) > 240 << 20, 60)
    # A little more than there is, and far less than what the application gives back.
    lab.start_hog("filler", rate=60, max_mb=lab.machine.available_mb() + 30, slice="agent.slice")
    decision = lab.decision_about("app-editor.service", timeout=120)
    assert decision["outcome"] == "freed", decision
    assert decision["carrier"] == "core"
    assert lab.as_user("systemctl --user is-active app-editor.service").strip() != "active"
    assert lab.as_user("systemctl --user is-system-running").strip() in ("running", "degraded")
    assert lab.lives("system-service")
    assert lab.kernel_killed() == 0


def test_user_cannot_raise_his_own_units_above_the_systems(lab: Lab) -> None:
    lab.start_user_manager()
    lab.start_service("system-service", 150)
    lab.as_user("mkdir -p ~/.config/systemd/user/app-greedy.service.d")
    lab.as_user(
        "printf '[X-OOMSlice]\\nProtect=yes\\nPriority=1000\\n' > ~/.config/systemd/user/app-greedy.service.d/50.conf"
    )
    lab.as_user("systemctl --user daemon-reload")
    lab.as_user(f"systemd-run --user --quiet --unit=app-greedy.service --slice=app.slice {HOG} -a {AHEAD_MB} 60 4000")
    decision = lab.decision_about("app-greedy.service", timeout=120)
    assert decision["outcome"] == "freed", decision
    assert lab.lives("system-service")
    assert lab.kernel_killed() == 0


@pytest.mark.both_kernels
def test_kill_by_the_kernel_at_a_units_own_limit_becomes_a_decision(lab: Lab) -> None:
    lab.kernel_alone()
    lab.start_service("bystander", 50)
    lab.start_hog("limited", rate=60, max_mb=200, MemoryMax="80M", MemorySwapMax="0")
    lab.wait_until_dead("limited")
    decision = lab.decision_about("limited")
    assert decision["carrier"] == "kernel"
    assert decision["outcome"] == "killed-by-kernel"
    assert decision["trigger"] == "kernel-oom"
    assert lab.kernel_killed() == 1
    assert lab.shown(decision["id"])["carrier"] == "kernel"
    assert lab.lives("bystander")


def test_service_that_stalls_has_smaller_priorities_make_room_before_swap_is_used_up(lab: Lab) -> None:
    lab.use_swap()
    lab.drop_in("important.service", "Priority=500\nPressureTrigger=some 20ms/1s\nPressureVictims=lower-priority")
    lab.drop_in("hog.service", "Priority=-200")
    lab.start_service("important", 150)
    lab.start_service("bystander", 40)
    lab.start_hog("hog", rate=100, wait_for="go")
    lab.wait_planned(important=500, hog=-200, bystander=0)
    lab.go()
    lab.wait_until_dead("hog", timeout=400)
    decision = lab.decision_about("hog")
    print(f"{decision['domain']}: {decision['swap_free'] >> 20} of {decision['swap_total'] >> 20} MiB of swap free")
    assert decision["domain"] == "important.service"
    assert decision["trigger"] == "pressure" and decision["pressure"] == "some 20ms/1s"
    assert decision["swap_free"] > decision["swap_free_limit"]
    assert lab.victims() == ["hog.service"] and lab.kernel_killed() == 0
    assert lab.lives("important")
    assert lab.lives("bystander")
