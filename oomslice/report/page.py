# SPDX-License-Identifier: LGPL-2.1-or-later
"""The page as a whole: read `page` first."""

from __future__ import annotations

from oomslice.decisions.record import Decision
from oomslice.decisions.sentence import sentence, size
from oomslice.decisions.words import AGREEMENTS, CONSTRAINTS, FLAGS, OUTCOMES, SCOPES, SOURCES, TRIGGERS
from oomslice.report.commands import commands
from oomslice.report.html import Markup, join, raw, tag, text, unit, with_units
from oomslice.report.model import Case, Report
from oomslice.report.scale import elapsed
from oomslice.report.style import STYLE
from oomslice.report.tables import Column, candidates, settings, steps, table, times
from oomslice.report.timeline import pictures

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Nothing is loaded from anywhere, even if something in the page asked for it."""
ENDED = {"terminate": "was ended", "checkpoint": "was written to disk and ended"}
HEADLINES = {
    "held": "was frozen because memory was short",
    "dry-run": "would have been acted upon because memory was short",
    "failed": "was chosen because memory was short, but could not be stopped",
    "gone": "was chosen because memory was short, and was gone before",
    "refused": "was chosen because memory was short, and left alone",
    "interrupted": "was chosen because memory was short; oomslice-core ended meanwhile",
    "killed-by-kernel": "lost processes to the kernel's own killer",
    "killed-by-oomd": "was killed by systemd-oomd",
}


def page(report: Report) -> str:
    """The whole file."""
    title = _title(report)
    several = len(report.cases) > 1
    body = [
        tag(
            "header",
            tag("h1", title),
            tag(
                "p",
                f"Made {report.moment(report.made_usec)}",
                f" on {report.host}" if report.host else None,
                f" by oomslice {report.version}" if report.version else None,
                ".",
                class_="soft",
            ),
        ),
        tag(
            "main",
            _overview(report) if several or not report.cases else None,
            *(_case(case, report, f"d{number}") for number, case in enumerate(report.cases, start=1)),
        ),
        tag(
            "footer",
            tag(
                "p",
                "Times are those of the machine that made this page. Differences are taken from the monotonic clock. "
                "Sizes are binary: 1 MiB is 1024 KiB. This file needs nothing else and sends nothing anywhere.",
            ),
        ),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", raw(STYLE)),
    )
    return "<!DOCTYPE html>\n" + tag("html", head, tag("body", *body), lang="en") + "\n"


def headline(decision: Decision) -> str:
    """A decision in a few words."""
    if decision.outcome == "relieved":
        return f"Memory was short, and {decision.victim} did not have to die"
    if decision.outcome == "no-candidate":
        return f"Memory was short in {decision.domain}, and nobody could be chosen"
    victim = decision.victim or "A unit"
    if decision.outcome in HEADLINES:
        return f"{victim} {HEADLINES[decision.outcome]}"
    return f"{victim} {ENDED.get(decision.step, 'was killed')} because memory was short"


def _title(report: Report) -> str:
    if len(report.cases) == 1:
        return headline(report.cases[0].decision)
    if not report.cases:
        return f"No decisions since {report.moment(report.since_usec)}"
    return f"{len(report.cases)} decisions since {report.moment(report.since_usec)}"


def _overview(report: Report) -> Markup:
    if not report.cases:
        return tag("p", "oomslice made no decision in this time, and the kernel's own killer did not act.")
    rows = []
    for number, case in enumerate(report.cases, start=1):
        decision = case.decision
        link = tag("a", report.moment(decision.realtime_usec), href=f"#d{number}")
        freed = size(decision.bytes_freed) if decision.bytes_freed else "-"
        rows.append((link, unit(decision.victim or "-"), unit(decision.domain), decision.outcome, freed))
    columns = (Column("Time"), Column("Unit"), Column("Domain"), Column("Outcome"), Column("Freed", number=True))
    shown = table("Decisions, newest first", columns, rows)
    if report.left_out:
        note = f"{report.left_out} older ones are not in this page: oomslicectl decisions lists them."
        return tag("div", shown, tag("p", note, class_="soft"))
    return shown


def _case(case: Case, report: Report, id: str) -> Markup:
    decision = case.decision
    moment = report.moment(decision.realtime_usec)
    names = (decision.victim, decision.domain)
    earlier = None if not report.boot_id or report.same_boot(decision) else " In an earlier boot of the machine."
    # A page of one decision has its headline as title already.
    heading = "What happened" if len(report.cases) == 1 else headline(decision)
    return tag(
        "section",
        tag("h2", with_units(heading, names), id=f"{id}-heading"),
        tag("p", with_units(sentence(decision) + ".", names), class_="lead"),
        tag(
            "p",
            tag("time", moment, datetime=report.machine_readable(decision.realtime_usec)),
            ". Decision ",
            tag("code", decision.id),
            ".",
            earlier,
            class_="soft",
        ),
        _figures(decision),
        _notes(decision),
        tag("h3", "Course"),
        pictures(case, id),
        steps(case, report),
        times(case, report),
        tag("h3", "Who was looked at"),
        candidates(case),
        _next_time(decision),
        tag("h3", "Settings in force"),
        _settings(case, report),
        tag("h3", "More, by command"),
        tag("p", "A click on a command selects it.", class_="soft"),
        *(join((tag("p", what), tag("pre", tag("code", command)))) for what, command in commands(case)),
        id=id,
        class_="case",
        aria_labelledby=f"{id}-heading",
    )


def _figures(decision: Decision) -> Markup:
    facts: list[tuple[str, str, str]] = [
        ("Trigger", decision.trigger, TRIGGERS.get(decision.trigger, "")),
        ("Outcome", decision.outcome, OUTCOMES.get(decision.outcome, "")),
    ]
    if decision.memory_total:
        limit = f", limit {size(decision.memory_available_limit)}" if decision.memory_available_limit else ""
        after = f", {size(decision.memory_available_after)} afterwards" if decision.memory_available_after else ""
        details = f"of {size(decision.memory_total)}{limit}{after}"
        facts.append(("MemAvailable", size(decision.memory_available), details))
    if decision.swap_total:
        facts.append(("Free swap", size(decision.swap_free), f"of {size(decision.swap_total)}"))
    if decision.memory_total:
        some, full = decision.pressure_some_avg10, decision.pressure_full_avg10
        facts.append(("Pressure", f"{some:.1f} %", f"some avg10 at the trigger; full {full:.1f} %"))
    if decision.trigger_usec:
        for name, moment in (
            ("Signal", decision.signal_usec),
            ("Death", decision.death_usec),
            ("Memory back", decision.memory_back_usec),
        ):
            if moment:
                facts.append((name, elapsed(moment - decision.trigger_usec), "after the trigger"))
    if decision.bytes_freed:
        count = decision.processes
        processes = f"of {count} process{'' if count == 1 else 'es'}" if count else ""
        facts.append(("Freed", size(decision.bytes_freed), processes))
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", tag("strong", value), " ", tag("span", details, class_="soft")))
            for name, value, details in facts
        ),
        class_="figures",
    )


def _notes(decision: Decision) -> Markup | None:
    notes = [f"{FLAGS.get(flag, flag)}." for flag in decision.flags]
    if decision.kill_scope in SCOPES:
        notes.append(f"It was taken {SCOPES[decision.kill_scope]} (KillScope={decision.kill_scope}).")
    if decision.carrier == "kernel":
        constraint = str(decision.extra.get("constraint", ""))
        if constraint:
            notes.append(f"The kernel was short of memory for {CONSTRAINTS.get(constraint, constraint)}.")
        agreement = AGREEMENTS.get(decision.agreement, decision.agreement)
        if agreement:
            other = f": {decision.planned_victim} was to go first" if decision.planned_victim else ""
            notes.append(f"The kernel's choice was {agreement}{other}.")
        source = str(decision.extra.get("source", ""))
        if source:
            notes.append(f"Known from {SOURCES.get(source, source)}.")
    if not notes:
        return None
    return tag("ul", *(tag("li", note[:1].upper() + note[1:]) for note in notes))


def _next_time(decision: Decision) -> Markup | None:
    if not decision.victim or decision.carrier in ("kernel", "systemd-oomd"):
        return None
    return tag(
        "p",
        "If another should go first next time: a smaller ",
        tag("code", "Priority="),
        " in its ",
        tag("code", "[X-OOMSlice]"),
        " section, or a larger one, or ",
        tag("code", "Protect=yes"),
        ", for ",
        unit(decision.victim),
        ". See oomslice.unit(5).",
    )


def _settings(case: Case, report: Report) -> Markup:
    decision = case.decision
    if not case.settings:
        return tag("p", "They are no longer known: the unit does not run any more. ", text(_plan(decision, report)))
    return join(
        (
            tag("p", _plan(decision, report), class_="soft"),
            *(settings(name, values) for name, values in case.settings.items()),
        )
    )


def _plan(decision: Decision, report: Report) -> str:
    if not decision.plan_generation:
        return "By which plan was decided is not in the record; these are the settings when this page was made."
    if report.same_boot(decision) and decision.plan_generation == report.plan_generation:
        return f"By plan {decision.plan_generation}, which was still in force when this page was made."
    return (
        f"It was decided by plan {decision.plan_generation}; what is shown are the settings when this page was made,"
        f" by plan {report.plan_generation}. Units and settings may have changed in between."
    )
