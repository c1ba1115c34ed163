# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl report: a page for a post-mortem, as one HTML file."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Terminal, plural

if TYPE_CHECKING:
    from oomslice.cli.ask import Manager
    from oomslice.report.model import Case, Report

DESCRIPTION = """\
Writes a page about a decision, by default the newest, or about all of a time: what happened in a sentence, pictures
of memory and pressure with the steps that were taken, all candidates and why each was chosen or not, the settings
with file and line, and commands that show more. The page is one file that needs no network, for a browser, a phone,
a printer or a ticket. It has names of units and settings of this machine in it."""
EXAMPLES = """\
examples:
  oomslicectl report -o report.html    the newest decision
  oomslicectl report -o report.html 5f3a09c2e4b1d786-4
                                       one of those that oomslicectl decisions lists
  oomslicectl report --since today -o today.html
                                       all of today

moments are written as in systemd.time(7):
  "1h 30min ago", -30min, today, yesterday, 14:00, "2026-11-21 10:00:00", @1763719200"""

CASES_MAX = 50
"""A page has no more decisions than this: the newest of them."""
LISTED_MAX = 10_000
INHERITED = re.compile(r"inherited from (\S+)")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("id", metavar="ID", nargs="?", default="", help="id of a decision (default: the newest)")
    parser.add_argument("--since", metavar="TIME", default="", help="all decisions of this moment and later")
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="-", help="where to write it (default: to the output)"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Asks oomsliced and writes the page."""
    from oomslice.cli.ask import ask, print_json

    if arguments.id and arguments.since:
        raise CommandFailure("give the id of a decision or --since, not both", Exit.USAGE)
    to_output = arguments.output == "-"
    if to_output and (arguments.json or sys.stdout.isatty()):
        raise CommandFailure("where shall the page go?", Exit.USAGE, "oomslicectl report -o report.html")
    since = None
    try:
        if arguments.since:
            from oomslice.cli.since import parse_since

            since = parse_since(arguments.since, time.time_ns() // 1000)
    except ValueError as error:
        raise CommandFailure(f"--since: {error}", Exit.USAGE) from error
    report = ask(lambda manager: gather(manager, arguments.id, since, terminal))

    from oomslice.report.page import page

    text = page(report)
    if to_output:
        print(text, end="")
        return Exit.OK
    write(Path(arguments.output), text)
    if arguments.json:
        ids = [case.decision.id for case in report.cases]
        print_json({"file": arguments.output, "decisions": ids, "left_out": report.left_out})
    else:
        print(f"{arguments.output}: {plural(len(report.cases), 'decision')}")
    return Exit.OK


async def gather(manager: Manager, id: str, since: int | None, terminal: Terminal) -> Report:
    """All that goes into the page. `since` None: the decision of that id, or the newest if it is empty."""
    from oomslice.cli import answers
    from oomslice.report.model import Report

    left_out = 0
    if since is not None:
        listed = answers.decisions(await manager.rows("ListDecisions", since, LISTED_MAX))
        ids = [str(decision["id"]) for decision in listed[:CASES_MAX]]
        left_out = len(listed) - len(ids)
    elif id:
        ids = [id]
    else:
        ids = [str(row[0]) for row in await manager.rows("ListDecisions", 0, 1)]
        if not ids:
            raise CommandFailure("there are no decisions yet", Exit.FAILED)
    cases = [await _case(manager, id) for id in ids]
    state: Mapping[str, Any] = await manager.get("State")
    return Report(
        cases,
        made_usec=terminal.now_usec,
        host=os.uname().nodename,
        version=str(await manager.get("Version")),
        plan_generation=int(state.get("PlanGeneration", 0)),
        boot_id=terminal.boot_id,
        since_usec=since or 0,
        left_out=left_out,
        timezone=terminal.timezone,
    )


async def _case(manager: Manager, id: str) -> Case:
    from oomslice.cli import answers
    from oomslice.decisions.record import Decision
    from oomslice.report.model import Case
    from oomslice.report.samples import samples_of

    decision = Decision.from_dict(answers.decision(await manager.values("GetDecision", id)))
    samples, units = await manager.rows("GetHistory", id)
    figures = samples_of(samples, units)
    return Case(decision, figures, await _settings(manager, decision.victim, decision.domain))


async def _settings(manager: Manager, victim: str, domain: str) -> dict[str, dict[str, Any]]:
    """Settings of the victim, of those that it has them from, and of the domain; without those that are gone."""
    from oomslice.errors import NoSuchUnitError

    wanted = [name for name in (victim, domain) if name]
    found: dict[str, dict[str, Any]] = {}
    for name in wanted:  # it grows meanwhile
        if name in found:
            continue
        with contextlib.suppress(NoSuchUnitError):
            found[name] = values = await manager.slice(name)
            origins = (str(value) for key, value in values.items() if key.endswith("Origin"))
            wanted += [match[1] for origin in origins if (match := INHERITED.match(origin))]
    return found


def write(path: Path, text: str) -> None:
    """Puts the whole page there, or leaves what was there before. Raises CommandFailure."""
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")  # a pipe or a device is written to, never replaced
            return
        import tempfile

        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            try:
                file.write(text)
                umask = os.umask(0)
                os.umask(umask)
                os.fchmod(file.fileno(), 0o666 & ~umask)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise CommandFailure(f"{path}: {error.strerror}", Exit.FAILED) from error
