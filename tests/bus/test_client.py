# SPDX-License-Identifier: LGPL-2.1-or-later
"""The client that oomslicectl uses: plain values, and errors that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from oomslice.bus.client import ManagerClient
from oomslice.bus.errors import BusUnreachableError, NoReplyError, NotRunningError, error_of
from oomslice.bus.service import BusService
from oomslice.decisions.record import Decision
from oomslice.errors import (
    BusError,
    NoSuchDecisionError,
    NoSuchUnitError,
    OomsliceError,
    PlanError,
    SettingsError,
)
from tests.bus import rig
from tests.bus.rig import FixedBackend, PrivateBus

pytestmark = pytest.mark.bus


def run(bus: PrivateBus, backend: FixedBackend, body: Callable[[ManagerClient], Awaitable[None]]) -> None:
    async def main() -> None:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        async with ManagerClient(bus.address, timeout=60) as client:
            await body(client)
        await service.stop()

    asyncio.run(main())


def test_methods_give_plain_values(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(client: ManagerClient) -> None:
        assert (await client.call("ListSlices"))[1] == [
            "batch.slice",
            "/batch.slice",
            -200,
            True,
            True,
            "own",
            "warn kill@2s",
        ]
        assert await client.call("GetSlice", "batch.slice") == {
            "priority": -200,
            "protect": True,
            "cgroup_id": 1234,
            "actions": ["warn", "kill@15s"],
        }
        assert [row[0] for row in await client.call("ListDecisions", 0, 1)] == ["00000000000000aa-2"]
        assert (await client.call("Explain"))[0][1][0][5] == "smallest priority"

    run(bus, backend, body)


def test_a_decision_crosses_the_bus_unharmed(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(client: ManagerClient) -> None:
        values = await client.call("GetDecision", "00000000000000aa-1")
        fields = ("name", "cgroup_id", "priority", "metric", "verdict")
        values["candidates"] = [dict(zip(fields, row, strict=True)) for row in values["candidates"]]
        assert Decision.from_dict(values) == backend.stored[0]

    run(bus, backend, body)


def test_properties(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(client: ManagerClient) -> None:
        assert await client.get("Version") == "1.2.3"
        everything = await client.get_all()
        assert set(everything) == {"Version", "State", "Carriers", "ConfigurationErrors"}
        assert everything["State"]["others"] == ["systemd-oomd.service"]
        assert everything["Carriers"] == [state.to_bus() for state in backend.carrier_states]

    run(bus, backend, body)


def test_the_daemons_errors_come_back_as_themselves(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(client: ManagerClient) -> None:
        with pytest.raises(NoSuchDecisionError, match="no decision 'x'"):
            await client.call("GetDecision", "x")
        with pytest.raises(NoSuchUnitError, match="no unit 'x'"):
            await client.call("GetSlice", "x")
        if os.geteuid() == 0:
            backend.fail["reload"] = rig.bad_reload()
            with pytest.raises(SettingsError, match="no such tier"):
                await client.call("Reload")
        backend.fail["explain"] = RuntimeError("secret")
        with pytest.raises(OomsliceError, match=r"^internal error, see the journal$"):
            await client.call("Explain")

    run(bus, backend, body)


def test_own_mistakes_are_value_errors(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(client: ManagerClient) -> None:
        with pytest.raises(ValueError, match="has no method Nope"):
            await client.call("Nope")
        with pytest.raises(ValueError, match="do not fit"):
            await client.call("GetSlice", 5)
        with pytest.raises(ValueError, match="do not fit"):
            await client.call("ListDecisions", -1, 0)
        with pytest.raises(ValueError, match="do not fit"):
            await client.call("GetSlice")

    run(bus, backend, body)


def test_ten_thousand_decisions(bus: PrivateBus, backend: FixedBackend) -> None:
    backend.stored = [rig.decision(number) for number in range(10_000)]

    async def body(client: ManagerClient) -> None:
        assert len(await client.call("ListDecisions", 0, 10_000)) == 10_000

    run(bus, backend, body)


def test_a_daemon_that_does_not_run_is_said_so(bus: PrivateBus) -> None:
    async def main() -> None:
        async with ManagerClient(bus.address) as client:
            with pytest.raises(NotRunningError, match="systemctl start oomsliced"):
                await client.call("ListSlices")

    asyncio.run(main())


def test_a_bus_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(BusUnreachableError, match="cannot be reached: No such file"):
            async with ManagerClient(f"unix:path={tmp_path}/bus"):
                pass

    asyncio.run(main())


def test_a_daemon_that_hangs_is_said_so(bus: PrivateBus, backend: FixedBackend) -> None:
    async def never() -> None:
        await asyncio.sleep(60)

    backend.reload = never  # type: ignore[method-assign]
    if os.geteuid() != 0:
        pytest.skip("only root may call Reload")

    async def main() -> None:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        async with ManagerClient(bus.address, timeout=0.3, act_timeout=0.3) as client:
            with pytest.raises(NoReplyError, match=r"oomsliced did not answer Reload within 0\.3 s"):
                await client.call("Reload")
        await service.stop()

    asyncio.run(main())


def test_a_connection_that_goes_away_during_a_call_is_said_so(bus: PrivateBus, backend: FixedBackend) -> None:
    async def main() -> None:
        async with ManagerClient(bus.address) as client:
            bus.freeze()
            waiting = asyncio.create_task(client.call("ListSlices"))
            await asyncio.sleep(0.1)
            bus.stop()
            with pytest.raises(BusUnreachableError):
                await waiting
            bus.start()
        with contextlib.suppress(BusUnreachableError):
            await client.call("ListSlices")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("org.oomslice1.Error.NoSuchDecision", NoSuchDecisionError),
        ("org.oomslice1.Error.PlanRefused", PlanError),
        ("org.oomslice1.Error.Failed", OomsliceError),
        ("org.freedesktop.DBus.Error.NameHasNoOwner", NotRunningError),
        ("org.freedesktop.DBus.Error.TimedOut", NoReplyError),
        ("com.example.Unheard", BusError),
    ],
)
def test_error_names_stand_for_exceptions(name: str, kind: type[Exception]) -> None:
    error = error_of(name, "what happened")
    assert type(error) is kind and "what happened" in str(error)
