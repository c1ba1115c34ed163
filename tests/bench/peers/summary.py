# SPDX-License-Identifier: LGPL-2.1-or-later
"""The summary that is kept in the tree, and how what was measured today joins what was measured before. Pure.

{"machine": {...}, "candidates": {name: {"version", "at_rest", "failure"}}, "cells": [{"swap", "candidate", "storm",
"measured": [first, last date], "version", "kernel", "key", "runs": [when each began], "outcomes": [...]}]}. The traces
are a cache of one machine and may be gone; a cell stays, with its own dates and versions, and what is measured later
under the same circumstances (identity.py) joins it. Under others it takes its place. What is of a machine with another
processor is not to be compared with anything, and goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .storms import STORMS, SWAPS


def merged(kept: dict[str, Any], fresh: dict[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """Both summaries as one. Runs of the same key add up, each once; a cell of another key is replaced."""
    is_comparable = kept["machine"].get("processor") == fresh["machine"].get("processor")
    cells = {_place(cell): cell for cell in (kept["cells"] if is_comparable else ())}
    for cell in fresh["cells"]:
        before = cells.get(_place(cell))
        cells[_place(cell)] = _joined(before, cell) if before and before["key"] == cell["key"] else cell
    candidates = {**kept["candidates"], **fresh["candidates"]}
    names = [name for name in order if name in candidates]
    return {
        "machine": {**kept["machine"], **{name: value for name, value in fresh["machine"].items() if value}},
        "candidates": {name: candidates[name] for name in names},
        "cells": sorted(_known(cells.values(), names), key=lambda cell: _rank(cell, names)),
    }


def dates(summary: dict[str, Any]) -> tuple[str, str]:
    """The first and the last day of all that was measured."""
    days = [day for cell in summary["cells"] for day in cell["measured"]]
    return min(days, default=""), max(days, default="")


def _joined(before: dict[str, Any], cell: dict[str, Any]) -> dict[str, Any]:
    runs = {run: outcome for one in (before, cell) for run, outcome in zip(one["runs"], one["outcomes"], strict=True)}
    days = [*before["measured"], *cell["measured"]]
    return {**cell, "measured": [min(days), max(days)], "runs": list(runs), "outcomes": list(runs.values())}


def _place(cell: dict[str, Any]) -> tuple[str, str, str]:
    return cell["swap"], cell["candidate"], cell["storm"]


def _known(cells: Iterable[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    # What is no longer compared, or no longer a storm, is dropped with the code that measured it.
    return [cell for cell in cells if cell["swap"] in SWAPS and cell["storm"] in STORMS and cell["candidate"] in names]


def _rank(cell: dict[str, Any], names: Sequence[str]) -> tuple[int, int, int]:
    return list(SWAPS).index(cell["swap"]), list(STORMS).index(cell["storm"]), names.index(cell["candidate"])
