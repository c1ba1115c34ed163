# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl show: one decision with everything that is known of it."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import (
    Column,
    Terminal,
    clean,
    clock,
    elapsed,
    facts,
    local_time,
    metric,
    metric_title,
    milliseconds,
    plural,
    relative,
    size,
    table,
)
from oomslice.decisions.words import (
    AGREEMENTS,
    CARRIERS,
    CONSTRAINTS,
    ENDED,
    FLAGS,
    FROM_PLAN,
    MOMENTS,
    OUTCOMES,
    SCOPES,
    SOURCES,
    TRIGGERS,
    VERDICTS,
)

DESCRIPTION = """\
Shows one decision, by default the newest: what triggered it, in which domain, all candidates with priority and size
and why each was chosen or not, the steps of the ladder that were taken, what came of it, and the times from trigger
to memory back."""
EXAMPLES = """\
examples:
  oomslicectl show                     the newest decision
  oomslicectl show 5f3a09c2e4b1d786-4  one of those that oomslicectl decisions lists
  oomslicectl show --json | jq .candidates
                                       exact figures, for programs"""

UNDOABLE = frozenset({"freeze", "throttle"})
PIDS_SHOWN = 8


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("id", metavar="ID", nargs="?", default="", help="id of a decision (default: the newest)")


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Asks oomsliced and prints."""
    from oomslice.cli import answers
    from oomslice.cli.ask import Manager, ask, print_json

    async def one(manager: Manager) -> dict[str, Any]:
        id = arguments.id
        if not id:
            newest = await manager.rows("ListDecisions", 0, 1)
            if not newest:
                raise CommandFailure("there are no decisions yet", Exit.FAILED)
            id = str(newest[0][0])
        return answers.decision(await manager.values("GetDecision", id))

    decision = ask(one)
    if arguments.json:
        print_json(decision)
    else:
        print(render(decision, terminal))
    return Exit.OK


def render(decision: Mapping[str, Any], terminal: Terminal) -> str:
    """The whole record, in the order trigger, domain, candidates, choice, step, outcome, times."""
    parts = [
        facts(_head(decision, terminal), terminal),
        _candidates(decision, terminal),
        facts(_act(decision, terminal), terminal),
        _steps(decision, terminal),
        _times(decision, terminal),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(decision: Mapping[str, Any], terminal: Terminal) -> list[tuple[str, str]]:
    realtime = int(decision.get("realtime_usec", 0))
    moment = f"{local_time(realtime, terminal, milli=True)}, {relative(realtime, terminal.now_usec)}"
    boot = clean(decision.get("boot_id", ""))
    if boot and terminal.boot_id and boot.replace("-", "") != terminal.boot_id.replace("-", ""):
        moment += f", in an earlier boot ({boot})"
    carrier = clean(decision.get("carrier", ""))
    pairs = [
        ("Decision", terminal.style("bold", clean(decision.get("id", "")))),
        ("Time", moment),
        ("Trigger", trigger(decision)),
        ("Domain", domain(clean(decision.get("domain", "")))),
        ("Carrier", f"{carrier} ({CARRIERS.get(carrier, 'unknown to this version')})"),
    ]
    if decision.get("memory_total"):
        total = f" of {size(decision['memory_total'])}"
        limit = decision.get("memory_available_limit", 0)
        memory = f"{size(decision.get('memory_available', 0))}{total} available"
        pairs.append(("Memory", memory + (f", limit {size(limit)}" if limit else "")))
        pairs.append(("Swap", _swap(decision)))
        some, full = decision.get("pressure_some_avg10", 0.0), decision.get("pressure_full_avg10", 0.0)
        pairs.append(("Pressure", f"some avg10 {some:.2f} %, full avg10 {full:.2f} %"))
    return pairs


def trigger(decision: Mapping[str, Any]) -> str:
    """The trigger by name, with what it means or the PSI trigger that fired."""
    name = clean(decision.get("trigger", ""))
    meaning = clean(decision.get("pressure", "")) or TRIGGERS.get(name, "")
    if name == "pressure" and decision.get("pressure"):
        meaning = f"PressureTrigger={meaning} fired"
    elif name == "thrash" and decision.get("pressure"):
        meaning = f"{TRIGGERS[name]}: {meaning} fired"
    else:
        meaning = TRIGGERS.get(name, "")
    return f"{name} ({meaning})" if meaning else name


def domain(name: str) -> str:
    """The domain, and for the root slice what that is."""
    return f"{name} (the machine)" if name == "-.slice" else name


def _swap(decision: Mapping[str, Any]) -> str:
    if not decision.get("swap_total"):
        return "none"
    limit = decision.get("swap_free_limit", 0)
    free = f"{size(decision.get('swap_free', 0))} of {size(decision['swap_total'])} free"
    return free + (f", limit {size(limit)}" if limit else "")


def _candidates(decision: Mapping[str, Any], terminal: Terminal) -> str:
    candidates: Sequence[Mapping[str, Any]] = decision.get("candidates", ())
    rank_by = str(decision.get("rank_by", "memory"))
    if not candidates:
        if decision.get("carrier") == "kernel":
            return "Candidates are not known: the kernel chose by its own score."
        if decision.get("carrier") == "systemd-oomd":
            return "Candidates are not known: systemd-oomd chose by its own rules."
        if decision.get("carrier") == "bpf":
            count = plural(int(decision.get("candidates_total", 0)), "unit")
            return f"Candidates are not known: {count} could be chosen, and the program in the kernel names its choice."
        return "No candidates were looked at."
    columns = (
        Column(""),
        Column("CANDIDATE", give=True, least=16),
        Column("PRIORITY", right=True),
        Column(metric_title(rank_by), right=True),
        Column("VERDICT", give=True, least=10),
    )
    mark = terminal.symbol("→", ">")
    from_plan = (decision.get("extra") or {}).get("candidates_from") == "plan"
    rows = []
    styles = []
    for candidate in candidates:
        chosen = candidate["verdict"] == "chosen"
        verdict = clean(candidate["verdict"])
        rows.append(
            (
                mark if chosen else "",
                clean(candidate["name"]) or f"cgroup {candidate['cgroup_id']}",
                str(candidate["priority"]),
                "-" if from_plan and not chosen else metric(candidate["metric"], rank_by),
                VERDICTS.get(verdict, verdict),
            )
        )
        styles.append("red" if chosen else "" if verdict == "eligible" else "dim")
    text = table(columns, rows, terminal, styles=styles)
    total = int(decision.get("candidates_total", 0))
    if from_plan:
        return f"{text}\n{FROM_PLAN} Of all, {total} could be chosen."
    if total > len(rows):
        text += f"\n{terminal.symbol('…', '...')} and {total - len(rows)} more, which ranked behind these."
    return text


def _act(decision: Mapping[str, Any], terminal: Terminal) -> list[tuple[str, str]]:
    victim = clean(decision.get("victim", ""))
    kernel = decision.get("carrier") == "kernel"
    outcome = clean(decision.get("outcome", ""))
    pairs = []
    if victim:
        choice = terminal.style("bold", victim)
        agreement = clean(decision.get("agreement", ""))
        if not kernel or agreement:
            choice += f", priority {decision.get('victim_priority', 0)}"
        before = decision.get("victim_memory_before", 0)
        pairs.append(("Choice", choice + (f", {size(before)}" if before else "")))
        if agreement:
            said = AGREEMENTS.get(agreement, agreement)
            planned = clean(decision.get("planned_victim", ""))
            pairs.append(("By the plan", said + (f": {planned} was to go first" if planned else "")))
    if victim and outcome != "dry-run":
        pairs.append(("Step", clean(decision.get("step", "")) + _processes(decision)))
    elif victim:
        pairs.append(("Step", f"none; would have been: {clean(decision.get('step', ''))}"))
    meaning = OUTCOMES.get(outcome, "")
    scope = clean(decision.get("kill_scope", "unit"))
    if victim and scope in SCOPES:
        pairs.append(("Kill scope", f"{scope} ({SCOPES[scope]})"))
    pairs += [("Note", FLAGS.get(flag, clean(flag))) for flag in decision.get("flags", ())]
    text = outcome + (f": {meaning}" if meaning else "")
    if decision.get("error"):
        text += f" ({os.strerror(int(decision['error']))})"
    pairs.append(
        ("Outcome", terminal.style("green" if outcome in ("freed", "relieved", "dry-run") else "yellow", text))
    )
    if decision.get("bytes_freed"):
        pairs.append(("Freed", size(decision["bytes_freed"])))
    if decision.get("memory_available_after"):
        before, after = decision.get("memory_available", 0), decision["memory_available_after"]
        pairs.append(("Available", f"{size(before)} before, {size(after)} after"))
    if kernel:
        pairs += _kernel(decision.get("extra") or {})
    if (decision.get("extra") or {}).get("policy") == "kill":
        pairs.append(("Policy", "your BPF policy wanted it first"))
    if decision.get("plan_generation"):
        pairs.append(("Plan", f"generation {decision['plan_generation']}"))
    return pairs


def _kernel(extra: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the kernel said of its own kill."""
    pairs = []
    if extra.get("task"):
        pairs.append(("Process", clean(extra["task"])))
    if extra.get("constraint"):
        constraint = clean(extra["constraint"])
        short = CONSTRAINTS.get(constraint, constraint)
        pairs.append(("Short was", short + (f", {clean(extra['oom_memcg'])}" if extra.get("oom_memcg") else "")))
    if extra.get("points_of"):
        share = 100 * int(extra.get("points", 0)) / int(extra["points_of"])
        pairs.append(("Kernel's score", f"{share:.1f}% of the memory it looked at"))
    if extra.get("oom_score_adj"):
        pairs.append(("Score adjusted", f"by {clean(extra['oom_score_adj'])}"))
    if extra.get("source"):
        source = clean(extra["source"])
        pairs.append(("Known from", SOURCES.get(source, source)))
    return pairs


