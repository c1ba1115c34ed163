# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's log lines about its OOM killer, as values. Pure: records in, kills out.

What one kill looks like (mm/oom_kill.c; the first line is left out by the kernel when there are many kills, the last
two only come where memory.oom.group is set):

    oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),...,oom_memcg=/x,task_memcg=/x/y,task=hog,pid=7,uid=0
    Memory cgroup out of memory: Killed process 7 (hog) total-vm:9kB, anon-rss:8kB, file-rss:0kB, shmem-rss:0kB, ...
    Tasks in /x/y are going to be killed due to memory.oom.group set
    Memory cgroup out of memory: Killed process 8 (hog) ...

Names of processes and cgroups are chosen by users and may look like parts of such a line; they can spoil what is said
of themselves, nothing else. Lines written into the log by programs are told by their facility and ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

TASK_NAME_MAX = 15
"""TASK_COMM_LEN without its NUL."""
GROUP_GAP_USEC = 1_000_000
"""Kills of one group are logged one after the other; after a longer pause a kill is another one."""

_SUMMARY = re.compile(
    r"oom-kill:constraint=(?P<constraint>\w+),.*?(?:,global_oom|,oom_memcg=(?P<oom_memcg>.*?)),task_memcg=(?P<rest>.*)"
)
_SUMMARY_END = re.compile(r"(?P<task>.*),pid=(?P<pid>\d+),uid=(?P<uid>\d+)", re.DOTALL)
_KILLED = re.compile(
    r"(?P<message>Out of memory|Memory cgroup out of memory|Out of memory \(oom_kill_allocating_task\))"
    r": Killed process (?P<pid>\d+) \((?P<task>.*)\) total-vm:\d+kB, anon-rss:(?P<anon>\d+)kB, file-rss:(?P<file>\d+)kB"
    r"(?:, shmem-rss:(?P<shmem>\d+)kB)?(?:, UID:(?P<uid>\d+))?"
    r"(?: pgtables:\d+kB oom_score_adj:(?P<adjustment>-?\d+))?",
    re.DOTALL,
)
_GROUP = re.compile(r"Tasks in (?P<path>.*) are going to be killed due to memory\.oom\.group set", re.DOTALL)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of /dev/kmsg. `usec` is the kernel log's clock: CLOCK_MONOTONIC but for a drift."""

    sequence: int
    usec: int
    text: str


@dataclass(frozen=True, slots=True)
class KilledProcess:
    """One "Killed process" line. Sizes in bytes."""

    pid: int
    task: str
    anonymous: int
    file: int
    shared: int
    uid: int | None
    score_adjustment: int | None


@dataclass(slots=True)
class Kill:
    """What the kernel did at one time: a process, or all of a group."""

    sequence: int
    """of the first line, if the log told it; nanoseconds of CLOCK_MONOTONIC if BPF did: names it in this boot"""
    usec: int
    last_usec: int
    memcg: bool
    """because a cgroup's limit was reached, not for lack of memory of the machine"""
    constraint: str = ""
    """as the kernel says it; empty if it said nothing"""
    oom_memcg: str = ""
    """path of the cgroup whose limit was reached"""
    task_memcg: str = ""
    """path of the cgroup of the process; empty if the kernel left that out"""
    group: str = ""
    """path of the cgroup that was killed as a whole"""
    lines: int = 0
    """"Killed process" lines: as many as memory.events counts"""
    source: str = "kernel-log"
    """or "bpf", which alone knows what follows"""
    cgroup_ids: tuple[int, ...] = ()
    """ids of the cgroups of task_memcg, from below the root down to that of the process"""
    limited_id: int = 0
    """id of the cgroup of oom_memcg"""
    points: int = 0
    """the kernel's score of the process, in pages"""
    total_pages: int = 0
    """what the score is out of"""
    processes: dict[int, KilledProcess] = field(default_factory=dict)
    """by pid"""


@dataclass(frozen=True, slots=True)
class _Summary:
    record: Record
    constraint: str
    oom_memcg: str
    task_memcg: str
    pid: int


