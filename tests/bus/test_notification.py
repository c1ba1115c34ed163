# SPDX-License-Identifier: LGPL-2.1-or-later
"""The notification to the owner of a unit: over a bus of the user, to something that plays his desktop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from oomslice.bus.message import Incoming
from oomslice.bus.service import BusService
from oomslice.bus.transport import Connection
from oomslice.owner import deliver
from oomslice.owner.words import Message
from tests.bus.rig import FixedBackend, PrivateBus, decision

pytestmark = [pytest.mark.bus, pytest.mark.skipif(os.geteuid() != 0, reason="only root may speak as the user himself")]
USER = 65534
"""Has an entry in passwd everywhere."""
NAME = "org.freedesktop.Notifications"
POLICY = f"""<policy context="default">
    <allow own="{NAME}"/>
    <allow send_destination="{NAME}"/>
  </policy>"""
# As the specification of desktop notifications has it: name, replaces, icon, summary, body, actions, hints, timeout.
SIGNATURE = "susssasa{sv}i"


@dataclass
class Desktop:
    """What takes notifications; `shown` are (user id of the sender, signature, arguments)."""

    connection: Connection
    refuses: bool = False
    shown: list[tuple[int, str, list[Any]]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def take(self, call: Incoming) -> None:
        task = asyncio.ensure_future(self._answer(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: Incoming) -> None:
        if self.refuses or (call.path, call.member) != ("/org/freedesktop/Notifications", "Notify"):
            self.connection.reply_error(call, "org.freedesktop.DBus.Error.Failed", "no")
            return
        (user,) = await self.connection.call_bus("GetConnectionUnixUser", "s", [call.sender])
        self.shown.append((user, call.signature, call.body()))
        await self.connection.reply(call, "u", [1])


@pytest.fixture
def session(bus_directory: Path) -> Iterator[PrivateBus]:
    """The bus of a user; `session.socket` is at its place below the runtime directory."""
    (bus_directory / str(USER)).mkdir()
    bus_directory.chmod(0o755)
    private = PrivateBus(bus_directory / str(USER), POLICY)
    yield private
    private.stop()


@contextlib.asynccontextmanager
async def desktop(session: PrivateBus) -> AsyncIterator[Desktop]:
    connection = await Connection.open(session.address)
    shown = Desktop(connection)
    connection.on_call = shown.take
    assert await connection.call_bus("RequestName", "su", [NAME, 0]) == [1]
    try:
        yield shown
    finally:
        connection.close()


def sent(session: PrivateBus, said: Message, *, refuses: bool = False) -> tuple[bool, list[tuple[int, str, list[Any]]]]:
    """Whether it says that it was delivered, and what the desktop was told."""

    async def main() -> tuple[bool, list[tuple[int, str, list[Any]]]]:
        async with desktop(session) as shown:
            shown.refuses = refuses
            runtime = session.socket.parent.parent
            return await asyncio.to_thread(deliver.notify, USER, said, runtime), shown.shown

    return asyncio.run(main())


def test_a_notification_reaches_the_desktop_and_comes_from_the_user_himself(session: PrivateBus) -> None:
    delivered, shown = sent(session, Message("firefox was ended", "This machine ran out of memory."))
    arguments = ["oomslice", 0, "dialog-warning", "firefox was ended", "This machine ran out of memory.", [], {}, -1]
    assert delivered and shown == [(USER, SIGNATURE, arguments)]


def test_nothing_in_the_body_is_markup_and_nothing_a_control_character(session: PrivateBus) -> None:
    said = Message("<i>x</i>\n", 'show <a href="http://x/?a=1&b=2">this</a> &amp; \x1b[31m')
    delivered, ((_, _, arguments),) = sent(session, said)
    assert delivered
    # A heading is plain text by the specification, so it is not to be escaped.
    assert arguments[3] == "<i>x</i>?"
    assert arguments[4] == 'show &lt;a href="http://x/?a=1&amp;b=2"&gt;this&lt;/a&gt; &amp;amp; ?[31m'


@pytest.mark.parametrize("summary", ["--help was ended", "--address=unix:path=/x", "-1"])
def test_a_program_that_is_named_like_an_option_is_text(session: PrivateBus, summary: str) -> None:
    delivered, ((_, _, arguments),) = sent(session, Message(summary, "--version"))
    assert delivered and arguments[3:5] == [summary, "--version"]


def test_what_the_desktop_refuses_was_not_delivered(session: PrivateBus) -> None:
    assert sent(session, Message("firefox was ended", "why"), refuses=True) == (False, [])


def test_a_user_without_a_desktop_has_no_notification(session: PrivateBus) -> None:
    assert deliver.notify(USER, Message("firefox was ended", "why"), session.socket.parent.parent) is False


def test_the_owner_of_a_unit_is_told_of_the_decision(
    bus: PrivateBus, session: PrivateBus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = FixedBackend()
    backend.stored = [
        replace(decision(1), victim="app-gnome-firefox-1234.scope", extra={"owner": USER}),
        replace(decision(2), extra={"owner": 999}),
    ]
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
    monkeypatch.setattr(deliver, "notify", functools.partial(deliver.notify, runtime=session.socket.parent.parent))

    async def main() -> list[tuple[int, str, list[Any]]]:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        try:
            async with desktop(session) as shown:
                for made in backend.stored:
                    assert await asyncio.to_thread(deliver.main, [made.id]) == 0
                return shown.shown
        finally:
            await service.stop()

    ((_, _, arguments),) = asyncio.run(main())
    assert arguments[3] == "firefox was ended"
    assert arguments[4].endswith("What was decided: oomslicectl show 00000000000000aa-1")
    assert capsys.readouterr().out == f"user {USER} was told on 0 terminals and by a notification\n"
