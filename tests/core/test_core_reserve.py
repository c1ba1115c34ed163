# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reserve: taken while memory is plentiful, given back at a decision, taken again when all is calm."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oomslice._core import lib
from tests.core.plans import MEBIBYTE
from tests.core.rig import Core, Scene, name, scenes, wait_until

SIZE = 8 * MEBIBYTE


@pytest.fixture
def scene(programs: Callable[[str], Path], mount: Path, tmp_path: Path) -> Iterator[Scene]:
    """A running core built as it is shipped: the sanitizers' own memory would be in the way of the figures."""
    yield from scenes(Core(programs("static"), tmp_path, mount), mount)


def resident(scene: Scene) -> int:
    """Bytes of RAM that the core really has."""
    # VmRSS in status may be off by what each processor has not added to it yet.
    rollup = Path(f"/proc/{scene.core.pid}/smaps_rollup").read_text(encoding="ascii")
    return int(re.findall(r"^Rss:\s+(\d+)", rollup, re.M)[0]) * 1024


def held(scene: Scene) -> int:
    return int(scene.core.poke().reserve_bytes)


def is_all_there(scene: Scene, size: int) -> bool:
    """Whether the reserve is counted and its last pages, which are counted before they are touched, are there too."""
    if held(scene) != size:
        return False
    sizes = set()
    for _ in range(5):
        sizes.add(resident(scene))
        time.sleep(0.05)
    return len(sizes) == 1


def hand_over_and_wait(scene: Scene, size: int) -> None:
    scene.hand_over(reserve=size)
    wait_until(lambda: is_all_there(scene, size))


def test_reserve_is_taken_locked_and_counted_apart(scene: Scene) -> None:
    hand_over_and_wait(scene, 0)  # the tables are cut to the plan's size by then
    before, small = scene.core.poke().locked_bytes, resident(scene)
    hand_over_and_wait(scene, SIZE)
    assert resident(scene) - small >= SIZE
    locked = int(re.findall(r"VmLck:\s+(\d+)", Path(f"/proc/{scene.core.pid}/status").read_text(encoding="ascii"))[0])
    assert locked * 1024 >= SIZE + before
    assert scene.core.poke().locked_bytes <= 1.75 * MEBIBYTE


def test_decision_gives_all_of_it_back_and_calm_brings_it_again(scene: Scene) -> None:
    scene.add("a.service", processes=2)
    scene.add("b.service", 0, lib.OOMSLICE_UNIT_PROTECTED)
    hand_over_and_wait(scene, SIZE)
    full = resident(scene)
    records = scene.hand_over(reserve=SIZE)
    scene.shortage()
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_FREED
    assert held(scene) == 0
    assert full - resident(scene) >= SIZE - MEBIBYTE // 4
    time.sleep(6)
    assert held(scene) == 0, "memory is still short"
    scene.core.set_memory(8192)
    wait_until(lambda: held(scene) == SIZE, 20)
    assert full - resident(scene) <= MEBIBYTE // 4


def test_first_piece_goes_before_a_victim_is_looked_for(scene: Scene) -> None:
    scene.add("a.service", 0, lib.OOMSLICE_UNIT_PROTECTED, processes=1)
    hand_over_and_wait(scene, SIZE)
    scene.shortage()
    assert 0 < held(scene) < SIZE
    before = held(scene)
    time.sleep(0.5)
    assert held(scene) == before, "once in a shortage"


def test_reserve_is_not_taken_with_less_left_than_the_watch_begins_with(scene: Scene) -> None:
    scene.core.set_memory(1200)  # watched below 1024, so it is calm; but the reserve would bring it there
    scene.hand_over(reserve=200 * MEBIBYTE)
    time.sleep(0.5)
    assert held(scene) == 0
    scene.core.set_memory(8192)
    wait_until(lambda: held(scene) == 200 * MEBIBYTE)


def test_new_plan_changes_its_size(scene: Scene) -> None:
    hand_over_and_wait(scene, SIZE)
    full = resident(scene)
    hand_over_and_wait(scene, 2 * MEBIBYTE)
    wait_until(lambda: full - resident(scene) >= 5 * MEBIBYTE)
    hand_over_and_wait(scene, 3 * MEBIBYTE + 4096)
    hand_over_and_wait(scene, 0)
    wait_until(lambda: full - resident(scene) >= SIZE - MEBIBYTE // 4)
    assert scene.core.poke().locked_bytes <= 1.75 * MEBIBYTE


def test_more_than_a_quarter_of_the_machine_is_none(scene: Scene) -> None:
    hand_over_and_wait(scene, SIZE)
    scene.hand_over(reserve=(4096 + 1) * MEBIBYTE)  # this machine's meminfo says 16 GiB
    wait_until(lambda: held(scene) == 0)
    time.sleep(0.3)
    assert held(scene) == 0


def test_kill_without_a_reserve_is_a_kill(scene: Scene) -> None:
    scene.add("a.service", processes=1)
    records = scene.hand_over(reserve=0)
    scene.shortage()
    assert name(records.wait().victim_name) == "a.service"
    assert held(scene) == 0
