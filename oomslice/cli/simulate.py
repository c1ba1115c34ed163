# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl simulate: who would be chosen, with other settings, at another moment, or in a storm."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oomslice.cli import changed
from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Column, Terminal, clean, metric, metric_title, plural, size, table

if TYPE_CHECKING:
    from oomslice.settings.model import RankBy
    from oomslice.whatif.replay import Place, WouldBe
    from oomslice.whatif.state import Changes, Figures, State

DESCRIPTION = """\
Shows who would be chosen, one after the other, if memory ran out now, until enough is free, and why. With --set and
--with it shows that for other settings, beside the place that each unit has now. With --trace it takes a recorded
moment instead of this machine's present, with --storm it lets a unit grow and shows the decisions, and when.

Nothing is done and nothing is changed, and the daemon is not needed. It is the code that chooses in an emergency."""
EXAMPLES = """\
examples:
  oomslicectl simulate                 who would go, until a quarter of memory is there
  oomslicectl simulate --until 2G      until that much is available
  oomslicectl simulate --set batch.slice:Priority=-200 --set database.service:Priority=500
                                       what if this stood in drop-ins?
  oomslicectl simulate --with ./batch.slice.d/50-oomslice.conf --with ./site.yaml
                                       the same from files that are not installed yet
  oomslicectl simulate --storm fast:job.service@batch.slice
                                       a new job in batch.slice that grows by 2 GiB a second
  oomslicectl simulate --storm 200M:web.service --set machine:available-min=10%
  oomslicectl simulate --trace night.jsonl.gz --json | jq -r '.order[0].name'
                                       who would have gone at the worst moment of that night"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    changed.add_options(parser)
    parser.add_argument(
        "--storm",
        metavar="KIND:UNIT",
        help="let a unit grow: fast, slow, many or a size a second; UNIT@SLICE for a new one",
    )
    parser.add_argument("--trace", metavar="FILE", help="a moment of this trace instead of the present of this machine")
    parser.add_argument("--at", metavar="SECONDS", type=float, help="which moment (default: the one with least memory)")
    parser.add_argument(
        "--until", metavar="SIZE", help='until so much is available, "2G" or "30%%" (default: out of the watch)'
    )
    parser.add_argument("--domain", metavar="DOMAIN", default="-.slice", help="for this domain (default: the machine)")
    parser.add_argument("--all", action="store_true", help="also those who would go when there is enough already")


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Reads, computes and prints."""
    from oomslice.cli.ask import missing_module

    try:
        return simulate(arguments, terminal)
    except ModuleNotFoundError as error:
        raise missing_module(error) from error


