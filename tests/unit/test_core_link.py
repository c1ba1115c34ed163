# SPDX-License-Identifier: LGPL-2.1-or-later
"""The link to the core, without one: what it goes on asking for."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from oomslice.daemon import core_link
from oomslice.daemon.backend import Status
from oomslice.daemon.core_link import CoreLink
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
