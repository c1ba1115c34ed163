# SPDX-License-Identifier: LGPL-2.1-or-later
"""Methods that act: who may, as polkit says it, and what reaches the daemon."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from oomslice.bus.authority import POLKIT
from oomslice.bus.dispatch import Dispatcher, Facet
from oomslice.bus.errors import (
    AccessDeniedError,
    InteractionRequiredError,
    InvalidArgumentsError,
    LimitsExceededError,
)
from oomslice.bus.interface import Argument, Interface, Method
from oomslice.bus.message import typed
from oomslice.bus.service import BusService
from oomslice.bus.transport import Connection
from oomslice.errors import InvalidSettingError, OomsliceError, RefusedError
from tests.bus import rig
from tests.bus.rig import FixedBackend, PrivateBus, busctl

pytestmark = [pytest.mark.bus, pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")]
NOBODY = 65534
FILE = "/etc/systemd/system/batch.slice.d/50-oomslice-set.conf"
POLKIT_ON_THE_BUS = """
  <policy user="root"><allow own="org.freedesktop.PolicyKit1"/></policy>
  <policy context="default"><allow send_destination="org.freedesktop.PolicyKit1"/></policy>
"""
AUTHORITY = Interface(
    POLKIT[2],
    methods=(
        Method(
            "CheckAuthorization",
            tuple(
                Argument(name, signature)
                for name, signature in (
                    ("subject", "(sa{sv})"),
                    ("action_id", "s"),
                    ("details", "a{ss}"),
                    ("flags", "u"),
                    ("cancellation_id", "s"),
                )
            ),
            (Argument("result", "(bba{ss})"),),
        ),
    ),
)


class NoTree:
    """Nothing but fixed objects."""

    async def facets(self, path: str) -> list[Facet]:
        return []

    def children(self, path: str) -> None:
        return None


class FakePolkit:
    """An authority with one answer, which notes what it was asked; `hold` keeps it waiting."""

    def __init__(self) -> None:
        self.answer: tuple[bool, bool] = (False, False)
        self.asked: list[tuple[str, str, int]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def check(
        self, caller: object, subject: list[Any], action: str, details: dict[str, str], flags: int, cancellation: str
    ) -> list[Any]:
        assert subject[0] == "system-bus-name"
        self.asked.append((subject[1]["name"], action, flags))
        await self.hold.wait()
        return [[*self.answer, {}]]

    @asynccontextmanager
    async def running(self, address: str) -> AsyncIterator[None]:
        connection = await Connection.open(address)
        facet = Facet(AUTHORITY, {"CheckAuthorization": self.check}).complete()
        Dispatcher({POLKIT[1]: (facet,)}, NoTree()).serve(connection)
        await connection.call_bus("RequestName", "su", [POLKIT[0], 0])
        yield
        connection.close()


@pytest.fixture
def polkit_bus(bus_directory: Path) -> Any:
    private = PrivateBus(bus_directory, more=POLKIT_ON_THE_BUS)
    yield private
    private.stop()


def run(
    bus: PrivateBus, backend: FixedBackend, body: Callable[[FakePolkit], Awaitable[None]], polkit: bool = True
) -> None:
    async def main() -> None:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        authority = FakePolkit()
        try:
            if polkit:
                async with authority.running(bus.address):
                    await body(authority)
            else:
                await body(authority)
        finally:
            await service.stop()

    asyncio.run(main())


@asynccontextmanager
async def client_of(bus: PrivateBus, uid: int) -> AsyncIterator[Connection]:
    """A connection whose owner the bus takes for this user."""
    os.seteuid(uid)
    try:
        # As EXTERNAL says it, and as the kernel does.
        original = os.getuid
        os.getuid = lambda: uid
        try:
            connection = await Connection.open(bus.address)
        finally:
            os.getuid = original
    finally:
        os.seteuid(0)
    yield connection
    connection.close()


SET = ("SetProperties", "sa{sv}b")


async def set_priority(client: Connection, *, interactive: bool = False) -> list[Any]:
    return await client.call(*rig.MANAGER, "SetPriority", "sib", ["batch.slice", -5, True], interactive=interactive)


def test_root_acts_without_polkit(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(authority: FakePolkit) -> None:
        code, output, errors = await busctl(
            bus.address,
            *("call", "--", *rig.MANAGER, "SetProperties", "sa{sv}b", "batch.slice"),
            *("4", "Priority", "i", "-200", "Protect", "b", "true", "CooldownSec", "s", "5s"),
            *("Actions", "as", "2", "warn", "kill@5s", "false"),
        )
        assert code == 0, errors
        assert output.strip() == f's "{FILE}"'

    run(bus, backend, body, polkit=False)
    assert backend.asked == [
        (
            "batch.slice",
            {"Priority": "-200", "Protect": "yes", "CooldownSec": "5s", "Actions": "warn kill@5s"},
            False,
            0,
        )
    ]


def test_others_do_not_where_there_is_no_polkit(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(authority: FakePolkit) -> None:
        async with client_of(bus, NOBODY) as client:
            with pytest.raises(
                AccessDeniedError, match=r"only root may set properties of batch\.slice: this machine has no"
            ):
                await set_priority(client)

    run(bus, backend, body, polkit=False)
    assert backend.asked == []


def test_polkit_lets_a_user_and_is_asked_by_his_name_on_the_bus(polkit_bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(authority: FakePolkit) -> None:
        async with client_of(polkit_bus, NOBODY) as client:
            authority.answer = (True, False)
            assert await set_priority(client) == [FILE]
            assert authority.asked == [(client.unique_name, "org.oomslice1.set", 0)]
            assert await set_priority(client, interactive=True) == [FILE]
            assert authority.asked[1] == (client.unique_name, "org.oomslice1.set", 1)
            await client.call(*rig.MANAGER, "Reload")
            assert authority.asked[2][1] == "org.oomslice1.reload"

    run(polkit_bus, backend, body)
    assert backend.asked == [("batch.slice", {"Priority": "-5"}, True, NOBODY)] * 2 and backend.reloads == 1


def test_polkit_refuses_with_what_would_help(polkit_bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(authority: FakePolkit) -> None:
        async with client_of(polkit_bus, NOBODY) as client:
            with pytest.raises(AccessDeniedError, match=r"not authorized to set properties of batch\.slice"):
                await set_priority(client)
            authority.answer = (False, True)
            with pytest.raises(InteractionRequiredError, match=r"org\.oomslice1\.set"):
                await set_priority(client)
            with pytest.raises(AccessDeniedError):
                await set_priority(client, interactive=True)

    run(polkit_bus, backend, body)
    assert backend.asked == [] and backend.reloads == 0


def test_a_bad_value_is_told_before_anybody_is_asked_for_a_password(
    polkit_bus: PrivateBus, backend: FixedBackend
) -> None:
    async def body(authority: FakePolkit) -> None:
        async with client_of(polkit_bus, NOBODY) as client:
            for properties, kind, sentence in (
                ({"Priority": typed("i", 5000)}, InvalidSettingError, "Priority=5000: .*1000"),
                ({"Nope": typed("s", "x")}, InvalidSettingError, "Nope= is not a key"),
                ({"Priority": typed("d", 1.5)}, InvalidArgumentsError, "Priority takes a text"),
                ({"Actions": typed("aas", [["kill"]])}, InvalidArgumentsError, "Actions takes a text"),
            ):
                with pytest.raises(kind, match=sentence):
                    await client.call(*rig.MANAGER, *SET, ["batch.slice", properties, False])
            assert authority.asked == []

    run(polkit_bus, backend, body)


def test_who_waits_for_a_password_keeps_nobody_from_reading(polkit_bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(authority: FakePolkit) -> None:
        async with client_of(polkit_bus, NOBODY) as client:
            authority.hold.clear()
            waiting = asyncio.ensure_future(set_priority(client, interactive=True))
            while not authority.asked:
                await asyncio.sleep(0.01)
            with pytest.raises(LimitsExceededError):
                await set_priority(client, interactive=True)
            assert (await client.call(*rig.MANAGER, "ListSlices"))[0]
            code, _, errors = await busctl(polkit_bus.address, "call", *rig.MANAGER, "Reload")
            assert code == 0, errors
            authority.answer = (True, False)
            authority.hold.set()
            assert await waiting == [FILE]

    run(polkit_bus, backend, body)


def test_everybody_may_ask_what_other_settings_would_change(bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(authority: FakePolkit) -> None:
        async with client_of(bus, NOBODY) as client:
            settings = {"batch.slice": {"Priority": typed("i", -5), "Actions": typed("s", "kill")}, "a.service": {}}
            ((domain,),) = await client.call(*rig.MANAGER, "Simulate", "a{sa{sv}}", [settings])
            assert domain[0] == "-.slice" and domain[1][0][0] == "batch.slice"
            many = {f"{number}.service": {} for number in range(101)}
            with pytest.raises(InvalidArgumentsError, match="at most 100"):
                await client.call(*rig.MANAGER, "Simulate", "a{sa{sv}}", [many])

    run(bus, backend, body, polkit=False)
    assert backend.asked == [("simulate", {"batch.slice": {"Priority": "-5", "Actions": "kill"}, "a.service": {}})]


def test_steps_are_asked_for_each_by_its_own_right(polkit_bus: PrivateBus, backend: FixedBackend) -> None:
    async def body(authority: FakePolkit) -> None:
        async with client_of(polkit_bus, NOBODY) as client:
            authority.answer = (True, False)
            for step in ("explode", "freeze kill", "kill@5s", "throttle:0", "purge"):
                with pytest.raises(InvalidSettingError, match=step.split(":")[0].split("@")[0]):
                    await client.call(*rig.MANAGER, "Act", "ss", ["batch.slice", step])
            assert authority.asked == []
            assert await client.call(*rig.MANAGER, "Act", "ss", ["hog.service", "throttle:50"]) == [
                "00000000000000aa-2"
            ]
            assert await client.call(*rig.MANAGER, "Release", "s", ["hog.service"]) == []
            assert [action for _, action, _ in authority.asked] == ["org.oomslice1.act", "org.oomslice1.release"]
            backend.fail["act"] = RefusedError("the unit is protected")
            with pytest.raises(RefusedError, match="the unit is protected"):
                await client.call(*rig.MANAGER, "Act", "ss", ["hog.service", "kill"])

    run(polkit_bus, backend, body)
    assert backend.asked == [("hog.service", "throttle:50", NOBODY), ("hog.service", NOBODY)]


def test_what_fails_behind_it_is_told(bus: PrivateBus, backend: FixedBackend) -> None:
    async def failing(*arguments: Any) -> str:
        raise OomsliceError("the file is written, but systemd did not reload")

    backend.set_settings = failing  # type: ignore[method-assign]

    async def body(authority: FakePolkit) -> None:
        code, _, errors = await busctl(bus.address, "call", *rig.MANAGER, "SetPriority", "sib", "a.slice", "1", "false")
        assert code != 0 and "systemd did not reload" in errors

    run(bus, backend, body, polkit=False)


LOG = ("org.oomslice1", "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1")


def test_root_sets_how_much_is_logged_and_nobody_else(bus: PrivateBus, backend: FixedBackend) -> None:
    root = logging.getLogger()
    before = root.level

    async def body(authority: FakePolkit) -> None:
        async def level() -> str:
            code, output, errors = await busctl(bus.address, "get-property", *LOG, "LogLevel")
            assert code == 0, errors
            return output.strip()

        for name, number in (("debug", logging.DEBUG), ("warning", logging.WARNING), ("err", logging.ERROR)):
            code, _, errors = await busctl(bus.address, "set-property", *LOG, "LogLevel", "s", name)
            assert code == 0, errors
            assert root.level == number and await level() == f's "{name}"'
        for kind, value, sentence in (("s", "loud", "LogLevel is one of"), ("u", "7", "LogLevel is one of")):
            code, _, errors = await busctl(bus.address, "set-property", *LOG, "LogLevel", kind, value)
            assert code != 0 and sentence in errors
        code, _, errors = await busctl(bus.address, "set-property", *LOG, "LogLevel", "s", "debug", uid=NOBODY)
        assert code != 0 and "enied" in errors
        assert root.level == logging.ERROR
        code, _, errors = await busctl(bus.address, "set-property", *LOG, "LogTarget", "s", "null")
        assert code == 0 and not root.isEnabledFor(logging.ERROR)
        code, _, errors = await busctl(bus.address, "set-property", *LOG, "LogTarget", "s", "kmsg")
        assert code != 0 and "LogTarget is auto" in errors
        code, _, errors = await busctl(bus.address, "set-property", *LOG, "LogTarget", "s", "auto")
        assert code == 0 and root.isEnabledFor(logging.ERROR)
        code, output, _ = await busctl(bus.address, "get-property", *LOG, "SyslogIdentifier")
        assert output.strip() == 's "oomsliced"'

    try:
        run(bus, backend, body, polkit=False)
    finally:
        root.setLevel(before)
        logging.disable(logging.NOTSET)
