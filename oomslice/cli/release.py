# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl release: undoes what steps did to a unit."""

from __future__ import annotations

import argparse

from oomslice.cli.failure import Exit
from oomslice.cli.text import Terminal, clean

DESCRIPTION = """\
Undoes what steps did to a unit, those of a shortage and those that were asked for: it is thawed, and has the limit that
it had before. If memory is still short, it may be acted upon again. For root, and for whom polkit lets
(org.oomslice1.release)."""
EXAMPLES = """\
examples:
  oomslicectl release build.service"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("unit", metavar="UNIT", help="a unit that was frozen or throttled")


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Releases it."""
    from oomslice.cli.ask import Manager, ask, print_json

    async def release(manager: Manager) -> None:
        await manager.do("Release", arguments.unit)

    ask(release)
    if arguments.json:
        print_json({"unit": arguments.unit})
    else:
        print(clean(f"{arguments.unit} goes on."))
    return Exit.OK
