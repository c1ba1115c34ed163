# SPDX-License-Identifier: LGPL-2.1-or-later
"""BPF programs in the kernel: what its own OOM killer does is one decision each, with what the plan says of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from .lab import Lab

OOMSLICE_BPF = "/usr/lib/oomslice/oomslice-bpf"
RELOADS = 100 if os.environ.get("OOMSLICE_VM_ALL") else 2
"""How often programs are loaded anew; what one reload leaves behind is seen after two as well."""


def status(lab: Lab) -> dict[str, dict[str, Any]]:
    """What `oomslice-bpf status` says, by name of the program."""
    said = json.loads(lab.machine.check(f"{OOMSLICE_BPF} status --json"))
    return {program["name"]: program for program in said["programs"]}


def carriers(lab: Lab) -> dict[str, dict[str, Any]]:
    """The property Carriers by name."""
    return {carrier["Name"]: carrier for carrier in lab.property("Carriers")}


@contextlib.contextmanager
def core_stopped(lab: Lab) -> Iterator[None]:
    """A core that does not act, so that the kernel has to."""
    lab.machine.check("systemctl kill -s STOP oomslice-core.service")
    try:
        yield
    finally:
        lab.machine.check("systemctl kill -s CONT oomslice-core.service")


def by_kernel(lab: Lab, unit: str) -> dict[str, Any]:
    """The one decision about a unit, which was the kernel's."""
    decision = lab.decision_about(unit)
    assert decision["carrier"] == "kernel"
    assert decision["outcome"] == "killed-by-kernel"
    return decision


def jail(lab: Lab) -> None:
    """A slice with a memory limit."""
    lab.write("/etc/systemd/system/jail.slice", "[Slice]\nMemoryMax=200M\nMemorySwapMax=0\n")
    lab.daemon_reload()


@pytest.mark.both_kernels
def test_programs_are_loaded_by_the_service_and_listed_as_carriers(lab: Lab) -> None:
    said = status(lab)["observe"]
    assert (said["active"], said["why"], said["missed"], said["lost"]) == (True, "", 0, 0)
    carrier = carriers(lab)["bpf-observe"]
    assert (carrier["Active"], carrier["Acts"], carrier["LastError"]) == (True, False, "")
    assert "BPF" in carriers(lab)["kernel"]["Detail"]
    # Who is nobody can neither see nor change what is pinned.
    assert lab.machine.run("runuser -u tester -- ls /run/oomslice/bpf").rc != 0
    modes = "cd /run/oomslice/bpf && stat -c '%U:%G %a %n' . observe observe/*"
    listed = lab.machine.check(modes).splitlines()
    assert listed[0] == "root:root 1711 ." and listed[1] == "root:oomslice 750 observe"
    kinds = {line.split("/")[1].split("-")[0]: line.rsplit(" ", 1)[0] for line in listed[2:]}
    assert kinds == {"link": "root:oomslice 600", "map": "root:oomslice 660", "program": "root:oomslice 640"}


