# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pulse: what the core tells BPF programs through the map they share, when it does, and how it comes by it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oomslice._core import lib
from tests.core.bpf_maps import RINGBUF, Pulse, make_map, map_id
from tests.core.client import message
from tests.core.rig import MEBIBYTE, Core, Scene, scenes, wait_until

NSEC_PER_SEC = 1_000_000_000


def tell(core: Core, *maps: int) -> int:
    """Tells it which maps there are; its answer's status."""
    with core.client() as client:
        client.send(message(lib.OOMSLICE_MESSAGE_PROGRAMS, count=len(maps)), maps)
        reply = client.receive().message
        assert reply.type == lib.OOMSLICE_MESSAGE_PROGRAMS_REPLY
        return int(reply.status)


def stored(core: Core) -> list[tuple[str, int]]:
    core.manager.read()
    return [(name, map_id(fd)) for name, fd in core.manager.store if name in ("pulse", "signs")]


def kept(pulse: Pulse) -> list[tuple[str, int]]:
    return [("pulse", map_id(pulse.fd)), ("signs", map_id(pulse.ring.fd))]


def has_pulse(core: Core) -> bool:
    return bool(core.poke().features & lib.OOMSLICE_FEATURE_PULSE)


@pytest.fixture
def pulse() -> Iterator[Pulse]:
    with Pulse() as made:
        yield made


def test_turn_answers_what_was_asked_before_it(scene: Scene, pulse: Pulse) -> None:
    scene.add("a.service", processes=1)
    scene.hand_over()
    assert tell(scene.core, *pulse.maps) == 0
    wait_until(lambda: pulse.beat > 0)
    asked = pulse.ask()
    scene.core.poke()
    wait_until(lambda: pulse.beat > asked)
    assert pulse.beat <= time.monotonic_ns()


def test_at_rest_nothing_is_written(scene: Scene, pulse: Pulse) -> None:
    scene.add("a.service", processes=1)
    scene.hand_over()
    assert tell(scene.core, *pulse.maps) == 0
    time.sleep(0.5)  # the end of the connection is a turn of its own
    before = bytes(pulse.map[:128])
    time.sleep(2)
    assert bytes(pulse.map[:128]) == before


def test_limits_of_the_plan_in_force_are_there(scene: Scene, pulse: Pulse) -> None:
    scene.add("a.service", processes=1)
    assert tell(scene.core, *pulse.maps) == 0
    assert pulse.value.available_min == 0 and pulse.value.available_watch == 0
    scene.hand_over(available_min=70 * MEBIBYTE, swap_free_min=30 * MEBIBYTE, available_watch=500 * MEBIBYTE)
    assert pulse.value.available_min == 70 * MEBIBYTE
    assert pulse.value.swap_free_min == 30 * MEBIBYTE
    assert pulse.value.available_watch == 500 * MEBIBYTE
    # Also of a map that comes after the plan, and of what ladders begin at.
    scene.hand_over(available_min=80 * MEBIBYTE, available_watch=90 * MEBIBYTE, available_ladder=600 * MEBIBYTE)
    with Pulse() as other:
        assert tell(scene.core, *other.maps) == 0
        assert other.value.available_min == 80 * MEBIBYTE and other.value.available_watch == 600 * MEBIBYTE
        assert pulse.value.available_watch == 600 * MEBIBYTE


def test_without_a_plan_or_figures_there_is_no_answer(scene: Scene, pulse: Pulse) -> None:
    assert tell(scene.core, *pulse.maps) == 0
    scene.core.poke()
    time.sleep(0.2)
    assert pulse.beat == 0, "it could do nothing"
    scene.hand_over()
    wait_until(lambda: pulse.beat > 0)
    scene.core.meminfo.write_text("nothing of use\n", encoding="ascii")
    scene.core.poke()
    time.sleep(0.2)
    last = pulse.beat
    scene.core.poke()
    time.sleep(0.2)
    assert pulse.beat == last, "it sees nothing"


def test_victim_has_its_time_until_it_is_dead(scene: Scene, pulse: Pulse) -> None:
    scene.add("a.service", processes=100)  # dying takes them long enough to be seen
    records = scene.hand_over(deadline_us=8_000_000)
    assert tell(scene.core, *pulse.maps) == 0
    assert pulse.busy_until == 0
    before = time.monotonic_ns()
    longest: list[int] = []
    scene.core.set_memory(50)
    with scene.core.client() as client:
        client.send(message(lib.OOMSLICE_MESSAGE_STATE))
        end = time.monotonic() + 10
        record = None
        while record is None and time.monotonic() < end:
            longest.append(pulse.busy_until)
            record = records.next()
    assert record is not None and record.outcome == lib.OOMSLICE_OUTCOME_FREED
    assert max(longest) >= before + 8 * NSEC_PER_SEC, "its whole deadline"
    assert max(longest) <= time.monotonic_ns() + 8 * NSEC_PER_SEC
    scene.core.set_memory(8192)
    scene.core.poke()
    wait_until(lambda: pulse.busy_until == 0)


