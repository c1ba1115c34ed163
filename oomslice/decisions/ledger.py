# SPDX-License-Identifier: LGPL-2.1-or-later
"""The account of what the kernel killed: counters of memory.events against lines of the kernel log.

The log tells details, the counters tell that there is something to be told: a kill that was counted and has no line in
the log, or no log that may be read, becomes a decision with unit and number alone. Neither is lost nor doubled: how far
both were read is noted in the store in one transaction with the decisions made of it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oomslice.decisions.kmsg import Kill, KillParser, parse_record
from oomslice.decisions.record import Decision
from oomslice.decisions.store import DecisionStore

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
ROOT_SLICE = "-.slice"
UNIT_SUFFIXES = (".service", ".scope", ".slice", ".socket", ".mount", ".swap")


@dataclass(frozen=True, slots=True)
class CountedUnit:
    """One cgroup whose kills are counted; its counter includes those of all below it."""

    name: str
    path: str
    """below the cgroup root"""
    cgroup_id: int
    priority: int
    parent: int
    """cgroup id of the nearest counted ancestor, 0 if there is none"""


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

    def __init__(self, root: str, store: DecisionStore, boot_id: str, kmsg: str) -> None:
        self._root = root
        self._store = store
        self._boot_id = boot_id
        self._kmsg_path = kmsg
        self._lock = threading.Lock()
        self._kmsg = -1
        self._kmsg_error = ""
        self._closed = False
        self._parser = KillParser()
        self._parsed_at = 0.0
        self._restored = False
        self._next_sequence = 0
        self._known: dict[int, int] | None = None
        """counters of an earlier run of this boot, None if there was none; used up by the first units"""
        self._units: dict[int, CountedUnit] = {}
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

    def settle(self, units: Mapping[int, CountedUnit]) -> tuple[list[Decision], float | None]:
        """Stores what the kernel killed since the last time. `units` are those to count now, by cgroup id.

        Returns the new decisions, and after how many seconds to come again, None if all is told. Raises StoreError:
        nothing is forgotten, and the next call tries again.
        """
        with self._lock:
            if self._closed:
                return [], None
            self._restore()
            self._take_units(units)
            # In this order: the kernel counts before it logs, so what is in the log is counted by then.
            more = self._read_log()
            self._count()
            now = time.monotonic()
            for kill in self._parser.take(all_complete=not more and now - self._parsed_at >= SETTLE_S):
                self._explain(kill)
                self._pending.append(self._decision(kill))
            self._pending += self._only_counted(now)
            noted = self._told()
            new: list[Decision] = []
            # Not for each message of the log or each unit that comes and goes: this is a write to the disk.
            if self._pending or noted != self._noted:
                sequence = self._parser.open_sequence
                state = {
                    "next_sequence": self._next_sequence if sequence is None else sequence,
                    "counters": {str(id): count for id, count in noted.items()},
                }
                new = self._store.add_kernel_kills(self._pending, self._boot_id, state)
                self._pending.clear()
                self._noted = noted
            if more:
                return new, 0.0
            if self._parser.open_sequence is not None:
                return new, SETTLE_S
            return new, AGAIN_S if self._unexplained else None

    def close(self) -> None:
        """Closes the log. What happens from now on is found by the next account."""
        with self._lock:
            self._closed = True
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
        """Takes the log's kills off the counted ones: of their unit, else of those above it, else of any."""
        left = kill.lines
        path = kill.task_memcg or kill.group
        order = []
        unit = self._unit_above(path) if path else None
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
            self._kmsg_error = ""
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
                LOGGER.warning("%s cannot be read: %s", self._kmsg_path, error.strerror)
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

    def _decision(self, kill: Kill) -> Decision:
        path = kill.task_memcg or kill.group
        unit = self._unit_above(path) if path else None
        victim = self._name(path) if path else ROOT_SLICE
        domain = victim
        if not kill.memcg:
            domain = ROOT_SLICE
        elif kill.oom_memcg:
            domain = self._name(kill.oom_memcg)
        processes = list(kill.processes.values())
        first = processes[0]
        extra: dict[str, Any] = {
            "source": "kernel-log",
            "kernel_sequence": kill.sequence,
            "task": first.task,
            "constraint": kill.constraint or ("CONSTRAINT_MEMCG" if kill.memcg else "CONSTRAINT_NONE"),
            "task_memcg": kill.task_memcg,
            "oom_memcg": kill.oom_memcg,
            "group": kill.group,
        }
        if first.uid is not None:
            extra["uid"] = first.uid
        if first.score_adjustment is not None:
            extra["oom_score_adj"] = first.score_adjustment
        return Decision(
            id=f"{self._boot_id[:16]}-k{kill.sequence}",
            boot_id=self._boot_id,
            carrier="kernel",
            trigger="kernel-oom",
            domain=domain,
            outcome="killed-by-kernel",
            # Good to the time the machine was suspended since.
            realtime_usec=(time.time_ns() - time.monotonic_ns()) // 1000 + kill.usec,
            trigger_usec=kill.usec,
            decision_usec=kill.usec,
            signal_usec=kill.last_usec,
            victim=victim,
            victim_cgroup_id=self._cgroup_id(path, victim, unit),
            victim_priority=unit.priority if unit else 0,
            victim_memory_before=sum(item.anonymous + item.file + item.shared for item in processes),
            # What the death of a process gives back for sure: file pages and shared memory may stay.
            bytes_freed=sum(item.anonymous for item in processes),
            processes=len(processes),
            pids=tuple(item.pid for item in processes),
            extra=extra,
        )

    # Names

    def _unit_above(self, path: str) -> CountedUnit | None:
        """The nearest counted unit at or above a cgroup path. A unit's priority holds for what is below it."""
        by_path = {unit.path: unit for unit in self._units.values()}
        while path not in ("", "/"):
            if path in by_path:
                return by_path[path]
            path = path.rpartition("/")[0]
        return by_path.get("/")

    def _name(self, path: str) -> str:
        """The unit's name: as the plan has it, else as its cgroup is called."""
        unit = self._unit_above(path)
        if unit is not None and (unit.path == path or not unit.name.endswith(".slice")):
            return unit.name
        # A unit that came and went between two plans: the first of the names below the slice that is a unit's but no
        # slice's; else the last slice.
        below = path[len(unit.path) :] if unit is not None else path
        names = [name for name in below.split("/") if name.endswith(UNIT_SUFFIXES)]
        for name in names:
            if not name.endswith(".slice"):
                return name
        if names:
            return names[-1]
        return unit.name if unit is not None else path.rpartition("/")[2] or ROOT_SLICE

    def _cgroup_id(self, path: str, victim: str, unit: CountedUnit | None) -> int:
        if unit is not None and unit.name == victim:
            return unit.cgroup_id
        # The unit's own directory is where the victim's name is in the path; it may be gone.
        head, found, _ = f"{path}/".partition(f"/{victim}/")
        if found:
            with contextlib.suppress(OSError):
                return os.stat(f"{self._root}{head}/{victim}").st_ino
        return 0


def oom_kills(directory: str) -> int | None:
    """The counter oom_kill of a cgroup directory's memory.events; None if it has none. Source: cgroup-v2.rst."""
    try:
        with open(f"{directory}/memory.events", "rb", buffering=0) as file:
            return parse_oom_kills(file.read(4096))
    except OSError:
        return None


def parse_oom_kills(text: bytes) -> int | None:
    """The counter oom_kill in the text of a memory.events."""
    for line in text.splitlines():
        key, _, value = line.partition(b" ")
        if key == b"oom_kill" and value.isdigit():
            return int(value)
    return None
