# SPDX-License-Identifier: LGPL-2.1-or-later
"""One decision in one line for people. Pure."""

from __future__ import annotations

import os
from collections.abc import Sequence

from oomslice.decisions.record import Decision, StepTaken, Undo
from oomslice.decisions.words import OOMD_REASONS

ENDED = {"terminate": "terminated", "checkpoint": "wrote to disk and ended"}
"""What was done to a unit that is gone, if it was not killed."""
ASKED = {
    "terminate": "told to end",
    "freeze": "froze",
    "throttle": "throttled",
    "reclaim": "took memory from",
    "warn": "warned",
    "checkpoint": "wrote to disk and ended",
}
"""What was done on request, before the name of the unit."""
IN_FORCE = {"freeze": "frozen", "throttle": "throttled"}
TAKEN_BACK = {"freeze": "thawed", "throttle": "no longer throttled"}


def sentence(decision: Decision) -> str:
    """What was done to whom, and why: "oomslice killed hog.service (priority -200, ...) in batch.slice: ..."."""
    done = _done(decision)
    where = f" for {decision.domain}" if decision.domain not in ("", "-.slice", decision.victim) else ""
    if decision.carrier == "bpf" and done.startswith("oomslice killed"):
        done = done.replace("oomslice killed", "oomslice killed from inside the kernel", 1)
    watchdog = "; its deciding thread was stuck, and the watchdog acted" if "watchdog" in decision.flags else ""
    return f"{done}{where}: {reason(decision)}{_effect(decision)}{watchdog}"


def reason(decision: Decision) -> str:
    """Why there was a decision, with the figures that made it."""
    match decision.trigger:
        case "memory-available" if decision.carrier == "bpf":
            return f"{_available(decision)}, and oomslice-core did not answer"
        case "last-moment":
            return "nothing more could be reclaimed, and the kernel would have killed next"
        case "memory-limit":
            return "its memory limit was reached, and nothing more in it could be reclaimed"
        case "memory-available" | "memory-low":
            return f"{_available(decision)}, {_swap(decision)}"
        case "thrash":
            return f"the machine stalled ({_pressure(decision)}) with {_available(decision)}"
        case "pressure":
            return f"memory pressure reached {_pressure(decision)}"
        case "asked":
            uid = decision.extra.get("asked_uid", 0)
            return f"asked for by {'root' if uid == 0 else f'user {uid}'}"
        case "kernel-oom":
            if decision.extra.get("constraint") == "CONSTRAINT_MEMCG":
                return "its memory limit was reached"
            return "out of memory"
        case "oomd":
            return OOMD_REASONS.get(str(decision.extra.get("reason", "")), "by its own limits")
        case other:
            return other


def undo_sentence(decision: Decision, undo: Undo) -> str:
    """That what a decision did is taken back: "hog.service is thawed after 12.3 s: -.slice is calm"."""
    parts = []
    for name, error in undo.errors.items():
        steps = [step for step in decision.steps if step.step == name and step.acted]
        if not steps or name not in TAKEN_BACK:
            continue
        if error:
            parts.append(f"could not be undone ({name}: {os.strerror(error)})")
        else:
            parts.append(f"is {TAKEN_BACK[name]} after {duration(max(0, undo.usec - steps[0].begin_usec))}")
    where = "the machine is calm" if decision.domain == "-.slice" else f"{decision.domain} is calm"
    why = "it was released" if decision.trigger == "asked" else where
    return f"{decision.victim} {' and '.join(parts) or 'is as it was before'}: {why}"


def step_sentence(decision: Decision, number: int) -> str:
    """One step in one line: "hog.service: throttle 210.0 MiB done, 2500 ms after the trigger (step 4 of 5)"."""
    step = decision.steps[number]
    began = step.begin_usec and decision.trigger_usec
    when = f", {duration(max(0, step.begin_usec - decision.trigger_usec))} after the trigger" if began else ""
    return f"{decision.victim}: {step_text(step)}{when} (step {number + 1} of {len(decision.steps)})"


def climbed(decision: Decision) -> str:
    """The steps of the ladder in one line: "warn done, freeze done (frozen 12.3 s, thawed), kill done"."""
    return ", ".join(step_text(step) for step in decision.steps)


