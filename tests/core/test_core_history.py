# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the core notes of a shortage for whoever asks afterwards: while it lasts, and nothing at rest."""

from __future__ import annotations

import os
import time

from oomslice.decisions.history import History
from oomslice.decisions.ring import Ring
from tests.core.rig import MEBIBYTE, Scene, wait_until


def history(scene: Scene) -> History:
    with scene.core.client() as client:
        fds = client.hello().fds
        with Ring(fds[0]) as ring:
            found = ring.history(0, {unit.cgroup_id: unit.name for unit in scene.units})
        for fd in fds:
            os.close(fd)
    return found


def test_a_shortage_has_its_figures_from_the_first_sign_to_the_end(scene: Scene) -> None:
    scene.add("a.service", processes=1)
    records = scene.hand_over()
    assert history(scene) == History(), "nothing is noted at rest"
    before = time.monotonic_ns() // 1000
    scene.core.set_memory(900, swap_total=512, swap_free=5)
    scene.core.poke()
    scene.core.set_memory(50, swap_total=512, swap_free=5)
    record = records.wait()
    scene.core.set_memory(8192, swap_total=512, swap_free=5)
    scene.core.poke()
    found = history(scene).samples
    assert [sample.memory_available // MEBIBYTE for sample in (found[0], found[-1])] == [900, 8192]
    assert 50 * MEBIBYTE in {sample.memory_available for sample in found}
    assert {sample.swap_free for sample in found} == {5 * MEBIBYTE}
    times = [sample.usec for sample in found]
    assert times == sorted(times) and before < times[0] <= record.trigger_us <= times[-1]
    # And rest again.
    scene.core.poke()
    assert len(history(scene).samples) == len(found)


def test_a_shortage_that_lasts_takes_ten_samples_a_second_at_the_most(scene: Scene) -> None:
    scene.hand_over(available_min=100 * MEBIBYTE)
    scene.core.set_memory(130)
    scene.core.poke()
    begin = time.monotonic()
    wakeups = scene.core.poke().wakeups
    wait_until(lambda: scene.core.poke().wakeups > wakeups + 100)
    elapsed = time.monotonic() - begin
    assert 2 <= len(history(scene).samples) <= elapsed * 10 + 3


def test_the_history_outlives_the_core(scene: Scene) -> None:
    scene.hand_over()
    scene.core.set_memory(900)
    scene.core.poke()
    found = history(scene)
    assert len(found.samples) >= 1
    scene.core.manager.read()
    scene.core.stop(9)
    scene.core.start()
    assert history(scene).samples[: len(found.samples)] == found.samples