def parse_record(data: bytes) -> Record | None:
    """One read of /dev/kmsg; None unless the kernel itself wrote it. Source: Documentation/ABI/testing/dev-kmsg."""
    prefix, separator, rest = data.partition(b";")
    fields = prefix.split(b",")
    try:
        priority, sequence, usec = (int(value) for value in fields[:3])
    except ValueError:
        return None
    if not separator or priority >> 3 != 0:
        return None
    # What follows the line is a dictionary of keys, each line with a leading blank.
    line = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), rest.split(b"\n", 1)[0])
    return Record(sequence, usec, line.decode("utf-8", "replace"))


class KillParser:
    """Puts the lines of kills together. `add` each record in order; `take` what is complete."""

    def __init__(self) -> None:
        self._summary: _Summary | None = None
        self._open: Kill | None = None
        self._complete: list[Kill] = []

    @property
    def open_sequence(self) -> int | None:
        """Sequence of the first line of what is not complete yet, None if all is."""
        if self._open is not None:
            return self._open.sequence
        return self._summary.record.sequence if self._summary else None

    def add(self, record: Record) -> bool:
        """Takes one record; True if it belongs to a kill."""
        if match := _KILLED.match(record.text):
            self._killed(record, match)
        elif match := _SUMMARY.match(record.text):
            self._close()
            self._summary = _summary(record, match)
            return self._summary is not None
        elif (match := _GROUP.match(record.text)) and self._open is not None:
            self._open.group = match["path"]
            self._open.last_usec = record.usec
        else:
            return False
        return True

    @property
    def open_path(self) -> str:
        """Path of the cgroup whose kill is being put together, empty if there is none or it is not known yet."""
        return (self._open.task_memcg or self._open.group) if self._open is not None else ""

    def take(self, *, all_complete: bool) -> Iterator[Kill]:
        """The complete kills; the last one too if `all_complete`: nothing more of it is to be expected."""
        if all_complete:
            self._close()
            self._summary = None
        complete, self._complete = self._complete, []
        yield from complete

    def _killed(self, record: Record, match: re.Match[str]) -> None:
        process = KilledProcess(
            pid=int(match["pid"]),
            task=match["task"],
            anonymous=int(match["anon"]) * 1024,
            file=int(match["file"]) * 1024,
            shared=int(match["shmem"] or 0) * 1024,
            uid=int(match["uid"]) if match["uid"] else None,
            score_adjustment=int(match["adjustment"]) if match["adjustment"] else None,
        )
        kill = self._open
        if kill is None or not kill.group or record.usec - kill.last_usec > GROUP_GAP_USEC:
            self._close()
            kill = self._open = Kill(
                record.sequence, record.usec, record.usec, memcg=match["message"].startswith("Memory cgroup")
            )
            summary, self._summary = self._summary, None
            if summary is not None and summary.pid == process.pid:
                kill.sequence, kill.usec = summary.record.sequence, summary.record.usec
                kill.constraint = summary.constraint
                kill.oom_memcg = summary.oom_memcg
                kill.task_memcg = summary.task_memcg
        kill.last_usec = record.usec
        kill.lines += 1
        # In a group, the one chosen first is logged twice, the second time without its memory.
        kill.processes.setdefault(process.pid, process)

    def _close(self) -> None:
        if self._open is not None:
            self._complete.append(self._open)
            self._open = None


def _summary(record: Record, match: re.Match[str]) -> _Summary | None:
    rest = match["rest"]
    # A process may be called "a,task=b", a cgroup too: the first place where a name of legal length follows.
    start = rest.find(",task=")
    while start >= 0:
        end = _SUMMARY_END.fullmatch(rest, start + len(",task="))
        if end and len(end["task"].encode()) <= TASK_NAME_MAX:
            return _Summary(record, match["constraint"], match["oom_memcg"] or "", rest[:start], int(end["pid"]))
        start = rest.find(",task=", start + 1)
    return None
