# SPDX-License-Identifier: LGPL-2.1-or-later
"""Prometheus' own judgement of metrics and rules: promtool, as `make setup` has fetched it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


def promtool(*arguments: str, text: str = "") -> str:
    """Fails with what it says; skips where it is not."""
    fetched = TOP / ".cache/promtool/usr/bin/promtool"
    program = str(fetched) if fetched.exists() else shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: run `make setup`, or apt install prometheus")
    ended = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr + ended.stdout
    return ended.stdout
