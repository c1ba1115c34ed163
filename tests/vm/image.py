# SPDX-License-Identifier: LGPL-2.1-or-later
"""The disk image of the test machine: Debian trixie with systemd as PID 1 and two stock kernels.

Owns: how the image is made and where it is kept. The image holds what oomslice depends on, never oomslice itself: the
package is installed by apt inside the running machine (see machine.py). Needs root (mmdebstrap, chroot); only the
standard library is imported, because `make demo` runs this with the system's Python.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
CACHE = REPOSITORY / ".cache" / "vm"
GUEST = HERE / "guest"

PACKAGES = (
    # the machine
    "systemd", "systemd-sysv", "systemd-oomd", "libpam-systemd", "dbus", "dbus-user-session", "udev", "kmod", "procps",
    "iproute2", "openssh-server", "strace", "zstd", "linux-image-cloud-amd64",
    # what the package of oomslice depends on
    "python3", "python3-pystemd", "python3-dbus-next", "python3-yaml", "python3-cffi-backend", "libbpf1",
    # what its steps can use, and who may act besides root
    "criu", "polkitd",
    # what the tests look with
    "bpftool",
)  # fmt: skip
"""Installed from trixie. The newest kernel comes from trixie-backports on top."""

MASKED = (
    "serial-getty@ttyS0.service",  # would hang up the console under the log
    "getty@tty1.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "e2scrub_all.timer",
    "systemd-tmpfiles-clean.timer",
    "systemd-networkd-wait-online.service",
)
INITRD_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4", "crc32c")
IMAGE_SIZE = 2500 << 20

Progress = Callable[[str], None]


class ImageError(RuntimeError):
    """The image could not be made. The text says what to do."""


@dataclass(frozen=True)
class Image:
    """A finished image: the root file system and, by short version ("6.12"), kernel and initrd."""

    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root.img"

    @property
    def kernels(self) -> tuple[str, ...]:
        """Short versions, oldest first."""
        versions = [path.name.removeprefix("vmlinuz-") for path in self.directory.glob("vmlinuz-*")]
        return tuple(sorted(versions, key=lambda version: [int(part) for part in version.split(".")]))

    def kernel(self, version: str) -> tuple[Path, Path]:
        """Kernel and initrd of a short version."""
        return self.directory / f"vmlinuz-{version}", self.directory / f"initrd-{version}"


def quiet(message: str) -> None:
    """A Progress that says nothing."""


def image(progress: Progress = quiet) -> Image:
    """The image, made now unless the cache has it."""
    directory = CACHE / f"image-{_key()}"
    if not (directory / "complete").exists():
        _build(directory, progress)
    return Image(directory)


def _key() -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(GUEST.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def debian_sources(*suites: str) -> list[str]:
    """Lines of sources.list for the suites, at the Debian mirror that this machine's apt uses."""
    return _output([REPOSITORY / "tools" / "debian-mirror", *suites]).splitlines()


def _build(directory: Path, progress: Progress) -> None:
    if os.geteuid() != 0:
        raise ImageError("making the test machine's image needs root (mmdebstrap and chroot)")
    for tool, package in (("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")):
        if shutil.which(tool) is None:
            raise ImageError(f"{tool} is missing: apt-get install {package}")
    shutil.rmtree(directory, ignore_errors=True)
    work = directory / "root"
    directory.mkdir(parents=True)
    progress("making a Debian trixie root with systemd and kernel 6.12 (about a minute)")
    log = directory / "build.log"
    with log.open("w") as output:
        _run(
            [
                "mmdebstrap", "--variant=minbase", "--include=" + ",".join(PACKAGES),
                '--dpkgopt=path-exclude=/usr/share/man/*', "--dpkgopt=path-exclude=/usr/share/locale/*",
                "--dpkgopt=path-exclude=/usr/share/doc/*",
                # A small initrd: unpacking the usual one takes most of the boot under emulation.
                '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"',
                f'--essential-hook=copy-in {GUEST / "initramfs.conf"} /etc/initramfs-tools/conf.d',
                f'--essential-hook=copy-in {GUEST / "initramfs-modules"} /etc/initramfs-tools/hooks',
                f"--customize-hook=copy-in {GUEST / 'customize'} /",
                '--customize-hook=chroot "$1" /customize ' + " ".join(MASKED),
                '--customize-hook=rm -rf "$1/customize" "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin',
                "trixie", os.fspath(work),
                *debian_sources("trixie", "trixie-backports"),
            ],
            output,
            log,
        )  # fmt: skip
        for kernel in sorted((work / "boot").glob("vmlinuz-*")):
            version = kernel.name.removeprefix("vmlinuz-")
            short = ".".join(version.split(".")[:2])
            shutil.copy(kernel, directory / f"vmlinuz-{short}")
            shutil.copy(work / "boot" / f"initrd.img-{version}", directory / f"initrd-{short}")
        progress("writing the disk image")
        partial = directory / "root.img"
        with partial.open("wb") as file:
            file.truncate(IMAGE_SIZE)
        _run(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-O", "^has_journal", "-d", work, partial], output, log)
    shutil.rmtree(work)
    (directory / "complete").touch()
    _forget_old(directory)


def _forget_old(keep: Path) -> None:
    for path in CACHE.glob("image-*"):
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)


def _run(command: Iterable[str | os.PathLike[str]], output: object, log: Path) -> None:
    arguments = [os.fspath(part) for part in command]
    result = subprocess.run(arguments, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False)  # type: ignore[call-overload]
    if result.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ImageError(f"{arguments[0]} failed with status {result.returncode}; the end of {log}:\n{tail}")


def _output(command: Iterable[str | os.PathLike[str]]) -> str:
    return subprocess.run([os.fspath(part) for part in command], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    print(image(lambda message: print(message, file=sys.stderr)).directory)
