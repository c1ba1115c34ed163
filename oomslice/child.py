# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes of our own modules: from where they import those, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import site
from pathlib import Path

import oomslice


def source_folder() -> str | None:
    """What has to be in PYTHONPATH of a process that imports oomslice from a source tree.

    None if it is installed: that would put the distribution's modules before Python's own.
    """
    root = os.fspath(Path(oomslice.__file__).resolve().parent.parent)
    return None if root in site.getsitepackages() else root


async def end(process: asyncio.subprocess.Process) -> None:
    """Ends it, whatever it does, and waits for that."""
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.wait()
