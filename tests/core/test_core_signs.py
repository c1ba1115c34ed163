# SPDX-License-Identifier: LGPL-2.1-or-later
"""Signs from BPF programs: a record in the ring is a turn, and after it the pulse says when one is of use again."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from oomslice._core import lib
from tests.core.bpf_maps import Pulse
from tests.core.rig import MEBIBYTE, Scene, wait_until
from tests.core.test_core_pulse import tell

NEVER = (1 << 64) - 1


@pytest.fixture
def programs_maps() -> Iterator[Pulse]:
    with Pulse() as made:
        yield made


@pytest.fixture
def pulse(scene: Scene, programs_maps: Pulse) -> Pulse:
    """Maps that the core has, with a plan of one unit in force and nothing going on."""
    scene.add("a.service", processes=1)
    scene.hand_over()
    assert tell(scene.core, *programs_maps.maps) == 0
    time.sleep(0.2)  # the end of the connection has woken it
    return programs_maps


def test_sign_is_a_look_at_the_memory(scene: Scene, pulse: Pulse) -> None:
    records = scene.hand_over()
    time.sleep(0.2)
    scene.core.set_memory(50)  # nobody tells the core
    time.sleep(0.2)
    assert records.next() is None
    pulse.ring.sign()
    record = records.wait()
    assert (record.trigger, record.outcome) == (lib.OOMSLICE_TRIGGER_AVAILABLE, lib.OOMSLICE_OUTCOME_FREED)
    assert pulse.ring.unread == 0


def test_sign_of_nothing_costs_one_turn_and_is_followed_by_a_pause(scene: Scene, pulse: Pulse) -> None:
    scene.core.set_memory(1500)
    before = scene.core.poke().wakeups
    asked = time.monotonic_ns()
    pulse.ring.sign()
    wait_until(lambda: pulse.quiet_until > asked)
    # Not for longer than a second, whatever is left.
    assert pulse.quiet_until <= time.monotonic_ns() + 1_000_000_000
    time.sleep(0.5)
    assert scene.core.poke().wakeups - before <= 4, "the sign, the connection, the message and the end of a question"
    first = pulse.quiet_until
    pulse.ring.sign()
    wait_until(lambda: pulse.quiet_until > first)


def test_no_sign_is_of_use_while_the_watch_runs(scene: Scene, pulse: Pulse) -> None:
    scene.core.set_memory(900)
    assert pulse.quiet_until == 0
    pulse.ring.sign()
    wait_until(lambda: pulse.quiet_until == NEVER)
    assert scene.core.poke().watching == 1
    scene.core.set_memory(4000)
    scene.core.poke()
    wait_until(lambda: pulse.quiet_until < NEVER)
    assert scene.core.poke().watching == 0


def test_sign_of_a_time_without_a_core_is_answered_by_the_next(scene: Scene, pulse: Pulse) -> None:
    scene.core.stop(signal.SIGKILL)
    scene.core.set_memory(900)
    asked = pulse.ask()
    pulse.ring.sign()
    assert pulse.ring.unread > 0
    scene.core.start()
    wait_until(lambda: pulse.beat > asked and pulse.ring.unread == 0)


def test_many_signs_at_once_are_all_taken(scene: Scene, pulse: Pulse) -> None:
    # More than the ring holds, over several rounds of it.
    for _ in range(20):
        for _ in range(20):
            pulse.ring.sign()
        wait_until(lambda: pulse.ring.unread == 0)
    assert scene.core.poke().units == 2


def test_programs_that_are_gone_wake_nobody(scene: Scene, pulse: Pulse) -> None:
    assert tell(scene.core) == 0
    time.sleep(0.2)
    before = scene.core.poke().wakeups
    pulse.ring.sign()
    time.sleep(0.5)
    assert scene.core.poke().wakeups - before <= 3, "the connection, the message and the end of a question"
    assert pulse.ring.unread > 0
    # And come back: what is in the ring of theirs is taken.
    assert tell(scene.core, *pulse.maps) == 0
    wait_until(lambda: pulse.ring.unread == 0)


def test_limit_of_the_pause_is_that_of_the_margin(scene: Scene, pulse: Pulse) -> None:
    scene.core.set_memory(16000)
    scene.hand_over(available_min=10 * MEBIBYTE)
    asked = time.monotonic_ns()
    pulse.ring.sign()
    wait_until(lambda: pulse.quiet_until > asked)
    long = pulse.quiet_until - pulse.beat
    scene.hand_over(available_min=15900 * MEBIBYTE, available_watch=15950 * MEBIBYTE)
    asked = pulse.quiet_until
    pulse.ring.sign()
    wait_until(lambda: pulse.quiet_until != asked)
    assert 0 < pulse.quiet_until - pulse.beat < long
