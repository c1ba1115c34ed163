# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the words of a record mean, for people: the same on the screen and in a report. Pure."""

from __future__ import annotations

TRIGGERS = {
    "memory-available": "little memory available",
    "memory-low": "memory is low, not yet at its limits",
    "thrash": "the machine stalls for memory",
    "pressure": "memory pressure of the domain",
    "asked": "somebody asked for it",
    "last-moment": "the kernel found nothing more to reclaim, and would have killed next",
    "memory-limit": "a cgroup at its memory limit had nothing more to reclaim",
    "kernel-oom": "the kernel ran out of memory",
    "oomd": "systemd-oomd found memory short, by its own limits",
}
OUTCOMES = {
    "freed": "the victim is dead and its memory is back",
    "relieved": "the shortage was over before the end of the ladder",
    "held": "the victim stands still, as its ladder ends in freeze",
    "kept": "the victim is dead, but its memory is still charged: files on a tmpfs",
    "deadline": "the signal was sent, but the memory was not back by the deadline",
    "dry-run": "nothing was done, as DryRun= asks",
    "no-candidate": "nobody may be chosen",
    "failed": "the kill, or the step that was to be the last, failed",
    "gone": "the victim's cgroup was gone before the kill",
    "interrupted": "oomslice-core ended before it saw the outcome",
    "refused": "the last check before the kill found a process that is never touched",
    "done": "the step that was asked for is done",
    "killed-by-kernel": "the kernel's own OOM killer acted, not oomslice",
    "killed-by-oomd": "systemd-oomd acted, not oomslice",
    "pending": "not known yet",
}
MOMENTS = (
    ("trigger", "trigger_usec"),
    ("decision", "decision_usec"),
    ("signal", "signal_usec"),
    ("death", "death_usec"),
    ("memory back", "memory_back_usec"),
)
"""Times of a record, each by its name and the record's key for it."""
ENDED = frozenset({"freed", "kept"})
"""Outcomes after which no process of the victim is left."""
VERDICTS = {
    "chosen": "chosen",
    "eligible": "eligible, came after the choice",
    "planned": "may be chosen by the plan",
    "empty": "no process in it",
    "tried": "tried before in this shortage",
    "gone": "cgroup is gone",
    "left-to-oomd": "left to systemd-oomd",
    "protected": "protected",
    "self": "never touched",
    "container": "holds other units, or goes with one",
    "outside": "not below the domain",
}
FROM_PLAN = (
    "From the plan, not as the program in the kernel saw them: it names nobody but its choice, so memory and processes"
    " of the others are not known."
)
"""Of a decision whose `extra` has "candidates_from": "plan"."""
SCOPES = {
    "subtree": "with all units below it",
    "process": "its largest process alone",
}
CARRIERS = {
    "core": "oomslice-core",
    "bpf": "a BPF program in the kernel, by the same plan",
    "kernel": "the kernel decided by itself",
}
"""Who acted."""
FLAGS = {
    "restarting": "the victim was killed before and came back again and again, so there was no ladder but a kill",
    "watchdog": "the deciding thread was stuck; the watchdog acted",
    "unmarked": "systemd could not be told in time that it was for lack of memory, so the unit's result is another",
}
AGREEMENTS = {
    "as-planned": "as planned, nobody of a smaller priority lived",
    "against-plan": "against the plan",
}
"""Decision.agreement, for people."""

CONSTRAINTS = {
    "CONSTRAINT_NONE": "the machine",
    "CONSTRAINT_MEMCG": "the memory limit of a cgroup",
    "CONSTRAINT_CPUSET": "the memory nodes of a cpuset",
    "CONSTRAINT_MEMORY_POLICY": "the memory nodes of a memory policy",
}
"""What the kernel says it was short of (include/linux/oom.h)."""
OOMD_REASONS = {
    "memory-used": "memory and swap of the machine were used up",
    "memory-pressure": "memory pressure of a unit that is marked for it",
}
"""Why systemd-oomd kills, in its own words and in ours."""
SOURCES = {
    "bpf": "BPF, the moment it happened",
    "kernel-log": "the kernel log",
    "memory.events": "the counter in memory.events alone; neither BPF nor the kernel log tells of it",
}
