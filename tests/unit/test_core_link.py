# SPDX-License-Identifier: LGPL-2.1-or-later
"""The link to the core, without one: what it goes on asking for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from oomslice.carriers.shared import SharedMaps
from oomslice.daemon import core_link
from oomslice.daemon.backend import Status
from oomslice.daemon.core_link import CoreLink
from oomslice.errors import RefusedError
from oomslice.plan.channel import CoreChannel, CoreState

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
