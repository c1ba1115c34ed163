# SPDX-License-Identifier: LGPL-2.1-or-later
"""The values of single settings, read as systemd reads its own.

Owns booleans, whole numbers, time spans, sizes and what is built from them. A text that is no such value raises
BadValueError, whose text says what would be right; reading stops at nothing else. Quotes are not removed and
specifiers are not expanded, as in systemd's own booleans, numbers, sizes and times.
"""

from __future__ import annotations

import enum
import re
from typing import TypeVar

from oomslice.errors import SettingsError
from oomslice.settings.model import (
    Amount,
    KillScope,
    PressureTrigger,
    PressureVictims,
    PsiKind,
    RankBy,
    format_usec,
)
from oomslice.settings.unitname import UnitNameKind, check_unit_name

WHITESPACE = " \t\n\r"
"""What systemd calls white space; Python's own idea of it is wider."""

PRIORITY_MIN, PRIORITY_MAX = -1000, 1000
WINDOW_MIN_USEC, WINDOW_MAX_USEC = 500_000, 10_000_000
"""The kernel's limits of a PSI trigger's window (kernel/sched/psi.c, WINDOW_MIN_US and WINDOW_MAX_US)."""
TIME_MAX_USEC = 86_400_000_000
"""The longest time that any of our settings takes: a day. The core would take more."""
DEATH_DEADLINE_MIN_USEC, DEATH_DEADLINE_MAX_USEC = 100_000, 60_000_000
DECISIONS_MIN, DECISIONS_MAX = 1, 1_000_000
RESERVE_PERMYRIAD_MAX = 2500
"""The largest reserve, as a share of memory in hundredths of a percent: a quarter."""
TIER_NAME_MAX = 64

_USEC_INFINITY = 2**64 - 1
_LLONG_MAX = 2**63 - 1
_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1

_SECOND = 1_000_000
_TIME_UNITS: tuple[tuple[str, int], ...] = (
    # Looked for in this order, the first that fits is taken: as systemd does it.
    *((name, _SECOND) for name in ("seconds", "second", "sec", "s")),
    *((name, 60 * _SECOND) for name in ("minutes", "minute", "min")),
    *((name, 2_629_800 * _SECOND) for name in ("months", "month", "M")),
    *((name, 1_000) for name in ("msec", "ms")),
    ("m", 60 * _SECOND),
    *((name, 3_600 * _SECOND) for name in ("hours", "hour", "hr", "h")),
    *((name, 86_400 * _SECOND) for name in ("days", "day", "d")),
    *((name, 604_800 * _SECOND) for name in ("weeks", "week", "w")),
    *((name, 31_557_600 * _SECOND) for name in ("years", "year", "y")),
    *((name, 1) for name in ("usec", "us", "\u03bcs", "\u00b5s")),
)
_TIME_UNIT = {name: size for name, size in _TIME_UNITS}
# Patterns are compiled when they are first used: most calls of oomslicectl need none of them.
_TIME_PART = (
    r"(?P<whole>\+?[0-9]+)?(?P<dot>\.(?P<fraction>[0-9]*))?(?P<space>[ \t\n\r]*)(?P<unit>"
    + "|".join(name for name, _ in _TIME_UNITS)
    + r")?"
)

_SIZE_UNITS = (("E", 2**60), ("P", 2**50), ("T", 2**40), ("G", 2**30), ("M", 2**20), ("K", 2**10), ("B", 1), ("", 1))
_SIZE_PART = r"[ \t\n\r]*(?P<whole>\+?[0-9]+)(?P<dot>\.(?P<fraction>[0-9]*))?[ \t\n\r]*"

_INTEGER = (
    r"(?:0[bB](?P<two>[0-1]+)|0[oO](?P<eight>[0-7]+)|(?P<sign>[+-]?)"
    r"(?:0[xX](?P<sixteen>[0-9a-fA-F]+)|0(?P<old_eight>[0-7]*)|(?P<ten>[1-9][0-9]*)))"
)
_TIER_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"

_TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})
_FALSE = frozenset({"0", "no", "n", "false", "f", "off"})

_EnumT = TypeVar("_EnumT", bound=enum.Enum)


class BadValueError(SettingsError):
    """A text is no value of its setting. The message says what is wrong and what would be right."""


def shown(text: str, limit: int = 120) -> str:
    """`text` as it can be shown in a message on any terminal: control characters escaped, cut at `limit` characters."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def _hint(text: str) -> str:
    """Why a text that looks right to a person is not taken."""
    if text[:1] in ("'", '"'):
        return "; quotes are part of the value here, as in systemd's own numbers and booleans: leave them out"
    if "%" in text:
        return "; specifiers such as %i are not expanded here: write the value in full"
    return ""


def parse_boolean(text: str) -> bool:
    """A boolean as systemd's parse_boolean() takes it: 1 yes y true t on, 0 no n false f off, in any case."""
    lowered = text.lower() if text.isascii() else text
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise BadValueError(f"is not a boolean; write yes or no{_hint(text)}")


def parse_integer(text: str) -> int:
    """A whole number of 32 bits as systemd's safe_atoi() takes it: 0x and a leading 0 as in C, and 0b and 0o."""
    found = re.fullmatch(_INTEGER, text.lstrip(WHITESPACE)) if len(text) <= 80 else None
    if not found:
        raise BadValueError(f"is not a whole number{_hint(text)}")
    digits: tuple[tuple[str, int], ...] = (("two", 2), ("eight", 8), ("sixteen", 16), ("old_eight", 8), ("ten", 10))
    value = next(int(found[name] or "0", base) for name, base in digits if found[name] is not None)
    if found["sign"] == "-":
        value = -value
    if not _INT_MIN <= value <= _INT_MAX:
        raise BadValueError("is too large a number")
    return value


def parse_integer_between(text: str, lowest: int, highest: int) -> int:
    """A whole number from `lowest` to `highest`, both included."""
    try:
        value = parse_integer(text)
    except BadValueError as error:
        raise BadValueError(f"{error}; write one from {lowest} to {highest}") from None
    if not lowest <= value <= highest:
        raise BadValueError(f"is out of range; write a whole number from {lowest} to {highest}")
    return value


def parse_priority(text: str) -> int:
    """Priority=: -1000 to 1000."""
    return parse_integer_between(text, PRIORITY_MIN, PRIORITY_MAX)


def parse_time_span(text: str) -> int | None:
    """A time span of systemd.time(7) in microseconds, a bare number being seconds; None for "infinity"."""
    rest = text.lstrip(WHITESPACE)
    if rest.startswith("infinity") and not rest[len("infinity") :].strip(WHITESPACE):
        return None
    if not rest:
        raise BadValueError(f"is not a time span{_TIME_EXAMPLES}")
    total, position = 0, 0
    while position < len(rest):
        usec, position = _time_part(rest, position)
        total += usec
        if total >= _USEC_INFINITY:
            raise BadValueError("is too long a time")
        while position < len(rest) and rest[position] in WHITESPACE:
            position += 1
    return total


_TIME_EXAMPLES = '; write one such as "150ms", "2s" or "1min 30s"'


def _time_part(text: str, position: int) -> tuple[int, int]:
    """One number with its unit: its microseconds and where the next one begins."""
    wrong = BadValueError(f"is not a time span{_TIME_EXAMPLES}{_hint(text)}")
    if text[position] == "-":
        raise BadValueError("is negative; a time span is not")
    found = re.compile(_TIME_PART).match(text, position)
    if not found or (found["whole"] is None and found["dot"] is None):
        raise wrong
    if found["dot"] is not None and not found["fraction"]:
        raise wrong
    end = found.end()
    # A number is followed by white space, a unit or the end: "12.34.56" is nothing.
    if found["unit"] is None and not found["space"] and end < len(text):
        raise wrong
    if len(found["whole"] or "") > 20 or int(found["whole"] or "0") > _LLONG_MAX:
        raise BadValueError("is too long a time")
    size = _TIME_UNIT[found["unit"]] if found["unit"] else _SECOND
    usec = int(found["whole"] or "0") * size
    for digit in found["fraction"] or "":
        size //= 10
        if size == 0:
            break
        usec += int(digit) * size
    return usec, end


