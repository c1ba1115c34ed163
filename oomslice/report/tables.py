# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tables of the page. Every element has its role by name as well: on a phone a row is shown as a card, and browsers
take what is no longer laid out as a table for none."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oomslice.decisions.record import Decision, StepTaken
from oomslice.decisions.sentence import amount_text, size
from oomslice.decisions.words import ENDED, FROM_PLAN, MOMENTS, VERDICTS
from oomslice.report.html import Markup, tag, unit
from oomslice.report.model import Case, Report
from oomslice.report.reasons import from_plan, reasons
from oomslice.report.scale import elapsed

SETTINGS = (
    "Priority",
    "Protect",
    "Actions",
    "KillScope",
    "RankBy",
    "PressureTrigger",
    "PressureVictims",
    "CooldownSec",
    "DryRun",
    "Tier",
    "OnDecision",
)
"""Keys of GetSlice() that are shown, in this order, if they have a value."""
ORIGINS = {"Priority": "PriorityOrigin", "Protect": "ProtectOrigin", "Actions": "ActionsOrigin"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column by its heading; numbers are set to the right."""

    title: str
    number: bool = False
    short: bool = False
    """never broken over lines"""

    @property
    def style(self) -> str | None:
        """Its class."""
        return "number" if self.number else "short" if self.short else None


def table(
    caption: object,
    columns: Sequence[Column],
    rows: Sequence[Sequence[object]],
    *,
    marked: int | None = None,
) -> Markup:
    """A table whose first column names the row. `marked` is the index of the row that stands out."""
    head = tag(
        "tr",
        *(tag("th", column.title, scope="col", role="columnheader", class_=column.style) for column in columns),
        role="row",
    )
    body = []
    for index, row in enumerate(rows):
        cells = [
            tag("th", row[0], scope="row", role="rowheader", class_=columns[0].style),
            *(
                tag("td", cell, role="cell", data_label=column.title, class_=column.style)
                for column, cell in zip(columns[1:], row[1:], strict=True)
            ),
        ]
        body.append(tag("tr", *cells, role="row", class_="chosen" if index == marked else None))
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", head, role="rowgroup"),
        tag("tbody", *body, role="rowgroup"),
        role="table",
    )


def candidates(case: Case) -> Markup:
    """Who was looked at, and why each was chosen or not."""
    decision = case.decision
    if not decision.candidates:
        if decision.carrier == "kernel":
            return tag("p", "Candidates are not known: the kernel chose by its own score, not by priorities.")
        if decision.carrier == "systemd-oomd":
            return tag("p", "Candidates are not known: systemd-oomd chose by its own rules.")
        if decision.carrier == "bpf":
            return tag(
                "p", f"{decision.candidates_total} units could be chosen; the program in the kernel names its choice."
            )
        return tag("p", "No candidates were looked at.")
    metric = {"memory": "Memory", "swap": "Swap", "growth": "Growth", "refault": "Refaults"}
    columns = (
        Column("Unit"),
        Column("Priority", number=True),
        Column(metric.get(decision.rank_by, decision.rank_by), number=True),
        Column("Verdict", short=True),
        Column("Reason"),
    )
    rows = []
    chosen = None
    by_plan = from_plan(decision)
    for index, (candidate, reason) in enumerate(zip(decision.candidates, reasons(decision), strict=True)):
        if candidate.verdict == "chosen":
            chosen = index
        amount = f"{candidate.metric} pages" if decision.rank_by == "refault" else size(candidate.metric)
        if by_plan and chosen != index:
            amount = "-"
        verdict = candidate.verdict if candidate.verdict in VERDICTS else f"{candidate.verdict} (unknown)"
        name = unit(candidate.name or f"cgroup {candidate.cgroup_id}")
        rows.append((name, candidate.priority, amount, verdict, reason))
    shown = table(
        "Candidates by priority" if by_plan else "Candidates in the order of the choice", columns, rows, marked=chosen
    )
    if by_plan:
        note = f"{FROM_PLAN} Of all, {decision.candidates_total} could be chosen."
        return tag("div", shown, tag("p", note, class_="soft"))
    more = decision.candidates_total - len(rows)
    if more > 0:
        note = tag("p", f"{more} more ranked behind these and are not in the record.", class_="soft")
        return tag("div", shown, note)
    return shown


def step_name(decision: Decision, number: int) -> str:
    """A step as written in Actions=, with its number in the pictures."""
    step = decision.steps[number]
    name = f"{number + 1} {step.step}"
    if step.argument:
        return f"{name}:{step.argument}"
    return f"{name} ({amount_text(step)})" if step.amount else name


def steps(case: Case, report: Report) -> Markup | None:
    """The ladder as far as it was climbed."""
    decision = case.decision
    if not decision.steps:
        return None
    columns = (
        Column("Step"),
        Column("Begun after", number=True),
        Column("Took", number=True),
        Column("Memory before", number=True),
        Column("after", number=True),
        Column("Result"),
        Column("Undone"),
    )
    rows = []
    for number, step in enumerate(decision.steps):
        error = f": {os.strerror(step.error)}" if step.error else ""
        began = step.begin_usec and decision.trigger_usec
        rows.append(
            (
                step_name(decision, number),
                elapsed(step.begin_usec - decision.trigger_usec) if began else "-",
                elapsed(step.end_usec - step.begin_usec) if step.begin_usec and step.end_usec else "-",
                size(step.memory_before) if step.memory_before else "-",
                size(step.memory_after) if step.memory_before and step.end_usec else "-",
                f"{step.result}{error}",
                _undone(step, decision, report),
            )
        )
    return table("Steps that were begun, numbered as in the pictures", columns, rows)


def _undone(step: StepTaken, decision: Decision, report: Report) -> str:
    if step.undone_usec:
        return f"after {elapsed(step.undone_usec - step.begin_usec)}"
    if not step.in_force:
        return "-"
    if decision.outcome in ENDED:
        return "ended with the unit"
    if not report.same_boot(decision):
        return "ended with that boot"
    return "still in force" + (f" ({os.strerror(step.undo_error)})" if step.undo_error else "")


def times(case: Case, report: Report) -> Markup | None:
    """From trigger to memory back, by the clock that nobody sets."""
    decision = case.decision
    start = decision.trigger_usec
    known = [(name, int(getattr(decision, key))) for name, key in MOMENTS if getattr(decision, key)]
    if not start or len(known) < 2:
        return None
    columns = (Column("Event"), Column("Time"), Column("Since trigger", number=True), Column("Since last", number=True))
    rows = []
    previous = start
    # In the order in which they happened: memory may be back before the last thread is gone.
    for name, moment in sorted(known, key=lambda event: event[1]):
        clock = report.clock(decision.realtime_usec + moment - start)
        since = f"{(moment - start) / 1000:.1f} ms"
        rows.append((name, clock, since, f"{(moment - previous) / 1000:.1f} ms" if moment != start else "-"))
        previous = moment
    missing = [name for name, key in MOMENTS if not getattr(decision, key)]
    caption = "Times" + (f"; not seen: {', '.join(missing)}" if missing else "")
    return table(caption, columns, rows)


def settings(name: str, values: Mapping[str, Any]) -> Markup:
    """The settings of one unit, each with file and line."""
    sources: Mapping[str, Any] = values.get("Sources") or {}
    rows = []
    for key in SETTINGS:
        value = values.get(key)
        if value in (None, ""):
            continue
        source = sources.get(key) or values.get(ORIGINS.get(key, f"{key}Origin")) or "default"
        rows.append((f"{key}=", _setting(value), tag("code", source)))
    return table(
        Markup(f"Settings of {unit(name)}"),
        (Column("Key", short=True), Column("Value"), Column("File and line, or origin")),
        rows,
    )


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value)
    return str(value)
