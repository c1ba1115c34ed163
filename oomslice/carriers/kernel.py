# SPDX-License-Identifier: LGPL-2.1-or-later
"""The carrier `kernel`: the kernel's own killer, whose kills are told by BPF, the kernel log and memory.events."""

from __future__ import annotations

from collections.abc import Sequence

from oomslice.carriers.model import CarrierState
from oomslice.decisions.kernel import KernelKills
from oomslice.policy.model import Policy


class KernelCarrier:
    """Has `kills` follow the plan, and says how well it sees."""

    def __init__(self, kills: KernelKills) -> None:
        self._kills = kills

    def state(self) -> CarrierState:
        """Always active: there is a counter wherever there is the memory controller."""
        sources = [
            *(["BPF"] if self._kills.bpf_readable else []),
            *(["the kernel log"] if self._kills.log_readable else []),
            "memory.events",
        ]
        seen = f"kills by the kernel are recorded from {words(sources)}"
        return CarrierState(
            name="kernel",
            active=True,
            acts=False,
            detail=seen if len(sources) > 1 else f"{seen}, without details",
            hits=self._kills.recorded,
            last_error=self._kills.log_error,
        )

    def follow(self, policy: Policy, descriptors: Sequence[int]) -> None:
        """Counts the units of the new plan from now on."""
        self._kills.follow(policy)

    def close(self) -> None:
        """Stops watching."""
        self._kills.close()


def words(items: Sequence[str]) -> str:
    """A list as people write it: "a, b and c"."""
    return " and ".join([*([", ".join(items[:-1])] if len(items) > 1 else []), *items[-1:]])