@pytest.mark.both_kernels
def test_kill_at_a_limit_against_the_plan_is_one_decision_that_says_so(lab: Lab) -> None:
    # The scores would have the kernel choose as planned.
    lab.kernel_alone("  score-adj: no\n")
    jail(lab)
    lab.drop_in("dear.service", "Priority=300")
    lab.drop_in("cheap.service", "Priority=-300")
    hits = status(lab)["observe"]["hits"]
    lab.start_service("cheap", 40, slice="jail.slice")
    lab.start_hog("dear", rate=60, max_mb=400, slice="jail.slice", wait_for="go")
    lab.wait_planned(dear=300, cheap=-300)
    pid = lab.machine.main_pid("dear.service")
    # Who stands still needs no memory: else the kernel may take a second one before that of the first is back.
    freeze = "echo %d >/sys/fs/cgroup/jail.slice/cheap.service/cgroup.freeze"
    lab.machine.check(freeze % 1)
    lab.go()
    lab.wait_until_dead("dear")
    lab.machine.check(freeze % 0)
    decision = by_kernel(lab, "dear")
    assert decision["extra"]["source"] == "bpf"
    assert (decision["agreement"], decision["planned_victim"]) == ("against-plan", "cheap.service")
    assert decision["domain"] == "jail.slice"
    assert decision["victim_priority"] == 300
    assert decision["victim_cgroup_id"] > 0
    assert list(decision["pids"]) == [pid]
    assert decision["extra"]["task"] == "hog"
    assert 100 << 20 < decision["victim_memory_before"] < 210 << 20
    assert lab.victims() == ["dear.service"]
    assert lab.lives("cheap")
    shown = lab.machine.check(f"oomslicectl show {decision['id']}")
    assert "against the plan: cheap.service" in shown and "BPF" in shown
    assert status(lab)["observe"]["hits"] == hits + 1
    lab.machine.wait_for("the bus knows", lambda: carriers(lab)["bpf-observe"]["Hits"] == hits + 1, 30)


@pytest.mark.both_kernels
def test_kill_for_the_machine_while_the_core_stands_still_is_as_planned(lab: Lab) -> None:
    lab.kernel_alone()
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("important", 100)
    lab.start_hog("hog", rate=60, wait_for="go")
    lab.wait_planned(hog=-100, important=0)
    with core_stopped(lab):
        lab.go()
        lab.wait_until_dead("hog")
        decision = by_kernel(lab, "hog")
    assert (decision["extra"]["source"], decision["agreement"]) == ("bpf", "as-planned")
    assert decision["domain"] == "-.slice"
    assert decision["extra"]["constraint"] == "CONSTRAINT_NONE"
    # That the kernel alone takes nobody else is its own affair: it does if the memory of the first is back too late.
    assert lab.victims()[0] == "hog.service"


def test_group_is_one_decision_with_all_its_processes(lab: Lab) -> None:
    lab.kernel_alone()
    jail(lab)
    lab.start_hog("group", rate=60, max_mb=400, children=12, slice="jail.slice", wait_for="go", OOMPolicy="kill")
    lab.wait_planned(group=0)
    lab.go()
    lab.wait_until_dead("group")
    decision = by_kernel(lab, "group")
    assert decision["extra"]["source"] == "bpf"
    # Those whom the kernel names, the first one twice, and those of whom it says that they were ending by themselves.
    said = lab.machine.check(
        "journalctl -k -b --no-pager --since=-2min | grep -oE '(Killed process|OOM victim) [0-9]+ \\(hog\\)'"
    )
    assert decision["processes"] > 1
    assert set(decision["pids"]) <= {int(line.split()[2]) for line in said.splitlines()}
    assert lab.victims() == ["group.service"]


def test_kill_while_the_daemon_stands_still_waits_in_the_ring(lab: Lab) -> None:
    lab.kernel_alone()
    jail(lab)
    lab.start_hog("unseen", rate=60, max_mb=400, slice="jail.slice", wait_for="go")
    lab.wait_planned(unseen=0)
    lab.machine.check("systemctl kill -s STOP oomsliced.service")
    lab.go()
    lab.machine.wait_for("it is dead", lambda: lab.kernel_killed() > 0, 60)
    # Nor is it told twice by a daemon that is started anew, which reads the kernel log from where the last one was.
    lab.machine.check("systemctl kill -s KILL oomsliced.service")
    lab.machine.wait_for("the daemon is back", lab.armed, 60, 0.5)
    assert by_kernel(lab, "unseen")["extra"]["source"] == "bpf"
    lab.machine.check("systemctl restart oomsliced.service")
    lab.machine.wait_for("the daemon is back", lab.armed, 60, 0.5)
    assert lab.victims() == ["unseen.service"]


