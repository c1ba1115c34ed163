# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl status: is this machine looked after, by whom, and what is missing."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oomslice.cli.failure import Exit
from oomslice.cli.text import Column, Terminal, clean, facts, plural, size, table, yes_no

if TYPE_CHECKING:
    from oomslice.cli.ask import Manager

DESCRIPTION = """\
Shows whether oomslice-core is armed with a plan, what this kernel lacks and what that means, whether other OOM killers
run, what is wrong in unit files and YAML, and who can act on the plan or sees who did (carriers), and how often.

Exit code 0 if the core is armed, 1 if it is not."""
EXAMPLES = """\
examples:
  oomslicectl status                   for people
  oomslicectl status --json | jq .state.Armed
                                       for a monitoring system"""

FEATURES = {
    "locked": "its memory is not locked: it may have to wait for a page when memory is short",
    "realtime": "it has no real-time priority: it may have to wait for a processor",
    "cgroup-kill": "no cgroup.kill (Linux 5.14): processes are killed one by one through pidfds",
    "mrelease": "no process_mrelease (Linux 5.15): the memory of a victim comes back more slowly",
    "psi-machine": "no pressure figures of the machine: neither the early sign nor the stall trigger works",
    "psi-domains": "no pressure trigger for every domain: PressureTrigger= does not work everywhere",
    "memory": "no memory controller: sizes are not known",
    "page-faults": "page faults may not be counted (CAP_PERFMON): memory that grows fast without swap is noticed later",
    "pulse": "no BPF programs are there that could wake it (oomslice-bpf.service)",
}
"""Feature of the core -> what it means that it is missing."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """This verb has no options of its own."""


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Asks oomsliced and prints."""
    from oomslice.cli.ask import ask, print_json

    status = ask(state)
    if arguments.json:
        print_json(status)
    else:
        print(render(status, terminal))
    return Exit.OK if status["state"].get("Armed") else Exit.FAILED


async def state(manager: Manager) -> dict[str, Any]:
    """All properties of the manager, under the names of --json."""
    from oomslice.cli import answers

    return {
        "version": await manager.get("Version"),
        "state": await manager.get("State"),
        "carriers": await manager.get("Carriers"),
        "configuration_errors": answers.problems(await manager.get("ConfigurationErrors")),
    }


def render(status: Mapping[str, Any], terminal: Terminal) -> str:
    """What an administrator wants to know first stands first."""
    state: Mapping[str, Any] = status["state"]
    armed = bool(state.get("Armed"))
    dot = terminal.symbol("●", "*")
    title = f"oomslice {clean(status['version'])}: {'armed' if armed else 'NOT ARMED'}"
    pairs = [
        ("Core", _core(state)),
        ("Plan", _plan(state)),
        ("Domains", _domains(state)),
        ("Decisions", _decisions(state)),
    ]
    missing = [str(name) for name in state.get("CoreFeaturesMissing", ())]
    if missing:
        lines = (f"{clean(name)}: {FEATURES[name]}" if name in FEATURES else clean(name) for name in missing)
        pairs.append(("Missing", terminal.style("yellow", "\n".join(lines))))
    others = [clean(name) for name in state.get("OtherDaemons", ())]
    if others:
        pairs.append(("Other killers", terminal.style("yellow", _others(others, state))))
    errors = status["configuration_errors"]
    pairs.append(("Configuration", "no problems" if not errors else f"{plural(len(errors), 'problem')}:"))
    text = f"{terminal.style('green' if armed else 'red', dot)} {terminal.style('bold', title)}\n"
    text += facts(pairs, terminal)
    parts = [text, *(f"  {problem_text(error)}" for error in errors)]
    if status["carriers"]:
        parts += ["", carriers(status["carriers"], terminal)]
    return "\n".join(parts)


def _core(state: Mapping[str, Any]) -> str:
    if not state.get("CoreConnected"):
        return "no connection\nStart it with: systemctl start oomslice-core.service"
    doing = (
        "watching memory closely: there was a sign of shortage" if state.get("Watching") else "asleep until pressure"
    )
    held = int(state.get("ReserveBytes", 0))
    reserve = f" and {size(held)} in reserve" if held else ""
    locked = f"{size(int(state.get('CoreLockedBytes', 0)))} locked{reserve}"
    return f"{doing}; {locked}, woken {state.get('CoreWakeups', 0)} times"


def _plan(state: Mapping[str, Any]) -> str:
    generation = state.get("PlanGeneration", 0)
    text = f"generation {generation} in force" if generation else "none in force"
    text += f"; {plural(int(state.get('Units', 0)), 'unit')}, {plural(int(state.get('Candidates', 0)), 'candidate')}"
    if state.get("PlanError"):
        text += f"\nThe newest plan is not in force: {clean(state['PlanError'])}"
    return text


def _domains(state: Mapping[str, Any]) -> str:
    from oomslice.cli.show import domain

    return ", ".join(domain(clean(name)) for name in state.get("Domains", ())) or "none"


def carriers(states: Sequence[Mapping[str, Any]], terminal: Terminal) -> str:
    """Who acts on the plan or sees who did, one line each, and below it what failed last."""
    columns = (
        Column("CARRIER"),
        Column("ACTIVE"),
        Column("ACTS"),
        Column("HITS", right=True),
        Column("MISSED", right=True),
        Column("DETAIL", give=True, least=20),
    )
    rows = []
    styles = []
    for state in states:
        active, error = bool(state.get("Active")), clean(state.get("LastError", ""))
        rows.append(
            [
                clean(state.get("Name", "")),
                yes_no(active),
                yes_no(state.get("Acts")),
                str(state.get("Hits", 0)),
                str(state.get("Missed", 0)),
                clean(state.get("Detail", "")) + (f"; last error: {error}" if error else ""),
            ]
        )
        styles.append("" if active else "yellow")
    return table(columns, rows, terminal, styles=styles)


def _decisions(state: Mapping[str, Any]) -> str:
    text = f"{state.get('CoreDecisions', 0)} since oomslice-core started"
    dropped = int(state.get("CoreDecisionsDropped", 0))
    return text + (f"; records of {dropped} more are lost, the ring was full" if dropped else "")


def _others(names: list[str], state: Mapping[str, Any]) -> str:
    text = f"{', '.join(names)} {'runs' if len(names) == 1 else 'run'} too"
    left = state.get("LeftToSystemdOomd", ())
    if "systemd-oomd.service" in names:
        text += f"; {plural(len(left), 'unit')} marked for systemd-oomd {'is' if len(left) == 1 else 'are'} left to it"
    if names != ["systemd-oomd.service"]:
        text += "\nIt knows nothing of priorities and may act first; two killers on one machine surprise"
    return text


def problem_text(problem: Mapping[str, Any]) -> str:
    """One line as systemd-analyze verify writes it: FILE:LINE: KEY=VALUE: message."""
    where = clean(problem["file"]) + (f":{problem['line']}" if problem["line"] else "")
    what = f"{clean(problem['key'])}={clean(problem['value'])}: " if problem["key"] else ""
    return f"{where}: {what}{clean(problem['message'])}"
