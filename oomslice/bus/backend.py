# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the D-Bus service asks of the daemon, and the shapes it takes: nothing of the daemon itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict

from oomslice.decisions.record import Decision
from oomslice.settings.model import Problem


class SliceRow(TypedDict):
    """One unit of the plan, as ListSlices shows it."""

    name: str
    cgroup: str
    """path below the cgroup root"""
    priority: int
    """effective"""
    protected: bool
    candidate: bool
    priority_origin: str
    actions: str
    """ladder in force; empty if the unit goes with one above it"""


class ExplainedCandidate(TypedDict):
    """One unit as it stands in a domain's ranking now."""

    name: str
    priority: int
    metric: int
    verdict: str
    priority_origin: str
    reason: str


class ExplainedDomain(TypedDict):
    """The ranking of one domain, best candidate first."""

    domain: str
    candidates: Sequence[ExplainedCandidate]


class Backend(Protocol):
    """The daemon, as the bus sees it.

    Any method may raise an OomsliceError, which the caller gets under its bus_name; anything else that is raised is
    logged, and the caller learns only that it happened. `decisions` and `decision` are called in a thread, because the
    store waits for the disk; the others in the loop, and should not wait. In mappings with free keys, values are str,
    bool, int, float, lists of str, mappings, lists of mappings; None leaves the key out.
    """

    @property
    def version(self) -> str: ...

    def state(self) -> Mapping[str, Any]:
        """Free keys: whether the core is there, plan generation, how many units, drop counters, ..."""

    def carriers(self) -> Sequence[Mapping[str, Any]]:
        """One mapping per carrier: name (str), active (bool), reason (str), ..."""

    def configuration_errors(self) -> Sequence[Problem]: ...

    def slices(self) -> Sequence[SliceRow]:
        """In the order of the plan."""

    def slice(self, name: str) -> Mapping[str, Any]:
        """Effective settings of one unit, and where each comes from. Raises NoSuchUnitError."""

    def decisions(self, since_usec: int, limit: int) -> Sequence[Decision]:
        """Newest first. Raises StoreError."""

    def decision(self, id: str) -> Decision:
        """Raises NoSuchDecisionError, StoreError."""

    def explain(self) -> Sequence[ExplainedDomain]:
        """Who would be chosen now."""

    async def reload(self) -> None:
        """Reads the configuration and all units again. Raises OomsliceError if the old one stays."""