def test_nobody_is_chosen_for_the_machine_while_a_programs_victim_is_dying(scene: Scene, pulse: Pulse) -> None:
    scene.add("a.service", processes=1)
    records = scene.hand_over()
    assert tell(scene.core, *pulse.maps) == 0
    pulse.value.killed_until_nsec = until = time.monotonic_ns() + NSEC_PER_SEC
    scene.core.set_memory(50)
    scene.core.poke()
    record = records.wait()
    assert record.outcome == lib.OOMSLICE_OUTCOME_FREED
    assert record.decision_us * 1000 >= until - 1000, "not before its time was over"


def test_programs_cannot_hold_the_core_up_for_ever(scene: Scene, pulse: Pulse) -> None:
    scene.add("a.service", processes=1)
    records = scene.hand_over()
    assert tell(scene.core, *pulse.maps) == 0
    pulse.value.killed_until_nsec = (1 << 64) - 1
    scene.core.set_memory(50)
    scene.core.poke()
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_FREED


def test_dry_run_keeps_programs_from_acting(core: Core, mount: Path, pulse: Pulse) -> None:
    core.options = ["--dry-run"]
    for scene in scenes(core, mount):
        assert tell(scene.core, *pulse.maps) == 0
        assert pulse.busy_until == (1 << 64) - 1, "before there is a plan"
        scene.add("a.service", processes=1)
        scene.hand_over()
        scene.core.poke()
        wait_until(lambda: pulse.beat > 0)
        assert pulse.busy_until == (1 << 64) - 1


def test_map_is_kept_for_a_successor_which_answers_at_once(scene: Scene, pulse: Pulse) -> None:
    scene.add("a.service", processes=1)
    scene.hand_over()
    assert tell(scene.core, *pulse.maps) == 0
    assert stored(scene.core) == kept(pulse)
    scene.core.stop(signal.SIGKILL)
    asked = pulse.ask()
    scene.core.start()
    wait_until(lambda: pulse.beat > asked)  # before anybody has spoken to it
    assert has_pulse(scene.core)


def test_another_map_replaces_it_and_none_ends_it(scene: Scene, pulse: Pulse) -> None:
    scene.add("a.service", processes=1)
    scene.hand_over()
    assert not has_pulse(scene.core)
    assert tell(scene.core, *pulse.maps) == 0
    with Pulse() as other:
        assert tell(scene.core, *other.maps) == 0
        scene.core.poke()
        wait_until(lambda: other.beat > 0)
        assert stored(scene.core) == kept(other)
        time.sleep(0.2)
        left = pulse.beat
        scene.core.poke()
        time.sleep(0.2)
        assert pulse.beat == left < other.beat
        assert tell(scene.core) == 0
        assert stored(scene.core) == [] and not has_pulse(scene.core)
        left = other.beat
        scene.core.poke()
        time.sleep(0.2)
        assert other.beat == left
    # Nothing of it is left: what the core has mapped are files and memory.
    maps = Path(f"/proc/{scene.core.pid}/maps").read_text("ascii")
    assert "bpf-map" not in maps


def test_what_is_no_pulse_is_refused_and_the_one_there_stays(scene: Scene, pulse: Pulse) -> None:
    scene.add("a.service", processes=1)
    scene.hand_over()
    assert tell(scene.core, *pulse.maps) == 0
    wrong: list[Callable[[], int]] = [
        lambda: os.memfd_create("no map"),
        lambda: os.open("/dev/zero", os.O_RDWR),
        lambda: Pulse(value_size=8).fd,
        lambda: Pulse(flags=0).fd,
        lambda: make_map(RINGBUF, 0, 4096),
    ]
    for make in wrong:
        fd = make()
        assert tell(scene.core, fd, pulse.ring.fd) < 0
        os.close(fd)
    assert tell(scene.core, pulse.fd) < 0, "half of them"
    asked = time.monotonic_ns()
    scene.core.poke()
    wait_until(lambda: pulse.beat > asked)
    assert stored(scene.core) == kept(pulse)


def test_without_a_ring_to_be_woken_by_there_is_no_pulse(scene: Scene, pulse: Pulse) -> None:
    scene.add("a.service", processes=1)
    scene.hand_over()
    assert tell(scene.core, pulse.fd, pulse.fd) < 0
    assert not has_pulse(scene.core) and stored(scene.core) == []
    scene.core.poke()
    time.sleep(0.2)
    assert pulse.beat == 0, "who asks would not be heard"


def test_page_is_never_faulted_in(programs: Callable[[str], Path], mount: Path, tmp_path: Path, pulse: Pulse) -> None:
    """In the build that is shipped: its faults are counted while it writes."""
    for scene in scenes(Core(programs("static"), tmp_path, mount), mount):
        scene.add("a.service", processes=1)
        scene.hand_over()
        assert tell(scene.core, *pulse.maps) == 0
        for _ in range(20):
            scene.core.poke()
        before = faults(scene.core.pid)
        beat = pulse.beat
        for _ in range(100):
            scene.core.poke()
        assert faults(scene.core.pid) == before
        assert pulse.beat > beat


def faults(pid: int) -> int:
    """Page faults of a process with its threads, minor and major."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return int(fields[7]) + int(fields[9])
