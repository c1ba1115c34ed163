# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rest of the machine: other OOM daemons, a bare installation, healthy load, and rest."""

from __future__ import annotations

import time

import pytest

from .lab import HOG, OOM_KILLED, Lab
from .test_ladder import grow, jail

NEEDED = (
    "init.scope",
    "systemd-journald.service",
    "systemd-logind.service",
    "systemd-udevd.service",
    "dbus.service",
    "ssh.service",
    "oomslice-core.service",
    "oomsliced.service",
)
"""What the machine needs to stay reachable, as far as this one has it."""


def test_systemd_oomd_is_named_and_its_units_are_left_to_it(lab: Lab) -> None:
    lab.machine.check("systemctl start systemd-oomd.service", timeout=120)
    try:
        lab.drop_in("marked.service", "Priority=-900")
        lab.start_service("marked", 60, ManagedOOMMemoryPressure="kill", ManagedOOMMemoryPressureLimit="99%")
        lab.start_service("kept", 100)
        lab.drop_in("hog.service", "Priority=-100")
        lab.start_hog("hog", wait_for="go")
        lab.wait_planned(marked=-900, kept=0, hog=-100)
        state = lab.property("State")
        assert "systemd-oomd.service" in state["OtherDaemons"]
        assert "marked.service" in state["LeftToSystemdOomd"]
        assert "systemd-oomd" in lab.machine.run("oomslicectl status", timeout=120).out
        lab.go()
        lab.wait_until_dead("hog")
        decision = lab.assert_killed("hog")
        assert {name: verdict for name, _, _, _, verdict in decision["candidates"]}["marked.service"] != "eligible"
        assert lab.lives("marked")
        assert lab.lives("kept")
    finally:
        lab.machine.check("systemctl stop systemd-oomd.service systemd-oomd.socket")


STALLING = """
[Slice]
ManagedOOMMemoryPressure=kill
ManagedOOMMemoryPressureLimit=5%
ManagedOOMMemoryPressureDurationSec=1s
"""


def test_what_systemd_oomd_kills_is_in_the_list_with_what_oomslice_and_the_kernel_killed(lab: Lab) -> None:
    machine = lab.machine
    lab.kernel_alone()
    jail(lab, "kill", limits="MemoryHigh=60M\nMemorySwapMax=0")
    grow(lab)
    lab.wait_until_dead("jailed")
    lab.start_hog("limited", rate=60, max_mb=200, MemoryMax="80M", MemorySwapMax="0")
    lab.wait_until_dead("limited")
    # It acts on pressure only where pages are reclaimed meanwhile, which without swap those of the hog are not.
    lab.use_swap()
    lab.write("/etc/systemd/system/theirs.slice", STALLING)
    lab.drop_in("theirs.slice", "Priority=-5")
    lab.daemon_reload()
    machine.check("systemctl start systemd-oomd.service", timeout=120)
    lab.adopt("theirs.slice")
    try:
        machine.wait_for(
            "systemd-oomd is seen",
            lambda: [one for one in lab.property("Carriers") if one["Name"] == "systemd-oomd" and one["Active"]],
            60,
            0.5,
        )
        lab.start_again("stalls", f"{HOG} 20 4000", slice="theirs.slice", MemoryHigh="24M")
        assert lab.fate("stalls", timeout=180) == OOM_KILLED
        machine.check("systemctl stop stalls.service")
        decision = lab.decision_about("stalls", timeout=180)
        assert (decision["carrier"], decision["outcome"]) == ("systemd-oomd", "killed-by-oomd")
        assert (decision["domain"], decision["victim_priority"]) == ("theirs.slice", -5)
        assert decision["extra"]["reason"] == "memory-pressure"
        assert decision["victim_cgroup_id"] > 0
        # One list for all who kill, in the order of time.
        decisions = lab.decisions()
        assert [(one["victim"], one["carrier"], one["outcome"]) for one in decisions] == [
            ("jailed.service", "core", "freed"),
            ("limited.service", "kernel", "killed-by-kernel"),
            ("stalls.service", "systemd-oomd", "killed-by-oomd"),
        ]
        times = [one["realtime_usec"] for one in decisions]
        assert times == sorted(times) and times[0] >= lab.started_usec
        shown = machine.check("oomslicectl decisions; oomslicectl show")
        assert "systemd-oomd chose by its own rules" in shown and "killed-by-oomd" in shown
        # While oomsliced is not there, its signal is heard by nobody. The journal has it.
        machine.check("systemctl stop oomsliced.service")
        lab.start("stalls2", f"{HOG} 20 4000", slice="theirs.slice", MemoryHigh="24M")
        machine.wait_for("it is dead", lambda: not machine.active("stalls2"), 180, 0.5)
        machine.check("systemctl start oomsliced.service")
        missed = lab.decision_about("stalls2", timeout=90)
        assert (missed["carrier"], missed["outcome"]) == ("systemd-oomd", "killed-by-oomd")
        assert (missed["domain"], missed["victim_priority"]) == ("theirs.slice", -5)
        assert missed["extra"]["source"] == "journal"
        assert missed["extra"]["cgroup"] == "/theirs.slice/stalls2.service"
        assert 0 < missed["trigger_usec"] - decision["trigger_usec"] < 600_000_000
        # What is in the list stays there once, however often oomsliced begins anew.
        machine.check("systemctl restart oomsliced.service")
        machine.wait_for("oomslice is armed", lab.armed, 120, 0.5)
        time.sleep(15)
        assert lab.victims() == ["jailed.service", "limited.service", "stalls.service", "stalls2.service"]
        (carrier,) = [one for one in lab.property("Carriers") if one["Name"] == "systemd-oomd"]
        assert not carrier["LastError"], carrier
    finally:
        machine.check("systemctl stop systemd-oomd.service systemd-oomd.socket")


