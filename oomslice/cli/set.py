# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl set: gives a unit priorities and actions, as `systemctl set-property` gives it limits."""

from __future__ import annotations

import argparse
from typing import Any

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Terminal, clean

DESCRIPTION = """\
Writes settings of [X-OOMSlice] for a unit into a drop-in of its own, has systemd read its units again, and returns
when the plan that they make is in force. Keys that are not named stay as they are. KEY= without a value takes back what
other files say; --revert takes back what was set. For root, and for whom polkit lets (org.oomslice1.set)."""
EXAMPLES = """\
examples:
  oomslicectl set batch.slice Priority=-200
  oomslicectl set web.service Protect=yes --runtime
                                       until the next boot
  oomslicectl set batch.slice Actions='warn freeze@5s kill@15s' CooldownSec=10s
  oomslicectl set batch.slice --revert"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--runtime", action="store_true", help="until the next boot only")
    parser.add_argument("--revert", action="store_true", help="take back all that was set for the unit")
    parser.add_argument("unit", metavar="UNIT", help="a slice, service or scope")
    parser.add_argument("assignments", metavar="KEY=VALUE", nargs="*", help="keys of oomslice.unit(5)")


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Sets, and says what is in force then."""
    from oomslice.cli.ask import Manager, ask, print_json
    from oomslice.errors import NoSuchUnitError

    wanted = assignments(arguments.assignments)
    if bool(wanted) == arguments.revert:
        raise CommandFailure("name what is to be set, as KEY=VALUE, or --revert", Exit.USAGE)

    async def change(manager: Manager) -> tuple[str, dict[str, Any]]:
        file = await manager.do("SetProperties", arguments.unit, wanted, arguments.runtime)
        try:
            return str(file), await manager.slice(arguments.unit)
        except NoSuchUnitError:
            return str(file), {}

    file, settings = ask(change)
    if arguments.json:
        print_json({"file": file, "settings": settings})
    else:
        for line in told(arguments.unit, file, wanted, settings):
            print(clean(line))
    return Exit.FAILED if overruled(file, wanted, settings) else Exit.OK


def assignments(words: list[str]) -> dict[str, str]:
    """KEY=VALUE by key. Raises CommandFailure."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise CommandFailure(f'"{clean(word)}" is no assignment; write KEY=VALUE', Exit.USAGE)
        if key in found:
            raise CommandFailure(f"{clean(key)}= is there twice", Exit.USAGE)
        found[key] = value
    return found


def told(unit: str, file: str, wanted: dict[str, str], settings: dict[str, Any]) -> list[str]:
    """What became of it: written is not in force where a later file says otherwise."""
    if not wanted:
        return [f"What was set for {unit} is taken back."]
    lines = [f"{file} is written."]
    if not settings:
        return [*lines, f"{unit} is not running; it has these settings when it is started."]
    late = overruled(file, wanted, settings)
    for key, value in wanted.items():
        where = str(settings.get("Sources", {}).get(key, ""))
        if key in late:
            lines.append(f"{key}={value} is NOT in force: {where or 'another setting'} comes after it.")
        elif not value:
            lines.append(f"{key}={settings.get(key, '')} is in force ({where or 'default'}).")
        else:
            lines.append(f"{key}={value} is in force.")
    return lines


def overruled(file: str, wanted: dict[str, str], settings: dict[str, Any]) -> list[str]:
    """Keys whose value is written and not in force, of a unit that runs."""
    if not settings:
        return []
    sources = settings.get("Sources", {})
    return [key for key, value in wanted.items() if value and not str(sources.get(key, "")).startswith(f"{file}:")]
