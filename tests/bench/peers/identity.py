# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a run depends on, and nothing else: what measurements of several days must share to be put side by side.

That is the kernel, the version of the candidate's package (of oomslice, what is in it), the programs that storm, are
spared and witness, and the settings. Not the rest of the image and not the other programs of the tests, which change
with every new scenario and have no say in a run.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.vm.machine import PROCESSOR

from . import trace
from .candidates import DATABASE, Candidate, files_of
from .stage import AFTER
from .storms import DATABASE_MB, HOT_MB, MEMORY_MB, SWAP_MB, Storm

PROGRAMS = ("storm.c", "database.c", "witness.c", "rounds.h")
CLOCK = "by instructions"
"""What goes by the real one (Machine without `steady`) has the emulator's own times in it."""
WITHOUT_SAY = ("./usr/share/doc/", "./usr/share/man/", "./usr/share/bash-completion/", "./usr/share/zsh/")
"""What a package may change without being another oomslice."""


def release(kernel: Path) -> str:
    """What `uname -r` says once this image of a kernel is booted."""
    # The boot protocol of x86: at 0x20e stands where, after the first sector, the version is written.
    image = kernel.read_bytes()[: 1 << 17]
    if image[0x202:0x206] != b"HdrS":
        raise ValueError(f"{kernel} is no kernel image of x86")
    start = int.from_bytes(image[0x20E:0x210], "little") + 0x200
    return image[start : image.index(b"\0", start)].decode().split()[0]


def content(package: Path) -> str:
    """Digest of what a Debian package installs, whenever it was built."""
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
    parts = []
    with tarfile.open(fileobj=io.BytesIO(data)) as files:
        for member in files:
            if not member.name.startswith(WITHOUT_SAY):
                file = files.extractfile(member) if member.isfile() else None
                inside = hashlib.sha256(file.read()).hexdigest() if file else ""
                parts.append([member.name, member.mode, member.linkname, inside])
    return trace.digest(sorted(parts))


def programs(directory: Path) -> str:
    """Digest of the sources of the programs that have a part in a run."""
    return trace.digest([(directory / name).read_text() for name in PROGRAMS])


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is the same for all runs of one call."""

    kernel: str
    """As `uname -r` has it."""
    programs: str
    versions: Mapping[str, str]
    """Debian's, of the packages of the candidates."""

    def version(self, candidate: Candidate) -> str:
        """Of the candidate, as the tables show it. "" if it is not there to be measured."""
        return self.kernel if candidate.package == "linux-image" else self.versions.get(candidate.package, "")

    def key(self, candidate: Candidate, storm: Storm, swap: str) -> str:
        """The key of all runs of one cell."""
        said = asdict(storm)
        del said["what"]
        return trace.digest(
            self.kernel,
            self.version(candidate),
            self.programs,
            (MEMORY_MB, DATABASE_MB, HOT_MB, SWAP_MB, AFTER, CLOCK, PROCESSOR),
            said,
            files_of(candidate, swap=swap != "none"),
            candidate.command + candidate.between,
            (DATABASE, dict(candidate.hog)),
        )
