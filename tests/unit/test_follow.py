# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd's signals make of the wish for a new plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from oomslice.daemon import follow

SERVICE = "/org/freedesktop/systemd1/unit/a_2eservice"
MOUNT = "/org/freedesktop/systemd1/unit/a_2emount"


@dataclass
class Signal:
    """As much of a message as is looked at."""

    member: str
    content: list[Any]
    path: str = "/org/freedesktop/systemd1"
    signature: str = ""

    def body(self) -> list[Any]:
        return self.content


class Systemd:
    """Stands in for the connection, and says what a test lets it say."""

    def __init__(self, signals: list[Signal]) -> None:
        self.signals = signals
        self.on_signal: Callable[[Signal], None] = lambda signal: None

    async def call_bus(self, member: str, signature: str, body: list[Any]) -> None:
        pass

    async def call(self, *arguments: str) -> None:
        pass

    async def wait_closed(self) -> None:
        for signal in self.signals:
            self.on_signal(signal)

    def close(self) -> None:
        pass


def wishes(monkeypatch: pytest.MonkeyPatch, *signals: Signal) -> list[str]:
    """What is asked for after the first connect."""

    async def connect() -> Systemd:
        return Systemd(list(signals))

    monkeypatch.setattr(follow.Connection, "open", connect)
    heard: list[str] = []
    asyncio.run(follow._follow(lambda full=False: heard.append("full" if full else "plain")))
    assert heard[0] == "full", "what happened before the connection is not known"
    return heard[1:]


def active(state: str) -> Signal:
    return Signal("PropertiesChanged", [follow.UNIT, {"ActiveState": state}], SERVICE)


def test_units_that_come_go_or_change_their_state_ask_for_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wishes(monkeypatch, Signal("UnitNew", ["a.service", SERVICE])) == ["plain"]
    assert wishes(monkeypatch, Signal("UnitRemoved", ["a.service", SERVICE])) == ["plain"]
    assert wishes(monkeypatch, active("active"), active("active"), active("failed")) == ["plain", "plain"]


def test_units_without_a_cgroup_ask_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wishes(monkeypatch, Signal("UnitNew", ["a.mount", MOUNT])) == []


def test_daemon_reload_asks_once_and_at_its_end_whatever_systemd_says_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    during = [
        Signal("UnitRemoved", ["a.service", SERVICE]),
        Signal("UnitNew", ["a.service", SERVICE]),
        active("active"),
    ]
    assert wishes(monkeypatch, Signal("Reloading", [True]), *during) == []
    assert wishes(monkeypatch, Signal("Reloading", [True]), *during, Signal("Reloading", [False])) == ["full"]
    assert wishes(
        monkeypatch, Signal("Reloading", [True]), *during, Signal("Reloading", [False]), active("failed")
    ) == ["full", "plain"]
