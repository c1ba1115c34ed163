# SPDX-License-Identifier: LGPL-2.1-or-later
"""The picture of top, without a terminal: sizes, order, keys, names that want to do harm, and figures from files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomslice.cli.live.figures import (
    Limits,
    MachineFigures,
    Order,
    Picture,
    Pressure,
    Reader,
    Row,
    UnitFigures,
    parse_pressure,
    picture,
    rows_of,
)
from oomslice.cli.live.view import SORTS, View, frame, render_once, sort_rows
from oomslice.cli.text import Terminal, display_width

FIXTURES = Path(__file__).parents[1] / "fixtures/cgroups"
GIB = 1 << 30
TERMINAL = Terminal(width=80)
CANDIDATES = (
    {"name": "hog.service", "priority": -200, "metric": GIB, "verdict": "chosen", "reason": "smallest priority: -200"},
    {"name": "db.service", "priority": 0, "metric": 2 * GIB, "verdict": "eligible", "reason": "larger priority: 0"},
    {"name": "ssh.service", "priority": 0, "metric": 5, "verdict": "protected", "reason": "protected: rule"},
    {"name": "system.slice", "priority": 0, "metric": 0, "verdict": "container", "reason": "holds other units"},
)
FIGURES = {
    "hog.service": UnitFigures(3 * GIB, 0, 100, Pressure(some10=1.0)),
    "db.service": UnitFigures(4 * GIB, GIB, -5, Pressure(some10=7.0)),
    "ssh.service": UnitFigures(5, 0, None, Pressure()),
}
ORDER = Order(domains=("-.slice", "batch.slice"), candidates=CANDIDATES, actions={"hog.service": "kill"}, armed=True)
MACHINE = MachineFigures(8 * GIB, 2 * GIB, GIB, GIB // 2, Pressure(3.5, 2.5, 1.5, 0.5))
SHOWN = Picture(1_763_719_200_000_000, MACHINE, Limits(GIB // 4, GIB // 10), ORDER, rows_of(ORDER, FIGURES))


def text_of(view: View, width: int = 80, height: int = 24, shown: Picture = SHOWN) -> list[str]:
    """What stands on a screen of this size."""
    return ["".join(text for _, text in line) for line in frame(shown, view, width, height, TERMINAL)]


def test_units_are_numbered_in_the_order_of_the_choice() -> None:
    rows = rows_of(ORDER, FIGURES)
    assert [(row.name, row.place) for row in rows[:3]] == [("hog.service", 1), ("db.service", 2), ("ssh.service", 0)]
    lines = text_of(View())
    assert [line.split()[:2] for line in lines if ".service " in line and "Next" not in line] == [
        ["1", "hog.service"],
        ["2", "db.service"],
        ["-", "ssh.service"],
    ]
    assert any(line.startswith("Next   hog.service (smallest priority: -200)") for line in lines)
    assert not any("system.slice" in line for line in lines)
    assert any("system.slice" in line for line in text_of(View(everything=True)))


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("order", "hog.service"),
        ("memory", "db.service"),
        ("swap", "db.service"),
        ("growth", "hog.service"),
        ("pressure", "db.service"),
        ("name", "db.service"),
    ],
)
def test_rows_can_be_sorted(sort: str, first: str) -> None:
    assert sort_rows(SHOWN.rows, sort)[0].name == first
    assert sorted(SORTS) == sorted({"order", "memory", "swap", "growth", "pressure", "name"})


@given(
    st.integers(0, 260),
    st.integers(0, 70),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.text(max_size=60), max_size=30),
)
def test_a_frame_is_never_larger_than_the_screen(
    width: int, height: int, help_: bool, everything: bool, unicode: bool, names: list[str]
) -> None:
    rows = tuple(
        Row(name, number + 1, number, number << 20, "eligible", name * 3, "kill", UnitFigures())
        for number, name in enumerate(names)
    )
    shown = SHOWN._replace(rows=rows, complaint="x" * 300)
    lines = frame(shown, View(help=help_, everything=everything), width, height, Terminal(unicode=unicode))
    assert len(lines) == height
    for line in lines:
        text = "".join(part for _, part in line)
        assert display_width(text) <= max(width, 0)
        assert text.isprintable()
        assert unicode or all(c.isascii() or c in "".join(names) for c in text)


def test_a_name_cannot_move_the_cursor() -> None:
    row = SHOWN.rows[0]._replace(name="a\033[2Jb.service", reason="c\rd")
    shown = SHOWN._replace(rows=(row,))
    assert "\033" not in "".join(text_of(View(), shown=shown))
    assert "\033" not in render_once(shown, Terminal(), everything=True, legend=True)


def test_the_mark_stands_where_oomslice_acts() -> None:
    (line,) = [line for line in text_of(View()) if line.startswith("Memory")]
    bar = line[line.index("[") + 1 : line.index("]")]
    # A quarter of 8 GiB is left at most, so the mark is at the end of the bar; 6 of 8 GiB are used.
    assert bar.index("│") == round(len(bar) * 31 / 32)
    assert bar.count("█") == round(len(bar) * 6 / 8)


def test_an_old_order_says_why_it_is_old() -> None:
    lines = text_of(View(), shown=SHOWN._replace(complaint="The order is an old one: oomsliced is not running"))
    assert "The order is an old one: oomsliced is not running" in lines
    assert any("hog.service" in line for line in lines)


def test_keys() -> None:
    view = View(domain="-.slice")
    domains = ("-.slice", "batch.slice")
    assert view.key("q", 10, domains) == "quit"
    assert (view.key("s", 10, domains), view.sort) == ("", "memory")
    assert (view.key("S", 10, domains), view.sort) == ("", "order")
    assert (view.key("p", 10, domains), view.paused) == ("", True)
    assert (view.key(" ", 10, domains), view.paused) == ("look", False)
    assert (view.key("a", 10, domains), view.everything) == ("", True)
    assert (view.key("d", 10, domains), view.domain) == ("look", "batch.slice")
    assert (view.key("d", 10, domains), view.domain) == ("look", "-.slice")
    assert (view.key("+", 10, domains), view.interval) == ("look", 5.0)
    assert (view.key("-", 10, domains), view.interval) == ("look", 2.0)
    assert (view.key("pgdn", 10, domains), view.top) == ("", 10)
    assert (view.key("up", 10, domains), view.top) == ("", 9)
    assert (view.key("home", 10, domains), view.top) == ("", 0)
    assert view.key("x", 10, domains) == ""
    assert (view.key("h", 10, domains), view.help) == ("", True)
    assert (view.key("s", 10, domains), view.help, view.sort) == ("", False, "order")


def test_scrolling_ends_at_the_last_row() -> None:
    rows = tuple(SHOWN.rows[0]._replace(name=f"u{number}.service", place=number + 1) for number in range(50))
    view = View(top=1 << 30)
    lines = text_of(view, shown=SHOWN._replace(rows=rows))
    assert "u49.service" in lines[-2]
    assert 0 < view.top < 50


def test_pressure_files_are_read() -> None:
    text = "some avg10=1.25 avg60=0.50 avg300=0.10 total=5\nfull avg10=0.75 avg60=0.25 avg300=0.00 total=2\n"
    assert parse_pressure(text) == Pressure(1.25, 0.5, 0.75, 0.25)
    assert parse_pressure("") == Pressure()


def test_figures_are_the_kernels_and_growth_is_by_the_second(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "desktop", tmp_path / "cgroup")
    unit = next(path.parent for path in sorted((tmp_path / "cgroup/system.slice").glob("*/memory.current")))
    (unit / "memory.current").write_text("1000\n")
    (unit / "memory.swap.current").write_text("24\n")
    path = "/" + str(unit.relative_to(tmp_path / "cgroup"))
    reader = Reader(tmp_path / "cgroup", FIXTURES / "desktop.proc")
    first = reader.units({"a.service": path, "gone.service": "/gone"}, 1_000_000)
    assert first["a.service"]._replace(pressure=Pressure()) == UnitFigures(1000, 24, None)
    assert first["gone.service"] == UnitFigures()
    (unit / "memory.current").write_text("3000\n")
    assert reader.units({"a.service": path}, 3_000_000)["a.service"].growth == 1000
    assert reader.machine().total > reader.machine().available > 0


def test_one_look_goes_from_the_order_to_rows() -> None:
    order = ORDER._replace(paths={"hog.service": "/nosuch"})
    shown = picture(Reader(FIXTURES / "desktop", FIXTURES / "desktop.proc"), order, Limits(), 7, "old")
    assert [row.name for row in shown.rows] == [candidate["name"] for candidate in CANDIDATES]
    assert (shown.moment_usec, shown.complaint) == (7, "old")


def test_a_table_for_a_pipe_has_no_more_than_was_asked_for() -> None:
    text = render_once(SHOWN, Terminal(), everything=False, legend=False)
    assert [line.split()[1] for line in text.splitlines()] == ["hog.service", "db.service", "ssh.service"]
    assert "Memory" in render_once(SHOWN, Terminal(), everything=False, legend=True)


def test_names_and_pressure_are_worth_more_than_reasons_on_a_narrow_terminal() -> None:
    rows = tuple(row._replace(name="systemd-timesyncd.service", metric=999 << 20) for row in SHOWN.rows)
    lines = text_of(View(), shown=SHOWN._replace(rows=rows))
    heading = next(line for line in lines if "UNIT" in line)
    assert "SOME%" in heading and "REASON" not in heading
    assert any("systemd-timesyncd.servi" in line for line in lines)
    wide = text_of(View(), 200, shown=SHOWN._replace(rows=rows))
    assert any("systemd-timesyncd.service " in line and "smallest priority: -200" in line for line in wide[6:])
