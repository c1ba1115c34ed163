# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl monitor: follows what oomsliced tells, one line an event, also over restarts of it."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from oomslice.cli.failure import Exit
from oomslice.cli.text import Terminal, clean, clock, elapsed

if TYPE_CHECKING:
    from oomslice.bus.events import Event
    from oomslice.decisions.record import Decision

DESCRIPTION = """\
Prints, as they happen, decisions, steps of ladders, beginning and end of pressure, warnings to units and changes of
carriers: one line an event, with --json one JSON object a line. Ends with Ctrl-C, or after --count events.

A daemon that is restarted, or does not run yet, is waited for."""
EXAMPLES = """\
examples:
  oomslicectl monitor                  what happens from now on
  oomslicectl monitor --count 1        wait for the next event
  oomslicectl monitor --json | jq --unbuffered -r 'select(.event == "DecisionMade") | .victim'
                                       names of victims as they die"""

STYLES = {
    "DecisionMade": "red",
    "Warning": "yellow",
    "PressureBegan": "yellow",
    "PressureEnded": "green",
    "DaemonStopped": "yellow",
    "DaemonStarted": "green",
}
QUIET = ("PropertiesChanged",)
"""Shown with --all only."""
RECONNECT_S = (0.3, 1.0, 5.0)
ANSWER_S = 5.0
"""For what is asked of the daemon about an event."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--count", metavar="N", type=count, help="end after so many events")
    parser.add_argument("--all", action="store_true", help="also changes of properties")


def count(text: str) -> int:
    """The argument of --count."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:10]) <= 1_000_000_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000000")
    return int(text)


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Until somebody has seen enough."""
    from oomslice.cli.ask import unanswered
    from oomslice.errors import BusError

    try:
        with contextlib.suppress(KeyboardInterrupt):
            follow(arguments, terminal)
    except BusError as error:  # of the first connection only
        raise unanswered(error) from error
    return Exit.OK


def follow(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Prints events, and connects again when the bus was restarted. Raises BusError if there is none at the start."""
    from oomslice.bus.errors import BusUnreachableError
    from oomslice.bus.hearing import QuickListener

    left: int | None = arguments.count
    first = True
    tried = 0
    while left is None or left > 0:
        try:
            with QuickListener() as listener:
                if not listener.running:
                    say("oomsliced does not run; waiting for it")
                first, tried = False, 0
                while left is None or left > 0:
                    event = listener.next()
                    if arguments.all or event.name not in QUIET:
                        show(event, arguments, terminal)
                        left = left - 1 if left is not None else None
        except BusUnreachableError as error:
            if first:
                raise
            if not tried:
                say(f"{error}; trying again")
            time.sleep(RECONNECT_S[min(tried, len(RECONNECT_S) - 1)])
            tried += 1


def show(event: Event, arguments: argparse.Namespace, terminal: Terminal) -> None:
    """One line. It leaves at once: who reads a pipe waits for it."""
    moment = time.time_ns() // 1000
    if arguments.json:
        import json

        data = {"realtime_usec": moment, "event": event.name, **event.arguments}
        print(json.dumps(data, ensure_ascii=False, default=str), flush=True)
        return
    decision = decided(event)
    print(render(event, terminal._replace(now_usec=moment), decision), flush=True)


def decided(event: Event) -> Decision | None:
    """The decision that an event is about, if the daemon still has it."""
    if event.name != "DecisionMade":
        return None
    from oomslice.bus.asking import MESSAGE_MAX
    from oomslice.bus.question import Questioner
    from oomslice.cli import answers
    from oomslice.cli.ask import QuickManager, answered
    from oomslice.decisions.record import Decision
    from oomslice.errors import OomsliceError

    try:
        with Questioner(timeout=ANSWER_S, maximum_message=MESSAGE_MAX) as questioner:
            asked = QuickManager(questioner, ANSWER_S).values("GetDecision", str(event.arguments["id"]))
            return Decision.from_dict(answers.decision(answered(asked)))
    except (OomsliceError, KeyError, TypeError, ValueError):
        return None  # the signal itself says the most important


def render(event: Event, terminal: Terminal, decision: Decision | None = None) -> str:
    """A time, what it is, and what is known of it."""
    time_of_day = clock(terminal.now_usec, terminal)
    name = terminal.style(STYLES.get(event.name, "bold"), clean(event.name))
    return f"{time_of_day} {name} {clean(words(event, decision))}".rstrip()


def words(event: Event, decision: Decision | None) -> str:
    """An event for people; those that this version does not know as they came."""
    said = event.arguments
    match event.name:
        case "DaemonStarted":
            return "oomsliced is there"
        case "DaemonStopped":
            return "oomsliced has gone; oomslice-core goes on with its last plan"
        case "DecisionMade" if decision is not None:
            from oomslice.decisions.sentence import sentence

            return f"{said['id']} {sentence(decision)}"
        case "DecisionMade":
            return f"{said['id']} {said['victim'] or 'nobody'} for {said['domain']}: {said['outcome']}"
        case "Warning":
            left = int(said["deadline_usec"]) - time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            until = f", next step in {elapsed(left)}" if said["deadline_usec"] and left > 0 else ""
            return f"{said['decision']} {said['unit']} is asked to give memory back, for {said['domain']}{until}"
        case "StepTaken" if {"decision", "unit", "step", "result"} <= said.keys():
            return f"{said['decision']} {said['unit']}: {said['step']} {said['result']}".lstrip()
        case "PressureBegan" if "domain" in said:
            return f"memory is short in {said['domain']}"
        case "PressureEnded" if "domain" in said:
            return f"{said['domain']} is calm again"
        case "CarrierChanged" if {"name", "active", "detail"} <= said.keys():
            return f"{said['name']} is {'active' if said['active'] else 'inactive'}: {said['detail']}"
        case "PropertiesChanged":
            names = [*said["changed_properties"], *said["invalidated_properties"]]
            return ", ".join(str(name) for name in names)
    return pairs(said)


def pairs(said: Mapping[str, Any]) -> str:
    """name=value, as the interface calls them."""
    return " ".join(f"{name}={value}" for name, value in said.items())


def say(text: str) -> None:
    """To whoever watches, and not into the output."""
    print(f"oomslicectl: {clean(text)}", file=sys.stderr, flush=True)
