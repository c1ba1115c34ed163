# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl act: has one step done to a unit now, and says what came of it."""

from __future__ import annotations

import argparse
from typing import Any

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Terminal, clean

DESCRIPTION = """\
Has one step of a ladder done to a unit now, as if memory were short: freeze, throttle[:PERCENT], reclaim[:SIZE], warn,
terminate, kill, and the others of Actions=. It is recorded as a decision. Units that are protected are left alone,
whoever asks. What is frozen or throttled stays so until oomslicectl release. For root, and for whom polkit lets."""
EXAMPLES = """\
examples:
  oomslicectl act build.service freeze
  oomslicectl act build.service throttle:50
  oomslicectl release build.service"""

GOOD = frozenset({"done", "freed", "kept"})


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("unit", metavar="UNIT", help="a unit that holds processes")
    parser.add_argument("step", metavar="STEP", help="a step as in Actions=, without a delay")


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Acts, and says what came of it."""
    from oomslice.cli import answers
    from oomslice.cli.ask import Manager, ask, print_json
    from oomslice.errors import NoSuchDecisionError

    async def act(manager: Manager) -> dict[str, Any]:
        id = str(await manager.do("Act", arguments.unit, arguments.step))
        try:
            return await manager.values("GetDecision", id)
        except NoSuchDecisionError:
            raise CommandFailure(
                f"{clean(arguments.step)} is begun and takes its time", Exit.OK, f"Later: oomslicectl show {id}"
            ) from None

    decision = ask(act)
    if arguments.json:
        print_json(answers.decision(decision))
    else:
        print(clean(told(arguments.step, decision)))
    return Exit.OK if decision["outcome"] in GOOD else Exit.FAILED


def told(step: str, decision: dict[str, Any]) -> str:
    """What came of it in a line."""
    import os

    error = f": {os.strerror(decision['error'])}" if decision.get("error") else ""
    return f"{step} of {decision['victim']}: {decision['outcome']}{error}. It is decision {decision['id']}."
