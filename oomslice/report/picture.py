# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pictures as SVG within the page: lines over time, and steps as bars. As wide as a phone, so that text in them is
readable there. Each says in words what it shows; colours come from the page's style, and never tell alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oomslice.report.html import Markup, tag
from oomslice.report.scale import Axis

WIDTH = 360
HEIGHT = 200
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 26, 34
STYLES = 6
"""How many lines can be told apart by colour and dashes; as many as style.py has."""
DOTS_MAX = 40
"""Lines with no more points than this have a dot at each: what was measured, and what only connects."""
ROW = 34
LABEL_MAX = 46


@dataclass(frozen=True, slots=True)
class Line:
    """One figure over time."""

    name: str
    points: Sequence[tuple[float, float]]
    """microseconds since the trigger, value"""
    style: int
    guide: bool = False
    """True if only the points were recorded, and the line between them is a help for the eye"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment on the time axis."""

    usec: float
    label: str


@dataclass(frozen=True, slots=True)
class Limit:
    """A value that the lines are held against."""

    value: float
    label: str


def chart(
    id: str,
    title: str,
    description: str,
    lines: Sequence[Line],
    time: Axis,
    values: Axis,
    *,
    marks: Sequence[Mark] = (),
    limits: Sequence[Limit] = (),
) -> Markup:
    """Lines over time."""
    inner = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)

    def x(usec: float) -> str:
        return _number(inner[0] + min(max(time.share(usec), 0), 1) * (inner[2] - inner[0]))

    def y(value: float) -> str:
        return _number(inner[3] - min(max(values.share(value), 0), 1) * (inner[3] - inner[1]))

    parts: list[Markup] = []
    for tick in values.ticks:
        parts.append(tag("line", class_="grid", x1=inner[0], x2=inner[2], y1=y(tick), y2=y(tick)))
        parts.append(tag("text", values.label(tick), x=inner[0] - 5, y=y(tick), dy="0.35em", text_anchor="end"))
    parts.append(tag("text", values.unit, x=inner[0] - 5, y=11, text_anchor="end"))
    parts.extend(_time_axis(time, inner, x))
    for limit in limits:
        parts.append(tag("line", class_="limit", x1=inner[0], x2=inner[2], y1=y(limit.value), y2=y(limit.value)))
    parts.extend(_marks(marks, inner, x))
    for line in lines:
        style = f"line s{line.style % STYLES}"
        corners = [f"{x(usec)},{y(value)}" for usec, value in line.points]
        # Points that fall together on the picture are one.
        path = " ".join(corner for corner, before in zip(corners, [None, *corners], strict=False) if corner != before)
        if len(line.points) > 1:
            parts.append(tag("polyline", class_=f"{style} guide" if line.guide else style, points=path))
        if len(line.points) <= DOTS_MAX:
            parts.extend(
                tag("circle", class_=f"dot s{line.style % STYLES}", cx=x(usec), cy=y(value), r=3)
                for usec, value in line.points
            )
    for limit in limits:
        high = values.share(limit.value) > 0.85
        place = {"x": inner[0] + 3, "y": y(limit.value), "dy": "1.1em" if high else "-0.35em"}
        parts.append(tag("text", limit.label, class_="limit-label", **place))
    return _svg(id, title, description, HEIGHT, parts)


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of the picture of steps."""

    label: str
    begin: float
    """microseconds since the trigger"""
    end: float
    kind: str
    """class of its colour: "core", "step", "bad" or "wait\""""
    until: float = 0
    """what it did was in force until then; 0: not longer than it took"""


def bars(id: str, title: str, description: str, rows: Sequence[Bar], time: Axis) -> Markup:
    """What was done when: a row each, with its name above its bar."""
    height = 12 + ROW * len(rows) + BOTTOM
    inner = (LEFT // 4, 6, WIDTH - RIGHT, height - BOTTOM)

    def place(usec: float) -> float:
        return inner[0] + min(max(time.share(usec), 0), 1) * (inner[2] - inner[0])

    def x(usec: float) -> str:
        return _number(place(usec))

    parts: list[Markup] = [
        tag("line", class_="grid", x1=x(tick), x2=x(tick), y1=inner[1], y2=inner[3]) for tick in time.ticks
    ]
    parts.extend(_time_axis(time, inner, x))
    for number, row in enumerate(rows):
        top = inner[1] + ROW * number
        label = row.label if len(row.label) <= LABEL_MAX else row.label[: LABEL_MAX - 1] + "…"
        parts.append(tag("text", label, class_="bar-label", x=inner[0] + 2, y=top + 12))
        if row.until > row.end:
            parts.append(
                tag(
                    "rect",
                    class_="in-force",
                    x=x(row.end),
                    y=top + 20,
                    width=_number(place(row.until) - place(row.end)),
                    height=6,
                )
            )
        # What took next to no time is still to be seen.
        width = max(place(row.end) - place(row.begin), 3)
        begin = min(place(row.begin), inner[2] - width)
        parts.append(
            tag(
                "rect",
                class_=f"bar {row.kind}",
                x=_number(begin),
                y=top + 17,
                width=_number(width),
                height=12,
                rx=2,
            )
        )
    return _svg(id, title, description, height, parts)


def sample(style: int) -> Markup:
    """A piece of a line, for the legend."""
    line = tag("line", class_=f"line s{style % STYLES}", x1=0, x2=24, y1=6, y2=6)
    return tag("svg", line, class_="swatch", viewBox="0 0 24 12", width=24, height=12, aria_hidden="true")


def _svg(id: str, title: str, description: str, height: int, parts: Sequence[Markup]) -> Markup:
    return tag(
        "svg",
        tag("title", title, id=f"{id}-title"),
        tag("desc", description, id=f"{id}-desc"),
        # The picture is one thing to a reader that speaks; its parts would be numbers without a place.
        tag("g", *parts, aria_hidden="true"),
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_labelledby=f"{id}-title",
        aria_describedby=f"{id}-desc",
    )


def _time_axis(time: Axis, inner: tuple[int, int, int, int], x: object) -> list[Markup]:
    assert callable(x)
    parts = [tag("line", class_="axis", x1=inner[0], x2=inner[2], y1=inner[3], y2=inner[3])]
    parts.extend(
        tag(
            "text",
            time.label(tick),
            x=x(tick),
            y=inner[3] + 14,
            text_anchor="end" if time.share(tick) > 0.97 else "middle",
        )
        for tick in time.ticks
    )
    caption = f"{time.unit} since the trigger"
    parts.append(tag("text", caption, x=inner[2], y=inner[3] + 28, text_anchor="end"))
    return parts


def _marks(marks: Sequence[Mark], inner: tuple[int, int, int, int], x: object) -> list[Markup]:
    """Vertical lines; the labels of those that stand too close are written as one."""
    assert callable(x)
    parts: list[Markup] = []
    groups: list[tuple[float, list[str]]] = []
    for mark in sorted(marks, key=lambda mark: mark.usec):
        place = float(x(mark.usec))
        parts.append(tag("line", class_="mark", x1=_number(place), x2=_number(place), y1=inner[1] - 4, y2=inner[3]))
        if groups and place - groups[-1][0] < 30:
            groups[-1][1].append(mark.label)
        else:
            groups.append((place, [mark.label]))
    for place, labels in groups:
        label = labels[0] if len(labels) == 1 else f"{labels[0]}\N{EN DASH}{labels[-1]}"
        anchor = "end" if place > inner[2] - 12 else "middle"
        parts.append(tag("text", label, class_="mark-label", x=_number(place), y=inner[1] - 8, text_anchor=anchor))
    return parts


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
