# SPDX-License-Identifier: LGPL-2.1-or-later
"""KillScope=subtree: which units are taken as one thing with all that is below them, and which cannot be.

A unit that holds others and has KillScope=subtree becomes a candidate, and all below it go with it. If one of those
must not be touched, the whole cannot be taken: that is said, and the units below are candidates of their own, as with
KillScope=unit. The highest such unit wins: what is inside a whole has no say of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from oomslice.policy.model import PolicyUnit
from oomslice.settings.model import KillScope, Problem, Source


@dataclass(slots=True)
class _Above:
    """What a unit hands down to those below it."""

    taken_with: str = ""
    failed: str = ""
    """why the unit whose KillScope=subtree is inherited could not be taken as a whole"""


def take_subtrees(units: Sequence[PolicyUnit], problems: list[Problem]) -> list[PolicyUnit]:
    """The units, with the candidates that KillScope=subtree makes. Parents come before their children."""
    holds = {unit.parent for unit in units}
    spared = _first_below(units, [bool(_spared(unit)) for unit in units])
    dry = _first_below(units, [unit.dry_run for unit in units])
    above: list[_Above] = []
    result: list[PolicyUnit] = []
    for number, unit in enumerate(units):
        parent = above[unit.parent] if unit.parent >= 0 else _Above()
        inherits = unit.kill_scope_origin.startswith("inherited from ")
        own = _Above(parent.taken_with, parent.failed if inherits else "")
        if parent.taken_with:
            unit = replace(unit, candidate=False, taken_with=parent.taken_with, kill_scope=KillScope.UNIT)
        elif unit.kill_scope is KillScope.SUBTREE:
            if number not in holds:
                unit = replace(unit, kill_scope=KillScope.UNIT)  # the same thing
            elif not own.failed:
                if number == 0:
                    own.failed = "the root slice is never killed"
                elif spared[number] >= 0:
                    obstacle = units[spared[number]]
                    own.failed = f"{obstacle.name} {_spared(obstacle)}"
                elif dry[number] >= 0 and not unit.dry_run:
                    own.failed = f"{units[dry[number]].name} has DryRun=yes"
                if own.failed:
                    problems.append(_problem(unit, own.failed))
                else:
                    own.taken_with = unit.name
                    unit = replace(unit, candidate=True)
            if own.failed and number in holds:
                origin = f"{unit.kill_scope_origin}, not as a whole: {own.failed}"
                unit = replace(unit, kill_scope=KillScope.UNIT, kill_scope_origin=origin)
        above.append(own)
        result.append(unit)
    return result


def _first_below(units: Sequence[PolicyUnit], found: Sequence[bool]) -> list[int]:
    """For each unit the first one at or below it of those that are `found`, -1 if there is none."""
    first = [number if found[number] else -1 for number in range(len(units))]
    for number in range(len(units) - 1, 0, -1):
        parent = units[number].parent
        if first[number] >= 0 and parent >= 0:
            first[parent] = first[number] if first[parent] < 0 else min(first[parent], first[number])
    return first


def _spared(unit: PolicyUnit) -> str:
    """Why this unit must go with nothing, "" if it may."""
    if unit.self_:
        return "is never touched"
    if unit.protected:
        return "is protected"
    return "is left to systemd-oomd" if unit.left_to_oomd else ""


def _problem(unit: PolicyUnit, why: str) -> Problem:
    source = unit.settings.sources.get("kill_scope", Source(unit.name, 0))
    message = f"{unit.name} cannot be taken as a whole: {why}. The units below it are chosen one by one"
    return Problem(source, "X-OOMSlice", "KillScope", KillScope.SUBTREE.value, message)
