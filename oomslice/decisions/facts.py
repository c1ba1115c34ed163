# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's own kills as the BPF program `observe` tells them: records of a pinned ring buffer in, kills out.

What is in the ring stays there until `release`, also while nobody reads it: the room of a kill is given back to the
kernel only when it is stored. The layout of the records is core/fact.h.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from dataclasses import dataclass, field
from typing import Any

from oomslice._core import ffi, lib
from oomslice.decisions.kmsg import Kill, KilledProcess

LOGGER = logging.getLogger(__name__)

PINS = "/run/oomslice/bpf"
"""Where oomslice-bpf pins; the maps of a carrier are in a directory of its name."""
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


class Facts:
    """The ring of the carrier `observe` below `pins`. It may come and go: `follow` looks."""

    def __init__(self, pins: str = PINS) -> None:
        self._path = f"{pins}/observe/map-facts"
        self._identity: tuple[int, int] | None = None
        self._fd = -1
        self._facts: Any = None
        self.error = ""
        """why a ring that is there cannot be read, empty if it can"""

    @property
    def open(self) -> bool:
        """Kills are told here."""
        return self._facts is not None

    def fileno(self) -> int:
        """Readable while there is something that was not released; -1 if there is no ring."""
        return self._fd

    def follow(self) -> bool:
        """Opens the ring if there is a new one, closes it if it is gone. True if that changed anything."""
        try:
            status = os.stat(self._path)
            identity = (status.st_dev, status.st_ino)
        except OSError as error:
            self.error = "" if error.errno == errno.ENOENT else f"{self._path}: {error.strerror}"
            changed = self.open
            self.close()
            return changed
        if identity == self._identity:
            return False
        self.close()
        self._identity = identity
        fd = lib.oomslice_pinned_open(self._path.encode())
        if fd < 0:
            return self._refused(-fd)
        return self._map(fd, lib.oomslice_facts_new(fd))

    def use(self, fd: int, size: int) -> None:
        """Reads from a file with the layout of a ring buffer of `size` bytes instead. The descriptor is taken over."""
        self.close()
        self._map(fd, lib.oomslice_facts_map(fd, size))

    def _map(self, fd: int, facts: Any) -> bool:
        if facts == ffi.NULL:
            number = ffi.errno
            os.close(fd)
            return self._refused(number)
        self._fd = fd
        self._facts = facts
        self.error = ""
        return True

    def _refused(self, number: int) -> bool:
        self.error = f"{self._path}: {os.strerror(number)}"
        LOGGER.warning("the kernel's own kills cannot be read from the BPF program: %s", self.error)
        return True

    def close(self) -> None:
        """Lets go of the ring; what is in it stays."""
        if self._facts is not None:
            lib.oomslice_facts_free(self._facts)
            self._facts = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._identity = None

    def read(self) -> list[Told]:
        """All kills that were not released, oldest first; a last one may not be complete."""
        told: list[Told] = []
        if self._facts is None:
            return told
        lib.oomslice_facts_rewind(self._facts)
        record = ffi.new("const void **")
        size = ffi.new("uint32_t *")
        while (result := lib.oomslice_facts_next(self._facts, record, size)) > 0:
            self._add(told, record[0], size[0])
        if result < 0:
            self.error = f"{self._path}: {os.strerror(-result)}"
        if told and not told[-1].complete:
            # Its end found no room, if it does not come soon.
            last = told[-1]
            last.complete = time.monotonic_ns() / 1e9 - last.kill.last_usec / 1e6 > END_S
        for one in told[:-1]:
            one.complete = True  # the kernel does one after the other
        return told

    def release(self, position: int) -> None:
        """Gives back what was told up to there."""
        if self._facts is not None and position:
            lib.oomslice_facts_release(self._facts, position)

    def _add(self, told: list[Told], record: Any, size: int) -> None:
        if size < ffi.sizeof("struct oomslice_fact"):
            return
        fact = ffi.cast("struct oomslice_fact *", record)
        usec = fact.kill_nsec // 1000
        if not told or told[-1].kill.sequence != fact.kill_nsec:
            told.append(Told(Kill(fact.kill_nsec, usec, usec, memcg=False, source="bpf")))
        one = told[-1]
        one.position = lib.oomslice_facts_position(self._facts)
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
    kill.cgroup_ids = (*(level.id for level in fact.levels[0 : fact.levels_count]),)
    if fact.cgroup not in kill.cgroup_ids and fact.depth:
        kill.cgroup_ids += (fact.cgroup,)
    names = [text(level.name) for level in fact.levels[0 : fact.levels_count]]
    kill.task_memcg = "/" + "/".join(names)
    if fact.limited:
        with contextlib.suppress(ValueError):
            depth = kill.cgroup_ids.index(fact.limited) + 1
            kill.oom_memcg = "/" + "/".join(names[:depth])


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


def text(value: Any) -> str:
    """A string of the kernel's; names of processes and cgroups may be any bytes."""
    return ffi.string(value).decode("utf-8", "replace")
