# SPDX-License-Identifier: LGPL-2.1-or-later
"""The account of what the kernel killed: what BPF tells, lines of the kernel log, counters of memory.events.

BPF tells most, and most exactly. A kill that it does not tell (not loaded, no room in its ring) is taken from the log;
one that is counted and in neither becomes a decision with unit and number alone. None is lost nor doubled: how far all
were read is noted in the store in one transaction with the decisions made of it, and what BPF told stays in its ring
until then.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from oomslice.decisions.facts import Facts, Told
from oomslice.decisions.kmsg import Kill, KillParser, parse_record
from oomslice.decisions.record import Decision
from oomslice.decisions.store import DecisionStore
from oomslice.decisions.twice import REMEMBERED, Remembered, same
from oomslice.decisions.whose import CountedUnit, Whose, decision_of
from oomslice.policy.agreement import agreement
from oomslice.policy.model import Policy, PolicyUnit

LOGGER = logging.getLogger(__name__)

RECORD_MAX = 1 << 15
"""A read of the log gives one record, and fails if it does not fit. The kernel's are below 8 kB with all escapes."""
RECORDS_MAX = 100_000
"""Records read at once: a log that fills faster than it is read must not hold us."""
SETTLE_S = 0.25
"""From the counter to the log line, and between the lines of one kill. The kernel counts first and logs then."""
AGAIN_S = 1.0
"""Between two looks at the log while a counted kill waits for its line."""
EXPLAIN_S = 5.0
"""How long a counted kill waits for its line in the log."""
JUDGED = ("CONSTRAINT_NONE", "CONSTRAINT_MEMCG")
"""Kills of which it can be said whether the plan would have chosen so."""


@dataclass(slots=True)
class _Unexplained:
    """Kills of one unit that were counted and have no line in the log yet."""

    unit: CountedUnit
    count: int
    since: float
    value: int
    """the counter when it was read: names the last of these kills"""


