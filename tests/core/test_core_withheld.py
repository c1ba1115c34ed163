# SPDX-License-Identifier: LGPL-2.1-or-later
"""MemAvailable counts what the raised watermarks of the kernel keep from everybody. The core takes it off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice._core import lib
from tests.core.bpf_maps import Pulse
from tests.core.rig import Core, Scene, name, scenes, wait_until
from tests.core.test_core_pulse import tell

ZONE = """\
Node 0, zone    DMA32
  pages free     {free}
        boost    {boost}
        min      {min}
        low      {low}
        high     {high}
        spanned  258016
        protection: (0, 0, 0, 0, 0)
  pagesets
    cpu: 0
              count:    7
              high:     {high}
"""
MEBIBYTE = 256
"""Pages."""


def set_zones(core: Core, boost: int) -> None:
    """What zoneinfo says, in one write; `boost` in MiB."""
    pages = boost * MEBIBYTE
    marks = {"min": 11000 + pages, "low": 13800 + pages, "high": 16600 + pages}
    text = ZONE.format(free=f"{150 * MEBIBYTE:6}", boost=f"{pages:6}", **{key: f"{it:6}" for key, it in marks.items()})
    path = core.meminfo.parent / "zoneinfo"
    with path.open("r+" if path.exists() else "w") as file:
        file.write(text)


@pytest.fixture
def scene(core: Core, mount: Path) -> Iterator[Scene]:
    """As the usual one, on a machine with watermarks."""
    set_zones(core, 0)
    yield from scenes(core, mount)


def test_who_counts_on_memory_below_the_raised_watermarks_is_too_late(scene: Scene) -> None:
    scene.add("low.service", -100, processes=1)
    records = scene.hand_over()
    time.sleep(0.2)  # the turn that took the plan looks at memory after it has answered
    scene.core.set_memory(150)  # the limit is 100
    scene.core.poke()
    time.sleep(0.2)
    assert records.next() is None

    set_zones(scene.core, 65)
    scene.core.poke()
    record = records.wait()
    assert name(record.victim_name) == "low.service"
    assert record.trigger == lib.OOMSLICE_TRIGGER_AVAILABLE
    assert record.mem_available == 85 << 20


def test_programs_that_do_not_know_of_it_are_told_higher_limits(scene: Scene) -> None:
    scene.add("low.service", -100, processes=1)
    scene.hand_over()
    with Pulse() as pulse:
        assert tell(scene.core, *pulse.maps) == 0
        assert pulse.value.available_min == 100 << 20
        set_zones(scene.core, 65)
        scene.core.set_memory(900)  # from here on the zones are looked at
        scene.core.poke()
        wait_until(lambda: pulse.value.available_min == 165 << 20)
        assert pulse.value.available_watch == (1024 + 65) << 20


def test_a_machine_that_never_raises_them_is_not_asked(scene: Scene) -> None:
    factor = scene.core.meminfo.parent / "sys" / "vm" / "watermark_boost_factor"
    factor.parent.mkdir(parents=True)
    factor.write_text("0\n", encoding="ascii")
    scene.core.stop()
    scene.core.start()
    low = scene.add("low.service", -100, processes=1)
    records = scene.hand_over()
    set_zones(scene.core, 65)
    scene.core.set_memory(150)
    scene.core.poke()
    time.sleep(0.2)
    assert records.next() is None
    assert scene.alive(low) == 1
