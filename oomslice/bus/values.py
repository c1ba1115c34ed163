# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plain values in D-Bus types: what does not fit is mended or clamped, for a figure that is odd is no reason for no
answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from oomslice.bus.interface import DECISION_SIGNATURES, key_signature
from oomslice.bus.message import typed
from oomslice.decisions.record import Decision

UINT32_MAX = (1 << 32) - 1
INT64_MAX = (1 << 63) - 1
UINT64_MAX = (1 << 64) - 1
RANGES = {
    "i": (-(1 << 31), (1 << 31) - 1),
    "u": (0, UINT32_MAX),
    "t": (0, UINT64_MAX),
    "x": (-INT64_MAX, INT64_MAX),
}


def decision_values(decision: Decision) -> dict[str, Any]:
    """A decision as GetDecision's a{sv}."""
    return {name: decision_value(decision, name) for name in DECISION_SIGNATURES}


def decision_value(decision: Decision, name: str) -> Any:
    """One field of a decision, typed."""
    signature, value = DECISION_SIGNATURES[name], getattr(decision, name)
    if name == "candidates":
        value = [
            [
                text(candidate.name),
                unsigned(candidate.cgroup_id),
                candidate.priority,
                unsigned(candidate.metric),
                text(candidate.verdict),
            ]
            for candidate in value
        ]
    elif name == "steps":
        value = [mapping(asdict(step)) for step in value]
    return fitting(signature, value)


def fitting(signature: str, value: Any) -> Any:
    """A plain value as this type, typed. Raises ValueError for what cannot be mended."""
    match signature:
        case "s":
            value = text(value)
        case "as":
            value = [text(item) for item in value]
        case "a{sv}":
            value = mapping(value)
        case "a{ss}":
            value = {text(key): text(item) for key, item in value.items()}
        case "i" | "u" | "t" | "x":
            low, high = RANGES[signature]
            value = min(max(value, low), high)
        case "b":
            value = bool(value)
        case "d":
            value = float(value)
        case "ai":
            value = list(value)
    return typed(signature, value)


def mapping(values: Mapping[str, Any]) -> dict[str, Any]:
    """Free keys as a{sv}; None leaves a key out."""
    return {text(key): variant(key, value) for key, value in values.items() if value is not None}


def variant(key: str, value: Any) -> Any:
    """A plain value in its D-Bus type. That of a whole number depends on its key, never on the number."""
    match value:
        case bool():
            return typed("b", value)
        case int():
            return fitting(key_signature(key), value)
        case float():
            return typed("d", value)
        case Mapping():
            return typed("a{sv}", mapping(value))
        case list() | tuple():
            if value and all(isinstance(item, Mapping) for item in value):
                return typed("aa{sv}", [mapping(item) for item in value])
            if value and all(isinstance(item, int) for item in value):
                return typed("ax", [min(max(item, -INT64_MAX), INT64_MAX) for item in value])
            return typed("as", [text(item) for item in value])
        case _:
            return typed("s", text(value))


def text(value: Any) -> str:
    """As D-Bus can carry it: file names may hold bytes that are no UTF-8, and no string holds a NUL."""
    return str(value).replace("\0", " ").encode("utf-8", "replace").decode()


def unsigned(value: int) -> int:
    """Within 64 bits."""
    return min(max(int(value), 0), UINT64_MAX)