def _processes(decision: Mapping[str, Any]) -> str:
    count = int(decision.get("processes", 0))
    pids: Sequence[int] = decision.get("pids", ())
    if not count and not pids:
        return ""
    listed = ", ".join(str(pid) for pid in pids[:PIDS_SHOWN]) + (", ..." if max(count, len(pids)) > PIDS_SHOWN else "")
    text = f", {plural(count or len(pids), 'process', 'processes')}" + (f" (pid {listed})" if pids else "")
    if decision.get("reaped"):
        text += f", memory of {decision['reaped']} taken back by process_mrelease"
    return text


def _steps(decision: Mapping[str, Any], terminal: Terminal) -> str:
    """The ladder as far as it was climbed; a kill alone says nothing that the rest does not say."""
    steps: Sequence[Mapping[str, Any]] = decision.get("steps", ())
    if all(step["step"] == "kill" for step in steps):
        return ""
    columns = (
        Column("STEP", give=True, least=16),
        Column("BEGUN AFTER", right=True),
        Column("TOOK", right=True, drop=2),
        Column("MEMORY", right=True, drop=1),
        Column("LESS", right=True),
        Column("RESULT", give=True, least=14),
        Column("UNDONE", give=True, least=14),
    )
    start = int(decision.get("trigger_usec", 0))
    rows = []
    styles = []
    for step in steps:
        begin, end = int(step.get("begin_usec", 0)), int(step.get("end_usec", 0))
        before, after = int(step.get("memory_before", 0)), int(step.get("memory_after", 0))
        result = clean(step.get("result", ""))
        if step.get("error"):
            result += f": {os.strerror(int(step['error']))}"
        rows.append(
            (
                _step_name(step),
                elapsed(begin - start) if begin and start else "-",
                elapsed(end - begin) if begin and end else "-",
                size(before) if before else "-",
                size(before - after) if before and end else "-",
                result,
                _undone(step, decision, terminal),
            )
        )
        styles.append("" if result in ("done", "needless", "dry-run") else "yellow")
    return table(columns, rows, terminal, styles=styles)


