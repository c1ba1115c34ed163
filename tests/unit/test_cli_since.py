# SPDX-License-Identifier: LGPL-2.1-or-later
"""Moments as --since takes them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomslice.cli.since import parse_since

CET = timezone(timedelta(hours=1), "CET")
NOW = int(datetime(2026, 11, 21, 12, 30, 15, tzinfo=CET).timestamp()) * 1_000_000
HOUR = 3_600_000_000


def at(*parts: int) -> int:
    """Local time as microseconds."""
    return int(datetime(*parts, tzinfo=CET).timestamp() * 1_000_000)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("1h ago", NOW - HOUR),
        ("1h 30min ago", NOW - HOUR * 3 // 2),
        ("1.5 hours ago", NOW - HOUR * 3 // 2),
        ("-90s", NOW - 90_000_000),
        ("-90", NOW - 90_000_000),
        ("+2 days", NOW + 48 * HOUR),
        ("2weeks ago", NOW - 14 * 24 * HOUR),
        ("500ms ago", NOW - 500_000),
        ("today", at(2026, 11, 21)),
        ("yesterday", at(2026, 11, 20)),
        ("tomorrow", at(2026, 11, 22)),
        ("10:15", at(2026, 11, 21, 10, 15)),
        ("10:15:20", at(2026, 11, 21, 10, 15, 20)),
        ("2026-11-20", at(2026, 11, 20)),
        ("2026-11-20 10:00", at(2026, 11, 20, 10)),
        ("2026-11-20T10:00:05", at(2026, 11, 20, 10, 0, 5)),
        ("2026-11-20 10:00:05.25", at(2026, 11, 20, 10, 0, 5) + 250_000),
        ("2026-11-20 10:00:00 UTC", at(2026, 11, 20, 11)),
        ("@1763719200", 1_763_719_200_000_000),
        ("@1.5", 1_500_000),
        ("  yesterday ", at(2026, 11, 20)),
        ("200 years ago", 0),
    ],
)
def test_moments_of_systemd_time(text: str, expected: int) -> None:
    assert parse_since(text, NOW, CET) == expected


@pytest.mark.parametrize(
    "text", ["", "soon", "1 fortnight ago", "ago", "-", "@", "@x", "1h", "2026-13-40", "25:00", "٣h ago"]
)
def test_what_is_no_moment_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="1h ago"):
        parse_since(text, NOW, CET)


@given(st.text())
def test_any_text_gives_a_moment_or_a_value_error(text: str) -> None:
    try:
        assert parse_since(text, NOW) >= 0
    except ValueError as error:
        assert "no moment" in str(error)
