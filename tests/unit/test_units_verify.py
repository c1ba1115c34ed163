# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd says of our unit files, and that units, package and sources name the same things.

systemd has to be 254 or later to know all that is in them. Where this machine's is older, the one of the root in which
`make deb` builds the package is asked.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import oomslice

TOP = Path(__file__).resolve().parents[2]
UNITS = TOP / "units"
OURS = (
    "oomslice.slice",
    "oomslice-core.socket",
    "oomslice-core.service",
    "oomslice-bpf.service",
    "run-oomslice-bpf.mount",
    "oomslice-actions.socket",
    "oomslice-actions.service",
    "oomslice-scores.socket",
    "oomslice-scores.service",
    "oomsliced.service",
    "oomslice-metrics.socket",
    "oomslice-tell-owner@.service",
    "oomslice-metrics.service",
    "oomslice-metrics-textfile.service",
    "oomslice-metrics-textfile.timer",
)
EXPOSURE = {
    "oomsliced.service": 2.0,
    "oomslice-core.service": 3.0,
    "oomslice-actions.service": 3.0,
    "oomslice-tell-owner@.service": 3.5,
    "oomslice-metrics.service": 2.0,
    "oomslice-metrics-textfile.service": 2.0,
    "oomslice-scores.service": 2.0,
    "oomslice-bpf.service": 2.0,
}
"""Most that `systemd-analyze security` may say; systemd-oomd has 1.8, but may not read /dev/kmsg."""