def _step_name(step: Mapping[str, Any]) -> str:
    name = clean(step.get("step", ""))
    amount = int(step.get("amount", 0))
    if step.get("argument"):
        return f"{name}:{clean(step['argument'])}"
    if amount:
        if name == "throttle":
            return f"{name} to {f'{amount} %' if amount <= 100 else size(amount)}"
        return f"{name} of {size(amount)}"
    return name


def _undone(step: Mapping[str, Any], decision: Mapping[str, Any], terminal: Terminal) -> str:
    """Whether what a step did is still so."""
    begin, undone = int(step.get("begin_usec", 0)), int(step.get("undone_usec", 0))
    if step.get("step") not in UNDOABLE or step.get("result") not in ("done", "late", "pending"):
        return "-"
    if undone:
        return f"after {elapsed(undone - begin)}"
    if decision.get("outcome") in ENDED:
        return "ended with the unit"
    boot = clean(decision.get("boot_id", "")).replace("-", "")
    if boot and terminal.boot_id and boot != terminal.boot_id.replace("-", ""):
        return "ended with that boot"
    error = int(step.get("undo_error", 0))
    return "still in force" + (f" ({os.strerror(error)})" if error else "")


def _times(decision: Mapping[str, Any], terminal: Terminal) -> str:
    """The time line: differences by the monotonic clock, the time of day as that of the trigger plus them."""
    start = int(decision.get("trigger_usec", 0))
    realtime = int(decision.get("realtime_usec", 0))
    if decision.get("carrier") == "kernel" or not any(decision.get(key) for _, key in MOMENTS[1:]):
        return ""  # nothing is known but the moment itself, which stands at the top
    columns = (Column("EVENT"), Column("TIME"), Column("SINCE TRIGGER", right=True), Column("STEP TOOK", right=True))
    rows = []
    previous = start
    # In the order in which they happened: memory may be back before the last thread of the victim is gone.
    for name, key in sorted(MOMENTS, key=lambda event: int(decision.get(event[1], 0)) or math.inf):
        moment = int(decision.get(key, 0))
        if not moment:
            rows.append((name, "-", "-", "-"))
            continue
        since = moment - start if start else 0
        took = milliseconds(moment - previous) if previous and key != "trigger_usec" else "-"
        rows.append((name, clock(realtime + since, terminal), milliseconds(since) if start else "-", took))
        previous = moment
    return table(columns, rows, terminal)
