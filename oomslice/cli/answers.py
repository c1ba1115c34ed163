# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the bus answers, as dictionaries with the names that --json shows. Pure.

The tuples are those of org.oomslice1(5); a key here, an argument there and a column on the screen have one name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SLICE_FIELDS = ("name", "cgroup_path", "priority", "protected", "candidate", "priority_origin", "actions")
DECISION_FIELDS = ("id", "realtime_usec", "domain", "trigger", "victim", "outcome")
CANDIDATE_FIELDS = ("name", "cgroup_id", "priority", "metric", "verdict")
EXPLAINED_FIELDS = ("name", "priority", "metric", "verdict", "priority_origin", "reason")
PROBLEM_FIELDS = ("file", "line", "key", "value", "message")


def named(fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Each row as a dictionary; the D-Bus signature has already fixed its length."""
    return [dict(zip(fields, row, strict=True)) for row in rows]


def slices(rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """ListSlices(): a(ssibbss)."""
    return named(SLICE_FIELDS, rows)


def decisions(rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """ListDecisions(): a(stssss)."""
    return named(DECISION_FIELDS, rows)


def decision(values: Mapping[str, Any]) -> dict[str, Any]:
    """GetDecision(): a{sv}, the candidates in it as dictionaries."""
    return {
        **values,
        "pids": list(values.get("pids", ())),
        "flags": list(values.get("flags", ())),
        "steps": [dict(step) for step in values.get("steps", ())],
        "candidates": named(CANDIDATE_FIELDS, values.get("candidates", ())),
    }


def explanation(rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Explain(): a(sa(sitsss)). What a domain ranks by, and what would be done, are from GetSlice and as by default
    until they are set."""
    return [
        {
            "domain": domain,
            "rank_by": "memory",
            "actions": "",
            "actions_origin": "",
            "kill_scope": "unit",
            "candidates": named(EXPLAINED_FIELDS, candidates),
        }
        for domain, candidates in rows
    ]


def problems(rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """ConfigurationErrors: a(susss)."""
    return named(PROBLEM_FIELDS, rows)