def test_bare_installation_spares_what_the_machine_needs_to_stay_reachable(lab: Lab) -> None:
    before = {unit: lab.machine.properties(unit, "MainPID", "ActiveState") for unit in NEEDED}
    lab.start_hog("runaway", rate=60)
    lab.wait_until_dead("runaway")
    decision = lab.assert_killed("runaway")
    verdicts = {name: verdict for name, _, _, _, verdict in decision["candidates"]}
    assert not [unit for unit in NEEDED if verdicts.get(unit) in ("eligible", "chosen")], verdicts
    assert {unit: lab.machine.properties(unit, "MainPID", "ActiveState") for unit in NEEDED} == before
    assert all(state["ActiveState"] == "active" for state in before.values()), before


def test_bare_installation_would_not_choose_needed_units_even_if_nobody_else_is_left(lab: Lab) -> None:
    explained = {
        name: verdict
        for domain, candidates in lab.busctl("Explain")
        if domain == "-.slice"
        for name, _, _, verdict, _, _ in candidates
    }
    assert not [unit for unit in NEEDED if explained.get(unit) in ("eligible", "chosen")], explained
    assert explained["ssh.service"] == "protected"


@pytest.mark.both_kernels
def test_healthy_machine_under_load_loses_nobody(lab: Lab) -> None:
    lab.start_service("steady", 150)
    lab.wait_planned(steady=0)
    # Page cache: more is read and written than there is memory. Like a compile: many short processes that allocate.
    lab.machine.check(
        "dd if=/dev/vda of=/dev/null bs=1M count=1200 status=none & "
        "head -c 500M /dev/urandom > /var/tmp/big && cp /var/tmp/big /var/tmp/copy && cat /var/tmp/copy > /dev/null;"
        " wait",
        timeout=400,
    )
    lab.machine.check(
        "for i in 1 2 3; do find /usr/lib/python3.13 -name '*.py' | head -n 60 | xargs -n 10 -P 4 python3 -c"
        " 'import ast, sys; [ast.parse(open(path).read()) for path in sys.argv[1:]]'; done;"
        " rm -f /var/tmp/big /var/tmp/copy",
        timeout=400,
    )
    time.sleep(2)
    assert lab.decisions() == []
    assert lab.kernel_killed() == 0
    assert lab.lives("steady")


def stall_usec(lab: Lab) -> int:
    """How long some task of the machine has waited for memory since it was booted."""
    return int(lab.machine.check("grep some /proc/pressure/memory").rpartition("total=")[2])


QUIET_MINUTE = """
mkfifo /run/oomtest/never; exec 3<>/run/oomtest/never; read -t 15 -u 3
mapfile -t before </run/oomtest/strace; read -t 60 -u 3; mapfile -t after </run/oomtest/strace
printf "%s\\n" "${before[@]}" >/run/oomtest/before; printf "%s\\n" "${after[@]}" >/run/oomtest/after
rm /run/oomtest/never
"""
"""What the core did before and after a minute without a process that begins or ends: those have page faults."""


def test_core_sleeps_a_whole_minute_without_one_wakeup(lab: Lab) -> None:
    core = lab.machine.main_pid("oomslice-core.service")
    # Its end, when it has been idle for two minutes, would make a new plan.
    lab.machine.check("systemctl stop oomslice-actions.service; sync; echo 3 > /proc/sys/vm/drop_caches; sleep 8")
    lab.machine.check(
        f"strace -f -qq -o /run/oomtest/strace -p {core} >/dev/null 2>&1 & echo $! > /run/oomtest/pid; sleep 5"
    )
    # Attaching interrupts the calls that the threads are in; what counts is what comes after that.
    # A minute in which something waited 2 ms for memory is none at rest: the first sign is there to say so.
    for _ in range(4):
        stalled = stall_usec(lab)
        lab.machine.check(f"bash -c '{QUIET_MINUTE}'", timeout=150)
        at_start, at_end = (lab.machine.check(f"cat /run/oomtest/{when}").rstrip() for when in ("before", "after"))
        stalled = stall_usec(lab) - stalled
        if stalled < 2000:
            break
    lab.machine.check("kill $(cat /run/oomtest/pid)")
    assert stalled < 2000, f"never at rest: {stalled} us of waiting for memory in the last minute"
    assert "epoll" in at_start, "strace did not see the core wait"
    assert at_end.startswith(at_start)
    # Others are not wholly at rest: a few dozen page faults of theirs are worth one look at memory, and the end of it.
    new = at_end.removeprefix(at_start)
    assert new.count("epoll_wait(") <= 2, new
