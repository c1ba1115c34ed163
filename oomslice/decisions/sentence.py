# SPDX-License-Identifier: LGPL-2.1-or-later
"""One decision in one line for people. Pure."""

from __future__ import annotations

import os

from oomslice.decisions.record import Decision


def sentence(decision: Decision) -> str:
    """What was done to whom, and why: "oomslice killed hog.service (priority -200, ...) in batch.slice: ..."."""
    done = _done(decision)
    where = f" for {decision.domain}" if decision.domain not in ("", "-.slice", decision.victim) else ""
    return f"{done}{where}: {reason(decision)}{_effect(decision)}"


def reason(decision: Decision) -> str:
    """Why there was a decision, with the figures that made it."""
    match decision.trigger:
        case "memory-available":
            return f"{_available(decision)}, {_swap(decision)}"
        case "thrash":
            return f"the machine stalled ({_pressure(decision)}) with {_available(decision)}"
        case "pressure":
            return f"memory pressure reached {_pressure(decision)}"
        case "kernel-oom":
            if decision.extra.get("constraint") == "CONSTRAINT_MEMCG":
                return "its memory limit was reached"
            return "out of memory"
        case other:
            return other


def size(count: int) -> str:
    """Bytes as people write them: 642056192 -> "612.3 MiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.1f} {unit}" if unit != "B" else f"{count} B"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(usec: int) -> str:
    """A time span as people read it: 45200 -> "45 ms"."""
    if usec < 1000:
        return f"{usec} µs"
    return f"{usec // 1000} ms" if usec < 10_000_000 else f"{usec / 1_000_000:.1f} s"


def _done(decision: Decision) -> str:
    victim = f"{decision.victim} ({_figures(decision)})"
    match decision.outcome:
        case "freed" | "deadline":
            return f"oomslice killed {victim}"
        case "interrupted":
            if decision.signal_usec:
                return f"oomslice killed {victim}, and oomslice-core died before it saw the outcome,"
            return f"oomslice chose {decision.victim or 'nobody'}, and oomslice-core died before it acted,"
        case "dry-run":
            return f"oomslice would have killed {victim}, but only a dry run is set,"
        case "no-candidate":
            return "oomslice found nobody to kill"
        case "failed":
            error = f": {os.strerror(decision.error)}" if decision.error else ""
            return f"oomslice failed to kill {victim}{error};"
        case "gone":
            return f"oomslice chose {decision.victim}, which was gone before the kill,"
        case "refused":
            return (
                f"oomslice chose {decision.victim} and left it alone, because it holds a process that is never touched,"
            )
        case "killed-by-kernel":
            return f"The kernel killed {_killed_by_kernel(decision)} in {decision.victim}"
        case other:
            return f"oomslice chose {decision.victim or 'nobody'} ({other})"


def _figures(decision: Decision) -> str:
    parts = [f"priority {decision.victim_priority}"]
    if decision.victim_memory_before:
        parts.append(size(decision.victim_memory_before))
    if decision.processes:
        parts.append(f"{decision.processes} process{'' if decision.processes == 1 else 'es'}")
    return ", ".join(parts)


def _killed_by_kernel(decision: Decision) -> str:
    """The kernel kills processes, not units, unless memory.oom.group says so."""
    task = str(decision.extra.get("task", ""))
    memory = size(decision.victim_memory_before) if decision.victim_memory_before else ""
    what, details = (task or "a process", [memory])
    if decision.processes > 1:
        what, details = (f"{decision.processes} processes", [task, memory])
    listed = ", ".join(detail for detail in details if detail)
    return f"{what} ({listed})" if listed else what


def _available(decision: Decision) -> str:
    total = decision.memory_total
    share = f" ({100 * decision.memory_available_limit / total:.1f}% of {size(total)})" if total else ""
    return (
        f"MemAvailable {size(decision.memory_available)} at or below the limit of"
        f" {size(decision.memory_available_limit)}{share}"
    )


def _swap(decision: Decision) -> str:
    if not decision.swap_total:
        return "no swap"
    return f"free swap {size(decision.swap_free)} at or below the limit of {size(decision.swap_free_limit)}"


def _pressure(decision: Decision) -> str:
    return (
        f"{decision.pressure or 'trigger'}; avg10 some {decision.pressure_some_avg10:.2f}%,"
        f" full {decision.pressure_full_avg10:.2f}%"
    )


def _effect(decision: Decision) -> str:
    if decision.outcome == "freed":
        if decision.memory_back_usec > decision.trigger_usec > 0:
            took = decision.memory_back_usec - decision.trigger_usec
            return f"; {size(decision.bytes_freed)} back after {duration(took)}"
        return f"; {size(decision.bytes_freed)} back"
    if decision.outcome == "deadline":
        return f"; its memory was not back by the deadline ({size(decision.bytes_freed)} freed)"
    return ""