def simulate(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Raises CommandFailure, ModuleNotFoundError."""
    if arguments.at is not None and not arguments.trace:
        raise CommandFailure("--at is a moment of a trace", Exit.USAGE, "Give the trace as well: --trace FILE")
    changes = changed.changes_of(arguments)
    state, figures = of_trace(arguments.trace, arguments.at) if arguments.trace else changed.present()
    if arguments.storm:
        return storm(arguments, terminal, state, figures, changes)
    return choices(arguments, terminal, state, figures, changes)


def of_trace(path: str, at: float | None) -> tuple[State, Figures]:
    """A moment of a trace: so many seconds after its beginning, or the one with least memory. Raises CommandFailure."""
    from oomslice.whatif.trace import TraceError, read

    best = None
    begin = 0
    try:
        for frame in read(path)[1]:
            begin = begin or frame.figures.moment_usec
            if at is None:
                if best is None or frame.figures.available < best.figures.available:
                    best = frame
            elif best is None or frame.figures.moment_usec - begin <= at * 1e6:
                best = frame
    except TraceError as error:
        raise CommandFailure(clean(str(error)), Exit.FAILED, "oomslicectl record FILE writes one.") from error
    if best is None:
        raise CommandFailure(f"{clean(path)}: there is no moment in this trace", Exit.FAILED)
    return best.state, best.figures


def choices(
    arguments: argparse.Namespace, terminal: Terminal, state: State, figures: Figures, changes: Changes
) -> Exit:
    """The order, with and without the changes."""
    from oomslice.cli.ask import print_json
    from oomslice.errors import OomsliceError
    from oomslice.whatif.replay import order
    from oomslice.whatif.state import Changes

    changed.check_units(state, changes)
    target = target_of(arguments.until, state, changes)
    try:
        rank_by, places, problems = order(state, figures, changes, domain=arguments.domain, target=target)
        was = order(state, figures, Changes(), domain="-.slice", target=target)[1] if changes else []
    except KeyError as error:
        raise CommandFailure(
            f"{clean(arguments.domain)} is no domain",
            Exit.FAILED,
            "A unit becomes one by PressureTrigger= in its [X-OOMSlice] section.",
        ) from error
    except OomsliceError as error:
        raise CommandFailure(clean(str(error)), Exit.FAILED) from error
    errors = changed.tell_problems(problems, changes)
    before = {place.name: number for number, place in enumerate(was, 1)}
    enough = next((number for number, place in enumerate(places, 1) if place.enough), len(places))
    if arguments.json:
        print_json(as_data(arguments.domain, rank_by, figures, target, enough, places, before if changes else None))
    else:
        shown = places if arguments.all else places[:enough]
        print(render(shown, places, enough, figures, target, rank_by, terminal, before if changes else None))
    return Exit.FAILED if errors else Exit.OK


def target_of(text: str | None, state: State, changes: Changes) -> int:
    """How much is to be available, in bytes. Raises CommandFailure."""
    from oomslice.settings.values import BadValueError, parse_amount

    if text is None:
        return state.policy(changes)[0].machine.available_watch.of(state.memory_total)
    try:
        return parse_amount(text).of(state.memory_total)
    except BadValueError as error:
        raise CommandFailure(f"--until {clean(text)}: {clean(str(error))}", Exit.USAGE) from error


def as_data(
    domain: str,
    rank_by: RankBy,
    figures: Figures,
    target: int,
    enough: int,
    places: Sequence[Place],
    before: Mapping[str, int] | None,
) -> dict[str, Any]:
    """For --json."""
    from dataclasses import asdict

    return {
        "domain": domain,
        "rank_by": rank_by.value,
        "memory_available": figures.available,
        "target": target,
        "enough": enough,
        "order": [{**asdict(place), "place_now": before.get(place.name) if before else None} for place in places],
    }


def render(
    shown: Sequence[Place],
    places: Sequence[Place],
    enough: int,
    figures: Figures,
    target: int,
    rank_by: RankBy,
    terminal: Terminal,
    before: Mapping[str, int] | None,
) -> str:
    """A table and a sentence."""
    if not places:
        return "Nobody may be chosen. oomslicectl explain --all says why."
    columns = [
        Column("#", right=True),
        Column("NOW", right=True),
        Column("UNIT", give=True, least=16),
        Column("PRIORITY", right=True),
        Column(metric_title(rank_by.value), right=True),
        Column("THEN AVAILABLE", right=True),
        Column("ACTIONS", give=True, least=8, drop=1),
        Column("REASON", give=True, least=12),
    ]
    rows = [
        [
            str(number),
            str(before.get(place.name, "-")) if before is not None else "",
            clean(place.name),
            str(place.priority),
            metric(place.metric, rank_by.value),
            size(place.available_after),
            clean(place.actions),
            clean(place.reason),
        ]
        for number, place in enumerate(shown, 1)
    ]
    if before is None:
        columns = [columns[0], *columns[2:]]
        rows = [[row[0], *row[2:]] for row in rows]
    styles = ["" if number <= enough else "dim" for number, _ in enumerate(shown, 1)]
    text = table(columns, rows, terminal, styles=styles)
    last = places[enough - 1]
    if not last.enough:
        return f"{text}\n\nAll {len(places)} together do not make {size(target)} available."
    which = f"the first {enough} of {len(places)}" if enough > 1 else "the first one"
    return (
        f"{text}\n\nWith {which}, {size(last.available_after)} would be available instead of {size(figures.available)}."
    )


def storm(arguments: argparse.Namespace, terminal: Terminal, state: State, figures: Figures, changes: Changes) -> Exit:
    """The decisions of a storm that begins at this moment."""
    from oomslice.cli.ask import print_json
    from oomslice.errors import OomsliceError, SettingsError
    from oomslice.whatif.replay import Replay
    from oomslice.whatif.storm import frames, parse_storm

    try:
        coming = parse_storm(arguments.storm)
    except SettingsError as error:
        raise CommandFailure(f"--storm {clean(str(error))}", Exit.USAGE) from error
    changed.check_units(state, changes, coming.units)
    run = Replay(changes)
    decisions: list[WouldBe] = []
    try:
        for frame in frames(state, figures, coming):
            decisions += run.take(frame)
    except OomsliceError as error:
        raise CommandFailure(clean(str(error)), Exit.FAILED) from error
    errors = changed.tell_problems(run.problems, changes)
    names = [clean(name) for name in coming.units]
    grows = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    if arguments.json:
        print_json({"storm": list(coming.units), "rate": coming.rate, "decisions": changed.decisions_data(decisions)})
    else:
        if decisions:
            print(changed.decisions_table(decisions, terminal) + "\n")
        grow = "grows" if len(names) == 1 else "grow"
        said = changed.how_many(decisions) + spared(decisions, coming.units)
        print(f"{grows} {grow} by {size(coming.rate)} a second: {said}.")
    return Exit.FAILED if errors else Exit.OK


def spared(decisions: Sequence[WouldBe], units: Sequence[str]) -> str:
    """Whether others paid for it."""
    others = {decision.victim for decision in decisions if decision.victim} - set(units)
    if not decisions:
        return ""
    return f", {plural(len(others), 'other unit')} paid for it" if others else ", nobody else paid for it"
