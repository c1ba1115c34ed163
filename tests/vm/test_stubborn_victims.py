# SPDX-License-Identifier: LGPL-2.1-or-later
"""Victims that do not go quietly: stuck in the kernel, forking on, leaving their memory behind, coming back at once."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .lab import HOG, Lab
from .test_ladder import jail, steps

STUCK = "/var/tmp/stuck"


def test_victim_that_cannot_die_costs_the_next_one_nothing_but_time(lab: Lab, tmp_path: Path) -> None:
    # A write to a frozen file system waits where no signal reaches it.
    image = tmp_path / "image"
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", image, "1M"], check=True)
    lab.machine.put(STUCK, image.read_bytes())
    lab.machine.check(f"mkdir -p {STUCK}.d && mount -o loop {STUCK} {STUCK}.d && fsfreeze -f {STUCK}.d")
    try:
        lab.drop_in("stuck.service", "Priority=-500")
        lab.drop_in("hog.service", "Priority=-100")
        lab.start_service("kept", 150)
        lab.start("stuck", f"/bin/sh -c '{HOG} 0 60 & sleep 2; echo > {STUCK}.d/file; wait'")
        lab.start_hog("hog", rate=60, wait_for="go")
        lab.wait_planned(stuck=-500, hog=-100, kept=0)
        lab.machine.wait_for(
            "it is stuck",
            lambda: lab.machine.run("grep -l '^State:.D' /proc/[0-9]*/status").rc == 0,
            30,
        )
        lab.go()
        lab.wait_until_dead("hog")
        decision = lab.decision_about("stuck")
        assert decision["outcome"] == "deadline", decision
        assert decision["signal_usec"] > 0 and decision["death_usec"] == 0
        assert lab.decision_about("hog")["outcome"] == "freed"
        assert lab.victims() == ["stuck.service", "hog.service"]
        assert lab.lives("kept")
        assert lab.kernel_killed() == 0
    finally:
        lab.machine.run(f"fsfreeze -u {STUCK}.d; sleep 1; umount {STUCK}.d; rm -rf {STUCK} {STUCK}.d")


def test_unit_that_forks_on_while_it_is_killed_dies_as_a_whole(lab: Lab) -> None:
    lab.drop_in("forker.service", "Priority=-100")
    lab.start_service("kept", 150)
    lab.start(
        "forker",
        "/bin/sh -c 'until [ -e /run/oomtest/go ]; do sleep 0.2; done;"
        f" fork() {{ while :; do sleep 1 & sleep 0.05; done; }}; fork & fork & fork & exec {HOG} 100 4000'",
    )
    lab.wait_planned(forker=-100, kept=0)
    lab.go()
    lab.wait_until_dead("forker")
    decision = lab.assert_killed("forker")
    assert decision["processes"] > 4
    assert lab.victims() == ["forker.service"]
    assert lab.lives("kept")


def test_files_on_a_tmpfs_outlive_whoever_wrote_them_and_nobody_pays_for_them_until_memory_gets_less(lab: Lab) -> None:
    lab.drop_in("writer.service", "Priority=-500")
    lab.drop_in("next.service", "Priority=-100")
    lab.start_service("kept", 100)
    lab.start_service("bystander", 40)
    lab.start_hog("next", rate=15, ahead=500, wait_for="next")
    lab.start(
        "writer",
        "/bin/sh -c 'until [ -e /run/oomtest/go ]; do sleep 0.2; done; mkdir -p /tmp/shm;"
        " mount -t tmpfs -o size=2G tmpfs /tmp/shm; dd if=/dev/zero of=/tmp/shm/file bs=1M; sleep 1000'",
    )
    lab.wait_planned(writer=-500, next=-100, kept=0, bystander=0)
    # One that an earlier scenario has started would run for two minutes more.
    lab.machine.check("systemctl stop oomslice-actions.service", timeout=60)
    journal = f"journalctl --no-pager --since=@{lab.started_usec // 10**6} -o cat -u writer.service -t oomslice"
    try:
        lab.go()
        lab.wait_until_dead("writer")
        decision = lab.decision_about("writer")
        assert decision["outcome"] == "kept", decision
        assert decision["bytes_freed"] < decision["victim_memory_before"] // 2
        # Longer than a rest between decisions. Nobody's death would remove the file.
        lab.machine.check("sleep 4")
        assert lab.machine.active("next") and lab.victims() == ["writer.service"]
        # Nor is memory taken for what can wait: who writes the unit's journal is started once there is some.
        assert not lab.machine.active("oomslice-actions.service")
        assert lab.machine.run(journal).out == ""
        # Others go on growing: now somebody has to pay, and nobody after that.
        lab.go("next")
        lab.wait_until_dead("next")
        after = lab.decision_about("next")
        assert after["outcome"] == "freed"
        assert after["memory_available"] < decision["memory_available_after"]
        assert lab.victims() == ["writer.service", "next.service"]
        assert lab.lives("kept") and lab.lives("bystander")
        assert lab.kernel_killed() == 0
        told = lab.machine.wait_for("its journal has it", lambda: lab.machine.run(journal).out, 60, 1)
        assert "files on a tmpfs" in told
    finally:
        lab.machine.run("umount /tmp/shm")


def test_unit_that_always_comes_back_loses_its_ladder(lab: Lab) -> None:
    jail(lab, "warn kill@1s", "CooldownSec=1s")
    lab.start(
        "phoenix",
        f"/bin/sh -c 'until [ -e /run/oomtest/go ]; do sleep 0.2; done; exec {HOG} 150 160'",
        slice="jail.slice",
        Restart="always",
        RestartSec="100ms",
        StartLimitIntervalSec="0",
    )
    lab.wait_planned(phoenix=0)
    lab.go()
    decision = lab.machine.wait_for(
        "its ladder is cut",
        lambda: next((one for one in lab.decisions() if "restarting" in one["flags"]), None),
        120,
        1,
    )
    assert decision is not None
    assert steps(decision) == [("kill", "done")]
    before = [one for one in lab.decisions() if "restarting" not in one["flags"]]
    assert len(before) >= 3
    assert {one["victim"] for one in lab.decisions()} == {"phoenix.service"}
