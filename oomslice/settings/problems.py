# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keeps the list of problems of one file to what somebody can read, and a bus message can hold."""

from __future__ import annotations

from collections.abc import Sequence

from oomslice.settings.model import Problem

PROBLEMS_MAX = 100
"""Problems said of one file."""


def limited(problems: Sequence[Problem]) -> list[Problem]:
    """The problems of one file; instead of all beyond PROBLEMS_MAX, one that says how many there are."""
    if len(problems) <= PROBLEMS_MAX:
        return list(problems)
    more = problems[PROBLEMS_MAX]
    message = f"{len(problems) - PROBLEMS_MAX} more problems from here on; mend these first"
    return [*problems[:PROBLEMS_MAX], Problem(more.source, more.section, "", "", message)]
