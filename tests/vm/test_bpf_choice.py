# SPDX-License-Identifier: LGPL-2.1-or-later
"""The plan's choice inside the kernel: oomsliced gives the plan, and `oomslice-bpf choose` chooses by it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .lab import Lab
from .test_bpf import OOMSLICE_BPF, carriers, status

MIB = 1 << 20


def choose(lab: Lab, cgroup: str = "", *, prefix: str = "") -> dict[str, Any]:
    """What the program answers."""
    said: dict[str, Any] = json.loads(lab.machine.check(f"{prefix}{OOMSLICE_BPF} --json choose {cgroup}"))
    return said


def wait_chosen(lab: Lab, path: str, cgroup: str = "/test.slice") -> dict[str, Any]:
    """Waits until this unit is the choice: the kernel has the plan shortly after the core has it."""
    lab.machine.wait_for(f"{path} is the choice", lambda: choose(lab, cgroup)["path"] == path, 30, 0.2)
    return choose(lab, cgroup)


def three(lab: Lab) -> None:
    """Three units of one slice: the least important, which is small, and two of the same importance."""
    lab.drop_in("least.service", "Priority=-20")
    for unit in ("small.service", "large.service"):
        lab.drop_in(unit, "Priority=-10")
    lab.start_service("least", 10, slice="test.slice")
    lab.start_service("small", 30, slice="test.slice")
    lab.start_service("large", 60, slice="test.slice")
    lab.wait_planned(least=-20, small=-10, large=-10)


@pytest.mark.both_kernels
def test_the_kernel_chooses_as_the_plan_says(lab: Lab) -> None:
    three(lab)
    said = wait_chosen(lab, "/test.slice/least.service")
    assert (said["result"], said["priority"], said["dry_run"], said["by_policy"]) == ("chosen", -20, False, False)
    assert said["units"] >= 4 and (said["eligible"], said["skipped"]) == (3, 0)
    assert said["processes"] == 1 and said["largest_pid"] == lab.machine.main_pid("least.service")
    current = int(lab.machine.check("cat /sys/fs/cgroup/test.slice/least.service/memory.current"))
    assert said["usage"] > 10 * MIB and abs(said["usage"] - current) < 4 * MIB
    # Of the same priority the larger one; whoever is protected is nobody.
    lab.drop_in("least.service", "Protect=yes")
    lab.daemon_reload()
    said = wait_chosen(lab, "/test.slice/large.service")
    assert (said["priority"], said["eligible"]) == (-10, 2)
    # Another priority, of the slice above them, and a unit that is no more.
    lab.drop_in("small.service", "Priority=-30\nDryRun=yes")
    lab.daemon_reload()
    assert wait_chosen(lab, "/test.slice/small.service")["dry_run"]
    lab.machine.check("systemctl stop small.service")
    wait_chosen(lab, "/test.slice/large.service")
    # The machine's choice, and one of nobody.
    lab.drop_in("test.slice", "Priority=-500")
    lab.drop_in("large.service", "Priority=-600")
    lab.daemon_reload()
    wait_chosen(lab, "/test.slice/large.service", "/")
    assert choose(lab, "/test.slice/least.service")["result"] == "nobody"
    assert lab.machine.run(f"{OOMSLICE_BPF} choose /test.slice/nosuch.service").rc == 1


@pytest.mark.both_kernels
def test_a_process_in_a_cgroup_namespace_chooses_alike(lab: Lab) -> None:
    three(lab)
    wait_chosen(lab, "/test.slice/least.service")
    lab.drop_in("other.service", "Priority=-300")
    lab.start_service("other", 10)
    lab.wait_planned(other=-300)
    wait_chosen(lab, "/system.slice/other.service", "/")
    # Who runs in one finds no cgroup outside of it by number, in 6.12.
    prefix = "unshare --cgroup "
    assert choose(lab, prefix=prefix)["path"] == "/system.slice/other.service"
    said = choose(lab, "/test.slice", prefix=prefix)
    # Cgroups that were removed are passed for as long as something is charged to them; nobody is in them.
    assert (said["path"], said["eligible"]) == ("/test.slice/least.service", 3)
    assert choose(lab, "/test.slice/large.service", prefix=prefix)["path"] == "/test.slice/large.service"


@pytest.mark.both_kernels
def test_the_plan_comes_back_with_the_programs_and_goes_with_the_units(lab: Lab) -> None:
    three(lab)
    wait_chosen(lab, "/test.slice/least.service")
    try:
        lab.machine.check("systemctl restart oomslice-bpf.service")
        wait_chosen(lab, "/test.slice/least.service")
        lab.machine.check("systemctl reload oomslice-bpf.service")
        wait_chosen(lab, "/test.slice/least.service")
        # An oomsliced that starts anew knows nothing of what the one before has written.
        lab.machine.check("systemctl kill -s KILL oomsliced.service")
        lab.drop_in("least.service", "Priority=400")
        lab.daemon_reload()
        lab.machine.wait_for("the daemon is back", lab.armed, 60, 0.5)
        wait_chosen(lab, "/test.slice/large.service")
        assert carriers(lab)["bpf-choice"]["LastError"] == ""
        lab.machine.check("systemctl stop oomslice-bpf.service")
        assert "not loaded" in lab.machine.run(f"{OOMSLICE_BPF} choose").out
        lab.machine.wait_for("the daemon noticed", lambda: not carriers(lab)["bpf-choice"]["Active"], 30)
    finally:
        lab.machine.check("systemctl start oomslice-bpf.service")


@pytest.mark.both_kernels
def test_what_a_kernel_does_not_have_is_said(lab: Lab) -> None:
    said = status(lab)["oom_ops"]
    if said["active"]:
        pytest.skip("this kernel has struct bpf_oom_ops")
    assert said["why"] == "this kernel has no struct bpf_oom_ops, as no released one has"
    carrier = carriers(lab)["bpf-oom_ops"]
    assert (carrier["Active"], carrier["Acts"], carrier["Detail"]) == (False, True, said["why"])
