# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bus and a backend for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bus.rig import FixedBackend, PrivateBus


@pytest.fixture
def bus_directory() -> Iterator[Path]:
    # Not below pytest's directory: other users must reach the socket, and its path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="bus-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def bus(bus_directory: Path) -> Iterator[PrivateBus]:
    for program in ("dbus-daemon", "busctl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    private = PrivateBus(bus_directory)
    yield private
    private.stop()


@pytest.fixture
def backend() -> FixedBackend:
    return FixedBackend()
