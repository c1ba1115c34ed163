# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package in its life on a machine: installed, restarted, reinstalled, removed, purged, installed again.

A machine of its own without oomslice, because what apt does here would be felt by every other scenario.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .image import REPOSITORY, Image
from .lab import Lab
from .machine import Machine
from .package import package

UNITS = (
    "oomslice-core.socket oomslice-core.service oomslice-bpf.service oomsliced.service oomslice-actions.socket"
    " oomslice-scores.socket"
)
UNITS_FOLDER = REPOSITORY / "units"
SERVICES = "/sys/fs/cgroup/system.slice"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -y -q"


@pytest.fixture(scope="module")
def bare(base: Image) -> Iterator[Machine]:
    """A machine with what the package depends on, and the package at hand as /root/oomslice.deb."""
    with Machine(base, base.kernels[0]) as machine:
        machine.put("/root/oomslice.deb", package().read_bytes())
        yield machine


def install(machine: Machine, *options: str) -> str:
    return machine.check(f"{APT} install {' '.join(options)} /root/oomslice.deb", timeout=300)


def serving(machine: Machine) -> None:
    """Both processes run and the bus is served, by processes that nothing has been refused to."""
    machine.check(f"systemctl is-active {UNITS}")
    machine.check("busctl --system call org.oomslice1 /org/oomslice1 org.oomslice1.Manager ListSlices")
    assert machine.properties("oomslice-core.service", "NRestarts", "Result") == {"NRestarts": "0", "Result": "success"}
    assert machine.properties("oomsliced.service", "NRestarts", "Result") == {"NRestarts": "0", "Result": "success"}


