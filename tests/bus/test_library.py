# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslice.Client against the real service on a bus of its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable

import pytest

import oomslice
from oomslice.bus.service import BusService
from oomslice.errors import BusError, NoSuchDecisionError, NoSuchUnitError
from tests.bus import rig
from tests.bus.rig import ROOT, FixedBackend, PrivateBus
from tests.bus.test_cli import DaemonLikeBackend

pytestmark = pytest.mark.bus


def run(bus: PrivateBus, body: Callable[[oomslice.Client, BusService, FixedBackend], Awaitable[None]]) -> None:
    async def main() -> None:
        backend = DaemonLikeBackend()
        service = BusService(backend, address=bus.address)
        assert await service.start()
        async with oomslice.Client(bus.address, timeout=10) as client:
            await body(client, service, backend)
        await service.stop()

    asyncio.run(main())


def test_answers_are_typed_values(bus: PrivateBus) -> None:
    async def body(client: oomslice.Client, service: BusService, backend: FixedBackend) -> None:
        assert await client.version() == "1.2.3"
        assert (await client.state())["Armed"] is True
        assert (await client.carriers())[0]["Name"] == "core"
        batch = (await client.slices())[1]
        assert (batch.name, batch.priority, batch.protected) == ("batch.slice", -200, True)
        assert (await client.settings("batch.slice"))["Priority"] == -200
        listed = await client.decisions(limit=1)
        assert [decision.id for decision in listed] == ["00000000000000aa-2"]
        # What is sent and what is got are the same, through D-Bus and back.
        assert await client.decision(listed[0].id) == rig.decision(2)
        assert await client.history(listed[0].id) == backend.history(listed[0].id)
        explained = await client.explain()
        assert explained["-.slice"][0].reason == "smallest priority"

    run(bus, body)


def test_what_is_not_there_is_an_error_of_its_own(bus: PrivateBus) -> None:
    async def body(client: oomslice.Client, service: BusService, backend: FixedBackend) -> None:
        with pytest.raises(NoSuchDecisionError):
            await client.decision("nosuch")
        with pytest.raises(NoSuchUnitError):
            await client.settings("nosuch.service")

    run(bus, body)


def test_decisions_are_watched_as_they_are_made(bus: PrivateBus) -> None:
    async def body(client: oomslice.Client, service: BusService, backend: FixedBackend) -> None:
        watched = client.watch()
        first = asyncio.ensure_future(anext(watched))
        while not first.done():  # until it listens
            backend.stored = [rig.decision(number) for number in (1, 2, 3)]
            await service.decision_made(rig.decision(9))  # which the daemon no longer has
            await service.decision_made(rig.decision(3))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(first), 0.2)
        assert (await first) == rig.decision(3)
        await watched.aclose()  # type: ignore[attr-defined]

    run(bus, body)


def test_the_example_of_the_page_runs(
    bus: PrivateBus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
    page = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    (example,) = [
        block
        for block in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        if "oomslice.Client()" in block
    ]
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(example.replace("asyncio.run(main())", ""), "library.md", "exec"), names)

    async def body(client: oomslice.Client, service: BusService, backend: FixedBackend) -> None:
        task = asyncio.ensure_future(names["main"]())  # type: ignore[operator]
        while not task.done() and "hog3.service ['freeze', 'kill']" not in printed():
            backend.stored = [rig.decision(number) for number in (1, 2, 3)]
            await service.decision_made(rig.decision(3))
            await asyncio.sleep(0.1)
        assert not task.done(), task.exception()
        task.cancel()

    shown: list[str] = []

    def printed() -> str:
        shown.append(capsys.readouterr().out)
        return "".join(shown)

    run(bus, body)
    assert "hog2.service freed 0" in printed()


def test_a_daemon_that_is_not_there_is_an_error_with_advice(bus: PrivateBus) -> None:
    async def main() -> None:
        async with oomslice.Client(bus.address) as client:
            await client.state()

    with pytest.raises(BusError, match="systemctl start oomsliced"):
        asyncio.run(main())
