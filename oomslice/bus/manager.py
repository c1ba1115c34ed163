# SPDX-License-Identifier: LGPL-2.1-or-later
"""org.oomslice1.Manager: the backend's answers in D-Bus types. Knows nothing of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from oomslice.bus.authority import Caller
from oomslice.bus.backend import Backend, ExplainedDomain
from oomslice.bus.dispatch import Facet
from oomslice.bus.errors import InvalidArgumentsError
from oomslice.bus.interface import MANAGER
from oomslice.bus.message import typed
from oomslice.bus.values import UINT32_MAX, decision_values, fitting, mapping, text, unsigned
from oomslice.decisions.statistics import BOUNDS_SEC

DEFAULT_DECISIONS = 100
SIMULATED_MAX = 100
"""Units that can have other settings in one simulation."""

Authorize = Callable[[Caller, str, str], Awaitable[int]]
"""(caller, action, what that is in words) -> his user, if he may. Raises BusError if not."""


class ManagerObject:
    """The handlers of the interface, in its order."""

    def __init__(self, backend: Backend, authorize: Authorize) -> None:
        self._backend = backend
        self._authorize = authorize
        self._simulating = asyncio.Lock()

    def facet(self) -> Facet:
        """To be served."""
        return Facet(
            MANAGER,
            {
                "ListSlices": self._list_slices,
                "GetSlice": self._get_slice,
                "ListDecisions": self._list_decisions,
                "GetDecision": self._get_decision,
                "GetHistory": self._get_history,
                "GetStatistics": self._get_statistics,
                "Explain": self._explain,
                "Simulate": self._simulate,
                "SetPriority": self._set_priority,
                "SetProperties": self._set_properties,
                "Act": self._act,
                "Release": self._release,
                "Reload": self._reload,
            },
            {
                "Version": lambda: typed("s", self._backend.version),
                "State": lambda: fitting("a{sv}", self._backend.state()),
                "Carriers": lambda: typed("aa{sv}", [mapping(carrier) for carrier in self._backend.carriers()]),
                "ConfigurationErrors": self._configuration_errors,
            },
        ).complete()

    def _list_slices(self, caller: Caller) -> list[Any]:
        return [
            [
                [
                    text(row["name"]),
                    text(row["cgroup"]),
                    int(row["priority"]),
                    bool(row["protected"]),
                    bool(row["candidate"]),
                    text(row["priority_origin"]),
                    text(row["actions"]),
                ]
                for row in self._backend.slices()
            ]
        ]

    def _get_slice(self, caller: Caller, name: str) -> list[Any]:
        return [mapping(self._backend.slice(name))]

    async def _list_decisions(self, caller: Caller, since_usec: int, limit: int) -> list[Any]:
        # The store waits for the disk; the loop does not.
        decisions = await asyncio.to_thread(self._backend.decisions, since_usec, limit or DEFAULT_DECISIONS)
        return [
            [
                [
                    text(decision.id),
                    unsigned(decision.realtime_usec),
                    text(decision.domain),
                    text(decision.trigger),
                    text(decision.victim),
                    text(decision.outcome),
                ]
                for decision in decisions
            ]
        ]

    async def _get_decision(self, caller: Caller, id: str) -> list[Any]:
        return [decision_values(await asyncio.to_thread(self._backend.decision, id))]

    async def _get_history(self, caller: Caller, id: str) -> list[Any]:
        history = await asyncio.to_thread(self._backend.history, id)
        return [
            [
                [
                    unsigned(sample.usec),
                    unsigned(sample.memory_available),
                    unsigned(sample.swap_free),
                    unsigned(sample.some_usec),
                    unsigned(sample.full_usec),
                ]
                for sample in history.samples
            ],
            [[unsigned(sample.usec), text(sample.unit), unsigned(sample.memory)] for sample in history.units],
        ]

    async def _get_statistics(self, caller: Caller) -> list[Any]:
        statistics = await asyncio.to_thread(self._backend.statistics)
        return [
            [[*(text(word) for word in key), unsigned(count)] for key, count in statistics.decisions.items()],
            [
                [
                    name,
                    [[bound, unsigned(count)] for bound, count in zip(BOUNDS_SEC, histogram.counts, strict=True)],
                    unsigned(histogram.count),
                    float(histogram.sum_sec),
                ]
                for name, histogram in statistics.latencies.items()
            ],
            {name: typed("t", unsigned(value)) for name, value in self._backend.memory().items()},
        ]

    def _explain(self, caller: Caller) -> list[Any]:
        return [explained(self._backend.explain())]

    async def _simulate(self, caller: Caller, settings: Mapping[str, Mapping[str, Any]]) -> list[Any]:
        if len(settings) > SIMULATED_MAX:
            raise InvalidArgumentsError(f"settings of {len(settings)} units; at most {SIMULATED_MAX} at once")
        assignments = {
            unit: {key: assigned(key, value) for key, value in values.items()} for unit, values in settings.items()
        }
        # The whole policy is made anew: one at a time, and not in the loop.
        async with self._simulating:
            return [explained(await asyncio.to_thread(self._backend.simulate, assignments))]

    async def _set_priority(self, caller: Caller, name: str, priority: int, runtime: bool) -> list[Any]:
        return await self._set_properties(caller, name, {"Priority": priority}, runtime)

    async def _set_properties(
        self, caller: Caller, name: str, properties: Mapping[str, Any], runtime: bool
    ) -> list[Any]:
        # Told before anybody is asked for a password.
        assignments = {key: assigned(key, value) for key, value in properties.items()}
        self._backend.check_settings(name, assignments)
        uid = await self._authorize(caller, "set", f"set properties of {text(name)}")
        return [text(await self._backend.set_settings(name, assignments, runtime, uid))]

    async def _act(self, caller: Caller, name: str, step: str) -> list[Any]:
        self._backend.check_step(name, step)
        uid = await self._authorize(caller, "act", f"act upon {text(name)}")
        return [text(await self._backend.act(name, step, uid))]

    async def _release(self, caller: Caller, name: str) -> list[Any]:
        uid = await self._authorize(caller, "release", f"release {text(name)}")
        await self._backend.release(name, uid)
        return []

    async def _reload(self, caller: Caller) -> list[Any]:
        await self._authorize(caller, "reload", "reload the configuration")
        await self._backend.reload()
        return []

    def _configuration_errors(self) -> Any:
        return typed(
            "a(susss)",
            [
                [
                    text(problem.source.file),
                    min(max(problem.source.line, 0), UINT32_MAX),
                    text(problem.key),
                    text(problem.value),
                    text(problem.message),
                ]
                for problem in self._backend.configuration_errors()
            ],
        )


def explained(domains: Sequence[ExplainedDomain]) -> list[Any]:
    """Rankings as a(sa(sitsss))."""
    return [
        [
            text(domain["domain"]),
            [
                [
                    text(candidate["name"]),
                    int(candidate["priority"]),
                    unsigned(candidate["metric"]),
                    text(candidate["verdict"]),
                    text(candidate["priority_origin"]),
                    text(candidate["reason"]),
                ]
                for candidate in domain["candidates"]
            ],
        ]
        for domain in domains
    ]


def assigned(key: str, value: Any) -> str:
    """A value as it is written in a unit file: a text as it is, a number, yes or no, the steps of a ladder.

    Raises InvalidArgumentsError.
    """
    match value:
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case int():
            return str(value)
        case list() if all(isinstance(item, str) for item in value):
            return " ".join(value)
    raise InvalidArgumentsError(f"{text(key)[:100]} takes a text, a number, a boolean or a list of texts")
