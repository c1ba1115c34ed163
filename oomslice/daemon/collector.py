# SPDX-License-Identifier: LGPL-2.1-or-later
"""Brings decisions from where they are made to where they can be asked for: store first, then journal and bus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from oomslice.daemon.tell import UnitJournal
from oomslice.decisions.history import BEFORE_USEC
from oomslice.decisions.journal import JournalSender
from oomslice.decisions.record import Decision, Undo
from oomslice.decisions.ring import NO_TEXTS, Ring, Texts
from oomslice.decisions.store import DecisionStore
from oomslice.errors import StoreError

log = logging.getLogger("oomsliced")


class Collector:
    """A record leaves the ring only once it is stored, and counts as announced only once journal and bus have it: so a
    death at any point repeats a step at most, and the store's key makes the repetition harmless."""

    def __init__(
        self,
        store: DecisionStore,
        journal: JournalSender,
        boot_id: str,
        emit: Callable[[Decision], Awaitable[None]],
        start: Callable[[Decision], Awaitable[None] | None] = lambda decision: None,
        undone: Callable[[Decision], None] = lambda decision: None,
        units: UnitJournal | None = None,
        named: Callable[[Decision], Decision] = lambda decision: decision,
    ) -> None:
        """`start` is what is still to be done for a decision once it is told, None if nothing (OnDecision=); `undone`
        is told of one whose steps were taken back, and `units` has the journals of units told of both.
        `named` adds what the core does not know."""
        self._store = store
        self._journal = journal
        self._boot_id = boot_id
        self._emit = emit
        self._start = start
        self._told_undone = undone
        self._units = units
        self._named = named
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._recent: dict[str, int] = {}
        """id -> trigger, of decisions whose history is not over yet"""

    def collect(self, ring: Ring, names: Mapping[int, str], texts: Mapping[int, Texts] = NO_TEXTS) -> int:
        """Stores what the ring holds; returns how many decisions were new. If that fails, they stay in the ring."""
        new = 0
        for item in ring.drain(names, self._boot_id, texts):
            try:
                if isinstance(item, Undo):
                    self._undone(item)
                else:
                    new += self._store.add(self._named(item))
                    self._recent[item.id] = item.trigger_usec
                    self._keep_history(ring, names, item.id)
            except StoreError as error:
                log.error("record %s stays in the ring: %s", item.id, error)
                break
            ring.release(item)
        return new

    def follow(self, ring: Ring, names: Mapping[int, str]) -> None:
        """Stores the figures around the last decisions again, with what came after them. Then they are left alone."""
        for id in tuple(self._recent):
            self._keep_history(ring, names, id)
        self._recent.clear()

    def _keep_history(self, ring: Ring, names: Mapping[int, str], id: str) -> None:
        """A decision without its figures is a decision all the same."""
        try:
            self._store.add_history(id, ring.history(self._recent[id] - BEFORE_USEC, names))
        except StoreError as error:
            log.warning("the figures around decision %s are not kept: %s", id, error)

    def _undone(self, undo: Undo) -> None:
        """A decision that is no longer kept needs no end. The journal is told once, and not again if it is stuck."""
        decision = self._store.undo(undo)
        if decision is not None:
            self._journal.send_undo(decision, undo)
            self._told_undone(decision)
            if self._units is not None:
                self._units.undone(decision, undo)

    async def announce(self) -> bool:
        """Tells journal and bus of every stored decision that they have not heard of. False: try again later."""
        # One that is told off while we are at it would be told twice.
        begun = set(self._starting)
        try:
            for decision in self._store.unannounced():
                if decision.id in begun:
                    continue
                if not self._journal.send(decision):
                    return False
                if self._units is not None:
                    self._units.decision(decision)
                await self._emit(decision)
                started = self._start(decision)
                if started is None:
                    self._store.announced(decision.id)
                else:
                    # Whatever that takes, the journal hears of the next decision now.
                    self._starting[decision.id] = asyncio.get_running_loop().create_task(
                        self._started(decision.id, started)
                    )
        except StoreError as error:
            log.error("decisions cannot be announced: %s", error)
            return False
        return True

    async def _started(self, id: str, started: Awaitable[None]) -> None:
        try:
            await started
            self._store.announced(id)
        except StoreError as error:
            log.error("decision %s will be announced again: %s", id, error)
        finally:
            del self._starting[id]

    def close(self) -> None:
        """Leaves undone what is being started: it is begun again after the next start, and done once all the same."""
        for task in self._starting.values():
            task.cancel()
