# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the reader sees before a decision is complete: which domains are short, and the steps that are over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice._core import lib
from oomslice.decisions.ring import Ring
from tests.core.plans import Domain
from tests.core.rig import Core, Scene, scenes, wait_until
from tests.core.test_core_pressure import SOME_STALL, Stallers, stallers

__all__ = ["stallers"]


@pytest.fixture
def scene(core: Core, mount: Path) -> Iterator[Scene]:
    yield from scenes(core, mount)


def ring_of(scene: Scene) -> Ring:
    with scene.core.client() as client:
        hello = client.hello()
        ring = Ring(hello.fds[0])
        for fd in hello.fds:
            os.close(fd)
    return ring


def test_a_domain_is_pressed_while_it_is_short_and_a_little_longer(scene: Scene) -> None:
    root = os.stat(scene.tree.root).st_ino
    scene.hand_over()
    with ring_of(scene) as ring:
        assert ring.pressed == frozenset()
        scene.shortage()
        wait_until(lambda: ring.pressed == {root})
        scene.core.set_memory(8192)
        wait_until(lambda: ring.pressed == frozenset(), 20)


def test_the_death_of_the_core_ends_it(scene: Scene) -> None:
    scene.hand_over()
    scene.shortage()
    with ring_of(scene) as ring:
        wait_until(lambda: bool(ring.pressed))
        scene.core.set_memory(8192)
        scene.core.stop(9)
        assert ring.pressed
        scene.core.start()
        wait_until(lambda: ring.pressed == frozenset())


def test_steps_are_seen_when_they_are_over(scene: Scene, stallers: Stallers) -> None:
    (scene.core.meminfo.parent / "pressure").symlink_to("/proc/pressure")
    busy = scene.add_slice("busy.slice")
    freeze, kill = (lib.OOMSLICE_STEP_FREEZE, 0, 0, ""), (lib.OOMSLICE_STEP_KILL, 0, 60_000_000, "")
    scene.add("busy.slice/a.service", -5, parent=busy, processes=1, ladder=(freeze, kill))
    unit = scene.add("busy.slice/b.service", parent=busy)
    scene.hand_over(domains=[Domain(0), Domain(1, trigger=SOME_STALL)])
    with ring_of(scene) as ring:
        stallers.start(unit)
        wait_until(lambda: any(begun.steps for begun in ring.begun()), 30)
        (begun,) = ring.begun()
        assert (begun.victim, begun.steps) == ("a.service", [("freeze", "done")])
        assert begun.id.startswith(f"{ring.id:016x}-")
        assert ring.pressed == {os.stat(scene.paths[busy]).st_ino}
