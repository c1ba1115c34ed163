# SPDX-License-Identifier: LGPL-2.1-or-later
"""Moments as systemd.time(7) writes them, as far as `--since` needs them: "1h ago", "-30min", "yesterday",
"2026-11-21 10:00", "@1763719200"."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo

DATE_FORMATS = ("%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")
CLOCK_FORMATS = ("%H:%M:%S", "%H:%M")


def parse_since(text: str, now_usec: int, timezone: tzinfo | None = None) -> int:
    """CLOCK_REALTIME microseconds of the moment that `text` names, in local time unless a timezone is given.

    Raises ValueError with a sentence that names the forms that work.
    """
    words = text.strip()
    try:
        moment = _parse(words, now_usec, timezone)
    except (OverflowError, OSError):
        moment = None
    if moment is None:
        raise ValueError(
            f"no moment in time: {text!r}; write for instance '1h ago', 'today', '2026-11-21 10:00' or '@1763719200'"
        )
    return max(moment, 0)


def _parse(words: str, now_usec: int, timezone: tzinfo | None) -> int | None:
    if words == "now":
        return now_usec
    if words.startswith("@"):
        return int(float(words[1:]) * 1_000_000) if re.fullmatch(r"@[0-9]+(\.[0-9]+)?", words, re.ASCII) else None
    if words.startswith(("-", "+")):
        span = _span(words[1:])
        if span is None:
            return None
        return now_usec - span if words.startswith("-") else now_usec + span
    if words.endswith(" ago"):
        span = _span(words.removesuffix(" ago"))
        return None if span is None else now_usec - span
    today = datetime.fromtimestamp(now_usec // 1_000_000, timezone).replace(hour=0, minute=0, second=0, microsecond=0)
    if words in ("today", "yesterday", "tomorrow"):
        return _usec(today + timedelta(days={"today": 0, "yesterday": -1, "tomorrow": 1}[words]))
    date = words.removesuffix(" UTC").replace("T", " ")
    for form in DATE_FORMATS:
        moment = _strptime(date, form)
        if moment is not None:
            if words.endswith(" UTC"):
                return int((moment - datetime(1970, 1, 1)) / timedelta(microseconds=1))
            return _usec(moment.replace(tzinfo=timezone))
    for form in CLOCK_FORMATS:
        moment = _strptime(words, form)
        if moment is not None:
            return _usec(today.replace(hour=moment.hour, minute=moment.minute, second=moment.second))
    return None


def _span(words: str) -> int | None:
    from oomslice.settings.values import BadValueError, parse_time_span  # no need for "today", and slow to import

    try:
        return parse_time_span(words)
    except BadValueError:
        return None


def _strptime(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        return None


def _usec(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)