def test_lintian_finds_neither_errors_nor_warnings() -> None:
    """In the root in which the package is built: no machine is needed."""
    if os.geteuid() != 0:
        pytest.skip("only root may enter the root in which lintian is")
    made = subprocess.run([REPOSITORY / "tools/build-deb", "--root"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    root = Path(made.stdout.strip())
    with tempfile.TemporaryDirectory(dir=root / "var/tmp", prefix="lintian-") as folder:
        deb = shutil.copy(package(), folder)
        command = ("lintian", "--allow-root", "--fail-on", "error,warning", f"/{Path(deb).relative_to(root)}")
        said = subprocess.run(
            ["chroot", root, *command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert said.returncode == 0, said.stdout + said.stderr


def test_installing_enables_and_starts_all_of_it(bare: Machine) -> None:
    install(bare)
    bare.check(f"systemctl is-enabled {UNITS}")
    serving(bare)
    assert bare.check("stat -c '%U:%G %a' /run/oomslice/core.sock").split() == ["root:oomslice", "660"]
    assert bare.check("stat -c '%U:%G %a' /var/lib/oomslice").split() == ["oomslice:oomslice", "750"]
    assert bare.check("systemctl show -P ControlGroup oomsliced.service").strip() == "/oomslice.slice/oomsliced.service"
    assert bare.check("cat /sys/fs/cgroup/oomslice.slice/memory.min").strip() == str(80 << 20)


def test_systemd_of_the_machine_finds_nothing_wrong_with_the_units(bare: Machine) -> None:
    said = bare.check(f"systemd-analyze verify --recursive-errors=no {UNITS} oomslice.slice 2>&1; true")
    # The image has no manual pages.
    assert [
        line for line in said.splitlines() if "oomslice" in line and "man:" not in line and "'man " not in line
    ] == []


def test_journal_knows_the_catalog(bare: Machine) -> None:
    listed = bare.check("journalctl --list-catalog")
    for line in (UNITS_FOLDER / "oomslice.catalog").read_text(encoding="utf-8").splitlines():
        if line.startswith("-- "):
            assert line.split()[1] in listed


def test_sandboxes_refuse_nothing_that_is_needed(bare: Machine) -> None:
    said = bare.check(
        "journalctl -b --no-pager -u oomslice-core.service -u oomsliced.service -u oomslice-scores.service"
    )
    for word in ("Operation not permitted", "Permission denied", "Read-only file system", "Traceback"):
        assert word not in said, said
    assert bare.run("dmesg | grep -i 'audit.*type=1326'").rc != 0
    # The locked memory, the real-time thread and the machine's triggers: `status` says what could not be had.
    assert "oomslice-core" in bare.check("oomslicectl status")


def test_restart_keeps_the_plan_of_the_core(bare: Machine) -> None:
    bare.check("systemctl restart oomslice-core.service")
    serving(bare)
    bare.check("systemctl restart oomsliced.service")
    serving(bare)
    bare.check("systemctl reload oomsliced.service")
    serving(bare)


def test_reinstalling_restarts_both(bare: Machine) -> None:
    before = bare.main_pid("oomslice-core.service"), bare.main_pid("oomsliced.service")
    install(bare, "--reinstall")
    serving(bare)
    after = bare.main_pid("oomslice-core.service"), bare.main_pid("oomsliced.service")
    assert before[0] != after[0] and before[1] != after[1]


def given(machine: Machine) -> int:
    """How many processes have the value that protected units get."""
    return int(machine.check("cat /proc/[0-9]*/oom_score_adj 2>/dev/null | grep -cx -- -996; true"))


def standing(lab: Lab) -> None:
    """A service that oomslice has frozen and one that it has throttled."""
    lab.settle()
    lab.start_service("standing", 20)
    lab.start_service("slowed", 40, MemoryHigh="400M")
    lab.wait_planned(standing=0, slowed=0)
    lab.machine.check("oomslicectl act standing.service freeze; oomslicectl act slowed.service throttle:90")
    assert "frozen 1" in lab.machine.check(f"cat {SERVICES}/standing.service/cgroup.events")
    assert 0 < int(lab.machine.check(f"cat {SERVICES}/slowed.service/memory.high")) < 100 << 20


def test_removing_stops_all_keeps_the_decisions_and_leaves_nobody_standing_still(bare: Machine) -> None:
    lab = Lab(bare)
    standing(lab)
    # What is shipped protects some that run here.
    assert given(bare) > 0
    # Configuration, as all that is in /etc.
    bare.check("mkdir -p /etc/oomslice/bpf-policy && touch /etc/oomslice/bpf-policy/mine.o")
    bare.check(f"{APT} remove oomslice", timeout=120)
    assert bare.run(f"systemctl is-active {UNITS}").rc != 0
    assert bare.run("pgrep -u oomslice; pgrep -x oomslice-core").out.split() == []
    assert bare.run("mountpoint -q /run/oomslice/bpf").rc != 0
    assert "name kill_" not in bare.check("bpftool prog list")
    bare.check(
        "test -e /var/lib/oomslice/decisions.sqlite && test -e /etc/oomslice/bpf-policy/mine.o && "
        "test ! -e /run/oomslice/core.sock && test ! -e /run/oomslice/actions.sock && test ! -e /run/oomslice/scores"
    )
    assert given(bare) == 0
    assert bare.check(f"cat {SERVICES}/standing.service/cgroup.freeze").strip() == "0"
    assert bare.check(f"cat {SERVICES}/slowed.service/memory.high").strip() == str(400 << 20)
    assert lab.lives("standing") and lab.lives("slowed")
    bare.check("systemctl stop standing.service slowed.service")


def test_purging_leaves_nothing_but_the_user(bare: Machine) -> None:
    bare.check("dpkg --purge oomslice", timeout=120)
    left = bare.check("find / -xdev -name '*oomslice*' -not -path '/proc/*' -not -path '/root/*'")
    assert left.split() == []
    assert bare.check("systemctl list-units --all --no-legend 'oomslice*'").split() == []
    bare.check("getent passwd oomslice")


def test_installing_again_works(bare: Machine) -> None:
    install(bare)
    serving(bare)
