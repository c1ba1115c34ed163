# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd-oomd says of its kills is heard from it alone, and again when the bus has been restarted."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from oomslice.bus.transport import Connection
from oomslice.daemon import follow
from tests.bus.rig import PrivateBus

pytestmark = pytest.mark.bus
NAME, OBJECT, MANAGER = "org.freedesktop.oom1", "/org/freedesktop/oom1", "org.freedesktop.oom1.Manager"
MAY_OWN = f'<policy user="root"><allow own="{NAME}"/></policy>'


async def until(condition: object, deadline_s: float = 30) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


def test_kills_are_heard_from_systemd_oomd_alone_and_over_restarts_of_the_bus(
    bus_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = PrivateBus(bus_directory, MAY_OWN)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
    monkeypatch.setattr(follow, "RETRY_SEC", 0.1)
    killed: list[tuple[str, str]] = []
    problems: list[str] = []

    async def said_by_systemd_oomd(cgroup: str) -> None:
        oomd, other = await Connection.open(bus.address), await Connection.open(bus.address)
        await oomd.call_bus("RequestName", "su", [NAME, 4])
        other.emit(OBJECT, MANAGER, "Killed", "ss", ["/false.service", "memory-used"])
        # The bus keeps the order of one sender only: this one is through before the other begins.
        await other.call_bus("GetId")
        oomd.emit(OBJECT, MANAGER, "Killed", "ss", [cgroup, "memory-pressure"])
        await oomd.call_bus("GetId")
        oomd.close()
        other.close()

    async def main() -> None:
        following = asyncio.create_task(follow.follow_oomd(lambda *signal: killed.append(signal), problems.append))
        await until(lambda: problems == [""])
        await said_by_systemd_oomd("/a.service")
        await until(lambda: killed)
        bus.stop()
        await until(lambda: problems[-1])
        bus.start()
        await until(lambda: not problems[-1])
        await said_by_systemd_oomd("/b.service")
        await until(lambda: len(killed) > 1)
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following

    try:
        asyncio.run(main())
    finally:
        bus.stop()
    assert killed == [("/a.service", "memory-pressure"), ("/b.service", "memory-pressure")]
