# SPDX-License-Identifier: LGPL-2.1-or-later
"""What oomsliced does for the programs in the kernel, as far as no kernel is needed for it. tests/core has the rest."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from oomslice._core import lib
from oomslice.carriers.oom_ops import CGROUP_FD, OomOpsCarrier, with_settings
from oomslice.carriers.slices import SliceValues, value_of
from oomslice.cgroups.tree import CgroupTree
from oomslice.policy.model import Policy
from oomslice.settings.model import KillScope
from tests.unit.policies import policy, unit


def test_the_kernel_is_told_what_the_plan_says_of_a_unit() -> None:
    told = value_of(unit("a.service", 7, 0, -5, protected=True, kill_scope=KillScope.PROCESS))
    flags = lib.OOMSLICE_UNIT_CANDIDATE | lib.OOMSLICE_UNIT_PROTECTED
    assert told == (-5, flags, lib.OOMSLICE_SCOPE_PROCESS)
    assert value_of(unit("b.slice", 8, whole=True))[1:] == (lib.OOMSLICE_UNIT_CANDIDATE, lib.OOMSLICE_SCOPE_SUBTREE)
    assert value_of(unit("c.service", 9, taken_with="b.slice"))[1] == lib.OOMSLICE_UNIT_TAKEN


def test_without_programs_there_is_nothing_to_write_and_no_error(tmp_path: Path) -> None:
    values = SliceValues(CgroupTree(tmp_path), tmp_path / "bpf")
    values.follow(policy(), [0], 1)
    assert (values.error, values.units) == ("", 0)


def test_what_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shared = tmp_path / "bpf" / "shared"
    shared.mkdir(parents=True)
    (shared / "map-slices").touch()  # no map at all
    values = SliceValues(CgroupTree(tmp_path), tmp_path / "bpf")
    values.follow(policy(), [0], 1)
    values.follow(policy(), [0], 2)
    assert values.error.startswith("the plan could not be given to the BPF programs: ")
    assert [record.getMessage() for record in caplog.records] == [f"{values.error}; they do nothing until it can"]
    # Programs that are gone want nothing.
    (shared / "map-slices").unlink()
    values.follow(policy(), [0], 3)
    assert values.error == ""


class Links:
    """Where a program can be attached to, as one of the two interfaces has it."""

    def __init__(self, *, flag: int = 0, refuses: bool = False) -> None:
        self.flag = flag
        self.refuses = refuses
        self.open: dict[int, int] = {}
        """link -> cgroup"""
        self.made = 0

    def open_map(self, _: bytes) -> int:
        return os.open("/dev/null", os.O_RDONLY)

    def attach(self, map: int, cgroup: int, flags: int) -> int:
        os.fstat(map)
        if self.refuses:
            return -errno.EPERM
        if flags != self.flag:
            return -errno.EINVAL
        link = os.open("/dev/null", os.O_RDONLY)
        self.open[link] = cgroup
        self.made += 1
        return link

    def attached(self) -> set[int]:
        """Cgroups whose link is still open."""
        return {cgroup for link, cgroup in self.open.items() if is_open(link)}


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def plan(*own: str) -> Policy:
    """Two slices, of which these have a priority of their own."""
    units = [unit("a.slice", 11), unit("b.slice", 12), unit("c.service", 13, 1)]
    return policy(
        *(replace(one, priority_origin="own" if one.name in own else "inherited from -.slice") for one in units)
    )


def loaded(tmp_path: Path, links: Links) -> OomOpsCarrier:
    (tmp_path / "oom_ops").mkdir()
    (tmp_path / "oom_ops" / "map-oomslice").touch()
    (tmp_path / "report").write_text("oom_ops\tactive\t\n")
    return OomOpsCarrier(report=tmp_path / "report", pins=tmp_path, open_map=links.open_map, attach=links.attach)


def test_slices_with_settings_are_those_with_a_priority_of_their_own() -> None:
    assert with_settings(plan("a.slice", "c.service")) == [1]
    assert with_settings(plan()) == []


@pytest.mark.parametrize("flag", [0, CGROUP_FD])
def test_slices_with_settings_have_a_link_each(tmp_path: Path, flag: int) -> None:
    links = Links(flag=flag)
    carrier = loaded(tmp_path, links)
    descriptors = [100, 101, 102, 103]
    carrier.follow(plan("a.slice", "b.slice"), descriptors)
    assert links.attached() == {101, 102}
    assert carrier.state().active and "2 slices beside the root have a program" in carrier.state().detail
    carrier.follow(plan("b.slice"), descriptors)
    assert links.attached() == {102} and links.made == 2
    # Programs that are loaded anew are others.
    pin = tmp_path / "oom_ops" / "map-oomslice"
    pin.rename(tmp_path / "old")
    pin.touch()
    carrier.follow(plan("b.slice"), descriptors)
    assert links.attached() == {102} and links.made == 3
    carrier.close()
    assert links.attached() == set()


def test_a_slice_that_cannot_have_one_is_an_error_and_the_rest_works(tmp_path: Path) -> None:
    links = Links(refuses=True)
    carrier = loaded(tmp_path, links)
    carrier.follow(plan("a.slice"), [100, 101, 102, 103])
    state = carrier.state()
    assert state.active and state.acts
    assert state.last_error == f"a slice could not be given the program: {os.strerror(errno.EPERM)}"
    (tmp_path / "oom_ops" / "map-oomslice").unlink()
    (tmp_path / "report").write_text("oom_ops\tinactive\tthis kernel has none\n")
    carrier.follow(plan("a.slice"), [100, 101, 102, 103])
    assert (carrier.state().active, carrier.state().detail, carrier.state().last_error) == (
        False,
        "this kernel has none",
        "",
    )
