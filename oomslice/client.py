# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a program asks of a running oomsliced, as typed values: `oomslice.Client`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple

from oomslice.bus.client import ManagerClient
from oomslice.bus.errors import NotRunningError
from oomslice.bus.listener import Listener
from oomslice.decisions.history import History, MachineSample, UnitSample
from oomslice.decisions.record import Candidate, Decision
from oomslice.errors import NoSuchDecisionError


class Slice(NamedTuple):
    """One running slice, service or scope, as ListSlices() of org.oomslice1(5) has it."""

    name: str
    cgroup_path: str
    priority: int
    """effective"""
    protected: bool
    candidate: bool
    priority_origin: str
    actions: str


class ListedDecision(NamedTuple):
    """A decision in a list; `Client.decision` gives all of it."""

    id: str
    realtime_usec: int
    domain: str
    trigger: str
    victim: str
    outcome: str


class Explained(NamedTuple):
    """One unit as it stands in a domain's ranking now."""

    name: str
    priority: int
    metric: int
    verdict: str
    priority_origin: str
    reason: str


class Client:
    """A connection to the running daemon, to be used in `async with`. Everybody may ask.

    `address` is a D-Bus address, by default the system bus. Every method may raise BusError, with a
    sentence for people.
    """

    def __init__(self, address: str | None = None, *, timeout: float = 25.0) -> None:
        self._address = address
        self._manager = ManagerClient(address, timeout=timeout)

    async def __aenter__(self) -> Client:
        await self._manager.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._manager.__aexit__(kind, value, traceback)

    async def version(self) -> str:
        """Of the daemon."""
        return str(await self._manager.get("Version"))

    async def state(self) -> dict[str, Any]:
        """Condition of core and plan; the keys are those of State in org.oomslice1(5)."""
        return dict(await self._manager.get("State"))

    async def carriers(self) -> list[dict[str, Any]]:
        """Who can act on the plan; the keys are those of Carriers in org.oomslice1(5)."""
        return [dict(carrier) for carrier in await self._manager.get("Carriers")]

    async def slices(self) -> list[Slice]:
        """All units of the plan, parents before children."""
        return [Slice(*row) for row in await self._manager.call("ListSlices")]

    async def settings(self, unit: str) -> dict[str, Any]:
        """Settings in force of one unit, with file and line of each. Raises NoSuchUnitError."""
        return dict(await self._manager.call("GetSlice", unit))

    async def decisions(self, since_usec: int = 0, limit: int = 100) -> list[ListedDecision]:
        """Decisions of that moment (CLOCK_REALTIME, microseconds) and later, newest first."""
        return [ListedDecision(*row) for row in await self._manager.call("ListDecisions", since_usec, limit)]

    async def decision(self, id: str) -> Decision:
        """One decision with everything known of it. Raises NoSuchDecisionError."""
        values = dict(await self._manager.call("GetDecision", id))
        candidates = tuple(Candidate(*row) for row in values.pop("candidates", ()))
        return replace(Decision.from_dict(values), candidates=candidates)

    async def history(self, id: str) -> History:
        """The figures around one decision; empty if there were none. Raises NoSuchDecisionError."""
        samples, units = await self._manager.call("GetHistory", id)
        return History(tuple(MachineSample(*row) for row in samples), tuple(UnitSample(*row) for row in units))

    async def explain(self) -> dict[str, Sequence[Explained]]:
        """For each domain, who would be chosen now and why nobody else, best candidate first."""
        return {
            domain: tuple(Explained(*row) for row in candidates)
            for domain, candidates in await self._manager.call("Explain")
        }

    async def watch(self) -> AsyncIterator[Decision]:
        """Every decision from the first step of the iteration on, over restarts of the daemon; one that the daemon no
        longer has when it is asked is left out. Raises BusUnreachableError when the bus goes."""
        async with Listener(self._address) as listener:
            while True:
                event = await listener.next()
                if event.name == "DecisionMade":
                    with contextlib.suppress(NoSuchDecisionError, NotRunningError):
                        yield await self.decision(str(event.arguments["id"]))