def parse_time_between(text: str, lowest_usec: int, highest_usec: int) -> int:
    """A finite time span, in microseconds, from `lowest_usec` to `highest_usec`, both included."""
    usec = parse_time_span(text)
    if usec is None or not lowest_usec <= usec <= highest_usec:
        lowest, highest = format_usec(lowest_usec), format_usec(highest_usec)
        raise BadValueError(f"is out of range; write a time from {lowest} to {highest}")
    return usec


def parse_cooldown(text: str) -> int:
    """CooldownSec=: microseconds, up to a day."""
    return parse_time_between(text, 0, TIME_MAX_USEC)


def parse_death_deadline(text: str) -> int:
    """death-deadline-sec: microseconds, 100 ms to a minute."""
    return parse_time_between(text, DEATH_DEADLINE_MIN_USEC, DEATH_DEADLINE_MAX_USEC)


def parse_decisions_max(text: str) -> int:
    """decisions-max: how many decisions are kept."""
    return parse_integer_between(text, DECISIONS_MIN, DECISIONS_MAX)


def parse_size(text: str) -> int:
    """A size in bytes as systemd's parse_size() takes it with base 1024: "64M", "1.5G", "1G 512M", "4096"."""
    wrong = BadValueError(f'is not a size; write one such as "64M" or "1.5G", with K, M, G or T{_hint(text)}')
    total, position, first_unit = 0, 0, 0
    text = text.rstrip(WHITESPACE)
    while True:
        if text[position:].lstrip(WHITESPACE).startswith("-"):
            raise BadValueError("is negative; a size is not")
        found = re.compile(_SIZE_PART).match(text, position)
        if not found:
            raise wrong
        position = found.end()
        # Units go from large to small and none twice; without a unit it is bytes, and nothing may follow.
        units = range(first_unit, len(_SIZE_UNITS))
        unit = next((index for index in units if text.startswith(_SIZE_UNITS[index][0], position)), None)
        if unit is None:
            raise wrong
        name, factor = _SIZE_UNITS[unit]
        if len(found["whole"]) > 21 or len(found["fraction"] or "") > 20:
            raise BadValueError("is too large a size")
        fraction = float(found["fraction"] or "0")
        for _ in found["fraction"] or "":
            fraction /= 10
        total += int(found["whole"]) * factor + int(fraction * factor)
        if total > 2**64 - 1:
            raise BadValueError("is too large a size")
        position += len(name)
        first_unit = unit + 1
        if position >= len(text):
            return total


_PARTS = (("\u2031", 0), ("\u2030", 1), ("%", 2))
"""Signs of ten-thousandths, thousandths and hundredths, with the decimal places that each may have."""


def parse_permyriad(text: str) -> int:
    """A share as systemd's parse_permyriad() takes it, in hundredths of a percent: "4%", "2.5%", "25‰", "250‱"."""
    sign, places = next(((sign, places) for sign, places in _PARTS if text.endswith(sign)), ("", 0))
    number, dot, fraction = text.removesuffix(sign).partition(".")
    if dot and not (1 <= len(fraction) <= places and fraction.isascii() and fraction.isdigit()):
        raise BadValueError('is not a percentage; write one such as "4%" or "2.25%", with two decimals at most')
    try:
        whole = parse_integer(number if sign else "")
    except BadValueError:
        raise BadValueError('is not a percentage; write one such as "4%" or "2.25%"') from None
    value = whole * int(10**places) + int(fraction.ljust(places, "0") or "0")
    if number.lstrip(WHITESPACE).startswith("-") or value > 10_000:
        raise BadValueError("is out of range; write a percentage from 0% to 100%")
    return value


