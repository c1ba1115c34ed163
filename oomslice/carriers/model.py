# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every carrier is to the daemon, and what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from oomslice.policy.model import Policy


@dataclass(frozen=True, slots=True)
class CarrierState:
    """What a carrier says of itself now. Counters are since it was started."""

    name: str
    """as in Decision.carrier where it makes decisions"""
    active: bool
    acts: bool
    """it kills, or decides whom the kernel kills; otherwise it only reports"""
    detail: str
    """if active how it works, else why it does not: one sentence for people, without a full stop"""
    hits: int = 0
    """how often it acted, or saw what it is there to see"""
    missed: int = 0
    """how often it should have and could not: records lost, programs not run, processes not reached"""
    last_error: str = ""
    """what failed last, kept after it works again; empty if nothing did"""

    def to_bus(self) -> dict[str, Any]:
        """As one element of the property Carriers."""
        return {
            "Name": self.name,
            "Active": self.active,
            "Acts": self.acts,
            "Detail": self.detail,
            "Hits": self.hits,
            "Missed": self.missed,
            "LastError": self.last_error,
        }


class Carrier(Protocol):
    """One way in which the plan is carried out. Used from the event loop; no method waits or raises.

    Who finds that its state changed by itself calls what it was given for that when it was made, so that the bus hears.
    """

    def state(self) -> CarrierState:
        """What it is and does now. Asked often: no I/O."""

    def follow(self, policy: Policy, descriptors: Sequence[int]) -> None:
        """A new plan was made. `descriptors[i]` is the open cgroup directory of `policy.units[i]`, and only valid
        during the call."""

    def close(self) -> None:
        """The daemon ends. What is in force in the kernel stays, as the plan stays with the core."""
