# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why each candidate was chosen or not, from the record alone. The rule is that of oomslice/policy/rank.py, whose words
these are; what a unit's priority came from is not in the record."""

from __future__ import annotations

from collections.abc import Sequence

from oomslice.decisions.record import Candidate, Decision

OUT = {
    "planned": "might have been chosen by the plan",
    "outside": "not below the domain",
    "container": "holds other units, or goes with one; those are the candidates",
    "self": "keeps the machine or oomslice itself going, so it is never chosen",
    "protected": "protected by its settings",
    "left-to-oomd": "marked for systemd-oomd, which was running",
    "gone": "its cgroup was gone or could not be read",
    "tried": "was chosen already in this shortage and gave nothing back in time",
    "empty": "no process in it",
}
METRICS = {"memory": "memory", "swap": "swap", "growth": "growth", "refault": "refaults"}


def reasons(decision: Decision) -> list[str]:
    """A sentence for each candidate of the record, in its order."""
    able = [candidate for candidate in decision.candidates if candidate.verdict in ("chosen", "eligible")]
    chosen = next((candidate for candidate in able if candidate.verdict == "chosen"), None)
    return [_reason(candidate, chosen, able, decision) for candidate in decision.candidates]


def from_plan(decision: Decision) -> bool:
    """Whether the candidates are what the plan says of the units, and no more."""
    return decision.extra.get("candidates_from") == "plan"


def _reason(candidate: Candidate, chosen: Candidate | None, able: Sequence[Candidate], decision: Decision) -> str:
    if candidate not in able:
        return OUT.get(candidate.verdict, candidate.verdict)
    if candidate.verdict == "chosen":
        if from_plan(decision):
            return "chosen by the program in the kernel, by priority and size at that moment"
        other = next((item for item in able if item is not candidate), None)
        if other is None:
            return "the only one that might be chosen"
        first = True
    elif chosen is not None:
        other, first = chosen, False
    else:
        return "might have been chosen"
    name = other.name or f"cgroup {other.cgroup_id}"
    if candidate.priority != other.priority:
        which = "smallest" if first else "larger"
        return f"{which} priority: {candidate.priority}, {name} has {other.priority}"
    what = METRICS.get(decision.rank_by, decision.rank_by)
    if candidate.metric != other.metric:
        return f"{'most' if first else 'less'} {what} at priority {candidate.priority}, compared with {name}"
    return f"{'younger' if first else 'older'} than {name}, which has the same priority and as much {what}"
