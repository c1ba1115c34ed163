# SPDX-License-Identifier: LGPL-2.1-or-later
"""The core as systemd runs it: what protects it, what it keeps in reserve, and who stands behind it."""

from __future__ import annotations

from .lab import Lab

CORE = "oomslice-core.service"
OTHER, FIFO = 0, 1
"""SCHED_OTHER, SCHED_FIFO"""
DECIDING = 50
"""real-time priority of the deciding thread"""
IO_FLUSHER = 0x80000 | 0x100000
"""PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE, which is what PR_SET_IO_FLUSHER sets; include/linux/sched.h"""


def shown(lab: Lab, unit: str, *names: str) -> dict[str, str]:
    """Properties as systemd has them."""
    return lab.machine.properties(unit, *names)


def test_nothing_throttles_the_core_and_every_ancestor_protects_it(lab: Lab) -> None:
    for unit in (CORE, "oomslice.slice"):
        limits = shown(lab, unit, "MemoryHigh", "MemoryMax", "MemorySwapMax", "MemoryMin")
        assert {limits["MemoryHigh"], limits["MemoryMax"], limits["MemorySwapMax"]} == {"infinity"}
        assert int(limits["MemoryMin"]) >= 16 << 20
    # In force, not only asked for.
    for path in ("oomslice.slice", f"oomslice.slice/{CORE}"):
        minimum = lab.machine.check(f"cat /sys/fs/cgroup/{path}/memory.min")
        assert int(minimum) >= 16 << 20
    core = lab.machine.main_pid(CORE)
    status = lab.machine.check(f"cat /proc/{core}/task/*/status")
    assert status.count("Seccomp:\t2") == status.count("Name:\toomslice-core") > 5
    # The unit's list and the core's own.
    assert "Seccomp_filters:\t1\n" not in status and "Seccomp_filters:\t0\n" not in status
    assert {"locked", "realtime", "psi-machine", "mrelease"} <= set(lab.property("State")["CoreFeatures"])


def test_threads_have_the_priorities_and_flags_that_keep_them_going(lab: Lab) -> None:
    core = lab.machine.main_pid(CORE)
    assert lab.machine.check(f"cat /proc/{core}/oom_score_adj").strip() == "-1000"
    # Without the name, which may hold anything: see proc_pid_stat(5) for the numbers of the fields.
    threads = {}
    for line in lab.machine.check(f"cat /proc/{core}/task/*/stat").splitlines():
        stat = ["", line.split()[0], "", *line.rpartition(") ")[2].split()]
        threads[int(stat[1])] = int(stat[41]), int(stat[40]), int(stat[9]) & IO_FLUSHER
    assert threads.pop(core) == (FIFO, DECIDING, IO_FLUSHER), "bounded in reclaim, and before all who work in real time"
    realtime = sorted(thread for thread in threads.values() if thread[0] == FIFO)
    assert realtime == [
        (FIFO, DECIDING, 0),  # writes marks
        (FIFO, DECIDING + 1, 0),  # the watchdog's hand
        (FIFO, DECIDING + 1, IO_FLUSHER),  # the watchdog
    ]
    # Reapers, hands that reclaim, and who takes the reserve: they may take a processor from nobody.
    others = [thread for thread in threads.values() if thread[0] != FIFO]
    assert len(others) >= 4 and set(others) == {(OTHER, 0, 0)}


def test_reserve_is_held_given_back_at_a_decision_and_taken_again(lab: Lab) -> None:
    lab.configure("limits:\n  reserve: 16M\n")

    def held() -> int:
        return int(lab.property("State")["ReserveBytes"])

    lab.machine.wait_for("the reserve is held", lambda: held() == 16 << 20, 120, 0.5)
    core = lab.machine.main_pid(CORE)
    resident = f"awk '/^VmRSS/{{print $2}}' /proc/{core}/status"
    full = int(lab.machine.check(resident))
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("kept", 150)
    lab.start_hog("hog", wait_for="go")
    lab.wait_planned(hog=-100, kept=0)
    lab.go()
    # The core is asked while it dies: what it holds is not in the answer of the bus for a moment.
    lowest = lab.machine.check(
        f"low=$({resident}); while systemctl is-active --quiet hog.service; do"
        f" now=$({resident}); [ $now -lt $low ] && low=$now; done; now=$({resident});"
        " [ $now -lt $low ] && low=$now; echo $low",
        timeout=180,
    )
    assert full - int(lowest) >= 15 << 10
    lab.assert_killed("hog")
    lab.machine.wait_for("the reserve is held again", lambda: held() == 16 << 20, 120, 0.5)
    assert lab.victims() == ["hog.service"] and lab.lives("kept")


def test_core_that_is_stuck_while_memory_is_low_is_started_anew(lab: Lab) -> None:
    machine = lab.machine
    assert shown(lab, CORE, "WatchdogUSec")["WatchdogUSec"] in ("0", "infinity"), "no wakeups at rest"
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("kept", machine.available_mb() - 200)
    lab.start_hog("hog", wait_for="go")
    lab.wait_planned(hog=-100, kept=0)
    machine.wait_for("the watch", lambda: shown(lab, CORE, "WatchdogUSec")["WatchdogUSec"] == "20s", 60, 0.5)
    core = machine.main_pid(CORE)
    restarts = int(shown(lab, CORE, "NRestarts")["NRestarts"])
    machine.check(f"kill -STOP {core}")
    machine.wait_for("another core", lambda: machine.main_pid(CORE) not in (0, core), 120, 0.5)
    machine.wait_for("oomslice is armed", lab.armed, 120, 0.5)
    assert int(shown(lab, CORE, "NRestarts")["NRestarts"]) == restarts + 1
    assert "watchdog" in machine.check(f"journalctl -b --no-pager -o cat -u {CORE} | tail -n 20").lower()
    lab.go()
    lab.wait_until_dead("hog")
    lab.assert_killed("hog")
    assert lab.lives("kept")