@dataclass(frozen=True)
class Systemd:
    """A systemd-analyze, and a folder that it sees our units in."""

    command: tuple[str, ...]
    folder: Path
    """as this machine names it"""
    inside: str
    """as the command names it"""

    def analyze(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "SYSTEMD_UNIT_PATH": f"{self.inside}:/usr/lib/systemd/system",
            "SYSTEMD_LOG_LEVEL": "notice",
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.run(
            [*self.command, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=60
        )


def version_here() -> int:
    if shutil.which("systemd-analyze") is None:
        return 0
    said = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"systemd (\d+)", said)
    return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def systemd() -> Iterator[Systemd]:
    """Our units in a folder, with programs that exist there, and a systemd that is new enough."""
    root = Path("/")
    command: tuple[str, ...] = ("systemd-analyze",)
    if version_here() < 254:
        if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
            pytest.skip("systemd is older than 254 here, and another one needs root and mmdebstrap")
        made = subprocess.run([TOP / "tools" / "build-deb", "--root"], capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        root = Path(made.stdout.strip())
        command = ("chroot", str(root), "systemd-analyze")
    with tempfile.TemporaryDirectory(dir=root / "var/tmp", prefix="oomslice-units-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        inside = "/" + str(folder.relative_to(root))
        for unit in OURS:
            text = (UNITS / unit).read_text(encoding="utf-8")
            text = re.sub(r"^(Exec\w+=)/usr/lib/oomslice/", rf"\1{inside}/", text, flags=re.MULTILINE)
            text = text.replace("=/usr/bin/oomslicectl", f"={inside}/oomslicectl")
            (folder / unit).write_text(text)
        for program in (
            "oomsliced",
            "oomslice-core",
            "oomslice-bpf",
            "oomslice-actions",
            "oomslice-scores",
            "oomslicectl",
            "oomslice-tell-owner",
        ):
            (folder / program).write_text("#!/bin/sh\n")
            (folder / program).chmod(0o755)
        (folder / "dbus.socket").write_text(
            "[Socket]\nListenStream=/run/dbus/system_bus_socket\nService=oomsliced.service\n"
        )
        yield Systemd(command, folder, inside)


@pytest.mark.timeout(600)  # the root may have to be made
def test_systemd_has_nothing_to_say_about_our_units(systemd: Systemd) -> None:
    result = systemd.analyze(
        "verify", "--man=no", "--recursive-errors=no", *(f"{systemd.inside}/{unit}" for unit in OURS)
    )
    said = [line for line in (result.stdout + result.stderr).splitlines() if "/proc/ is not mounted" not in line]
    said = [line for line in said if "oomslice" in line]
    assert (said, result.returncode) == ([], 0), result.stderr


@pytest.mark.timeout(600)
def test_a_setting_that_systemd_does_not_know_would_be_seen(systemd: Systemd) -> None:
    unit = systemd.folder / "oomslice-wrong.service"
    unit.write_text((systemd.folder / "oomsliced.service").read_text().replace("WatchdogSec=", "WatchdogSecs="))
    result = systemd.analyze("verify", "--man=no", "--recursive-errors=no", f"{systemd.inside}/{unit.name}")
    unit.unlink()
    assert "WatchdogSecs" in result.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("unit", sorted(EXPOSURE))
def test_service_is_closed_as_far_as_its_work_allows(systemd: Systemd, unit: str) -> None:
    result = systemd.analyze("security", "--offline=yes", "--no-pager", f"{systemd.inside}/{unit}")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
    assert found, result.stdout + result.stderr
    assert float(found[1]) <= EXPOSURE[unit], result.stdout


def directives(unit: str) -> dict[str, list[str]]:
    """Assignments of a unit file, without their sections."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("unit", OURS)
def test_manual_pages_that_a_unit_names_exist(unit: str) -> None:
    pages = {path.name.removesuffix(".scd") for path in (TOP / "docs").glob("*.scd")}
    named = re.findall(r"man:(\S+)\((\d)\)", " ".join(directives(unit)["Documentation"]))
    assert named
    assert not {f"{name}.{section}" for name, section in named} - pages


def test_every_unit_is_installed() -> None:
    build = (TOP / "meson.build").read_text(encoding="utf-8")
    assert not [path.name for path in sorted(UNITS.iterdir()) if f"'units/{path.name}'" not in build]


def test_socket_bus_policy_and_service_agree_on_the_user() -> None:
    *user, exporter = re.findall(r"^u (\S+)", (UNITS / "oomslice.sysusers").read_text(encoding="utf-8"), re.MULTILINE)
    assert directives("oomslice-metrics.service")["User"] == [exporter]
    assert directives("oomsliced.service")["User"] == user
    assert directives("oomsliced.service")["Group"] == user
    assert directives("oomslice-core.socket")["SocketGroup"] == user
    assert directives("oomslice-actions.socket")["SocketGroup"] == user
    assert directives("oomslice-scores.socket")["SocketGroup"] == user
    assert directives("oomslice-bpf.service")["Group"] == user
    assert f'user="{user[0]}"' in (UNITS / "org.oomslice1.conf").read_text(encoding="utf-8")


def test_bus_activation_starts_our_service() -> None:
    activation = configparser.ConfigParser(interpolation=None)
    activation.read(UNITS / "org.oomslice1.service")
    service = directives("oomsliced.service")
    assert activation["D-BUS Service"]["Name"] == service["BusName"][0]
    assert activation["D-BUS Service"]["SystemdService"] == service["Alias"][0]


def test_nothing_of_ours_is_ever_throttled() -> None:
    for unit in OURS:
        if directives(unit).get("OOMScoreAdjust") == ["500"]:
            continue  # what only looks on, and goes first
        assert not {"MemoryHigh", "MemoryMax", "MemorySwapMax", "CPUQuota"} & directives(unit).keys()


def test_the_core_writes_cgroup_kill_through_directories_that_the_daemon_opened() -> None:
    # A read-only mount of cgroupfs in either of the two would make every kill fail with EROFS.
    for unit in ("oomslice-core.service", "oomsliced.service"):
        assert "ProtectControlGroups" not in directives(unit)
    # And this one writes memory.oom.group.
    assert "ProtectControlGroups" not in directives("oomslice-scores.service")


def test_system_call_filter_of_the_core_names_what_no_group_has() -> None:
    allowed = " ".join(directives("oomslice-core.service")["SystemCallFilter"]).split()
    assert {"process_mrelease", "open_by_handle_at"} <= set(allowed)


def test_version_is_the_same_everywhere() -> None:
    build = re.search(r"version: '([^']+)'", (TOP / "meson.build").read_text(encoding="utf-8"))
    package = re.match(r"oomslice \(([^)]+)\)", (TOP / "packaging/debian/changelog").read_text(encoding="utf-8"))
    assert build and package
    assert build[1] == package[1] == oomslice.__version__
