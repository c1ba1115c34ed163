# SPDX-License-Identifier: LGPL-2.1-or-later
"""The course of a shortage as pictures: what was done when, memory of the machine, memory of units, pressure.

Drawn from figures that were recorded around the decision; where there are none, from the few moments of the record
itself, with dots for what is known, and the reader is told so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from oomslice.decisions.record import Decision
from oomslice.decisions.sentence import size
from oomslice.report.html import Markup, tag, unit
from oomslice.report.model import Case, Sample
from oomslice.report.picture import STYLES, Bar, Limit, Line, Mark, bars, chart, sample
from oomslice.report.scale import Axis, elapsed, percent_axis, size_axis, time_axis
from oomslice.report.tables import Column, step_name, table

TABLE_ROWS = 60
"""A table of figures has no more than this: of more, every so-manieth is shown."""
UNIT_STYLES = (0, 2, 3, 4, 5, 1)
"""The victim's is a line alone; the others differ by their dashes as well."""
WITHOUT_SWAP = frozenset({"reclaim", "throttle"})
"""Steps whose figures are of memory alone, and no points of a line that has swap in it."""
NOT_RECORDED = "Figures before and after the decision were not recorded: only the marked points are known."


def pictures(case: Case, id: str) -> Markup:
    """All pictures of one decision that can be drawn, and sentences for those that cannot."""
    decision = case.decision
    if not decision.trigger_usec:
        return tag("p", "The record has the moment of this decision only: there is nothing to draw.", class_="soft")
    known = bool(case.samples)
    samples = list(case.samples) or recorded(decision)
    low = min([0, *(moment.usec - decision.trigger_usec for moment in samples)])
    high = max([*_events(decision), *(moment.usec - decision.trigger_usec for moment in samples)], default=0)
    time = time_axis(low, high)
    drawn: list[Markup] = []
    missing: list[str] = []
    for draw, what in (
        (_steps, ""),
        (_machine, "available memory"),
        (_units, "memory of units"),
        (_pressure, "pressure"),
    ):
        figure = draw(case, samples, time, id, known)
        if figure is not None:
            drawn.append(figure)
        elif what:
            missing.append(what)
    notes = []
    if not known:
        notes.append(NOT_RECORDED)
    if missing:
        notes.append(f"There are too few figures for a picture of {' and of '.join(missing)}.")
    return tag(
        "div",
        tag("p", *(note + " " for note in notes), class_="soft") if notes else None,
        tag("div", *drawn, class_="pictures"),
        _table(case, samples) if known else None,
    )


def recorded(decision: Decision) -> list[Sample]:
    """The figures that the record of a decision itself has, by moment."""
    moments: dict[int, Sample] = {}

    def note(usec: int, available: int | None, memory: int | None) -> None:
        if usec:
            before = moments.get(usec, Sample(usec))
            moments[usec] = Sample(
                usec,
                memory_available=available if available is not None else before.memory_available,
                units={decision.victim: memory} if memory is not None and decision.victim else before.units,
            )

    if decision.memory_total:
        note(decision.trigger_usec, decision.memory_available, None)
    if decision.victim_memory_before:
        note(decision.decision_usec, None, decision.victim_memory_before)
    for step in decision.steps:
        if step.memory_before and step.step not in WITHOUT_SWAP:
            note(step.begin_usec, None, step.memory_before)
            note(step.end_usec, None, step.memory_after)
    end = decision.memory_back_usec or decision.death_usec
    if decision.memory_available_after:
        note(end, decision.memory_available_after, None)
    if decision.victim_memory_before and end and decision.outcome in ("freed", "kept", "deadline"):
        note(end, None, decision.victim_memory_after)
    return [moments[usec] for usec in sorted(moments)]


def _events(decision: Decision) -> list[int]:
    """Microseconds since the trigger of all that is known to have happened."""
    moments = [decision.decision_usec, decision.signal_usec, decision.death_usec, decision.memory_back_usec]
    for step in decision.steps:
        moments += [step.begin_usec, step.end_usec]
    return [moment - decision.trigger_usec for moment in moments if moment]


def _marks(decision: Decision) -> list[Mark]:
    return [
        Mark(step.begin_usec - decision.trigger_usec, str(number))
        for number, step in enumerate(decision.steps, start=1)
        if step.begin_usec
    ]


def _steps(case: Case, samples: Sequence[Sample], time: Axis, id: str, known: bool) -> Markup | None:
    decision = case.decision
    start = decision.trigger_usec
    last = max(_events(decision), default=0)
    rows: list[Bar] = []
    if decision.decision_usec:
        took = decision.decision_usec - start
        rows.append(Bar(f"choosing: {elapsed(took)}", 0, took, "core"))
    for number, step in enumerate(decision.steps):
        if not step.begin_usec:
            continue
        begin = step.begin_usec - start
        end = (step.end_usec or start + last) - start
        kind = "step" if step.result in ("done", "needless", "dry-run") else "bad"
        until = step.undone_usec - start if step.undone_usec else (last if step.in_force else 0)
        label = f"{step_name(decision, number)}: {step.result}, {elapsed(end - begin)}"
        rows.append(Bar(label, begin, max(end, begin), kind, until))
    if decision.signal_usec and decision.death_usec:
        begin, end = decision.signal_usec - start, decision.death_usec - start
        rows.append(Bar(f"victim dies: {elapsed(end - begin)}", begin, max(end, begin), "wait"))
    if decision.signal_usec and decision.memory_back_usec:
        begin, end = decision.signal_usec - start, decision.memory_back_usec - start
        rows.append(Bar(f"memory comes back: {elapsed(end - begin)}", begin, max(end, begin), "wait"))
    if not rows:
        return None
    reach = time_axis(0, max(max(row.end, row.until) for row in rows))
    text = "; ".join(f"{row.label}, begun {elapsed(int(row.begin))} after the trigger" for row in rows)
    picture = bars(f"{id}-steps", "What was done when", text, rows, reach)
    note = "A dashed box: what a step did was in force so long." if any(row.until for row in rows) else None
    return _figure("What was done when", picture, None, note)


