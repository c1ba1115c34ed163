# SPDX-License-Identifier: LGPL-2.1-or-later
"""Listens to what others say on the bus: PID 1 of its units, of which only one thing is passed on, that it is time to
ask it again; and systemd-oomd of whom it killed.

Source of the signals: org.freedesktop.systemd1(5), org.freedesktop.oom1(5).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from oomslice.bus.message import Incoming
from oomslice.bus.transport import Connection
from oomslice.errors import BusError

log = logging.getLogger("oomsliced")

SYSTEMD = "org.freedesktop.systemd1"
SYSTEMD_PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
UNIT = "org.freedesktop.systemd1.Unit"
WITH_CGROUP = ("_2eservice", "_2escope", "_2eslice")
"""How the object paths of units end that have a cgroup."""
MATCHES = (
    *(
        f"type='signal',sender='{SYSTEMD}',path='{SYSTEMD_PATH}',interface='{MANAGER}',member='{member}'"
        for member in ("UnitNew", "UnitRemoved", "Reloading")
    ),
    f"type='signal',sender='{SYSTEMD}',path_namespace='{SYSTEMD_PATH}/unit',"
    f"interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',arg0='{UNIT}'",
)
OOMD_MATCH = (
    "type='signal',sender='org.freedesktop.oom1',path='/org/freedesktop/oom1',"
    "interface='org.freedesktop.oom1.Manager',member='Killed'"
)
RETRY_SEC = 2.0


async def follow_units(changed: Callable[..., None]) -> None:
    """Calls `changed()` when units came or went, `changed(full=True)` after a daemon-reload or a gap in listening.

    Runs until cancelled; a bus that goes away is waited for.
    """
    said = ""
    while True:
        try:
            await _follow(changed)
            said = ""
        except BusError as error:
            if str(error) != said:
                said = str(error)
                log.warning("cannot follow systemd's units: %s", error)
        await asyncio.sleep(RETRY_SEC)


async def _follow(changed: Callable[..., None]) -> None:
    connection = await Connection.open()
    active: dict[str, Any] = {}
    reloading = False

    def heard(message: Incoming) -> None:
        nonlocal reloading
        if message.member == "Reloading":
            # True at the start, false when the new state is there. In between PID 1 does not answer, and a plan begun
            # then would only keep the one waiting that is to come.
            reloading = message.body() == [True]
            if not reloading:
                changed(full=True)
        elif reloading:
            pass
        elif message.member in ("UnitNew", "UnitRemoved"):
            if str(message.body()[1]).endswith(WITH_CGROUP):
                active.pop(message.body()[1], None)
                changed()
        elif message.member == "PropertiesChanged" and message.path.endswith(WITH_CGROUP):
            state = message.body()[1].get("ActiveState")
            if state is not None and active.get(message.path) != state:
                active[message.path] = state
                changed()

    connection.on_signal = heard
    try:
        for rule in MATCHES:
            await connection.call_bus("AddMatch", "s", [rule])
        await connection.call(SYSTEMD, SYSTEMD_PATH, MANAGER, "Subscribe")
        changed(full=True)
        await connection.wait_closed()
    finally:
        connection.close()


async def follow_oomd(killed: Callable[[str, str], None], problem: Callable[[str], None]) -> None:
    """Calls `killed(cgroup, reason)` when systemd-oomd has killed, and `problem` with why it cannot be heard, "" if it
    can. What it does while nobody listens is not told again.

    Runs until cancelled; a bus that goes away is waited for.
    """
    while True:
        try:
            await _follow_oomd(killed, problem)
            problem("the message bus closed the connection")
        except BusError as error:
            problem(str(error))
        await asyncio.sleep(RETRY_SEC)


async def _follow_oomd(killed: Callable[[str, str], None], problem: Callable[[str], None]) -> None:
    connection = await Connection.open()

    def heard(message: Incoming) -> None:
        if message.member == "Killed" and message.signature == "ss":
            cgroup, reason = message.body()
            killed(cgroup, reason)

    connection.on_signal = heard
    try:
        await connection.call_bus("AddMatch", "s", [OOMD_MATCH])
        problem("")
        await connection.wait_closed()
    finally:
        connection.close()
