# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sees that the kernel's OOM killer acted, and has it entered in the ledger. Costs no wakeup on a quiet machine.

The ring of the BPF program `observe` wakes us where there is one, and memory.events everywhere. Of the latter only
those of the topmost cgroups are watched: their counters include all below them, they outlive the units in them, and a
kill for lack of memory of the machine is counted in the victim's cgroup as well. The kernel log is read on demand and
never waited for, since every message of any driver would wake us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from oomslice.decisions.facts import Facts
from oomslice.decisions.ledger import SETTLE_S, KillLedger, parse_oom_kills
from oomslice.decisions.record import Decision
from oomslice.decisions.store import DecisionStore
from oomslice.decisions.whose import CountedUnit
from oomslice.errors import StoreError
from oomslice.policy.model import Policy

LOGGER = logging.getLogger(__name__)

KMSG = Path("/dev/kmsg")
REST_S = 1.0
"""Between two looks at the counters. memory.events also changes when a limit is touched, up to 100 times a second."""
PLANS_KEPT = 8
"""A kill is followed by a new plan without the victim before we hear of it; the one that held then is wanted."""
RETRY_S = 5.0
"""After the store failed."""


class KernelKills:
    """Watches the cgroups below `root` from the first `follow` on.

    Decisions go into `store`; `made` is then called in the loop with each new one.
    """

    def __init__(
        self,
        root: Path | str,
        store: DecisionStore,
        boot_id: str,
        made: Callable[[Decision], object],
        *,
        kmsg: Path | str = KMSG,
        facts: Facts | None = None,
    ) -> None:
        self._root = os.fspath(root).rstrip("/")
        self._made = made
        self._ledger = KillLedger(self._root, store, boot_id, os.fspath(kmsg), facts)
        self._facts = facts
        self._facts_fd = -1
        """what is waited for, -1 while what it told is looked at"""
        self._units: dict[int, CountedUnit] = {}
        self._plans: deque[tuple[int, Policy]] = deque(maxlen=PLANS_KEPT)
        """the last ones, each with when it was made (CLOCK_MONOTONIC, microseconds)"""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._epoll: select.epoll | None = None
        self._watched: dict[str, tuple[int, int]] = {}
        """name of a topmost cgroup -> its id and the descriptor of its memory.events"""
        self._counters: dict[int, int] = {}
        """descriptor -> its counter when last read"""
        self._settle_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._failed = False
        self.recorded = 0
        """decisions made of the kernel's kills since the start"""

    @property
    def log_readable(self) -> bool:
        """Kills are told with process and size, not only counted."""
        return self._ledger.log_readable

    @property
    def log_error(self) -> str:
        """Why the kernel log was not readable the last time it was not; empty if it always was."""
        return self._ledger.log_error

    @property
    def bpf_readable(self) -> bool:
        """Kills are told by the BPF program, the moment they happen."""
        return self._ledger.bpf_readable

    @property
    def bpf_error(self) -> str:
        """Why what the BPF program tells cannot be read, though it is there; empty if it can or is not."""
        return self._ledger.bpf_error

    def follow(self, policy: Policy) -> None:
        """Takes over the units of a new plan. To be called in the loop; the first call starts watching."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._epoll = select.epoll()
            self._listen()
        topmost = self._watch_topmost()
        self._units = counted_units(policy, topmost)
        self._plans.append((time.monotonic_ns() // 1000, policy))
        # Each time: a new unit's counter is noted before anything happens in it. And the ring may be a new one:
        # oomslice-bpf.service is a unit, so there is a new plan whenever it starts or stops.
        self._settle_after(0.0)

    def close(self) -> None:
        """Stops watching. What happens from now on is found by the next one."""
        for timer in (self._settle_timer, self._rest_timer):
            if timer is not None:
                timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._epoll is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._epoll.fileno())
                self._wait_for_facts(False)
            self._epoll.close()
            self._epoll = None
        for _, descriptor in self._watched.values():
            os.close(descriptor)
        self._watched.clear()
        self._ledger.close()

    def _watch_topmost(self) -> dict[str, int]:
        """Watches what is there now; name -> cgroup id."""
        assert self._epoll is not None
        found: dict[str, int] = {}
        with contextlib.suppress(OSError), os.scandir(self._root) as entries:
            found = {entry.name: entry.inode() for entry in entries if entry.is_dir(follow_symlinks=False)}
        for name in [name for name, (id, _) in self._watched.items() if found.get(name) != id]:
            _, descriptor = self._watched.pop(name)
            self._counters.pop(descriptor, None)
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)
            os.close(descriptor)
        for name in found.keys() - self._watched.keys():
            try:
                descriptor = os.open(f"{self._root}/{name}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # gone again, or not controlled
            self._watched[name] = (found[name], descriptor)
            try:
                # Only what the kernel marks as changed: the file itself is always readable.
                self._epoll.register(descriptor, select.EPOLLPRI)
            except OSError as error:
                LOGGER.warning("%s/%s/memory.events cannot be watched: %s", self._root, name, error.strerror)
            self._read_counter(descriptor)
        return {name: id for name, (id, _) in self._watched.items()}

    def _read_counter(self, descriptor: int) -> bool:
        """Reads a counter, which also takes the mark of change off it. True if it rose."""
        try:
            count = parse_oom_kills(os.pread(descriptor, 4096, 0)) or 0
        except OSError:
            # Its cgroup was removed; such a file is marked as changed for ever.
            if self._epoll is not None:
                with contextlib.suppress(OSError):
                    self._epoll.unregister(descriptor)
            return False
        before = self._counters.get(descriptor, count)
        self._counters[descriptor] = count
        return count > before

    def _wait_for_facts(self, wanted: bool) -> None:
        """The ring is readable until what is in it is released, which is when it is stored."""
        assert self._loop is not None
        if self._facts_fd >= 0:
            self._loop.remove_reader(self._facts_fd)
            self._facts_fd = -1
        if wanted and self._facts is not None and self._facts.open:
            self._facts_fd = self._facts.fileno()
            self._loop.add_reader(self._facts_fd, self._told)

    def _told(self) -> None:
        self._wait_for_facts(False)
        self._settle_after(SETTLE_S)

    def _listen(self) -> None:
        assert self._loop is not None and self._epoll is not None
        self._rest_timer = None
        self._loop.add_reader(self._epoll.fileno(), self._woken)

    def _woken(self) -> None:
        assert self._loop is not None and self._epoll is not None
        self._loop.remove_reader(self._epoll.fileno())
        self._rest_timer = self._loop.call_later(REST_S, self._listen)
        risen = [self._read_counter(descriptor) for descriptor, _ in self._epoll.poll(0)]
        if any(risen):
            self._settle_after(SETTLE_S)

    def _settle_after(self, seconds: float) -> None:
        assert self._loop is not None
        due = self._loop.time() + seconds
        if self._settle_timer is not None:
            if self._settle_timer.when() <= due:
                return
            self._settle_timer.cancel()
        self._settle_timer = self._loop.call_at(due, self._start_settling)

    def _start_settling(self) -> None:
        assert self._loop is not None
        self._settle_timer = None
        if self._task is not None and not self._task.done():
            self._settle_after(SETTLE_S)
            return
        # From here on the ring is the ledger's, which may close it and open another.
        self._wait_for_facts(False)
        self._task = self._loop.create_task(self._settle())

    async def _settle(self) -> None:
        try:
            decisions, again = await asyncio.to_thread(self._ledger.settle, self._units, tuple(self._plans))
            self._failed = False
        except StoreError as error:
            if not self._failed:
                LOGGER.error("the kernel's kills cannot be stored, trying on: %s", error)
            self._failed = True
            self._settle_after(RETRY_S)
            return
        if again is not None:
            self._settle_after(again)
        else:
            self._wait_for_facts(True)
        for decision in decisions:
            self.recorded += 1
            self._made(decision)


def counted_units(policy: Policy, topmost: dict[str, int]) -> dict[int, CountedUnit]:
    """The units of a plan and the topmost cgroups that are none of its units, by cgroup id. The root counts nothing."""
    units: dict[int, CountedUnit] = {}
    for unit in policy.units:
        if unit.path == "/":
            continue
        parent = policy.units[unit.parent] if unit.parent >= 0 else None
        parent_id = parent.cgroup_id if parent is not None and parent.path != "/" else 0
        units[unit.cgroup_id] = CountedUnit(unit.name, unit.path, unit.cgroup_id, unit.priority, parent_id)
    default = policy.units[0].priority if policy.units else 0
    for name, id in topmost.items():
        units.setdefault(id, CountedUnit(name, f"/{name}", id, default, 0))
    return units