def _machine(case: Case, samples: Sequence[Sample], time: Axis, id: str, known: bool) -> Markup | None:
    decision = case.decision
    lines = [_line("MemAvailable", samples, decision, lambda moment: moment.memory_available, 1, known)]
    if decision.swap_total:
        lines.append(_line("free swap", samples, decision, lambda moment: moment.swap_free, 3, known))
    lines = [line for line in lines if len(line.points) > 1]
    if not lines:
        return None
    limits = []
    if decision.memory_available_limit:
        limits.append(Limit(decision.memory_available_limit, f"limit {size(decision.memory_available_limit)}"))
    highest = max([limit.value for limit in limits] + [value for line in lines for _, value in line.points])
    return _lines("Memory of the machine", id + "-machine", lines, time, size_axis(highest), decision, size, limits)


def _units(case: Case, samples: Sequence[Sample], time: Axis, id: str, known: bool) -> Markup | None:
    decision = case.decision
    most: dict[str, int] = {}
    for moment in samples:
        for name, memory in moment.units.items():
            most[name] = max(most.get(name, 0), memory)
    others = sorted((name for name in most if name != decision.victim), key=lambda name: (-most[name], name))
    names = ([decision.victim] if decision.victim in most else []) + others
    lines = [
        _line(name, samples, decision, _memory_of(name), style, known)
        for style, name in zip(UNIT_STYLES, names, strict=False)
    ]
    lines = [line for line in lines if len(line.points) > 1]
    if not lines:
        return None
    highest = max(value for line in lines for _, value in line.points)
    note = f"The {STYLES} largest of {len(names)} units." if len(names) > STYLES else None
    return _lines("Memory of units", id + "-units", lines, time, size_axis(highest), decision, size, note=note)


def _memory_of(name: str) -> Callable[[Sample], int | None]:
    return lambda moment: moment.units.get(name)


def _pressure(case: Case, samples: Sequence[Sample], time: Axis, id: str, known: bool) -> Markup | None:
    decision = case.decision
    lines = [
        _line("some", samples, decision, lambda moment: moment.pressure_some, 1, known),
        _line("full", samples, decision, lambda moment: moment.pressure_full, 3, known),
    ]
    lines = [line for line in lines if len(line.points) > 1]
    if not lines:
        return None
    highest = max(value for line in lines for _, value in line.points)
    return _lines(
        "Pressure: time lost waiting for memory",
        id + "-pressure",
        lines,
        time,
        percent_axis(min(highest, 100)),
        decision,
        lambda value: f"{value:.1f} %",
    )


def _line(
    name: str,
    samples: Iterable[Sample],
    decision: Decision,
    value: Callable[[Sample], float | None],
    style: int,
    known: bool,
) -> Line:
    points = [
        (float(moment.usec - decision.trigger_usec), float(figure))
        for moment in samples
        if (figure := value(moment)) is not None
    ]
    return Line(name, points, style, guide=not known)


def _lines(
    title: str,
    id: str,
    lines: Sequence[Line],
    time: Axis,
    values: Axis,
    decision: Decision,
    written: Callable[[int], str],
    limits: Sequence[Limit] = (),
    note: str | None = None,
) -> Markup:
    told = []
    for line in lines:
        figures = [value for _, value in line.points]
        told.append(
            f"{line.name}: {written(int(figures[0]))} at first, at least {written(int(min(figures)))}, at most"
            f" {written(int(max(figures)))}, {written(int(figures[-1]))} at last"
        )
    told += [limit.label for limit in limits]
    picture = chart(id, title, ". ".join(told), lines, time, values, marks=_marks(decision), limits=limits)
    items = [
        tag(
            "li",
            sample(line.style),
            unit(line.name),
            f": {written(int(line.points[0][1]))} → {written(int(line.points[-1][1]))}",
        )
        for line in lines
    ]
    return _figure(title, picture, tag("ul", *items, class_="legend"), note)


def _figure(title: str, picture: Markup, legend: Markup | None, note: str | None) -> Markup:
    return tag(
        "figure",
        tag("h4", title),
        picture,
        legend,
        tag("figcaption", note) if note else None,
    )


def _table(case: Case, samples: Sequence[Sample]) -> Markup:
    """The figures as numbers, for those who cannot see pictures or want to compute."""
    decision = case.decision
    step = max(1, -(-len(samples) // TABLE_ROWS))
    names = [decision.victim] if any(decision.victim in moment.units for moment in samples) else []
    columns = [Column("Since trigger", number=True), Column("MemAvailable", number=True)]
    columns += [Column("Free swap", number=True), Column("some", number=True), Column("full", number=True)]
    columns += [Column(name, number=True) for name in names]
    rows = []
    for moment in list(samples)[::step]:
        row: list[object] = [f"{(moment.usec - decision.trigger_usec) / 1e6:.3f} s".replace("-", "\N{MINUS SIGN}")]
        row += [size(value) if value is not None else "-" for value in (moment.memory_available, moment.swap_free)]
        row += [
            f"{value:.1f} %" if value is not None else "-" for value in (moment.pressure_some, moment.pressure_full)
        ]
        row += [size(moment.units[name]) if name in moment.units else "-" for name in names]
        rows.append(row)
    caption = f"Figures around the decision, {len(rows)} of {len(samples)} moments"
    return tag("details", tag("summary", "The figures as a table"), table(caption, columns, rows))
