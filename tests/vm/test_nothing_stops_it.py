# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever stands still, is used up or takes the processors while memory runs out: the kill path goes on.

In each scenario a hog of low priority grows and an important service has to live. The right one dies, nobody else does,
the kernel's own killer does nothing, and the decision can be asked for once the obstacle is gone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from .lab import Lab

TRIAL = "/opt/vmtest/trial"
GLUTTON = "/opt/vmtest/glutton"
HOLD = "/opt/vmtest/hold"
OPENAT = 257
"""Its number on x86-64."""
PATIENCE = 240
"""Seconds until a hog counts as one that nobody kills. With all processors taken it has a twentieth of one to grow."""
STORMS = int(os.environ.get("OOMSLICE_STORMS", "5"))
SPINNING = 20
"""Real-time priority of those who keep the processors busy: below the core's, above the kernel's own for PSI (1)."""
THROTTLES = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")


def scene(lab: Lab, *, children: int = 0, rate: int = 60, important_mb: int = 150) -> int:
    """An important service, somebody who does not matter here, and the hog, which waits. Returns the hog's process."""
    lab.drop_in("hog.service", "Priority=-100")
    lab.drop_in("important.service", "Priority=500")
    lab.start_service("important", important_mb)
    lab.start_service("bystander", 40)
    lab.start_hog("hog", rate=rate, children=children, wait_for="go")
    lab.wait_planned(hog=-100, important=500, bystander=0)
    pid = lab.machine.main_pid("hog.service")
    assert pid > 0
    return pid


def trial(lab: Lab, pid: int, *options: str) -> None:
    """Let the hog grow, and wait until it is dead, by a program that needs nothing that could be stuck."""
    command = " ".join((TRIAL, *options, "/run/oomtest/go", str(PATIENCE), str(pid)))
    print(lab.machine.check(f"exec {command}", timeout=PATIENCE + 180).strip())


def verdict(lab: Lab, *, outcomes: tuple[str, ...] = ("freed",)) -> dict[str, Any]:
    """What must hold in the end, whatever was in the way."""
    lab.machine.wait_for("the hog's unit has ended", lambda: not lab.machine.active("hog.service"), 60)
    decision = lab.assert_killed("hog", outcomes=outcomes)
    assert lab.victims() == ["hog.service"]
    assert lab.lives("important")
    assert lab.lives("bystander")
    return decision


@contextlib.contextmanager
def slowed(lab: Lab, drive: str, **limits: int) -> Iterator[None]:
    """A drive of the machine with limits, in bytes or operations each second."""
    throttle = dict.fromkeys(THROTTLES, 0)
    lab.machine.qmp("block_set_io_throttle", device=drive, **throttle | limits)
    try:
        yield
    finally:
        lab.machine.qmp("block_set_io_throttle", device=drive, **throttle)


def test_daemon_stopped(lab: Lab) -> None:
    pid = scene(lab)
    daemon = lab.machine.main_pid("oomsliced.service")
    lab.machine.check(f"kill -STOP {daemon}")
    trial(lab, pid)
    assert lab.machine.check(f"grep State /proc/{daemon}/status").split()[1] == "T"
    lab.machine.check(f"kill -CONT {daemon}")
    verdict(lab)


@pytest.mark.both_kernels
def test_systemd_and_the_bus_and_the_journal_frozen(lab: Lab) -> None:
    pid = scene(lab)
    groups = "init.scope system.slice/dbus.service system.slice/systemd-journald.service"
    freeze = f"cd /sys/fs/cgroup; for group in {groups}; do echo %d > $group/cgroup.freeze; done"
    lab.machine.check(freeze % 1)
    try:
        frozen = f"cd /sys/fs/cgroup; for group in {groups}; do grep -x 'frozen 1' $group/cgroup.events || exit 1; done"
        lab.machine.wait_for("all of them stand still", lambda: lab.machine.run(frozen).rc == 0)
        trial(lab, pid)
        assert lab.machine.run(frozen).rc == 0
    finally:
        lab.machine.check(freeze % 0)
    verdict(lab)


def test_root_disk_that_answers_no_more(lab: Lab) -> None:
    pid = scene(lab)
    with slowed(lab, "root", bps=1):
        trial(lab, pid)
    verdict(lab)


def test_root_disk_that_writers_keep_busy(lab: Lab) -> None:
    pid = scene(lab)
    writer = "while :; do dd if=/dev/zero of=/var/tmp/busy$0 bs=1M count=60 conv=notrunc status=none; done"
    try:
        with slowed(lab, "root", bps=4 << 20):
            for number in range(4):
                lab.start(f"writer-{number}", f"/bin/sh -c '{writer}' {number}")
            dirty = "grep -w Writeback /proc/meminfo"
            lab.machine.wait_for("the disk is busy", lambda: int(lab.machine.check(dirty).split()[1]) > 0, 60)
            trial(lab, pid)
            lab.machine.check("kill -KILL $(cat /sys/fs/cgroup/system.slice/writer-*.service/cgroup.procs)")
        verdict(lab)
    finally:
        lab.machine.run("rm -f /var/tmp/busy*", timeout=120)


def test_both_processors_taken_by_real_time_processes(lab: Lab) -> None:
    pid = scene(lab, important_mb=200)
    trial(lab, pid, "-s", str(SPINNING))
    verdict(lab)


