# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl slices: all units of the plan as a tree, or the settings of some."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from oomslice.cli.failure import Exit
from oomslice.cli.text import Column, Terminal, clean, facts, table, yes_no

DESCRIPTION = """\
Shows every running slice, service and scope that oomslice knows, as a tree of cgroups, with the priority that
decides over it, where that priority comes from, and the ladder (Actions=) that is climbed if it is chosen. With UNIT,
shows all settings of that unit and the file and line of each.

A smaller priority is chosen first. Only candidates can be chosen: units with processes of their own. Protected
ones never are."""
EXAMPLES = """\
examples:
  oomslicectl slices                   the whole tree
  oomslicectl slices nginx.service     what is set for nginx, and where
  oomslicectl slices --json | jq -r '.[] | select(.protected) | .name'
                                       names of all protected units"""

LABELS = {
    "Name": "Unit",
    "ControlGroup": "Control group",
    "CgroupId": "Cgroup id",
    "PriorityOrigin": "Priority from",
    "ProtectOrigin": "Protected by",
    "ActionsOrigin": "Actions from",
    "KillScope": "Kill scope",
    "KillScopeOrigin": "Kill scope from",
    "TakenWith": "Goes with",
    "OOMScoreAdjust": "OOM score adjusted",
    "OOMScoreAdjustOrigin": "OOM score because",
    "LeftToSystemdOomd": "Left to systemd-oomd",
    "NeedDaemonReload": "Needs daemon-reload",
}
"""Member of GetSlice() -> label, where the member's name does not read well."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("unit", metavar="UNIT", nargs="*", help="show the settings of this unit instead of the tree")
    parser.add_argument("--no-legend", action="store_true", help="no headings and no closing lines")


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Asks oomsliced and prints."""
    from oomslice.cli import answers
    from oomslice.cli.ask import Manager, ask, print_json

    if arguments.unit:

        async def described(manager: Manager) -> list[dict[str, Any]]:
            return [await manager.slice(unit) for unit in arguments.unit]

        units = ask(described)
        if arguments.json:
            print_json(units)
        else:
            print("\n\n".join(render_unit(unit, terminal) for unit in units))
        return Exit.OK

    async def listed(manager: Manager) -> list[dict[str, Any]]:
        return answers.slices(await manager.rows("ListSlices"))

    slices = ask(listed)
    if arguments.json:
        print_json(slices)
    else:
        print(render(slices, terminal, legend=not arguments.no_legend))
    return Exit.OK


def render(slices: Sequence[dict[str, Any]], terminal: Terminal, *, legend: bool = True) -> str:
    """The tree as a table."""
    columns = (
        Column("UNIT", give=True, least=16),
        Column("PRIORITY", right=True),
        Column("PROTECTED"),
        Column("CANDIDATE"),
        Column("FROM", give=True, least=10),
        Column("ACTIONS", give=True, least=8, drop=1),
    )
    rows = []
    styles = []
    for unit, prefix in tree(slices, terminal):
        rows.append(
            (
                prefix + clean(unit["name"]),
                str(unit["priority"]),
                yes_no(unit["protected"]),
                yes_no(unit["candidate"]),
                clean(unit["priority_origin"]),
                clean(unit["actions"]) or "-",
            )
        )
        styles.append("green" if unit["protected"] else "" if unit["candidate"] else "dim")
    if not rows:
        return "No units: oomsliced has made no plan yet. oomslicectl status says why."
    text = table(columns, rows, terminal, styles=styles, header=legend)
    if legend:
        candidates = sum(bool(unit["candidate"] and not unit["protected"]) for unit in slices)
        text += f"\n\n{len(rows)} units, {candidates} of them can be chosen. oomslicectl explain says who would be."
    return text


def tree(slices: Sequence[dict[str, Any]], terminal: Terminal) -> list[tuple[dict[str, Any], str]]:
    """Every unit once, below the unit whose cgroup is the nearest around it, with the branches to print before it.

    Siblings stand in the order of `slices`.
    """
    by_path: dict[str, int] = {}
    for index, unit in enumerate(slices):
        by_path.setdefault(_normal(unit["cgroup_path"]), index)
    children: dict[int, list[int]] = {}
    for index, unit in enumerate(slices):
        children.setdefault(_parent(_normal(unit["cgroup_path"]), by_path, index), []).append(index)
    through, last, pipe = (
        terminal.symbol("├─", "|-"),
        terminal.symbol("└─", "`-"),
        terminal.symbol("│ ", "| "),
    )
    result: list[tuple[dict[str, Any], str]] = []
    # Depth first without recursion: the depth of cgroups is bounded by the kernel only.
    waiting = [(index, "", "") for index in reversed(children.get(-1, []))]
    while waiting:
        index, prefix, below = waiting.pop()
        result.append((slices[index], prefix))
        own = children.get(index, [])
        for number, child in reversed(list(enumerate(own))):
            ends = number == len(own) - 1
            waiting.append((child, below + (last if ends else through), below + ("  " if ends else pipe)))
    return result


def _normal(path: str) -> str:
    return "/" + path.strip("/")


def _parent(path: str, by_path: dict[str, int], own: int) -> int:
    """Index of the nearest unit around `path`; a second unit of the same cgroup hangs below the first."""
    if by_path[path] != own:
        return by_path[path]
    while path != "/":
        path = path.rsplit("/", 1)[0] or "/"
        if path in by_path:
            return by_path[path]
    return -1


def render_unit(unit: dict[str, Any], terminal: Terminal) -> str:
    """All settings of one unit, each with the place it was written at."""
    sources = unit.get("Sources") or {}
    pairs = []
    for key, value in unit.items():
        if key == "Sources" or value == "":
            continue
        shown = yes_no(value) if isinstance(value, bool) else clean(value)
        if key in sources:
            shown += terminal.style("dim", f"  ({clean(sources[key])})")
        pairs.append((LABELS.get(key, clean(key)), shown))
    return facts(pairs, terminal)
