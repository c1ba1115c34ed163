# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon says which units that are to be started there are not, and keeps nobody waiting for it."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from types import MappingProxyType

import pytest

from oomslice.actions.checks import CheckError
from oomslice.daemon.started import StartedUnits, Written
from oomslice.settings.keys import UNIT_FILE_KEY_OF
from oomslice.settings.model import Source, UnitSettings
from oomslice.settings.steps import parse_actions

SOURCES = MappingProxyType({"actions": Source("/etc/a.conf", 2), "on_decision": Source("/etc/a.conf", 3)})
GONE = (
    "/etc/a.conf:2: Actions=start:gone.service kill@2s: start:gone.service: gone.service is no unit of this machine."
    " The step will be refused"
)


def written(actions: str, on_decision: str | None = None) -> Written:
    settings = UnitSettings(actions=parse_actions(actions), on_decision=on_decision, sources=SOURCES)
    return settings, "X-OOMSlice", UNIT_FILE_KEY_OF


class Systemd:
    """Knows the units that it is told, and notes what it is asked and that others are told of news."""

    def __init__(self, *units: str) -> None:
        self.units = set(units)
        self.asked: list[str] = []
        self.told = 0

    def unit_exists(self, name: str) -> None:
        self.asked.append(name)
        if name not in self.units:
            raise CheckError("is no unit of this machine", errno.ENOENT)

    async def changed(self) -> None:
        self.told += 1


async def answered(started: StartedUnits) -> None:
    """Waits until systemd has been asked for all."""
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))


def test_units_that_do_not_exist_are_told_once_and_taken_back_when_they_come(caplog: pytest.LogCaptureFixture) -> None:
    systemd = Systemd("report@.service")
    caplog.set_level(logging.WARNING, "oomsliced")

    async def run() -> None:
        started = StartedUnits(systemd.changed, systemd.unit_exists)
        settings = [written("start:gone.service kill@2s", "report@.service")] * 2
        started.follow(settings, full=True)
        assert started.problems == (), "nobody waits for the answer"
        await answered(started)
        assert [str(problem) for problem in started.problems] == [GONE]
        assert [record.getMessage() for record in caplog.records] == [GONE]
        assert systemd.asked == ["gone.service", "report@.service"] and systemd.told == 1

        started.follow(settings, full=False)  # a unit came or went: nothing that matters here
        await answered(started)
        assert len(systemd.asked) == 2

        systemd.units.add("gone.service")
        started.follow(settings, full=True)
        await answered(started)
        assert started.problems == () and systemd.told == 2
        assert len(caplog.records) == 1

    asyncio.run(run())


def test_a_name_that_is_new_is_asked_for_without_a_reload(caplog: pytest.LogCaptureFixture) -> None:
    systemd = Systemd()

    async def run() -> None:
        started = StartedUnits(systemd.changed, systemd.unit_exists)
        started.follow([], full=True)
        started.follow([written("kill", "note.service")], full=False)
        await answered(started)
        assert [str(problem) for problem in started.problems] == [
            "/etc/a.conf:3: OnDecision=note.service: is no unit of this machine; nothing can be started"
        ]
        started.follow([], full=False)
        await answered(started)
        assert started.problems == ()

    asyncio.run(run())
    assert systemd.asked == ["note.service"]


def test_a_systemd_that_does_not_answer_holds_nobody_and_is_no_problem_of_the_settings() -> None:
    answer = threading.Event()

    def hangs(name: str) -> None:
        answer.wait(60)
        raise CheckError("cannot be looked up: systemd does not answer", errno.EAGAIN)

    systemd = Systemd()

    async def run() -> None:
        started = StartedUnits(systemd.changed, hangs)
        started.follow([written("start:gone.service kill@2s")], full=True)
        await asyncio.sleep(0)
        answer.set()
        await answered(started)
        assert started.problems == () and systemd.told == 0

    asyncio.run(run())
