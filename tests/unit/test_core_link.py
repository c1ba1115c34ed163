# SPDX-License-Identifier: LGPL-2.1-or-later
"""The link to the core, without one: what it goes on asking for, and what it tells the bus of a ring."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from oomslice._core import ffi, lib
from oomslice.bus.service import BusService
from oomslice.carriers.shared import SharedMaps
from oomslice.daemon import core_link
from oomslice.daemon.backend import Status
from oomslice.daemon.core_link import CoreLink
from oomslice.decisions.ring import Ring
from oomslice.errors import RefusedError
from oomslice.plan.channel import CoreChannel, CoreState, Hello

RESERVE = 16 << 20


def state(held: int) -> CoreState:
    return CoreState(
        generation=1,
        features=(),
        units=1,
        domains=1,
        watching=False,
        wakeups=1,
        decisions=0,
        dropped=0,
        locked_bytes=1 << 20,
        reserve_bytes=held,
    )


class FakeChannel:
    """A core that holds so much when it is asked the first, the second time and so on."""

    def __init__(self, *held: int) -> None:
        self.held = list(held)
        self.asked = 0
        self.told: list[tuple[int, ...]] = []
        self.refuses = False

    async def send_programs(self, maps: Sequence[int]) -> None:
        self.told.append(tuple(maps))
        if self.refuses:
            raise RefusedError("no")

    def close(self) -> None:
        """Nothing is open."""

    async def state(self) -> CoreState:
        self.asked += 1
        return state(self.held.pop(0) if len(self.held) > 1 else self.held[0])


@pytest.mark.parametrize(
    ("held", "asked"),
    [((RESERVE,), 1), ((0, 4096, RESERVE), 3), ((0,), 4)],
    ids=["held at once", "held later", "never held"],
)
def test_state_is_asked_for_until_the_reserve_is_held(
    monkeypatch: pytest.MonkeyPatch, held: tuple[int, ...], asked: int
) -> None:
    monkeypatch.setattr(core_link, "RESERVE_LOOKS_SEC", (0.001, 0.001, 0.001))
    channel = FakeChannel(*held)

    async def refresh() -> Status:
        status = Status()
        link = CoreLink("/nowhere", status, lambda *_: None, lambda: None, cast(Any, None))
        link._channel, link._reserve = cast(CoreChannel, channel), RESERVE
        await link.refresh()
        assert link._looks is not None
        await link._looks
        return status

    status = asyncio.run(refresh())
    assert channel.asked == asked
    assert status.core is not None and status.core.reserve_bytes == held[-1]


class FakeMaps(SharedMaps):
    """What is pinned: descriptors and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    @contextmanager
    def open(self) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        yield self.pinned


def test_core_is_told_of_the_maps_of_programs_when_they_are_others() -> None:
    maps, channel = FakeMaps(), FakeChannel(RESERVE)
    link = CoreLink("/nowhere", Status(), lambda *_: None, lambda: None, cast(Any, None), maps=maps)

    async def hand_over() -> None:
        link._channel, link._reserve = cast(CoreChannel, channel), RESERVE
        await link._hand_over()

    asyncio.run(hand_over())
    assert channel.told == [()], "a core that was told nothing may have kept some"
    maps.pinned = (5,), (70,)
    asyncio.run(hand_over())
    maps.pinned = (6,), (70,)
    asyncio.run(hand_over())
    assert channel.told == [(), (5,)], "the same map under another descriptor"
    maps.pinned, channel.refuses = ((6,), (71,)), True
    asyncio.run(hand_over())
    asyncio.run(hand_over())
    assert channel.told == [(), (5,), (6,)], "asked once"
    link._drop(cast(CoreChannel, channel))
    asyncio.run(hand_over())
    assert channel.told[-2:] == [(6,), (6,)], "by each core"


def test_maps_that_are_not_pinned_are_none(tmp_path: Path) -> None:
    with SharedMaps(tmp_path).open() as (descriptors, ids):
        assert descriptors == () and ids == ()


