# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package that the machines install: of this tree, or one that was given."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .image import REPOSITORY

NOT_PACKAGED = ("tests/", "tools/", ".ci/", ".cache/", "Makefile")


def package() -> Path:
    """The Debian package of this tree: OOMSLICE_DEB if that is set, else dist/, built anew if a source is newer."""
    if given := os.environ.get("OOMSLICE_DEB"):
        return Path(given)
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    sources = [REPOSITORY / name for name in listing if not name.startswith(NOT_PACKAGED)]
    newest = max(source.stat().st_mtime for source in sources if source.exists())
    built = sorted((REPOSITORY / "dist").glob("oomslice_*.deb"), key=lambda path: path.stat().st_mtime)
    if built and built[-1].stat().st_mtime > newest:
        return built[-1]
    subprocess.run([REPOSITORY / "tools" / "build-deb"], cwd=REPOSITORY, check=True)
    return max((REPOSITORY / "dist").glob("oomslice_*.deb"), key=lambda path: path.stat().st_mtime)
