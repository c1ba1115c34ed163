# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl replay: which decisions a recorded trace would have had, with these settings or others."""

from __future__ import annotations

import argparse

from oomslice.cli import changed
from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Terminal, clean, elapsed, plural, when

DESCRIPTION = """\
Reads a trace that oomslicectl record wrote and shows which decisions there would have been, and when: with the settings
that were in force, or with others (--set, --with). It is the code that judges and chooses in an emergency.

Whoever would have been killed counts as gone from then on, with all that the trace says of it."""
EXAMPLES = """\
examples:
  oomslicectl replay night.jsonl.gz    what would be decided with the settings of that night
  oomslicectl replay night.jsonl.gz --set batch.slice:Priority=-200 --set machine:available-min=10%
  oomslicectl replay night.jsonl.gz --with ./site.yaml --json | jq -r '.decisions[].victim'"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("file", metavar="FILE", help="the trace")
    changed.add_options(parser)


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Reads, computes and prints."""
    from oomslice.cli.ask import missing_module

    try:
        return replay(arguments, terminal)
    except ModuleNotFoundError as error:
        raise missing_module(error) from error


def replay(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Raises CommandFailure, ModuleNotFoundError."""
    from dataclasses import asdict

    from oomslice.cli.ask import print_json
    from oomslice.errors import OomsliceError
    from oomslice.whatif.replay import Replay, WouldBe
    from oomslice.whatif.trace import TraceError, read

    changes = changed.changes_of(arguments)
    decisions: list[WouldBe] = []
    run = Replay(changes)
    units: set[str] = set()
    count = first = last = 0
    try:
        header, frames = read(arguments.file)
        for frame in frames:
            if run.state is not frame.state:
                units |= {unit.name for unit in frame.state.snapshot.units}
            decisions += run.take(frame)
            count += 1
            first, last = first or frame.figures.moment_usec, frame.figures.moment_usec
    except TraceError as error:
        raise CommandFailure(clean(str(error)), Exit.FAILED, "oomslicectl record FILE writes one.") from error
    except OomsliceError as error:
        raise CommandFailure(f"{clean(arguments.file)}: {clean(str(error))}", Exit.FAILED) from error
    for unit in changes.unit_files:
        if unit not in units:
            raise CommandFailure(f"{clean(unit)} is not in this trace, so nothing changes with it", Exit.FAILED)
    errors = changed.tell_problems(run.problems, changes)
    if arguments.json:
        print_json(
            {
                "trace": asdict(header),
                "frames": count,
                "duration_usec": last - first,
                "decisions": changed.decisions_data(decisions),
            }
        )
    else:
        if decisions:
            print(changed.decisions_table(decisions, terminal) + "\n")
        begin = when(header.realtime_usec, terminal)
        span = f"{plural(count, 'moment')} in {elapsed(last - first)}, from {begin}"
        print(f"{span}: {changed.how_many(decisions)}.")
    return Exit.FAILED if errors else Exit.OK
