# SPDX-License-Identifier: LGPL-2.1-or-later
"""A policy for oomslice: of the jobs of a build farm those go first that can be begun anew for the least.

A job below build.slice is a scope that is called job-MINUTES-NUMBER.scope, by the minutes that it is expected to take.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import oomslice

JOB = re.compile(r"job-([0-9]+)-[0-9]+\.scope")


def rank(units: Sequence[oomslice.RankedUnit]) -> Mapping[str, int]:
    """Cgroup path -> priority: -900 for a job of a minute, more for longer ones; all else keeps what it has."""
    priorities = {}
    for unit in units:
        job = JOB.fullmatch(unit.name)
        if job and unit.path.startswith("/build.slice/"):
            priorities[unit.path] = min(-900 + int(job[1]), -100)
    return priorities
