# SPDX-License-Identifier: LGPL-2.1-or-later
"""The carrier `systemd-oomd`: who may run beside us, by rules of his own. It is seen, never told what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from oomslice.carriers.model import CarrierState
from oomslice.decisions.oomd import CARRIER, OomdKills
from oomslice.decisions.record import Decision
from oomslice.policy.model import Policy


class OomdCarrier:
    """`running` says whether systemd-oomd runs; `made` gets each decision and returns whether it is stored."""

    def __init__(self, boot_id: str, running: Callable[[], bool], made: Callable[[Decision], bool]) -> None:
        self.kills = OomdKills(boot_id)
        self._running = running
        self._made = made
        self._hits = self._missed = 0
        self.listening_error = ""
        """why what it says cannot be heard; empty if it can"""
        self.journal_error = ""
        """why the journal cannot be asked whom it killed while nobody listened; empty if it can"""

    def heard(self, cgroup: str, reason: str) -> None:
        """systemd-oomd says that it has killed a cgroup."""
        now = time.monotonic_ns() // 1000
        if self.kills.is_known(cgroup, now):
            return
        decision = self.kills.decision(cgroup, reason, time.time_ns() // 1000, now)
        if self._made(decision):
            self._hits += 1
        else:
            self._missed += 1

    def missed(self, count: int) -> None:
        """So many kills that nobody had heard of were found in the journal, and stored."""
        self._hits += count

    def state(self) -> CarrierState:
        """Active if it runs and is heard."""
        running = self._running()
        detail = "its kills are recorded from what it says on the bus, and from the journal when nobody listened"
        if self.journal_error:
            detail = "its kills are recorded from what it says on the bus, and lost when nobody listens"
        if not running:
            detail = "it does not run"
        elif self.listening_error:
            detail = "it runs, but the bus cannot be heard"
        return CarrierState(
            name=CARRIER,
            active=running and not self.listening_error,
            acts=False,
            detail=detail,
            hits=self._hits,
            missed=self._missed,
            last_error=self.listening_error or self.journal_error,
        )

    def follow(self, policy: Policy, descriptors: Sequence[int]) -> None:
        """Who it kills is looked up in the last plans."""
        self.kills.follow(policy)

    def close(self) -> None:
        """Nothing is held."""
