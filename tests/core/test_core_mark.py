# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd reads of a kill: counted up whatever was there, and never in the way of the kill."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice._core import lib
from tests.core.rig import Core, Scene, scenes, wait_until


@pytest.fixture
def scene(core: Core, mount: Path) -> Iterator[Scene]:
    yield from scenes(core, mount)


def attributes(unit: Path) -> dict[str, bytes]:
    return {name: os.getxattr(unit, name) for name in os.listxattr(unit) if name.startswith("user.oomd_")}


def test_a_kill_is_counted_before_and_its_processes_after(scene: Scene) -> None:
    unit = scene.add("a.service", processes=3)
    os.setxattr(unit, "user.oomd_kill", b"40")
    records = scene.hand_over(mark_kills=1)
    scene.shortage()
    record = records.wait()
    assert (record.outcome, record.flags) == (lib.OOMSLICE_OUTCOME_FREED, 0)
    wait_until(lambda: attributes(unit).get("user.oomd_kill") == b"43")
    assert attributes(unit)["user.oomd_ooms"] == b"1"


def test_nothing_is_written_where_it_is_switched_off(scene: Scene) -> None:
    unit = scene.add("a.service", processes=2)
    records = scene.hand_over()
    scene.shortage()
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_FREED
    assert scene.alive(unit) == 0 and attributes(unit) == {}


def test_one_process_of_several_is_not_the_end_of_the_unit_but_the_last_one_is(scene: Scene) -> None:
    unit = scene.add("a.service", processes=4)
    scene.units[-1].kill_scope = lib.OOMSLICE_SCOPE_PROCESS
    for pid in scene.tree.pids(unit):
        (scene.core.meminfo.parent / str(pid)).symlink_to(f"/proc/{pid}")
    records = scene.hand_over(mark_kills=1)
    scene.shortage()
    while scene.alive(unit):
        records.wait()
        scene.core.poke()
    wait_until(lambda: attributes(unit) == {"user.oomd_ooms": b"1", "user.oomd_kill": b"1"})


def test_an_attribute_that_cannot_be_counted_is_left_alone_and_noted(scene: Scene) -> None:
    unit = scene.add("a.service", processes=1)
    os.setxattr(unit, "user.oomd_ooms", b"what is this")
    records = scene.hand_over(mark_kills=1)
    scene.shortage()
    record = records.wait()
    assert (record.outcome, record.flags) == (lib.OOMSLICE_OUTCOME_FREED, lib.OOMSLICE_RECORD_UNMARKED)
    assert attributes(unit) == {"user.oomd_ooms": b"what is this"} and scene.alive(unit) == 0
