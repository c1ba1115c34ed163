# SPDX-License-Identifier: LGPL-2.1-or-later
"""The plan inside the kernel: oomslice stands still, and the kernel's own killer takes whom the plan would take."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from .lab import Lab

OURS = "oomslice-core.service oomsliced.service"


def adjustments(lab: Lab, unit: str) -> list[int]:
    """oom_score_adj of all processes of a unit."""
    path = lab.machine.properties(unit, "ControlGroup")["ControlGroup"]
    pids = f"$(find /sys/fs/cgroup{path} -name cgroup.procs -exec cat {{}} +)"
    found = lab.machine.check(f'for pid in {pids}; do cat "/proc/$pid/oom_score_adj" 2>/dev/null; done; true')
    return [int(line) for line in found.split()]


def wait_adjusted(lab: Lab, unit: str, *wanted: int) -> None:
    """Wait until the values of a unit's processes are these and no others."""
    lab.machine.wait_for(
        f"{unit} has {wanted}, not {adjustments(lab, unit)}",
        lambda: set(adjustments(lab, unit)) == set(wanted),
        30,
        0.3,
    )


@contextlib.contextmanager
def standstill(lab: Lab) -> Iterator[None]:
    """Neither the core nor oomsliced does anything."""
    lab.machine.check(f"systemctl kill -s STOP {OURS}")
    try:
        yield
    finally:
        lab.machine.check(f"systemctl kill -s CONT {OURS}")


def kernel_takes(lab: Lab, unit: str, *, domain: str = "-.slice") -> None:
    """Let the hogs grow while nobody of ours looks; the kernel takes all of this unit, as planned."""
    lab.kernel_alone()
    with standstill(lab):
        lab.go()
        lab.wait_until_dead(unit)
        assert lab.kernel_killed() >= 1
    decision = lab.decision_about(unit)
    assert (decision["carrier"], decision["outcome"]) == ("kernel", "killed-by-kernel")
    assert (decision["agreement"], decision["planned_victim"]) == ("as-planned", "")
    assert decision["domain"] == domain
    assert "as planned" in lab.machine.check(f"oomslicectl show {decision['id']}")
    carriers = {carrier["Name"]: carrier for carrier in lab.property("Carriers")}
    assert carriers["kernel"]["Hits"] >= 1 and carriers["score_adj"]["Active"], carriers


@pytest.mark.both_kernels
def test_the_kernel_takes_eighty_small_processes_of_low_priority_and_not_the_big_service(lab: Lab) -> None:
    lab.drop_in("batch.slice", "Priority=-200")
    lab.daemon_reload()
    lab.start_service("important", 350)
    lab.start_hog("many", rate=200, children=80, slice="batch.slice", wait_for="go", ahead=0)
    lab.wait_planned(many=-200, important=0)
    wait_adjusted(lab, "many.service", 1000)
    assert adjustments(lab, "important.service") == [0]
    # A single one of them has not a tenth of what the important one has.
    kernel_takes(lab, "many")
    assert lab.lives("important")
    assert lab.victims() == ["many.service"]


def test_the_kernel_takes_who_comes_first_in_the_plan_also_at_the_limit_of_a_slice(lab: Lab) -> None:
    lab.write("/etc/systemd/system/jail.slice", "[Slice]\nMemoryMax=300M\nMemorySwapMax=0\n")
    lab.drop_in("jailed-small.service", "Priority=-100")
    lab.drop_in("important.service", "Priority=500")
    lab.daemon_reload()
    lab.start_service("important", 350)
    lab.start_service("jailed-big", 150, slice="jail.slice")
    lab.start_service("jailed-small", 60, slice="jail.slice")
    lab.start_hog("filler", rate=60, max_mb=100, slice="jail.slice", wait_for="go")
    lab.drop_in("filler.service", "Priority=10")
    lab.daemon_reload()
    lab.wait_planned(jailed_small=-100, jailed_big=0, filler=10, important=500)
    wait_adjusted(lab, "jailed-small.service", 1000)
    kernel_takes(lab, "jailed-small", domain="jail.slice")
    assert lab.lives("important")


