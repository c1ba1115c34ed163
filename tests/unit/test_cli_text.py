# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sizes, times and tables as oomslicectl prints them."""

from __future__ import annotations

from datetime import timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomslice.cli.text import (
    Column,
    Terminal,
    clean,
    clock,
    display_width,
    facts,
    local_time,
    metric,
    plural,
    relative,
    shorten,
    size,
    table,
    when,
)

CET = timezone(timedelta(hours=1), "CET")
NOON = 1_763_722_800_123_000  # 2025-11-21 11:00:00.123 UTC
PLAIN = Terminal(now_usec=NOON + 5_000_000, timezone=CET)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1 MiB"),
        (1610612736, "1.5 GiB"),
        (64 * 1024**2, "64 MiB"),
        (2**64 - 1, "16 EiB"),
        (-2048, "-2 KiB"),
    ],
)
def test_sizes_are_written_in_binary_units(count: int, text: str) -> None:
    assert size(count) == text


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_no_size_is_wider_than_a_column_of_ten(count: int) -> None:
    assert len(size(count)) <= 10


def test_a_refault_metric_is_in_pages() -> None:
    assert metric(4096, "refault") == "4096 pages"
    assert metric(4096, "growth") == "4 KiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "just now"), (5, "5 s ago"), (90, "1 min ago"), (7200, "2 h ago"), (200_000, "2 d ago"), (-61, "in 1 min")],
)
def test_distances_in_time_use_their_largest_unit(seconds: int, text: str) -> None:
    assert relative(NOON, NOON + seconds * 1_000_000) == text


def test_times_are_local_with_the_zone_and_relative() -> None:
    assert local_time(NOON, PLAIN) == "2025-11-21 12:00:00 CET"
    assert local_time(NOON, PLAIN, milli=True) == "2025-11-21 12:00:00.123 CET"
    assert clock(NOON, PLAIN) == "12:00:00.123"
    assert when(NOON, PLAIN) == "2025-11-21 12:00:00 CET, 5 s ago"


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_no_time_that_fits_the_bus_raises(realtime_usec: int) -> None:
    assert local_time(realtime_usec, PLAIN)
    assert clock(realtime_usec, PLAIN)
    assert relative(realtime_usec, PLAIN.now_usec)


def test_control_characters_are_made_visible() -> None:
    assert clean("a\x1b[31mb\nc") == "a\\x1b[31mb\\nc"
    assert clean("söz-日本.service") == "söz-日本.service"


@given(st.text(alphabet=st.characters(codec=None)))
def test_clean_text_is_one_printable_line(text: str) -> None:
    assert clean(text).isprintable()


@given(st.text(), st.integers(min_value=0, max_value=40))
def test_shortened_text_fits(text: str, width: int) -> None:
    assert display_width(shorten(clean(text), width)) <= width


def test_tables_align_and_leave_no_blanks_at_the_end() -> None:
    columns = (Column("NAME"), Column("SIZE", right=True), Column("WHY"))
    text = table(columns, [("a", "1.5 GiB", ""), ("long-name", "2 B", "x")], Terminal())
    assert text.splitlines() == [
        "NAME          SIZE  WHY",
        "a          1.5 GiB",
        "long-name      2 B  x",
    ]


def test_wide_characters_take_two_columns() -> None:
    columns = (Column("A"), Column("B"))
    assert table(columns, [("日本", "x"), ("abcd", "y")], Terminal(), header=False).splitlines() == [
        "日本  x",
        "abcd  y",
    ]


CELL = st.text(max_size=60).map(clean)


@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=8), st.integers(min_value=40, max_value=200))
def test_tables_fit_the_terminal(rows: list[tuple[str, str, str]], width: int) -> None:
    columns = (Column("ONE", give=True), Column("TWO", give=True, least=10), Column("THREE", drop=1))
    text = table(columns, rows, Terminal(width=width))
    assert all(display_width(line) <= width for line in text.split("\n"))
    assert len(text.split("\n")) == len(rows) + 1


def test_a_pipe_gets_everything() -> None:
    name = "x" * 300
    assert name in table((Column("NAME", give=True),), [(name,)], Terminal(width=None))


def test_columns_are_dropped_only_when_shortening_is_not_enough() -> None:
    columns = (Column("ID"), Column("TIME", drop=1), Column("NAME", give=True, least=4))
    row = ("1234567890", "12:00", "something-long.service")
    assert "TIME" in table(columns, [row], Terminal(width=23))
    assert "TIME" not in table(columns, [row], Terminal(width=22))


def test_colours_only_where_they_are_wanted() -> None:
    assert Terminal(colour=True).style("red", "x") == "\033[31mx\033[0m"
    assert Terminal(colour=False).style("red", "x") == "x"
    assert "\033" not in table((Column("A"),), [("b",)], Terminal(), styles=["red"])


def test_facts_align_their_labels_and_indent_further_lines() -> None:
    assert facts([("One", "1"), ("Three", "3\nand more")], Terminal()).splitlines() == [
        "  One: 1",
        "Three: 3",
        "       and more",
    ]


def test_plurals() -> None:
    assert [plural(1, "process", "processes"), plural(2, "process", "processes"), plural(0, "unit")] == [
        "1 process",
        "2 processes",
        "0 units",
    ]
