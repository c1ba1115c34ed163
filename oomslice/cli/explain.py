# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl explain: who would be chosen now, and why nobody else."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Column, Terminal, clean, metric, metric_title, plural, table

DESCRIPTION = """\
Shows for every domain who would be chosen if it ran out of memory now, with all candidates in order and the reason
for each. A domain is the whole machine (-.slice) or a unit with PressureTrigger=. Of any other unit it says whether it
would be chosen, who would go before it, and why. Nothing is done.

This is the choice of the same code that decides in an emergency, with the figures of this moment."""
EXAMPLES = """\
examples:
  oomslicectl explain                  every domain
  oomslicectl explain -- -.slice       the machine as a whole
  oomslicectl explain batch.slice      only this domain
  oomslicectl explain web.service      why this unit would be chosen, or why not
  oomslicectl explain --json | jq -r '.[0].candidates[0].name'
                                       who would die first"""

UNINTERESTING = frozenset({"container", "outside"})
"""Verdicts of what is no candidate by its nature."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "unit", metavar="UNIT", nargs="?", default="", help="a domain, or a unit in one (default: all domains)"
    )
    parser.add_argument("--all", action="store_true", help="also units that hold other units or are outside the domain")


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Asks oomsliced and prints."""
    from oomslice.cli import answers
    from oomslice.cli.ask import Manager, ask, print_json
    from oomslice.errors import NoSuchUnitError

    async def explained(manager: Manager) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        domains = answers.explanation(await manager.rows("Explain"))
        settings: dict[str, Any] = {}
        if arguments.unit and arguments.unit not in [domain["domain"] for domain in domains]:
            settings = await manager.slice(arguments.unit)
        for domain in domains:
            # Either may have ended between the two questions.
            with contextlib.suppress(NoSuchUnitError):
                domain["rank_by"] = (await manager.slice(domain["domain"])).get("RankBy") or "memory"
            first = chosen(domain)
            if first is not None:
                with contextlib.suppress(NoSuchUnitError):
                    unit = await manager.slice(first["name"])
                    domain["actions"] = unit.get("Actions") or "kill"
                    domain["actions_origin"] = unit.get("ActionsOrigin") or ""
                    domain["kill_scope"] = unit.get("KillScope") or "unit"
        return domains, settings

    domains, settings = ask(explained)
    if arguments.unit and arguments.unit not in [domain["domain"] for domain in domains]:
        return one_unit(domains, arguments, settings, terminal)
    domains = [domain for domain in domains if arguments.unit in ("", domain["domain"])]
    if arguments.json:
        print_json(domains)
    else:
        print(render(domains, terminal, everything=arguments.all))
    return Exit.OK


def chosen(domain: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The candidate that would be chosen, None if nobody may be."""
    return next((c for c in domain["candidates"] if c["verdict"] == "chosen"), None)


def one_unit(
    domains: Sequence[Mapping[str, Any]], arguments: argparse.Namespace, settings: Mapping[str, Any], terminal: Terminal
) -> Exit:
    """Prints how a unit that is no domain stands in those there are. Raises CommandFailure."""
    from oomslice.cli.ask import print_json
    from oomslice.cli.standing import render as render_standings
    from oomslice.cli.standing import standings

    found = standings(domains, arguments.unit)
    if not found:
        known = ", ".join(clean(domain["domain"]) for domain in domains) or "none"
        raise CommandFailure(f"{clean(arguments.unit)} is in no domain", Exit.FAILED, f"Domains are: {known}.")
    if arguments.json:
        print_json(found)
    else:
        print(render_standings(found, settings, terminal))
    return Exit.OK


def render(domains: Sequence[Mapping[str, Any]], terminal: Terminal, *, everything: bool = False) -> str:
    """One paragraph and table per domain."""
    if not domains:
        return "No domains: oomsliced has made no plan yet. oomslicectl status says why."
    return "\n\n".join(_domain(domain, terminal, everything) for domain in domains)


def _ladder(domain: Mapping[str, Any]) -> str:
    """What would be done to the choice; nothing is said of the kill that everybody has."""
    actions, scope = clean(domain["actions"]), clean(domain["kill_scope"])
    origin = f" ({clean(domain['actions_origin'])})" if domain["actions_origin"] else ""
    ladder = f"\n  What would be done: {actions}{origin}." if actions not in ("", "kill") else ""
    taken = {"subtree": "\n  It would be taken as a whole.", "process": "\n  Only its largest process would be killed."}
    return ladder + taken.get(scope, "")


def _domain(domain: Mapping[str, Any], terminal: Terminal, everything: bool) -> str:
    from oomslice.cli.show import domain as domain_text

    rank_by = str(domain["rank_by"])
    candidates = domain["candidates"]
    shown = [c for c in candidates if everything or c["verdict"] not in UNINTERESTING]
    first = chosen(domain)
    name = terminal.style("bold", domain_text(clean(domain["domain"])))
    if first is None:
        title = f"{name}: nobody may be chosen."
    else:
        choice = terminal.style("red", clean(first["name"]))
        title = f"{name}: {choice} would be chosen, with priority {first['priority']}, ranked by {clean(rank_by)}."
        title += _ladder(domain)
    if not shown:
        return title
    columns = (
        Column(""),
        Column("CANDIDATE", give=True, least=16),
        Column("PRIORITY", right=True),
        Column(metric_title(rank_by), right=True),
        Column("VERDICT"),
        Column("PRIORITY FROM", give=True, least=13, drop=1),
        Column("REASON", give=True, least=20),
    )
    mark = terminal.symbol("→", ">")
    rows = []
    styles = []
    for candidate in shown:
        verdict = clean(candidate["verdict"])
        rows.append(
            (
                mark if verdict == "chosen" else "",
                clean(candidate["name"]),
                str(candidate["priority"]),
                metric(candidate["metric"], rank_by),
                verdict,
                clean(candidate["priority_origin"]),
                clean(candidate["reason"]),
            )
        )
        styles.append("red" if verdict == "chosen" else "" if verdict == "eligible" else "dim")
    text = title + "\n" + table(columns, rows, terminal, styles=styles, indent="  ")
    hidden = len(candidates) - len(shown)
    if hidden:
        text += f"\n  {plural(hidden, 'unit')} without a say here not shown; --all shows them."
    return text