class KillLedger:
    """The account of one boot. Methods are called one at a time, from any thread, and may wait for the disk."""

    def __init__(
        self,
        root: str,
        store: DecisionStore,
        boot_id: str,
        kmsg: str,
        facts: Facts | None = None,
    ) -> None:
        self._root = root
        self._store = store
        self._boot_id = boot_id
        self._kmsg_path = kmsg
        self._lock = threading.Lock()
        self._kmsg = -1
        self._kmsg_error = ""
        self._closed = False
        self._facts = facts
        self._fact_sequence = 0
        """of the last kill that BPF told and that has its decision"""
        self._remembered = Remembered()
        self._parser = KillParser()
        self._parsed_at = 0.0
        self._restored = False
        self._next_sequence = 0
        self._known: dict[int, int] | None = None
        """counters of an earlier run of this boot, None if there was none; used up by the first units"""
        self._units: dict[int, CountedUnit] = {}
        self._whose = Whose(root, self._units)
        self._counters: dict[int, int] = {}
        self._unexplained: dict[int, _Unexplained] = {}
        self._pending: list[Decision] = []
        self._noted: dict[int, int] | None = None
        """the counters as they stand in the store"""
        self._open_log()

    @property
    def log_readable(self) -> bool:
        """Kills are told with process and size, not only counted."""
        return self._kmsg >= 0

    @property
    def log_error(self) -> str:
        """Why the log could not be opened or read the last time it could not; empty if it always could."""
        return f"{self._kmsg_path}: {self._kmsg_error}" if self._kmsg_error else ""

    def settle(
        self, units: Mapping[int, CountedUnit], plans: Sequence[tuple[int, Policy]] = ()
    ) -> tuple[list[Decision], float | None]:
        """Stores what the kernel killed since the last time. `units` are those to count now, by cgroup id; `plans` the
        last ones, each with when it was made (CLOCK_MONOTONIC, microseconds), the newest last.

        Returns the new decisions, and after how many seconds to come again, None if all is told. Raises StoreError:
        nothing is forgotten, and the next call tries again.
        """
        with self._lock:
            if self._closed:
                return [], None
            self._restore()
            self._take_units(units)
            # In this order: the kernel counts before it logs, and what BPF tells is complete when all is counted. So
            # what was read here is counted by then.
            if self._facts is not None:
                self._facts.follow()
            told = self._read_facts()
            more = self._read_log()
            self._count()
            now = time.monotonic()
            kills, position = self._take_facts(told)
            for kill in self._parser.take(all_complete=not more and now - self._parsed_at >= SETTLE_S):
                # What BPF told of it by now has its decision already, or will have it.
                if not self._remembered.take(kill) and not self._in_facts(kill):
                    self._remembered.add(kill)
                    kills.append(kill)
            kills.sort(key=lambda kill: kill.usec)
            for kill in kills:
                self._explain(kill)
            self._pending += self._judged(kills, plans, {one.kill.task_memcg for one in told if not one.complete})
            self._pending += self._only_counted(now)
            noted = self._told()
            new: list[Decision] = []
            # Not for each message of the log or each unit that comes and goes: this is a write to the disk.
            if self._pending or noted != self._noted:
                sequence = self._parser.open_sequence
                state = {
                    "next_sequence": self._next_sequence if sequence is None else sequence,
                    "counters": {str(id): count for id, count in noted.items()},
                    "fact": self._fact_sequence,
                }
                new = self._store.add_kernel_kills(self._pending, self._boot_id, state)
                self._pending.clear()
                self._noted = noted
            if self._facts is not None:
                self._facts.release(position)
            if more:
                return new, 0.0
            if self._parser.open_sequence is not None or any(not one.complete for one in told):
                return new, SETTLE_S
            return new, AGAIN_S if self._unexplained else None

    def close(self) -> None:
        """Closes the log. What happens from now on is found by the next account."""
        with self._lock:
            self._closed = True
            if self._facts is not None:
                self._facts.close()
            if self._kmsg >= 0:
                os.close(self._kmsg)
                self._kmsg = -1

    # State

    def _restore(self) -> None:
        if self._restored:
            return
        state = self._store.kernel_state(self._boot_id)
        if state is not None:
            self._next_sequence = self._store.next_kernel_sequence(self._boot_id)
            counters = state.get("counters")
            self._known = {int(id): int(count) for id, count in (counters or {}).items()}
            self._noted = dict(self._known)
            self._fact_sequence = int(state.get("fact", 0))
            kept = self._store.list(0, REMEMBERED)
            self._remembered.restore(reversed([one for one in kept if one.boot_id == self._boot_id]))
        self._restored = True

    def _told(self) -> dict[int, int]:
        """The counters less what is not told yet, so that it is counted again after a death; zeros left out."""
        told = dict(self._counters)
        for entry in self._unexplained.values():
            unit: CountedUnit | None = entry.unit
            while unit is not None:
                if unit.cgroup_id in told:
                    told[unit.cgroup_id] -= entry.count
                unit = self._units.get(unit.parent)
        return {id: count for id, count in sorted(told.items()) if count > 0}

    # BPF

    @property
    def bpf_readable(self) -> bool:
        """Kills are told by the BPF program."""
        return self._facts is not None and self._facts.open

    @property
    def bpf_error(self) -> str:
        """Why what the BPF program tells cannot be read, though it is there; empty if it can or is not."""
        return self._facts.error if self._facts is not None else ""

    def _read_facts(self) -> list[Told]:
        return self._facts.read() if self._facts is not None else []

    def _take_facts(self, told: list[Told]) -> tuple[list[Kill], int]:
        """The complete ones that have no decision yet, and up to where the ring is given back once they are stored."""
        kills: list[Kill] = []
        position = 0
        for one in told:
            if not one.complete:
                break
            position = one.position
            kill = one.kill
            if kill.sequence <= self._fact_sequence:
                continue
            self._fact_sequence = kill.sequence
            # Nobody was killed, or nothing is known of who was: then the counter knows how many.
            if kill.processes and not self._remembered.take(kill):
                kill.task_memcg = self._whose.path(kill)
                self._remembered.add(kill)
                kills.append(kill)
        return kills, position

    def _in_facts(self, kill: Kill) -> bool:
        """Whether BPF has begun to tell of what the log says."""
        return any(
            one.kill.sequence > self._fact_sequence and same(one.kill.processes, one.kill.usec, kill)
            for one in self._read_facts()
        )

    # Counters

    def _take_units(self, units: Mapping[int, CountedUnit]) -> None:
        for id, unit in units.items():
            if id in self._counters:
                continue
            if self._known is not None:
                # Not there the last time: all it counted happened since, and its ancestors counted it as well.
                self._counters[id] = self._known.get(id, 0)
            elif self._units and not unit.parent:
                # A topmost one that is new, so all it counted is.
                self._counters[id] = 0
            else:
                # What a new unit below another counted is found in the other's counter.
                self._counters[id] = oom_kills(self._root + unit.path) or 0
        if units:
            self._known = None
        for id in self._counters.keys() - units.keys():
            del self._counters[id]
        self._units = dict(units)
        self._whose = Whose(self._root, self._units)

    def _count(self) -> None:
        """Finds which unit's own share of the counters rose, from the top down to where they did not."""
        children: dict[int, list[CountedUnit]] = {}
        for unit in self._units.values():
            children.setdefault(unit.parent, []).append(unit)
        now = time.monotonic()
        risen = [(unit, self._rise(unit)) for unit in children.get(0, ())]
        while risen:
            unit, rise = risen.pop()
            if rise <= 0:
                continue
            below = [(child, self._rise(child)) for child in children.get(unit.cgroup_id, ())]
            risen += below
            # What is left happened in the unit itself, or in one below it that is gone or not known yet.
            own = rise - sum(max(0, rise_below) for _, rise_below in below)
            if own > 0:
                entry = self._unexplained.setdefault(unit.cgroup_id, _Unexplained(unit, 0, now, 0))
                entry.count += own
                entry.value = self._counters[unit.cgroup_id]

    def _rise(self, unit: CountedUnit) -> int:
        count = oom_kills(self._root + unit.path)
        if count is None:
            return 0
        rise = count - self._counters[unit.cgroup_id]
        self._counters[unit.cgroup_id] = count
        return rise

    def _explain(self, kill: Kill) -> None:
        """Takes a told kill off the counted ones: of its unit, else of those above it, else of any."""
        left = kill.lines
        path = kill.task_memcg or kill.group
        order = []
        unit = self._whose.unit_above(path) if path else None
        while unit is not None:
            order.append(unit.cgroup_id)
            unit = self._units.get(unit.parent)
        for id in (*order, *self._unexplained):
            entry = self._unexplained.get(id)
            if entry is not None and left:
                taken = min(entry.count, left)
                entry.count -= taken
                left -= taken
                if not path and taken:
                    # The kernel did not say whose process it was, when it had much to say. The counter does.
                    kill.task_memcg = path = entry.unit.path
        self._unexplained = {id: entry for id, entry in self._unexplained.items() if entry.count}

    def _only_counted(self, now: float) -> list[Decision]:
        """Decisions for kills that the log says nothing of."""
        decisions = []
        for id, entry in list(self._unexplained.items()):
            # A line that is being put together may be the one that is waited for.
            if self.log_readable and (now - entry.since < EXPLAIN_S or self._parser.open_sequence is not None):
                continue
            unit = entry.unit
            del self._unexplained[id]
            usec = time.monotonic_ns() // 1000
            decisions.append(
                Decision(
                    id=f"{self._boot_id[:16]}-kc{id}.{entry.value}",
                    boot_id=self._boot_id,
                    carrier="kernel",
                    trigger="kernel-oom",
                    domain=unit.name,
                    outcome="killed-by-kernel",
                    realtime_usec=time.time_ns() // 1000,
                    trigger_usec=usec,
                    decision_usec=usec,
                    signal_usec=usec,
                    victim=unit.name,
                    victim_cgroup_id=id,
                    victim_priority=unit.priority,
                    processes=entry.count,
                    extra={"source": "memory.events", "counter": entry.value},
                )
            )
        return decisions

    # Log

    def _open_log(self) -> None:
        try:
            self._kmsg = os.open(self._kmsg_path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            reason = error.strerror or str(error)
            if reason != self._kmsg_error:
                LOGGER.warning(
                    "%s cannot be read (%s): the kernel's own kills are counted, but their processes are not known",
                    self._kmsg_path,
                    reason,
                )
                self._kmsg_error = reason

    def _read_log(self) -> bool:
        """Reads what is there; True if there is more."""
        if self._kmsg < 0:
            self._open_log()
        for _ in range(RECORDS_MAX if self._kmsg >= 0 else 0):
            try:
                data = os.read(self._kmsg, RECORD_MAX)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno == errno.EPIPE:
                    continue  # overwritten before it was read; the next read gives the oldest that is left
                self._kmsg_error = error.strerror or str(error)
                LOGGER.warning("%s cannot be read: %s", self._kmsg_path, self._kmsg_error)
                os.close(self._kmsg)
                self._kmsg = -1
                return False
            if not data:
                return False
            record = parse_record(data)
            if record is None or record.sequence < self._next_sequence:
                continue
            self._next_sequence = record.sequence + 1
            if self._parser.add(record):
                self._parsed_at = time.monotonic()
        return self._kmsg >= 0

    def _judged(
        self, kills: Sequence[Kill], plans: Sequence[tuple[int, Policy]], later: Collection[str]
    ) -> list[Decision]:
        """The decisions, each with whether the plan in force at its time would have chosen so. `later` are paths of
        cgroups whose kills come after these."""
        decisions: list[Decision] = []
        died = {self._parser.open_path, *later}
        # From the last to the first: who was killed later was alive before.
        for kill in reversed(kills):
            decision = decision_of(kill, self._whose, self._boot_id)
            plan = next((plan for made, plan in reversed(plans) if made <= kill.usec), None)
            victim = kill.task_memcg or kill.group
            # With cpusets and memory policies only some of all processes count, and which is not known.
            if plan is not None and victim and decision.extra["constraint"] in JUDGED:
                alive = {
                    unit.cgroup_id
                    for unit in plan.units
                    if unit.candidate and (self._lives(unit) or any(_is_below(path, unit.path) for path in died))
                }
                said = agreement(plan, alive, victim=victim, domain=kill.oom_memcg or "/")
                decision = replace(
                    decision,
                    agreement=said.verdict,
                    planned_victim=said.planned,
                    victim_priority=said.unit.priority,
                )
            died.add(victim)
            decisions.append(decision)
        return decisions[::-1]

    def _lives(self, unit: PolicyUnit) -> bool:
        """Holds a process, and did so since the plan was made: a cgroup of the same path may be a later one."""
        directory = self._root + unit.path
        try:
            if os.stat(directory).st_ino != unit.cgroup_id:
                return False
            with open(f"{directory}/cgroup.events", "rb", buffering=0) as file:
                return b"populated 1" in file.read(4096).splitlines()
        except OSError:
            return False


def oom_kills(directory: str) -> int | None:
    """The counter oom_kill of a cgroup directory's memory.events; None if it has none. Source: cgroup-v2.rst."""
    try:
        with open(f"{directory}/memory.events", "rb", buffering=0) as file:
            return parse_oom_kills(file.read(4096))
    except OSError:
        return None


def _is_below(path: str, ancestor: str) -> bool:
    return path == ancestor or path.startswith(f"{ancestor}/")


def parse_oom_kills(text: bytes) -> int | None:
    """The counter oom_kill in the text of a memory.events."""
    for line in text.splitlines():
        key, _, value = line.partition(b" ")
        if key == b"oom_kill" and value.isdigit():
            return int(value)
    return None
