# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernels that cannot have the BPF programs: it is said which cannot act and why, and everything else works.

What each of them lacks is made on machines that have it: type information is hidden below an empty file, the kernel is
locked down by its command line, the system call is hidden from the one service that uses it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import SWAP_MB
from .image import Image
from .lab import Lab
from .machine import Machine
from .test_bpf import OOMSLICE_BPF, by_kernel, carriers, jail, status
from .test_scores import wait_adjusted

BTF = "/sys/kernel/btf/vmlinux"
PROGRAMS = ("observe", "signs", "choice", "prekill")
"""Those that the newest kernel could have."""
NO_TYPES = "this kernel has no type information (/sys/kernel/btf/vmlinux)"
LOCKED = "this kernel is locked down (lockdown=confidentiality) and lets no BPF program read its memory"
NO_BPF = "this kernel has no BPF (CONFIG_BPF_SYSCALL)"


@contextlib.contextmanager
def services_anew(lab: Lab, undo: str) -> Iterator[None]:
    """All of oomslice starts anew with what is so meanwhile, and once more when that is undone."""
    start = "systemctl restart oomslice-bpf.service oomslice-core.service oomsliced.service"
    try:
        lab.machine.check(start, timeout=120)
        lab.machine.wait_for("oomslice is armed", lab.armed, 60, 0.5)
        yield
    finally:
        lab.machine.check(f"{undo} && {start}", timeout=120)
        lab.machine.wait_for("oomslice is armed", lab.armed, 60, 0.5)


@pytest.fixture(scope="module")
def locked_machine(base: Image, disk: Path) -> Iterator[Machine]:
    """The newest kernel, which could have most, as it boots where nobody may read its memory."""
    with Machine(
        base, base.kernels[-1], disk=disk, swap_mb=SWAP_MB, kernel_arguments="lockdown=confidentiality"
    ) as one:
        yield one


@pytest.fixture
def locked(locked_machine: Machine) -> Iterator[Lab]:
    """What one scenario uses of that."""
    lab = Lab(locked_machine)
    lab.settle()
    try:
        yield lab
    finally:
        lab.clean_up()


def assert_said(lab: Lab, why: str) -> None:
    """That no program is there, for this reason, wherever an administrator may look; and it is no failure."""
    said = status(lab)
    assert {name: (said[name]["active"], said[name]["why"]) for name in PROGRAMS} == dict.fromkeys(
        PROGRAMS, (False, why)
    )
    unit = "oomslice-bpf.service"
    # Nothing went wrong, so nothing is tried again, and stopping it does what it always does.
    assert lab.machine.properties(unit, "ActiveState", "Result") == {"ActiveState": "active", "Result": "success"}
    shown = lab.machine.check(f"systemctl status --no-pager --full {unit}")
    journal = lab.machine.check("journalctl -b --no-pager -o cat -t oomsliced")
    listed = carriers(lab)
    for name in PROGRAMS:
        assert f"{name}: not active: {why}" in shown
        carrier = listed[f"bpf-{name}"]
        assert (carrier["Active"], carrier["Detail"], carrier["LastError"]) == (False, why, "")
        assert f"Carrier bpf-{name} cannot act: {why}" in journal.splitlines()[-40:]
    assert why in lab.machine.check("oomslicectl status")
    checks = json.loads(lab.machine.run("oomslicectl doctor --json").out)
    assert {check["name"]: check["found"] for check in checks["checks"]}["carrier bpf-prekill"] == f"inactive: {why}"
    # It is nothing that the administrator did wrong.
    assert [check for check in checks["checks"] if check["group"] == "oomslice" and check["verdict"] == "problem"] == []
    asked = lab.machine.run(f"{OOMSLICE_BPF} choose")
    assert asked.rc == 1 and "oomslice-bpf: " in asked.out, asked


def assert_the_rest_works(lab: Lab) -> None:
    """Who dies is by priority, whoever kills: the core for the machine, the kernel's own killer at a limit."""
    jail(lab)
    lab.drop_in("hog.service", "Priority=-100")
    lab.drop_in("cheap.service", "Priority=-300")
    lab.drop_in("dear.service", "Priority=300")
    lab.daemon_reload()
    lab.start_service("large", 250)
    lab.start_service("cheap", 80, slice="jail.slice")
    lab.start_hog("dear", rate=15, max_mb=175, slice="jail.slice", wait_for="go-dear")
    lab.wait_planned(large=0, cheap=-300, dear=300)
    wait_adjusted(lab, "cheap.service", 1000)
    # Nobody acts inside the kernel but its own killer, which goes by the scores and is seen in its log.
    lab.go("go-dear")
    lab.wait_until_dead("cheap")
    decision = by_kernel(lab, "cheap")
    assert (decision["extra"]["source"], decision["agreement"]) == ("kernel-log", "as-planned")
    assert decision["domain"] == "jail.slice"
    taken = ["cheap.service"]
    # Whose memory grows may be taken next: the kernel looks once more before the memory of the first is back, and a
    # kernel without our programs is not kept from that.
    if not lab.machine.active("dear"):
        by_kernel(lab, "dear")
        taken.append("dear.service")
    # By size it would be the other one first.
    assert lab.victims() == taken
    lab.machine.check("systemctl stop dear.service")
    lab.kernel_kills = lab.machine.kernel_oom_kills()
    lab.start_hog("hog", rate=100, wait_for="go")
    lab.wait_planned(hog=-100, large=0)
    lab.go()
    lab.wait_until_dead("hog")
    assert lab.assert_killed("hog")["carrier"] == "core"
    assert lab.victims() == [*taken, "hog.service"]
    assert lab.lives("large")


def test_kernel_without_type_information_is_said_and_the_rest_works(lab: Lab) -> None:
    lab.machine.check(f"mount --bind /dev/null {BTF}")
    with services_anew(lab, f"umount {BTF}"):
        assert_said(lab, NO_TYPES)
        lab.machine.check(f"! {OOMSLICE_BPF} check 2>&1 | grep libbpf")
        assert_the_rest_works(lab)
    assert status(lab)["observe"]["active"] and carriers(lab)["bpf-observe"]["Active"]


def test_locked_down_kernel_is_said_and_the_rest_works(locked: Lab) -> None:
    lab = locked
    assert "[confidentiality]" in lab.machine.check("cat /sys/kernel/security/lockdown")
    assert_said(lab, LOCKED)
    checks = json.loads(lab.machine.run("oomslicectl doctor --json").out)["checks"]
    assert "locked down" in next(check["found"] for check in checks if check["name"] == "BPF")
    assert_the_rest_works(lab)


def test_kernel_without_bpf_is_said_and_the_rest_works(locked: Lab) -> None:
    lab = locked
    # As a kernel without it answers. Whether its file system is there does not matter then.
    hidden = "[Service]\nSystemCallFilter=\nSystemCallFilter=~bpf:ENOSYS\n"
    lab.write("/etc/systemd/system/oomslice-bpf.service.d/50-hidden.conf", hidden)
    lab.daemon_reload()
    undo = "rm /etc/systemd/system/oomslice-bpf.service.d/50-hidden.conf && systemctl daemon-reload"
    with services_anew(lab, undo):
        assert_said(lab, NO_BPF)
        assert_the_rest_works(lab)
