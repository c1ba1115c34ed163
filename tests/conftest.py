# SPDX-License-Identifier: LGPL-2.1-or-later
"""For all tests: each gets the marker of its folder, and a tree that was not built says how to build it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import settings

# An example that takes long says something of the machine, which may be busy, not of the code.
settings.register_profile("oomslice", deadline=None)
settings.load_profile("oomslice")

TESTS = Path(__file__).parent
MARKED = ("bus", "core", "vm")


def pytest_configure() -> None:
    if importlib.util.find_spec("oomslice._core") is None:
        raise pytest.UsageError("oomslice._core is not built: run `make build`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED:
            item.add_marker(folder)
