# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl top: who would go first, live, with the machine's memory and pressure."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Terminal, clean

if TYPE_CHECKING:
    from oomslice.cli.ask import Manager
    from oomslice.cli.live.figures import Limits, Order, Picture

DESCRIPTION = """\
Shows, live, the units in the order in which they would be chosen if memory ran out now, with their memory, growth and
pressure, and above them the memory, swap and pressure of the machine. A red mark in a bar is where oomslice acts.

Keys: q quits, s sorts by something else, p pauses, h lists all keys. Into a pipe, on a dumb terminal, or with --once,
prints all once and ends."""
EXAMPLES = """\
examples:
  oomslicectl top                      live, every 2 seconds
  oomslicectl top --interval 10        over a slow line
  oomslicectl top --domain batch.slice only who is in the domain batch.slice
  oomslicectl top --once               a table of this moment
  oomslicectl top --json | jq -r '.units[] | select(.place == 1).name'
                                       who would be chosen now"""

INTERVAL_MIN, INTERVAL_MAX = 0.5, 3600.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "--interval", metavar="SECONDS", type=interval, default=2.0, help="look every so often (default: %(default)g)"
    )
    parser.add_argument("--domain", metavar="DOMAIN", default="", help="this domain (default: -.slice, the machine)")
    parser.add_argument("--all", action="store_true", help="also units that hold other units or are outside the domain")
    parser.add_argument("--once", action="store_true", help="print a table of this moment and end")
    parser.add_argument("--no-legend", action="store_true", help="with --once: no headings and no bars")


def interval(text: str) -> float:
    """The argument of --interval."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not INTERVAL_MIN <= seconds <= INTERVAL_MAX:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds from {INTERVAL_MIN:g} to {INTERVAL_MAX:g}"
        )
    return seconds


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Asks oomsliced and prints or draws."""
    from oomslice.cli.live.figures import ROOT_SLICE

    domain = arguments.domain or ROOT_SLICE
    if arguments.json or arguments.once or not can_draw():
        return once(arguments, terminal, domain)
    return live(arguments, terminal, domain)


def can_draw() -> bool:
    """Whether there is a terminal that a cursor can be moved on."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def once(arguments: argparse.Namespace, terminal: Terminal, domain: str) -> Exit:
    """One look."""
    from oomslice.cli.ask import print_json
    from oomslice.cli.live.figures import Reader, as_data, picture
    from oomslice.cli.live.view import render_once

    order, limits = first_answer(domain)
    shown: Picture = picture(Reader(), order, limits, time.time_ns() // 1000)
    if arguments.json:
        print_json(as_data(shown))
    else:
        print(render_once(shown, terminal, everything=arguments.all, legend=not arguments.no_legend))
    return Exit.OK


def live(arguments: argparse.Namespace, terminal: Terminal, domain: str) -> Exit:
    """Until the user has seen enough."""
    from oomslice.cli.ask import missing_module
    from oomslice.cli.live.figures import Reader
    from oomslice.cli.live.view import View

    try:
        from oomslice.cli.live.screen import Screen, terminal_for
    except ModuleNotFoundError as error:
        raise CommandFailure(
            f"this Python cannot draw: {error}", Exit.NOT_INSTALLED, "oomslicectl top --once prints a table."
        ) from error
    order, limits = first_answer(domain)
    view = View(interval=arguments.interval, everything=arguments.all, domain=domain)
    with Screen(Reader(), limits, view, terminal_for(terminal, os.environ.get("TERM", "")), order) as screen:
        # All is drawn before what goes on is imported, which takes as long as everything until here.
        try:
            import asyncio

            from oomslice.cli.live.session import Session
        except ModuleNotFoundError as error:
            raise missing_module(error) from error

        async def drawn() -> Exit:
            async with Session() as session:
                return await screen.run(session.order)

        return asyncio.run(drawn())


def first_answer(domain: str) -> tuple[Order, Limits]:
    """Who would go first, and where oomslice acts. Raises CommandFailure."""
    from oomslice.cli.ask import ask
    from oomslice.cli.live.figures import ask_limits, ask_order

    async def both(manager: Manager) -> tuple[Order, Limits]:
        return await ask_order(manager, domain), await ask_limits(manager)

    order, limits = ask(both)
    return known(order), limits


def known(order: Order) -> Order:
    """The order, if its domain is one. Raises CommandFailure."""
    if order.domain not in order.domains and (order.domains or order.domain != "-.slice"):
        names = ", ".join(clean(name) for name in order.domains) or "none"
        raise CommandFailure(
            f"{clean(order.domain)} is no domain",
            Exit.FAILED,
            f"Domains are: {names}.\nA unit becomes one by PressureTrigger= in its [X-OOMSlice] section.",
        )
    return order
