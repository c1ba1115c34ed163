# SPDX-License-Identifier: LGPL-2.1-or-later
"""The disks of the comparison: one with the other daemons, none of them enabled, and one with oomslice on top of it.

Both are overlays over the image of the tests, which stays as it is. The packages come from trixie, by the apt of this
machine with what the image has installed as its state; inside the machine, which has no network, apt installs them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.vm.image import CACHE, Image, Progress, debian_sources
from tests.vm.machine import Machine

PACKAGES = ("earlyoom", "nohang", "oomd")
"""systemd-oomd is in the image."""
COMPARED = (*PACKAGES, "systemd", "systemd-oomd")
"""Whose versions are kept beside the disk."""
UNITS = "earlyoom.service nohang.service nohang-desktop.service oomd.service systemd-oomd.service systemd-oomd.socket"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def peers_disk(base: Image, progress: Progress) -> Path:
    """The disk with the other daemons."""
    digest = hashlib.sha256(f"{base.directory.name} {PACKAGES} {UNITS}".encode()).hexdigest()[:16]
    disk = CACHE / f"peers-{digest}.qcow2"
    if disk.exists() and disk.with_suffix(".json").exists():
        return disk
    progress(f"fetching {', '.join(PACKAGES)} from trixie")
    packages = _fetch(base, CACHE / "peers-apt")
    progress("installing them with apt inside the running machine")
    return _overlay(base, base.root, "raw", disk, packages, f"systemctl disable --now {UNITS}")


def versions(disk: Path) -> dict[str, str]:
    """Of the packages on the disk that matter for what is measured."""
    found: dict[str, str] = json.loads(disk.with_suffix(".json").read_text())
    return found


def oomslice_disk(base: Image, below: Path, package: Path, progress: Progress) -> Path:
    """The same disk with oomslice as well."""
    digest = hashlib.sha256(below.name.encode() + package.read_bytes()).hexdigest()[:16]
    disk = CACHE / f"peers-oomslice-{digest}.qcow2"
    if disk.exists():
        return disk
    for old in CACHE.glob("peers-oomslice-*.qcow2"):
        old.unlink()
        old.with_suffix(".json").unlink(missing_ok=True)
    progress(f"installing {package.name} with apt inside the running machine")
    return _overlay(
        base, below, "qcow2", disk, [package], "systemctl is-active oomslice-core.service oomsliced.service"
    )


def _overlay(base: Image, below: Path, kind: str, disk: Path, packages: Sequence[Path], after: str) -> Path:
    partial = disk.with_name(f"partial-{disk.name}")
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", below.resolve(), partial],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with Machine(base, base.kernels[0], disk=partial, keep=True) as machine:
        for package in packages:
            machine.put(f"/root/debs/{package.name}", package.read_bytes())
        machine.check(
            "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends /root/debs/*.deb", timeout=600
        )
        machine.check(f"rm -r /root/debs; {after}", timeout=120)
        listing = machine.check("dpkg-query -W -f '${Package} ${Version}\\n'")
        machine.power_off()
    installed = dict(line.split() for line in listing.splitlines())
    wanted = {name: installed[name] for name in (*COMPARED, "oomslice") if name in installed}
    disk.with_suffix(".json").write_text(json.dumps(wanted, indent=1) + "\n")
    partial.rename(disk)
    return disk


def _fetch(base: Image, directory: Path) -> list[Path]:
    shutil.rmtree(directory, ignore_errors=True)
    for name in ("lists/partial", "archives/partial", "etc/preferences.d"):
        (directory / name).mkdir(parents=True)
    sources = [line.replace("deb ", f"deb [signed-by={KEYRING}] ", 1) for line in debian_sources("trixie")]
    (directory / "sources.list").write_text("\n".join(sources) + "\n")
    dump = f"dump /var/lib/dpkg/status {directory / 'status'}"
    subprocess.run(["/sbin/debugfs", "-R", dump, base.root], check=True, capture_output=True)
    settings: dict[str, str | Path] = {
        "Dir::State": directory,
        "Dir::State::status": directory / "status",
        "Dir::State::lists": directory / "lists",
        "Dir::Cache": directory,
        "Dir::Etc": directory / "etc",
        "Dir::Etc::sourcelist": directory / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
    }
    apt = ["apt-get", "-q", *(f"-o{key}={os.fspath(value)}" for key, value in settings.items())]
    subprocess.run([*apt, "update"], check=True, capture_output=True)
    install = [*apt, "install", "-y", "--no-install-recommends", "--download-only", *PACKAGES]
    subprocess.run(install, check=True, capture_output=True)
    return sorted((directory / "archives").glob("*.deb"))