def step_text(step: StepTaken) -> str:
    """One step with its result: "reclaim 256.0 MiB done (12.0 MiB less)"."""
    what = step.step + (f" {step.argument}" if step.argument else "")
    if step.amount:
        what += f" {amount_text(step)}"
    error = f": {os.strerror(step.error)}" if step.error else ""
    details = []
    if step.memory_before > step.memory_after and step.end_usec and step.step != "kill":
        details.append(f"{size(step.memory_before - step.memory_after)} less")
    if step.undone_usec:
        details.append(f"{IN_FORCE[step.step]} {duration(step.undone_usec - step.begin_usec)}, {TAKEN_BACK[step.step]}")
    return f"{what} {step.result}{error}" + (f" ({', '.join(details)})" if details else "")


def amount_text(step: StepTaken) -> str:
    """The amount of a step for people. A throttle that did not come to set a limit has the percent it was given."""
    return f"{step.amount}%" if step.step == "throttle" and step.amount <= 100 else size(step.amount)


def _listed(words: Sequence[str]) -> str:
    return " and ".join([*([", ".join(words[:-1])] if len(words) > 1 else []), *words[-1:]])


def _before(decision: Decision) -> str:
    """The steps that acted before the last one."""
    acted = [step.step for step in decision.steps if step.acted][:-1]
    return f" after {_listed(list(dict.fromkeys(acted)))}" if acted else ""


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
        case "freed" | "deadline" | "kept":
            return f"oomslice {ENDED.get(decision.step, 'killed')} {victim}{_before(decision)}"
        case "done":
            return f"oomslice {ASKED.get(decision.step, f'did {decision.step} for')} {victim}"
        case "held":
            return f"oomslice froze {victim}{_before(decision)} and holds it"
        case "relieved":
            acted = list(dict.fromkeys(step.step for step in decision.steps if step.acted))
            means = f", by {_listed(acted)}" if acted else ""
            return f"oomslice did not have to kill {victim}{means}"
        case "interrupted":
            if decision.signal_usec:
                return f"oomslice killed {victim}, and oomslice-core died before it saw the outcome,"
            acted = list(dict.fromkeys(step.step for step in decision.steps if step.acted))
            if acted:
                return f"oomslice began with {_listed(acted)} of {victim}, and oomslice-core died before the end,"
            return f"oomslice chose {decision.victim or 'nobody'}, and oomslice-core died before it acted,"
        case "dry-run":
            ladder = _listed([step.step for step in decision.steps])
            if len(decision.steps) > 1:
                return f"oomslice would have climbed the ladder of {victim}, {ladder}, but only a dry run is set,"
            return f"oomslice would have killed {victim}, but only a dry run is set,"
        case "no-candidate":
            return "oomslice found nobody to kill"
        case "failed":
            error = f": {os.strerror(decision.error)}" if decision.error else ""
            last = decision.steps[-1].step if decision.steps else "kill"
            return f"oomslice failed to {last} {victim}{error};"
        case "gone":
            return f"oomslice chose {decision.victim}, which was gone before the kill,"
        case "refused":
            return (
                f"oomslice chose {decision.victim} and left it alone, because it holds a process that is never touched,"
            )
        case "killed-by-kernel":
            against = (
                f", against the plan: {decision.planned_victim} was to go first" if decision.planned_victim else ""
            )
            planned = ", as planned" if decision.agreement == "as-planned" else against
            return f"The kernel killed {_killed_by_kernel(decision)} in {decision.victim}{planned}"
        case "killed-by-oomd":
            return f"systemd-oomd killed {decision.victim}"
        case other:
            return f"oomslice chose {decision.victim or 'nobody'} ({other})"


def _figures(decision: Decision) -> str:
    parts = [f"priority {decision.victim_priority}"]
    if decision.victim_memory_before:
        parts.append(size(decision.victim_memory_before))
    if decision.processes:
        parts.append(f"{decision.processes} process{'' if decision.processes == 1 else 'es'}")
    if decision.kill_scope == "subtree":
        parts.append("with all units below it")
    if "restarting" in decision.flags:
        parts.append("started anew again and again")
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
    if decision.outcome == "relieved" and decision.memory_back_usec > decision.trigger_usec > 0:
        return f"; that was over after {duration(decision.memory_back_usec - decision.trigger_usec)}"
    if decision.outcome == "kept":
        return f"; {size(decision.victim_memory_after)} are still charged to it, as files on a tmpfs are"
    if decision.outcome == "deadline":
        return f"; its memory was not back by the deadline ({size(decision.bytes_freed)} freed)"
    return ""
