# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the D-Bus service asks of the daemon, and the shapes it takes: nothing of the daemon itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict

from oomslice.decisions.history import History
from oomslice.decisions.record import Decision
from oomslice.decisions.statistics import Statistics
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
        """One mapping per carrier, as CarrierState.to_bus makes it."""

    def configuration_errors(self) -> Sequence[Problem]: ...

    def slices(self) -> Sequence[SliceRow]:
        """In the order of the plan."""

    def slice(self, name: str) -> Mapping[str, Any]:
        """Effective settings of one unit, and where each comes from. Raises NoSuchUnitError."""

    def units(self) -> Mapping[str, object]:
        """All units of the plan by an id that stays (the name, and the path below a user's manager). The same mapping
        until there is another plan. What it maps to is equal for as long as the unit's description is."""

    def described(self, unit: object) -> Mapping[str, Any]:
        """The properties of org.oomslice1.Slice but its figures, for one of units(), also of an earlier plan."""

    def figures(self, unit: object) -> Mapping[str, int]:
        """The other ones, now; 0 where there is nothing to be read."""

    def decisions(self, since_usec: int, limit: int) -> Sequence[Decision]:
        """Newest first. Raises StoreError."""

    def decision(self, id: str) -> Decision:
        """Raises NoSuchDecisionError, StoreError."""

    def history(self, id: str) -> History:
        """The figures around a decision; empty if none are kept. Raises NoSuchDecisionError, StoreError."""

    def statistics(self) -> Statistics:
        """Counted decisions. Called in a thread. Raises StoreError."""

    def memory(self) -> Mapping[str, int]:
        """Memory of the machine and its limits, now, in bytes. Raises CgroupError."""

    def explain(self) -> Sequence[ExplainedDomain]:
        """Who would be chosen now."""

    def simulate(self, settings: Mapping[str, Mapping[str, str]]) -> Sequence[ExplainedDomain]:
        """Who would be chosen now if units had these settings as well. Called in a thread. Raises OomsliceError."""

    def check_settings(self, unit: str, assignments: Mapping[str, str]) -> None:
        """Raises NoSuchUnitError, InvalidSettingError if a unit cannot have these values of [X-OOMSlice]."""

    async def set_settings(self, unit: str, assignments: Mapping[str, str], runtime: bool, uid: int) -> str:
        """Writes them for a unit on behalf of a user, empty ones to take back what other files say; none at all takes
        back what was set. Returns the file, when the plan that they make is in force. Raises OomsliceError."""

    def check_step(self, unit: str, step: str) -> None:
        """Raises NoSuchUnitError, InvalidSettingError if there is no such unit or step."""

    async def act(self, unit: str, step: str, uid: int) -> str:
        """Has a step done to a unit on behalf of a user; the decision's id, when it is over. Raises OomsliceError."""

    async def release(self, unit: str, uid: int) -> None:
        """Has it undone what steps did to a unit. Raises OomsliceError."""

    async def reload(self) -> None:
        """Reads the configuration and all units again. Raises OomsliceError if the old one stays."""