def test_two_hundred_processes_that_allocate(lab: Lab) -> None:
    pid = scene(lab, children=200)
    count = "cat /sys/fs/cgroup/system.slice/hog.service/pids.current"
    lab.machine.wait_for("all are there", lambda: int(lab.machine.check(count)) == 201, 60)
    trial(lab, pid)
    decision = verdict(lab)
    assert decision["processes"] == 201


def test_two_hundred_that_allocate_beside_real_time_processes(lab: Lab) -> None:
    pid = scene(lab, children=200, important_mb=200)
    count = "cat /sys/fs/cgroup/system.slice/hog.service/pids.current"
    lab.machine.wait_for("all are there", lambda: int(lab.machine.check(count)) == 201, 60)
    trial(lab, pid, "-s", str(SPINNING))
    # So many that die have a twentieth of the processors, and may be seen dead too late.
    decision = verdict(lab, outcomes=("freed", "deadline"))
    assert decision["processes"] == 201


def test_no_process_number_left(lab: Lab) -> None:
    pid = scene(lab)
    before = lab.machine.check("cat /proc/sys/kernel/pid_max").strip()
    try:
        # So few that those who take them need no memory to speak of. Numbers above it that are in use stay so.
        lab.machine.check("echo 900 > /proc/sys/kernel/pid_max")
        lab.start("glutton", f"{GLUTTON} pids", TasksMax="infinity")
        trial(lab, pid, "-p", "/sys/fs/cgroup/system.slice/glutton.service/cgroup.kill")
    finally:
        lab.machine.run(f"echo {before} > /proc/sys/kernel/pid_max")
    verdict(lab)


def test_no_open_file_left(lab: Lab) -> None:
    pid = scene(lab)
    before, now = lab.machine.check("cat /proc/sys/fs/file-max; cut -f1 /proc/sys/fs/file-nr").split()
    limit = int(now) + 2000
    try:
        lab.machine.check(f"echo {limit} > /proc/sys/fs/file-max")
        # Root's processes may open more than there are; the core may not, since it has not all of root's rights.
        lab.start("glutton", f"{GLUTTON} files", User="tester", LimitNOFILE="100000")
        trial(lab, pid, "-f", str(limit))
        assert lab.machine.run("runuser -u tester -- cat /proc/version").rc != 0
    finally:
        lab.machine.run(f"echo {before} > /proc/sys/fs/file-max; systemctl kill -s KILL glutton.service")
    verdict(lab)


def test_swap_on_a_disk_that_is_far_too_slow(lab: Lab) -> None:
    lab.use_swap()
    pid = scene(lab)
    with slowed(lab, "swap", iops=200, bps=4 << 20):
        trial(lab, pid)
    # A process that waits for such a disk is dead, and the last of its memory is back, only when that has answered.
    decision = verdict(lab, outcomes=("freed", "deadline"))
    print(
        f"{decision['outcome']}: {decision['bytes_freed'] >> 20} of {decision['victim_memory_before'] >> 20} MiB back"
    )
    assert decision["signal_usec"] > 0
    assert decision["bytes_freed"] > 0


def test_deciding_thread_that_is_stuck(lab: Lab) -> None:
    """It is kept where it enters the kernel to open a file of a candidate. The watchdog comes half a second later."""
    pid = scene(lab, rate=10)
    core = lab.machine.main_pid("oomslice-core.service")
    lab.start("hold.service", f"{HOLD} {core} {OPENAT}")
    lab.machine.wait_for(
        "the deciding thread is traced", lambda: traced(lab, core) == lab.machine.main_pid("hold.service")
    )
    trial(lab, pid)
    assert lab.machine.check("journalctl -b -o cat _SYSTEMD_UNIT=hold.service").split() == ["held"]
    lab.machine.check("systemctl stop hold.service")
    decision = verdict(lab)
    assert decision["flags"] == ["watchdog"]
    assert lab.machine.main_pid("oomslice-core.service") == core, "nobody had to start it anew"


def traced(lab: Lab, thread: int) -> int:
    """By which process a thread is traced."""
    return int(lab.machine.check(f"awk '/^TracerPid:/ {{ print $2 }}' /proc/{thread}/status"))


def test_storm_after_storm(lab: Lab) -> None:
    """One process, many, and huge pages, at every rate, over and over: no wrong one, none that hangs."""
    kinds = [(60, 0, ""), (120, 20, ""), (30, 0, ""), (200, 0, " -h"), (90, 80, "")]
    lab.drop_in("storm.slice", "Priority=-100")
    lab.drop_in("important.service", "Priority=500")
    lab.daemon_reload()
    lab.start_service("important", 150)
    lab.start_service("bystander", 40)
    for number in range(STORMS):
        rate, children, huge = kinds[number % len(kinds)]
        unit = f"hog-{number}"
        lab.start_hog(unit, rate=rate, children=children, slice="storm.slice", options=huge)
        lab.wait_until_dead(unit)
        lab.assert_killed(unit)
        print(f"storm {number + 1} of {STORMS} is over")
    assert lab.victims() == [f"hog-{number}.service" for number in range(STORMS)]
    assert lab.lives("important")
    assert lab.lives("bystander")
