# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl doctor: all that must be right on this machine, each thing with a verdict and what to do about it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Terminal, display_width, plural

if TYPE_CHECKING:
    from oomslice.cli.checkup.finding import Finding

DESCRIPTION = """\
Looks at all that oomslice needs on this machine: the kernel's features, cgroup v2, pressure figures, memory and swap,
settings of the kernel, oomslice's own services with their protection and sandbox, other out-of-memory killers, and what
the daemon says of itself. Each thing gets a verdict: ok, note (good to know), or problem, the last two with what to do.

Works without the daemon, and says then that it is missing. Nothing is changed.

Exit code 0 if there is no problem, 1 if there is one; notes alone do not count."""
EXAMPLES = """\
examples:
  oomslicectl doctor                   what is there to mend on this machine?
  oomslicectl doctor --quiet           only notes and problems
  oomslicectl doctor --json | jq -r '.checks[] | select(.verdict == "problem") | .name'
                                       names of all problems"""

STYLES = {"ok": "green", "note": "yellow", "problem": "red"}
SYMBOLS = {"ok": ("✓", "ok"), "note": ("!", "note"), "problem": ("✗", "PROBLEM")}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--quiet", action="store_true", help="only what is not ok")


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Looks at everything and prints."""
    from oomslice import __version__
    from oomslice.cli.ask import print_json

    checks = examine()
    problems = sum(check.verdict.value == "problem" for check in checks)
    if arguments.json:
        notes = sum(check.verdict.value == "note" for check in checks)
        print_json(
            {
                "version": __version__,
                "problems": problems,
                "notes": notes,
                "checks": [check.as_data() for check in checks],
            }
        )
    else:
        print(render(checks, terminal, quiet=arguments.quiet))
    return Exit.FAILED if problems else Exit.OK


def examine() -> list[Finding]:
    """Everything about this machine."""
    from oomslice import __version__
    from oomslice.cli.checkup import daemon, kernel, killers, memory, services
    from oomslice.cli.checkup.finding import Files, Finding, Verdict

    files = Files()
    status: Mapping[str, Any] | CommandFailure
    try:
        status = ask_daemon()
    except CommandFailure as failure:
        status = failure
    checks = [*kernel.findings(files), *memory.findings(files), *services.findings(files)]
    if isinstance(status, CommandFailure):
        checks += killers.findings(files)
        advice = "; ".join(status.hint.splitlines())
        return [*checks, Finding(daemon.GROUP, "oomsliced", Verdict.PROBLEM, str(status), advice)]
    checks += killers.findings(files, len(status["state"].get("LeftToSystemdOomd", ())))
    return [*checks, *daemon.findings(status, __version__)]


def ask_daemon() -> dict[str, Any]:
    """What `oomslicectl status` shows. Raises CommandFailure."""
    from oomslice.cli.ask import ask
    from oomslice.cli.status import state

    return ask(state)


def render(checks: Sequence[Finding], terminal: Terminal, *, quiet: bool = False) -> str:
    """A paragraph for each group; advice stands below what it is for."""
    shown = [check for check in checks if not quiet or check.verdict.value != "ok"]
    width = max((display_width(check.name) for check in shown), default=0)
    marks = {verdict: terminal.symbol(*both) for verdict, both in SYMBOLS.items()}
    mark_width = max(len(mark) for mark in marks.values())
    indent = " " * (2 + mark_width + 1)
    lines: list[str] = []
    group = ""
    for check in shown:
        if check.group != group:
            lines += ["", terminal.style("bold", check.group)] if lines else [terminal.style("bold", check.group)]
            group = check.group
        verdict = check.verdict.value
        mark = terminal.style(STYLES[verdict], marks[verdict].ljust(mark_width))
        name = check.name + " " * (width - display_width(check.name))
        room = None if terminal.width is None else terminal.width - len(indent) - width - 2
        first, *rest = wrapped(check.found, room)
        lines.append(f"  {mark} {name}  {first}")
        lines += [indent + " " * (width + 2) + line for line in rest]
        arrow = terminal.symbol("→", "->")
        if check.advice:
            first, *rest = wrapped(check.advice, None if room is None else room - len(arrow) - 1)
            lines.append(indent + " " * (width + 2) + terminal.style("blue", f"{arrow} {first}"))
            lines += [indent + " " * (width + 2 + len(arrow) + 1) + terminal.style("blue", line) for line in rest]
    lines += ([""] if lines else []) + [summary(checks)]
    return "\n".join(lines)


def wrapped(text: str, width: int | None) -> list[str]:
    """Lines of at most `width` columns, at least 20; one line if there is no limit."""
    if width is None:
        return [text]
    import textwrap

    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False) or [""]


def summary(checks: Sequence[Finding]) -> str:
    """One line on the whole."""
    verdicts = [check.verdict.value for check in checks]
    found = [plural(verdicts.count(name), name) for name in ("problem", "note") if name in verdicts]
    return f"{plural(len(checks), 'thing')} looked at: {' and '.join(found) or 'all is well'}."
