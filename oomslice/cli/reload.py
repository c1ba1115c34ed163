# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl reload: has the daemon read configuration and units again."""

from __future__ import annotations

import argparse

from oomslice.cli.failure import Exit
from oomslice.cli.text import Terminal, clean, plural

DESCRIPTION = """\
Has oomsliced read oomslice.yaml and all units again, and returns when the plan that they make is in force. For root,
and for whom polkit lets (org.oomslice1.reload). After a change of unit files systemd has to be told first:
systemctl daemon-reload, after which oomsliced makes a plan by itself."""
EXAMPLES = """\
examples:
  oomslicectl verify && oomslicectl reload"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """This verb has no options of its own."""


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Reloads, and says what is wrong in what was read."""
    from oomslice.cli import answers
    from oomslice.cli.ask import Manager, ask, print_json

    async def reload(manager: Manager) -> list[dict[str, object]]:
        await manager.do("Reload")
        return answers.problems(await manager.get("ConfigurationErrors"))

    problems = ask(reload)
    if arguments.json:
        print_json({"configuration_errors": problems})
    elif problems:
        count = plural(len(problems), "problem")
        print(clean(f"The configuration is read again, with {count}: oomslicectl verify lists them."))
    return Exit.FAILED if problems else Exit.OK
