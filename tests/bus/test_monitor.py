# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl monitor: what it hears, from whom, and that restarts of the daemon and of the bus do not end it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from dbus_next import MessageType

from oomslice.bus.events import STARTED, STOPPED, Event
from oomslice.bus.hearing import QuickListener
from oomslice.bus.interface import MANAGER, OBJECT_PATH
from oomslice.bus.listener import WAITING_MAX, Listener
from oomslice.bus.message import encode
from oomslice.bus.service import BusService
from oomslice.bus.transport import Connection
from oomslice.cli.failure import Exit
from oomslice.decisions.record import Decision
from tests.bus import rig
from tests.bus.rig import FixedBackend, PrivateBus
from tests.bus.test_cli import ROOT, oomslicectl

DEADLINE_S = 30


def decision(number: int) -> Decision:
    """One whose steps nobody tells of: each would be an event of its own."""
    return replace(rig.decision(number), steps=())


@asynccontextmanager
async def served(bus: PrivateBus) -> AsyncIterator[BusService]:
    service = BusService(FixedBackend(), address=bus.address)
    assert await service.start()
    try:
        yield service
    finally:
        await service.stop()


class Monitor:
    """oomslicectl monitor as a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), DEADLINE_S)).decode().rstrip("\n")

    async def error(self) -> str:
        assert self.process.stderr is not None
        return (await asyncio.wait_for(self.process.stderr.readline(), DEADLINE_S)).decode().rstrip("\n")

    async def event(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(await self.line())
        assert values.pop("realtime_usec") > 0
        return values


@asynccontextmanager
async def monitoring(bus: PrivateBus, *options: str) -> AsyncIterator[Monitor]:
    """A monitor that listens already: the bus knows what it wants to hear."""
    probe = await Connection.open(bus.address)
    before = set((await probe.call_bus("ListNames"))[0])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oomslice.cli.main", "monitor", *options),
        cwd=ROOT,
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            while set((await probe.call_bus("ListNames"))[0]) <= before:
                await asyncio.sleep(0.05)
        # It asks for its three kinds of signals right after it has said hello.
        await asyncio.sleep(0.5)
        yield Monitor(process)
    finally:
        probe.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


def test_each_event_is_a_json_object_with_the_names_of_the_interface(bus: PrivateBus) -> None:
    async def main() -> None:
        async with served(bus) as service, monitoring(bus, "--json", "--count", "3") as monitor:
            await service.decision_made(decision(2))
            assert await monitor.event() == {
                "event": "DecisionMade",
                "id": "00000000000000aa-2",
                "domain": "-.slice",
                "victim": "hog2.service",
                "outcome": "freed",
            }
            service.warn("", "a.service", "batch.slice", 17)
            assert await monitor.event() == {
                "event": "Warning",
                "decision": "",
                "unit": "a.service",
                "domain": "batch.slice",
                "deadline_usec": 17,
            }
            await service.decision_made(decision(1))
            assert (await monitor.event())["victim"] == "hog1.service"
            assert await asyncio.wait_for(monitor.process.wait(), DEADLINE_S) == Exit.OK

    asyncio.run(main())


def test_steps_and_pressure_are_events(bus: PrivateBus) -> None:
    async def main() -> None:
        async with served(bus) as service, monitoring(bus, "--count", "3") as monitor:
            service.pressure("batch.slice", True)
            assert (await monitor.line()).endswith("PressureBegan memory is short in batch.slice")
            service.steps("aa-1", "hog.service", [("freeze", "done")])
            assert "StepTaken aa-1 hog.service: freeze done" in await monitor.line()
            service.pressure("batch.slice", False)
            assert (await monitor.line()).endswith("PressureEnded batch.slice is calm again")

    asyncio.run(main())


def test_a_decision_is_told_as_a_sentence(bus: PrivateBus) -> None:
    async def main() -> None:
        async with served(bus) as service, monitoring(bus) as monitor:
            await service.decision_made(decision(2))
            line = await monitor.line()
            assert re.match(
                r"\d\d:\d\d:\d\d\.\d{3} DecisionMade 00000000000000aa-2 oomslice killed hog2\.service", line
            )
            await service.decision_made(decision(9))  # the backend does not have it any more
            assert "hog9.service for -.slice: freed" in await monitor.line()

    asyncio.run(main())


def test_a_restart_of_the_daemon_is_an_event_and_no_end(bus: PrivateBus) -> None:
    async def main() -> None:
        async with monitoring(bus, "--json") as monitor:
            assert "waiting for it" in await monitor.error()
            for number in (1, 2):
                async with served(bus) as service:
                    assert await monitor.event() == {"event": STARTED}
                    await service.decision_made(decision(number))
                    assert (await monitor.event())["id"] == f"00000000000000aa-{number}"
                assert await monitor.event() == {"event": STOPPED}

    asyncio.run(main())


def test_a_restart_of_the_bus_is_survived(bus: PrivateBus) -> None:
    async def main() -> None:
        async with monitoring(bus, "--json") as monitor:
            await monitor.error()
            bus.stop()
            assert "trying again" in await monitor.error()
            bus.start()
            async with served(bus) as service:
                async with asyncio.timeout(DEADLINE_S):
                    while True:
                        await service.decision_made(decision(1))
                        await asyncio.sleep(1)
                        assert monitor.process.stdout is not None
                        if monitor.process.stdout._buffer:  # type: ignore[attr-defined]
                            break
                assert (await monitor.event())["event"] in ("DecisionMade", STARTED)

    asyncio.run(main())


def test_properties_are_told_only_if_wanted(bus: PrivateBus) -> None:
    async def main() -> None:
        async with (
            served(bus) as service,
            monitoring(bus, "--json") as few,
            monitoring(bus, "--json", "--all") as all_,
        ):
            await service.configuration_changed()
            await service.decision_made(decision(1))
            assert (await few.event())["event"] == "DecisionMade"
            event = await all_.event()
            assert event["event"] == "PropertiesChanged"
            assert "ConfigurationErrors" in event["changed_properties"]

    asyncio.run(main())


def test_a_signal_from_somebody_else_is_not_heard(bus: PrivateBus) -> None:
    async def main() -> None:
        async with served(bus) as service, Listener(bus.address) as listener:
            assert listener._connection is not None
            liar = await Connection.open(bus.address)
            lie = encode(
                message_type=MessageType.SIGNAL,
                destination=listener._connection.unique_name,
                path=OBJECT_PATH,
                interface=MANAGER.name,
                member="DecisionMade",
                signature="ssss",
                body=["lie", "-.slice", "init.scope", "freed"],
                serial=9,
            )
            liar._write(lie)
            await liar.call_bus("GetId")  # answered when the lie has been delivered
            await service.decision_made(decision(1))
            event = await asyncio.wait_for(listener.next(), DEADLINE_S)
            assert event.arguments["id"] == "00000000000000aa-1"
            liar.close()

    asyncio.run(main())


def test_the_quick_listener_hears_the_daemon_alone(bus: PrivateBus) -> None:
    def first_of(listener: QuickListener) -> Event:
        assert listener.running
        return listener.next()

    async def main() -> None:
        async with served(bus) as service:
            with QuickListener(bus.address) as listener:
                liar = await Connection.open(bus.address)
                for signature, body in (("ssss", ["lie", "-.slice", "init.scope", "freed"]), ("", [])):
                    lie = encode(
                        message_type=MessageType.SIGNAL,
                        destination=f":1.{listener_number(bus, liar)}",
                        path=OBJECT_PATH,
                        interface=MANAGER.name,
                        member="DecisionMade",
                        signature=signature,
                        body=body,
                        serial=9,
                    )
                    liar._write(lie)
                await liar.call_bus("GetId")  # answered when the lies have been delivered
                await service.decision_made(decision(1))
                event = await asyncio.wait_for(asyncio.to_thread(first_of, listener), DEADLINE_S)
                assert event.arguments["id"] == "00000000000000aa-1"
                liar.close()

    asyncio.run(main())


def listener_number(bus: PrivateBus, after: Connection) -> int:
    """Of the connection that was opened just before `after`."""
    assert after.unique_name
    return int(after.unique_name.rpartition(".")[2]) - 1


def test_who_does_not_take_events_loses_the_oldest(bus: PrivateBus) -> None:
    async def main() -> None:
        async with Listener(bus.address) as listener:
            for number in range(WAITING_MAX + 3):
                listener._put(Event("Made", {"number": number}))
            assert listener.dropped == 3
            assert (await listener.next()).arguments == {"number": 3}

    asyncio.run(main())


def test_without_a_bus_it_says_so(bus: PrivateBus) -> None:
    bus.stop()
    code, output, errors = asyncio.run(oomslicectl(bus.address, "monitor"))
    assert code in (Exit.NOT_RUNNING, Exit.NOT_INSTALLED)
    assert output == ""
    assert errors.startswith("oomslicectl: ")