class FakeCore:
    """The core's end of a ring and of its bell."""

    def __init__(self) -> None:
        self.ring = os.memfd_create("ring")
        os.ftruncate(self.ring, lib.OOMSLICE_RING_SIZE)
        self.data = ffi.from_buffer("char[]", mmap.mmap(self.ring, lib.OOMSLICE_RING_SIZE), require_writable=True)
        lib.oomslice_ring_init(self.data, 0xAB)
        self.header = ffi.cast("struct oomslice_ring_header *", self.data)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def hello(self) -> Hello:
        """As a core without a plan says it; the descriptors are the caller's."""
        return Hello(0, os.dup(self.ring), os.dup(self.bell), -1)

    def begin(self, victim: bytes, *steps: int) -> Any:
        """A decision that takes these steps, of which none is over."""
        record = lib.oomslice_ring_take(self.data)
        record.victim_cgroup_id, record.victim_name = 8, victim
        for step, kind in zip(record.steps, steps, strict=False):
            step.kind, step.result = kind, lib.OOMSLICE_RESULT_PENDING
        record.steps_count = len(steps)
        return record

    async def tell(self) -> None:
        """Rings, and waits until that was heard."""
        os.eventfd_write(self.bell, 1)
        await asyncio.sleep(0)
        while True:
            try:
                os.eventfd_write(self.bell, os.eventfd_read(self.bell))
            except BlockingIOError:
                return
            await asyncio.sleep(0)


class FakeRequests:
    """Nothing is asked for."""

    def adopt(self, ring: Ring) -> None:
        """Has nothing to do."""

    def serve(self) -> None:
        """Has nothing to do."""

    def drop(self) -> None:
        """Has nothing to do."""


class Heard(BusService):
    """The service without a bus: what it would send."""

    def __init__(self) -> None:
        super().__init__(cast(Any, None))
        self.signals: list[tuple[str, ...]] = []

    def _emit(self, name: str, arguments: list[Any]) -> bool:
        self.signals.append((name, *arguments))
        return True

    def taken(self) -> list[tuple[str, ...]]:
        """What was sent since the last call."""
        signals, self.signals = self.signals, []
        return signals


def test_pressure_and_steps_in_the_ring_are_signals_each_once_and_in_order() -> None:
    core, heard, collected = FakeCore(), Heard(), []
    channel = cast(CoreChannel, FakeChannel(RESERVE))

    async def main() -> None:
        link = CoreLink(
            "/nowhere",
            Status(),
            lambda ring, *_: collected.append(ring.pending),
            lambda: None,
            cast(Any, FakeRequests()),
            told=heard,
        )
        link._names = {7: "batch.slice"}
        link._adopt(channel, core.hello())
        assert heard.taken() == []
        core.header.pressed[0] = 7
        await core.tell()
        assert heard.taken() == [("PressureBegan", "batch.slice")] and link._status.pressed == ["batch.slice"]

        record = core.begin(b"build.service", lib.OOMSLICE_STEP_WARN, lib.OOMSLICE_STEP_FREEZE)
        core.header.pressed[5] = 9
        await core.tell()
        assert heard.taken() == [("PressureBegan", "cgroup:9")], "no step is over"
        record.steps[0].result = lib.OOMSLICE_RESULT_NEEDLESS
        await core.tell()
        step = ("StepTaken", "00000000000000ab-1", "build.service")
        assert heard.taken() == [(*step, "warn", "needless")]
        record.steps[1].result = lib.OOMSLICE_RESULT_DONE
        await core.tell()
        await core.tell()
        assert heard.taken() == [(*step, "freeze", "done")]

        core.header.pressed[0] = 0
        await core.tell()
        assert heard.taken() == [("PressureEnded", "batch.slice")]
        # A core that is gone says nothing any more: nobody is short of memory, as far as we know.
        link._drop(channel)
        assert heard.taken() == [("PressureEnded", "cgroup:9")] and link._status.pressed == []
        # What is in the ring when its reader comes is told as well.
        link._adopt(channel, core.hello())
        assert heard.taken() == [("PressureBegan", "cgroup:9")]
        link._drop(channel)

    asyncio.run(main())
    assert collected and collected[-1] == 1
    os.close(core.bell)
    os.close(core.ring)
