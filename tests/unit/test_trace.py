# SPDX-License-Identifier: LGPL-2.1-or-later
"""Traces: what is written is what is read, also cut off, and what is wrong in one is said with file and line."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from oomslice.cgroups.tree import CgroupTree
from oomslice.units.model import Unit, UnitSnapshot
from oomslice.whatif.present import read_figures, read_stall, read_state
from oomslice.whatif.state import Frame, Stall
from oomslice.whatif.trace import Header, TraceError, Writer, open_for_writing, read
from tests.unit.whatif import figures, state, with_stall

FIXTURES = Path(__file__).parents[1] / "fixtures/cgroups"
HEADER = Header("0.1.0", "6.12", 1_763_719_200_000_000, 1_000_000)


def write(path: Path, frames: list[Frame]) -> Path:
    with open_for_writing(str(path)) as stream:
        writer = Writer(stream, HEADER)
        for frame in frames:
            writer.add(frame)
    return path


def some_frames() -> list[Frame]:
    first = state(batch_slice="Priority=-200")
    second = state()
    return [
        Frame(first, figures(0)),
        with_stall(Frame(first, figures(1)), some=5, full=3),
        with_stall(Frame(second, figures(2)), some=7, unit="batch.slice"),
    ]


@pytest.mark.parametrize("name", ["trace.jsonl", "trace.jsonl.gz"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, some_frames())
    header, frames = read(str(path))
    assert header == HEADER
    assert list(frames) == some_frames()
    assert path.stat().st_mode & 0o077 == 0
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")


def test_a_state_is_written_only_when_it_is_another_one(tmp_path: Path) -> None:
    path = write(tmp_path / "t", some_frames())
    kinds = [next(iter(json.loads(line))) for line in path.read_text().splitlines()]
    assert kinds == ["oomslice_trace", "state", "figures", "figures", "state", "figures"]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_trace_that_was_cut_off_is_good_up_to_there(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, some_frames())
    path.write_bytes(path.read_bytes()[: -12 if name == "t.jsonl" else -60])
    assert 1 <= len(list(read(str(path))[1])) < 3


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["{}"], "1: this is no trace"),
        ([], "this is no trace"),
        (["[]"], "1: not a JSON object"),
        (["nonsense"], "1: not JSON"),
        (['{"oomslice_trace": 2}'], "1: this is no trace"),
        (['{"oomslice_trace": 1}', '{"figures": {}}'], "2: not as a trace is written: figures come before"),
        (['{"oomslice_trace": 1}', '{"state": {}}'], "2: not as a trace is written"),
        (['{"oomslice_trace": 1}', '{"state": []}'], "2: not as a trace is written"),
    ],
)
def test_what_is_wrong_has_file_and_line(tmp_path: Path, lines: list[str], says: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(TraceError, match=f"t.jsonl:.*{says}"):
        list(read(str(path))[1])


def test_a_file_that_is_not_there_or_not_packed_is_said(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read(str(tmp_path / "nosuch"))
    (tmp_path / "x.gz").write_text("not packed\n")
    with pytest.raises(TraceError, match=r"x.gz:1: Not a gzipped file"):
        read(str(tmp_path / "x.gz"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.data())
def test_no_trace_whatever_raises_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    path = write(tmp_path / "t", some_frames())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    line = data.draw(st.sampled_from(lines[1:]))
    (inside,) = line.values()
    inside[data.draw(st.sampled_from(sorted(inside)))] = data.draw(json_values)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        for frame in read(str(path))[1]:
            assert isinstance(frame, Frame)
    except TraceError as error:
        assert "t:" in str(error)


def test_a_machine_becomes_a_frame(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "desktop", tmp_path / "sys/fs/cgroup")
    tree = CgroupTree(tmp_path / "sys/fs/cgroup", FIXTURES / "desktop.proc", listxattr=lambda path: [])
    conf = tmp_path / "etc/a.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("[Service]\nEnvironment=SECRET=1\n[X-OOMSlice]\nPriority=7\n")
    services = sorted(path.name for path in (tmp_path / "sys/fs/cgroup/system.slice").glob("*.service"))
    units: list[Any] = [
        Unit("-.slice", "/"),
        Unit("system.slice", "/system.slice"),
        Unit("gone.service", "/gone.service"),
    ]
    units += [Unit(name, f"/system.slice/{name}", drop_in_paths=("/etc/a.conf",)) for name in services[:2]]
    seen = read_state(UnitSnapshot(tuple(units)), tree, tmp_path)
    assert [cgroup.path for cgroup in seen.cgroups][:2] == ["/", "/system.slice"]
    assert "/gone.service" not in [cgroup.path for cgroup in seen.cgroups]
    assert seen.unit_files[services[0]] == (("/etc/a.conf", "\n\n[X-OOMSlice]\nPriority=7\n"),)
    now = read_figures(seen.cgroups, tree, FIXTURES / "desktop.proc")
    path = write(tmp_path / "t.gz", [Frame(seen, now)])
    assert "SECRET" not in gzip.decompress(path.read_bytes()).decode()
    (frame,) = read(str(path))[1]
    assert frame == Frame(seen, now)
    policy, problems = frame.state.policy()
    assert {unit.name: unit.priority for unit in policy.units}[services[0]] == 7
    assert problems == ()


def test_totals_of_stall_are_read(tmp_path: Path) -> None:
    path = tmp_path / "memory.pressure"
    path.write_text(
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=45\n"
    )
    assert read_stall(path) == Stall(123, 45)
    assert read_stall(tmp_path / "nosuch") == Stall()
