# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's own kills as the BPF program `observe` tells them: records of a pinned ring buffer in, kills out.

The layout of the records is core/fact.h.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import Any

from oomslice._core import ffi, lib
from oomslice.decisions.factring import PINS, FactRing, text, way
from oomslice.decisions.kmsg import Kill, KilledProcess

END_S = 2.0
"""How long the end of a kill is waited for. It is missing if the ring was full."""
PAGE = os.sysconf("SC_PAGESIZE")
CONSTRAINTS = ("CONSTRAINT_NONE", "CONSTRAINT_CPUSET", "CONSTRAINT_MEMORY_POLICY", "CONSTRAINT_MEMCG")
"""enum oom_constraint of the kernel, as its log names them"""
LIMITED = CONSTRAINTS.index("CONSTRAINT_MEMCG")


@dataclass(slots=True)
class Told:
    """One kill as far as it was told, and where in the ring it ends."""

    kill: Kill
    complete: bool = False
    position: int = 0
    pids: set[int] = field(default_factory=set)


class Facts(FactRing):
    """The ring of the carrier `observe` below `pins`."""

    def __init__(self, pins: str = PINS) -> None:
        super().__init__("observe", "the kernel's own kills", pins)

    def read(self) -> list[Told]:
        """All kills that were not released, oldest first; a last one may not be complete."""
        told: list[Told] = []
        for record, size, position in self.records():
            add(told, record, size, position)
        if told and not told[-1].complete:
            # Its end found no room, if it does not come soon.
            last = told[-1]
            last.complete = time.monotonic_ns() / 1e9 - last.kill.last_usec / 1e6 > END_S
        for one in told[:-1]:
            one.complete = True  # the kernel does one after the other
        return told


def add(told: list[Told], record: Any, size: int, position: int) -> None:
    """What one more record says of the last kill, or of a new one."""
    fact = ffi.cast("struct oomslice_fact *", record)
    usec = fact.kill_nsec // 1000
    if not told or told[-1].kill.sequence != fact.kill_nsec:
        told.append(Told(Kill(fact.kill_nsec, usec, usec, memcg=False, source="bpf")))
    one = told[-1]
    one.position = position
    kill = one.kill
    kill.last_usec = fact.nsec // 1000
    if fact.kind == lib.OOMSLICE_FACT_KILL and size >= ffi.sizeof("struct oomslice_fact_kill"):
        begin(kill, ffi.cast("struct oomslice_fact_kill *", record))
    elif fact.kind == lib.OOMSLICE_FACT_VICTIM and size >= ffi.sizeof("struct oomslice_fact_victim"):
        process = victim(ffi.cast("struct oomslice_fact_victim *", record))
        kill.lines += 1
        kill.processes.setdefault(process.pid, process)
    elif fact.kind == lib.OOMSLICE_FACT_END and size >= ffi.sizeof("struct oomslice_fact_end"):
        kill.lines = max(kill.lines, ffi.cast("struct oomslice_fact_end *", record).victims)
        one.complete = True


def begin(kill: Kill, fact: Any) -> None:
    """What the kernel knew when it began."""
    kill.memcg = fact.constraint == LIMITED
    kill.constraint = CONSTRAINTS[fact.constraint] if fact.constraint < len(CONSTRAINTS) else ""
    kill.points = fact.points
    kill.total_pages = fact.total_pages
    kill.limited_id = fact.limited
    path, kill.cgroup_ids = way(fact)
    if fact.cgroup not in kill.cgroup_ids and fact.depth:
        kill.cgroup_ids += (fact.cgroup,)
    kill.task_memcg = path
    if fact.limited:
        with contextlib.suppress(ValueError):
            depth = kill.cgroup_ids.index(fact.limited) + 1
            kill.oom_memcg = "/".join(path.split("/")[: depth + 1])


def victim(fact: Any) -> KilledProcess:
    """One process that is being killed."""
    return KilledProcess(
        pid=fact.pid,
        task=text(fact.task),
        anonymous=fact.anonymous * PAGE,
        file=fact.file * PAGE,
        shared=fact.shared * PAGE,
        uid=fact.uid,
        score_adjustment=fact.score_adjustment,
    )