def test_values_come_with_the_plan_and_go_with_the_service(lab: Lab) -> None:
    machine = lab.machine
    lab.drop_in("batch.slice", "Priority=-200")
    lab.drop_in("guard.service", "Protect=yes")
    lab.drop_in("own.service", "Priority=-300")
    lab.daemon_reload()
    lab.start_service("plain", 10)
    lab.start_service("own", 10, OOMScoreAdjust="-300")
    lab.start("raised.service", "sh -c 'echo 950 >/proc/self/oom_score_adj; exec sleep 1000'")
    lab.start("batch-job.service", "sh -c 'sleep 1000 & exec sleep 1000'", slice="batch.slice")
    lab.start(
        "guard.service",
        "sh -c 'sleep 1000 & while [ ! -e /run/oomtest/leave ]; do sleep 1; done;"
        " exec systemd-run --quiet --scope --unit=left.scope sleep 1000'",
    )
    lab.adopt("left.scope")
    wait_adjusted(lab, "batch-job.service", 1000)
    wait_adjusted(lab, "guard.service", -996)
    assert adjustments(lab, "plain.service") == [0] and adjustments(lab, "raised.service") == [950]
    group = "/sys/fs/cgroup/batch.slice/batch-job.service/memory.oom.group"
    assert machine.check(f"cat {group}").strip() == "1"
    # systemd writes it too.
    machine.check("systemctl set-property --runtime batch-job.service MemoryLow=1M; systemctl daemon-reload")
    machine.wait_for("the unit is one thing again", lambda: machine.check(f"cat {group}").strip() == "1", 30)

    # Who has a value of its own keeps it, and it is said.
    assert adjustments(lab, "own.service") == [-300]
    settings = lab.slice("own.service")
    assert (
        "OOMScoreAdjust" not in settings
        and "OOMScoreAdjust=-300 of its own is kept" in settings["OOMScoreAdjustOrigin"]
    )
    assert lab.slice("batch-job.service")["OOMScoreAdjust"] == 1000

    # A process that leaves a protected unit does not take the protection along.
    lab.go("leave")
    machine.wait_for("it has left", lambda: machine.active("left.scope"), 30)
    wait_adjusted(lab, "left.scope", 0)

    # Killed, and started anew by oomsliced: everybody has his own value meanwhile, and the plan's after.
    machine.check("systemctl kill -s KILL oomslice-scores.service")
    machine.wait_for(
        "it works again",
        lambda: {carrier["Name"]: carrier["Active"] for carrier in lab.property("Carriers")}["score_adj"],
        30,
        0.3,
    )
    wait_adjusted(lab, "batch-job.service", 1000)

    # Switched off, and on.
    lab.configure("carriers:\n  score-adj: no\n")
    wait_adjusted(lab, "batch-job.service", 0)
    wait_adjusted(lab, "guard.service", 0)
    assert machine.check(f"cat {group}").strip() == "0"
    assert "switched off" in machine.check("oomslicectl status")
    status = json.loads(machine.check("oomslicectl status --json"))
    assert [carrier["Name"] for carrier in status["carriers"]][:2] == ["core", "score_adj"]
    lab.configure("carriers:\n  score-adj: yes\n")
    wait_adjusted(lab, "batch-job.service", 1000)

    # Stopped.
    machine.check("systemctl stop oomslice-scores.socket")
    try:
        assert set(adjustments(lab, "batch-job.service")) == {0} and set(adjustments(lab, "guard.service")) == {0}
        assert adjustments(lab, "raised.service") == [950] and adjustments(lab, "own.service") == [-300]
        assert machine.check(f"cat {group}").strip() == "0"
        machine.check("test ! -e /run/oomslice/scores")
        said = machine.check("journalctl -b --no-pager -u oomslice-scores.service")
        for word in ("Operation not permitted", "Permission denied", "Read-only"):
            assert word not in said, said
    finally:
        machine.check("systemctl start oomslice-scores.socket")


def test_new_units_have_their_values_while_oomsliced_stands_still(lab: Lab) -> None:
    machine = lab.machine
    lab.drop_in("batch.slice", "Priority=-200")
    lab.drop_in("vital.slice", "Protect=yes")
    lab.drop_in("guard.service", "Protect=yes")
    lab.write("/etc/systemd/system/guard.service", "[Service]\nSlice=batch.slice\nExecStart=sleep 1000\n")
    lab.daemon_reload()
    lab.adopt("guard.service")
    machine.check("systemctl start guard.service")
    lab.start("first.service", "sleep 1000", slice="batch.slice")
    lab.start("vital-first.service", "sleep 1000", slice="vital.slice")
    lab.wait_planned(first=-200, guard=-200)
    wait_adjusted(lab, "first.service", 1000)
    wait_adjusted(lab, "vital-first.service", -996)
    wait_adjusted(lab, "guard.service", -996)
    two = "sh -c 'sleep 1000 & exec sleep 1000'"
    with standstill(lab):
        for unit, slice in (("young", "batch.slice"), ("deep", "batch-deep.slice"), ("plain", "system.slice")):
            lab.start(f"{unit}.service", two, slice=slice)
        lab.start("own.service", two, slice="batch.slice", OOMScoreAdjust="300")
        lab.start("delegated.service", two, slice="batch.slice", Delegate="yes")
        lab.start("vital-young.service", two, slice="vital.slice")
        machine.check("systemctl restart guard.service")
        for unit in ("young", "deep", "delegated"):
            wait_adjusted(lab, f"{unit}.service", 1000)
        for unit in ("guard", "vital-young"):
            wait_adjusted(lab, f"{unit}.service", -996)
        # Longer than a unit is looked at.
        machine.check("sleep 1.5")
        assert adjustments(lab, "plain.service") == [0, 0] and adjustments(lab, "own.service") == [300, 300]
        group = "/sys/fs/cgroup/batch.slice/young.service/memory.oom.group"
        machine.wait_for("the unit is one thing", lambda: machine.check(f"cat {group}").strip() == "1", 30)
        state = machine.check(f"grep State: /proc/{machine.main_pid('oomsliced.service')}/status")
        assert "stopped" in state, "nobody has made a plan meanwhile"
    lab.wait_planned(young=-200, own=-200)
    machine.check("systemctl stop oomslice-scores.socket")
    try:
        for unit, own in (("young", 0), ("deep", 0), ("guard", 0), ("vital-young", 0), ("own", 300)):
            assert set(adjustments(lab, f"{unit}.service")) == {own}, unit
        said = machine.check("journalctl -b --no-pager -u oomslice-scores.service")
        for word in ("Operation not permitted", "Permission denied", "Bad system call"):
            assert word not in said, said
    finally:
        machine.check("systemctl start oomslice-scores.socket")
