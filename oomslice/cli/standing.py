# SPDX-License-Identifier: LGPL-2.1-or-later
"""Of one unit: would it be chosen, who would go before it, and why, or why not. Made of what Explain() answers; asks
nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oomslice.cli.text import Column, Terminal, clean, metric, metric_title, plural, table

MAY_BE_CHOSEN = ("chosen", "eligible")
SHOWN_BEFORE = 8
"""Of those who would go before it."""
PRIORITY_MIN = -1000


def standings(domains: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """How a unit stands in each domain that it is in, as --json shows it; empty if it is in none.

    `place` is 1 for who would be chosen first and 0 for who would not be; `places` is how many may be chosen.
    """
    found = []
    for domain in domains:
        places = [one for one in domain["candidates"] if one["verdict"] in MAY_BE_CHOSEN]
        for candidate in domain["candidates"]:
            if candidate["name"] != name or candidate["verdict"] == "outside":
                continue
            place = places.index(candidate) + 1 if candidate in places else 0
            found.append(
                {
                    "domain": domain["domain"],
                    "rank_by": domain.get("rank_by", "memory"),
                    "place": place,
                    "places": len(places),
                    **candidate,
                    "before": places[: place - 1] if place else [],
                }
            )
    return found


def render(found: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], terminal: Terminal) -> str:
    """A paragraph for each domain. `settings` is what GetSlice() says of the unit, empty if that is not known."""
    return "\n\n".join(_one(standing, settings, terminal) for standing in found)


def _one(standing: Mapping[str, Any], settings: Mapping[str, Any], terminal: Terminal) -> str:
    from oomslice.cli.show import domain

    name, rank_by = clean(standing["name"]), str(standing["rank_by"])
    place, places = standing["place"], standing["places"]
    if place == 1:
        verdict = terminal.style("red", "would be chosen")
    elif place:
        verdict = f"would be number {place} of {places} to be chosen"
    else:
        verdict = terminal.style("green", "would not be chosen")
    lines = [f"{terminal.style('bold', domain(clean(standing['domain'])))}: {name} {verdict}."]
    fields = [("Why" if place else "Why not", clean(standing["reason"]))]
    fields.append(("Priority", f"{standing['priority']}  ({clean(standing['priority_origin'])})"))
    fields.append((metric_title(rank_by).capitalize(), metric(standing["metric"], rank_by)))
    if place:
        actions, origin = clean(settings.get("Actions") or "kill"), clean(settings.get("ActionsOrigin") or "")
        fields.append(("Actions", actions + (f"  ({origin})" if origin else "")))
        if settings.get("KillScope") in ("subtree", "process"):
            taken = {"subtree": "taken as a whole", "process": "only its largest process is killed"}
            fields.append(("KillScope", f"{settings['KillScope']}  ({taken[settings['KillScope']]})"))
        if settings.get("DryRun"):
            fields.append(("DryRun", "yes: it would be recorded, and nothing done"))
    width = max(len(label) for label, _ in fields)
    lines += [f"  {label:>{width}}: {text}" for label, text in fields]
    before = standing["before"]
    if before:
        lines.append(f"  {plural(len(before), 'unit')} would go before it:")
        lines.append(_before(before[:SHOWN_BEFORE], rank_by, terminal))
        if len(before) > SHOWN_BEFORE:
            lines.append(f"    and {len(before) - SHOWN_BEFORE} more.")
        lowest = before[0]["priority"]
        if lowest > PRIORITY_MIN and place > 1:
            lines.append(f"  With a priority of {lowest - 1} it would go first.")
    return "\n".join(lines)


def _before(candidates: Sequence[Mapping[str, Any]], rank_by: str, terminal: Terminal) -> str:
    columns = (
        Column("CANDIDATE", give=True, least=16),
        Column("PRIORITY", right=True),
        Column(metric_title(rank_by), right=True),
        Column("PRIORITY FROM", give=True, least=13, drop=1),
    )
    rows = [
        (clean(one["name"]), str(one["priority"]), metric(one["metric"], rank_by), clean(one["priority_origin"]))
        for one in candidates
    ]
    return table(columns, rows, terminal, indent="    ")
