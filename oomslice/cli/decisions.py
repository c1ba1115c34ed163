# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl decisions: what was decided, newest first."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Column, Terminal, clean, local_time, plural, relative, table

DESCRIPTION = """\
Lists decisions: those of oomslice, and what the kernel's own OOM killer and systemd-oomd did in between. They are
kept over reboots, by default the last 10000."""
EXAMPLES = """\
examples:
  oomslicectl decisions                           the newest 100
  oomslicectl decisions --since "1h ago"          of the last hour
  oomslicectl decisions --since yesterday --limit 10
  oomslicectl decisions --json | jq -r '.[].victim' | sort | uniq -c
                                                  who died how often

moments are written as in systemd.time(7):
  "1h 30min ago", -30min, today, yesterday, 14:00, "2026-11-21 10:00:00", @1763719200"""

LIMIT_MAX = 2**32 - 1
GOOD_OUTCOMES = frozenset({"freed", "relieved", "dry-run"})


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--since", metavar="TIME", default="", help="only decisions of this moment and later")
    parser.add_argument("--limit", metavar="N", type=_limit, default=100, help="at most N decisions (default: 100)")
    parser.add_argument("--no-legend", action="store_true", help="no headings and no closing line")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:11]) <= LIMIT_MAX):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {LIMIT_MAX}")
    return int(text)


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Asks oomsliced and prints."""
    from oomslice.cli import answers
    from oomslice.cli.ask import Manager, ask, print_json

    since = 0
    try:
        if arguments.since:
            from oomslice.cli.since import parse_since

            since = parse_since(arguments.since, time.time_ns() // 1000)
    except ValueError as error:
        raise CommandFailure(f"--since: {error}", Exit.USAGE) from error

    async def listed(manager: Manager) -> list[dict[str, Any]]:
        return answers.decisions(await manager.rows("ListDecisions", since, arguments.limit))

    decisions = ask(listed)
    if arguments.json:
        print_json(decisions)
    else:
        text = render(decisions, terminal, since_usec=since, limit=arguments.limit, legend=not arguments.no_legend)
        if text:
            print(text)
    return Exit.OK


def render(
    decisions: Sequence[dict[str, Any]],
    terminal: Terminal,
    *,
    since_usec: int = 0,
    limit: int = 100,
    legend: bool = True,
) -> str:
    """The table; without decisions a sentence that says so."""
    if not decisions:
        if not legend:
            return ""
        return "No decisions" + (f" since {local_time(since_usec, terminal)}." if since_usec else " so far.")
    columns = (
        Column("ID"),
        Column("TIME", drop=2),
        Column("AGO", drop=1),
        Column("DOMAIN", give=True),
        Column("TRIGGER", give=True),
        Column("VICTIM", give=True, least=12),
        Column("OUTCOME"),
    )
    rows = [
        (
            clean(decision["id"]),
            local_time(decision["realtime_usec"], terminal),
            relative(decision["realtime_usec"], terminal.now_usec),
            clean(decision["domain"]),
            clean(decision["trigger"]),
            clean(decision["victim"]) or "-",
            clean(decision["outcome"]),
        )
        for decision in decisions
    ]
    styles = ["" if decision["outcome"] in GOOD_OUTCOMES else "yellow" for decision in decisions]
    text = table(columns, rows, terminal, styles=styles, header=legend)
    if legend:
        text += f"\n\n{plural(len(rows), 'decision')}"
        text += f"; there may be more: --limit {limit * 10} shows them." if len(rows) >= limit else "."
    return text
