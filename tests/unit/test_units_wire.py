# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lines between client and worker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomslice.errors import UnitsError
from oomslice.units import wire
from oomslice.units.model import Unit, UnitSnapshot

units = st.builds(Unit, name=st.text(), control_group=st.text())


@given(st.lists(units, max_size=5), st.booleans(), st.integers(0, 2**53))
def test_snapshot_survives_the_way(listed: list[Unit], oomd: bool, number: int) -> None:
    snapshot = UnitSnapshot(tuple(listed), oomd)
    line = wire.snapshot_line(number, snapshot)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert wire.parse_answer(line) == wire.Answer(number, snapshot=snapshot)


def test_request_error_and_progress_survive_the_way() -> None:
    assert wire.parse_request(wire.request_line(3, full=True)) == (3, True)
    assert wire.parse_answer(wire.error_line(4, "no\nbus")) == wire.Answer(4, error="no\nbus")
    assert wire.parse_answer(wire.progress_line(5, 70)) == wire.Answer(5, progress=70)


@pytest.mark.parametrize("line", [b"", b"\xff", b"1\n", b"{}", b'{"id": "1", "full": true}', b'{"id": 1, "full": 1}'])
def test_what_is_no_request_is_an_error(line: bytes) -> None:
    with pytest.raises(UnitsError):
        wire.parse_request(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"id": true}',
        b'{"id": 1, "units": []}',
        b'{"id": 1, "units": [[]], "oomd_active": false}',
        b'{"id": 1, "units": 3, "oomd_active": false}',
    ],
)
def test_what_is_no_answer_is_an_error(line: bytes) -> None:
    with pytest.raises(UnitsError):
        wire.parse_answer(line)


IMPORT = re.compile(r"^[ \t]*(?:from ([\w.]+) import (\([^)]*\)|[^\n]+)|import ([\w.]+))", re.M)


def test_only_the_worker_imports_pystemd_and_nobody_imports_the_worker() -> None:
    package = Path(__file__).parents[2] / "oomslice"
    importers: dict[str, set[str]] = {"pystemd": set(), "oomslice.units.worker": set()}
    for file in package.rglob("*.py"):
        # Not by ast: in a process with other threads ast.parse() of Python 3.11 may fail (python/cpython#106905).
        for module, imported, plain in IMPORT.findall(file.read_text()):
            words = re.findall(r"[\w.]+", imported)
            names = [plain] if plain else [module, *(f"{module}.{word}" for word in words)]
            for name in names:
                for wanted, found in importers.items():
                    if name == wanted or name.startswith(f"{wanted}."):
                        found.add(file.relative_to(package).as_posix())
    assert importers == {"pystemd": {"units/worker.py"}, "oomslice.units.worker": set()}