def test_without_the_programs_the_kernel_log_tells(lab: Lab) -> None:
    jail(lab)
    lab.start_hog("logged", rate=60, max_mb=400, slice="jail.slice", wait_for="go")
    lab.wait_planned(logged=0)
    try:
        lab.machine.check("systemctl stop oomslice-bpf.service")
        lab.machine.wait_for("the daemon noticed", lambda: not carriers(lab)["bpf-observe"]["Active"], 30)
        assert carriers(lab)["bpf-observe"]["Detail"] == "oomslice-bpf.service is not running"
        lab.go()
        lab.wait_until_dead("logged")
        decision = by_kernel(lab, "logged")
        assert (decision["extra"]["source"], decision["agreement"]) == ("kernel-log", "as-planned")
        lab.machine.check("systemctl start oomslice-bpf.service")
        lab.machine.wait_for("the daemon noticed", lambda: carriers(lab)["bpf-observe"]["Active"], 30)
        assert lab.victims() == ["logged.service"]
    finally:
        lab.machine.check("systemctl start oomslice-bpf.service")


def listed(lab: Lab, kind: str) -> list[dict[str, Any]]:
    """All programs ("prog"), maps ("map") or links ("link") in the kernel."""
    found: list[dict[str, Any]] = json.loads(lab.machine.check(f"bpftool --json {kind} list"))
    return found


def counted(lab: Lab) -> dict[str, int]:
    """How many of each there are, without those that systemd has for units that come and go."""
    all_programs = listed(lab, "prog")
    of_systemd = [program for program in all_programs if program["type"].startswith("cgroup_")]
    programs = {program["id"] for program in of_systemd}
    maps = {id for program in of_systemd for id in program.get("map_ids", ())}
    return {
        "prog": len(all_programs) - len(programs),
        "map": sum(one["id"] not in maps for one in listed(lab, "map")),
        "link": sum(one.get("prog_id") not in programs for one in listed(lab, "link")),
    }


@pytest.mark.both_kernels
def test_loading_over_and_over_leaks_nothing_and_stopping_leaves_nothing(lab: Lab) -> None:
    with_programs = counted(lab)
    # Meanwhile memory is reclaimed and taken, by somebody who might be killed for it.
    jail(lab)
    churn = "truncate -s 300M /var/tmp/churn; while :; do cat /var/tmp/churn >/dev/null; done"
    lab.start("churn", f"/bin/sh -c '{churn}'", slice="jail.slice")
    lab.wait_planned(churn=0)
    lab.machine.check(
        f"for i in $(seq {RELOADS}); do systemctl reload oomslice-bpf.service || exit 1; done;"
        " systemctl restart oomslice-bpf.service",
        timeout=90 * RELOADS,
    )
    assert lab.machine.active("churn") and (lab.victims(), lab.kernel_killed()) == ([], 0)
    # The kernel takes a moment to let go of what nobody has any more.
    lab.machine.wait_for(f"only {with_programs} are there", lambda: counted(lab) == with_programs, 60, 2)
    lab.machine.check("systemctl stop oomslice-bpf.service")
    try:
        lab.machine.wait_for(
            "nothing is mounted", lambda: lab.machine.run("mountpoint -q /run/oomslice/bpf").rc != 0, 60, 0.5
        )
        assert lab.machine.run("test -e /run/oomslice/bpf.status").rc != 0
        listing = "bpftool prog list; bpftool map list; bpftool link list"
        # The core lets go of what it shares with them when oomsliced has seen it.
        programs = ("kill_begins", "kill_takes", "kill_ends", "kswapd_is_woken", "reclaim_ends")
        programs += ("judge_", "wait_machine", "wait_limit", "see_", "note_", "last_")
        names = (*programs, "facts", "figures", "observe", "slices", "pulse", "signs", "flights", "dying", "control")
        lab.machine.wait_for(
            "nothing is left",
            lambda: not [name for name in names if f"name {name}" in lab.machine.check(listing)],
            60,
            0.5,
        )
        assert status(lab)["observe"]["why"].startswith("nothing is loaded")
    finally:
        lab.machine.check("systemctl start oomslice-bpf.service")