def parse_amount(text: str) -> Amount:
    """A size ("64M") or a share of a total ("4%", "2.5%")."""
    if text.endswith(tuple(sign for sign, _ in _PARTS)):
        return Amount(permyriad=parse_permyriad(text))
    try:
        return Amount(bytes=parse_size(text))
    except BadValueError as error:
        raise BadValueError(f'{error}, or a percentage such as "4%"') from None


def parse_reserve(text: str) -> Amount:
    """reserve: a size, or a share of memory of at most a quarter. A size is compared when memory is known."""
    amount = parse_amount(text)
    if amount.permyriad is not None and amount.permyriad > RESERVE_PERMYRIAD_MAX:
        raise BadValueError("is too much: what is kept locked is missing elsewhere; write at most 25%")
    return amount


def parse_pressure_trigger(text: str) -> PressureTrigger:
    """PressureTrigger=: `some STALL/WINDOW` or `full STALL/WINDOW`, within the kernel's limits."""
    kind, _, times = text.strip(WHITESPACE).replace("\t", " ").partition(" ")
    if kind not in ("some", "full"):
        raise BadValueError(f'does not begin with some or full; write it like "some 150ms/1s"{_hint(text)}')
    stall, slash, window = times.partition("/")
    if not slash:
        raise BadValueError('has no STALL/WINDOW; write it like "some 150ms/1s"')
    stall_usec = _trigger_time("stall", stall)
    window_usec = _trigger_time("window", window)
    if not WINDOW_MIN_USEC <= window_usec <= WINDOW_MAX_USEC:
        raise BadValueError("has a window that the kernel does not take; it must be 500ms to 10s")
    if not 0 < stall_usec <= window_usec:
        raise BadValueError("has a stall that the kernel does not take; it must be more than 0 and at most the window")
    return PressureTrigger(PsiKind(kind), stall_usec, window_usec)


def _trigger_time(what: str, text: str) -> int:
    try:
        usec = parse_time_span(text)
    except BadValueError as error:
        raise BadValueError(f'has a {what} that {error}, or the whole like "some 150ms/1s"') from None
    if usec is None:
        raise BadValueError(f"has an infinite {what}; the kernel takes windows of 500ms to 10s")
    return usec


def _parse_enum(kind: type[_EnumT], text: str) -> _EnumT:
    try:
        return kind(text)
    except ValueError:
        names = [str(member.value) for member in kind]
        choices = f"{', '.join(names[:-1])} or {names[-1]}"
        raise BadValueError(f"is not known; write {choices}{_hint(text)}") from None


def parse_kill_scope(text: str) -> KillScope:
    """KillScope=: unit, subtree or process."""
    return _parse_enum(KillScope, text)


def parse_rank_by(text: str) -> RankBy:
    """RankBy=: memory, swap, growth or refault."""
    return _parse_enum(RankBy, text)


def parse_pressure_victims(text: str) -> PressureVictims:
    """PressureVictims=: below or lower-priority."""
    return _parse_enum(PressureVictims, text)


def parse_tier_name(text: str) -> str:
    """Tier=, and the names below `tiers:`: letters, digits, "_", "." and "-", at most 64."""
    if not re.fullmatch(_TIER_NAME, text) or len(text) > TIER_NAME_MAX:
        right = f'use letters, digits, "_", "." and "-", at most {TIER_NAME_MAX}'
        raise BadValueError(f"is not the name of a tier; {right}{_hint(text)}")
    return text


def parse_on_decision(text: str) -> str:
    """OnDecision=: a unit that can be started, or a template of a service, whose instance is the decision's id."""
    kind = parse_startable_unit(text)
    if kind is UnitNameKind.TEMPLATE and not text.endswith(".service"):
        raise BadValueError("is a template of no service; only a service can take the decision's id as its instance")
    return text


def parse_startable_unit(text: str) -> UnitNameKind:
    """What kind of name `text` is. Raises if no unit of that name can exist or be started."""
    problem, kind = check_unit_name(text)
    if problem:
        raise BadValueError(f"{problem}{_hint(text)}")
    assert kind is not None
    if text.endswith((".scope", ".device")):
        raise BadValueError("cannot be started: scopes and devices come into being by themselves")
    return kind
