# SPDX-License-Identifier: LGPL-2.1-or-later
"""The carrier `core`: oomslice-core, the kill path itself. Its plans go through daemon.core_link, which waits for them
to be accepted before any other carrier hears of them; here is only what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oomslice.carriers.model import CarrierState
from oomslice.plan.channel import CoreState
from oomslice.policy.model import Policy


class CoreCarrier:
    """`state_of_core()` is what the core said last, None without a connection; `refused()` why it did not
    take a plan the last time it did not, else empty."""

    def __init__(self, state_of_core: Callable[[], CoreState | None], refused: Callable[[], str]) -> None:
        self._state_of_core = state_of_core
        self._refused = refused

    def state(self) -> CarrierState:
        """Active from the first plan on, as long as there is a connection."""
        core = self._state_of_core()
        armed = core is not None and core.generation > 0
        return CarrierState(
            name="core",
            active=armed,
            acts=True,
            detail="armed" if armed else "oomslice-core has no plan" if core else "oomslice-core is not running",
            hits=core.decisions if core else 0,
            missed=core.dropped if core else 0,
            last_error=self._refused(),
        )

    def follow(self, policy: Policy, descriptors: Sequence[int]) -> None:
        """It has the plan already."""

    def close(self) -> None:
        """Its connection is not ours."""
