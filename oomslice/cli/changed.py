# SPDX-License-Identifier: LGPL-2.1-or-later
"""--set and --with of simulate and replay, and what they have in common when they print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Column, Terminal, clean, plural, size, table

if TYPE_CHECKING:
    from oomslice.settings.model import Problem
    from oomslice.whatif.replay import WouldBe
    from oomslice.whatif.state import Changes, Figures, State


def add_options(parser: argparse.ArgumentParser) -> None:
    """--set and --with."""
    parser.add_argument(
        "--set",
        metavar="UNIT:KEY=VALUE",
        dest="settings",
        action="append",
        default=[],
        help="as if this stood in a drop-in of the unit, or with machine: or limits: as UNIT in the YAML",
    )
    parser.add_argument(
        "--with",
        metavar="FILE",
        dest="files",
        action="append",
        default=[],
        help="as if this drop-in, UNIT=FILE if its path does not name the unit, or YAML were installed",
    )


def changes_of(arguments: argparse.Namespace) -> Changes:
    """What was asked for. Raises CommandFailure."""
    from pathlib import Path

    from oomslice.errors import SettingsError
    from oomslice.units.files import read_text
    from oomslice.whatif import changes

    try:
        files = [(written, read_text(Path(changes.unit_and_path(written)[1]))) for written in arguments.files]
        return changes.collect(arguments.settings, files)
    except SettingsError as error:
        raise CommandFailure(
            clean(str(error)), Exit.USAGE, "oomslice.unit(5) and oomslice.yaml(5) list all keys."
        ) from error
    except OSError as error:
        raise CommandFailure(f"{clean(error.filename or '')}: {error.strerror or error}", Exit.FAILED) from error


def check_units(state: State, changes: Changes, also: Sequence[str] = ()) -> None:
    """Raises CommandFailure for changes of a unit that is not there: they would change nothing."""
    names = {unit.name for unit in state.snapshot.units} | set(also)
    for unit in changes.unit_files:
        if unit not in names:
            raise CommandFailure(
                f"{clean(unit)} does not run, so nothing changes with it",
                Exit.FAILED,
                "oomslicectl slices lists the units that do.",
            )


def tell_problems(problems: Sequence[Problem], changes: Changes) -> int:
    """Prints to the standard error what is wrong in the changes, and that a policy of others is not asked; how many
    errors that are."""
    from oomslice.settings.model import Severity
    from oomslice.settings.verify import render

    files = {path for of_unit in changes.unit_files.values() for path, _ in of_unit}
    files |= {path for path, _ in changes.configuration}
    own = [problem for problem in dict.fromkeys(problems) if problem.source.file in files or problem.key == "policy"]
    for problem in own:
        print(clean(render(problem)), file=sys.stderr)
    return sum(problem.severity is Severity.ERROR for problem in own)


def present() -> tuple[State, Figures]:
    """This machine now. Raises CommandFailure."""
    from oomslice.cli.ask import missing_module
    from oomslice.errors import OomsliceError

    try:
        from oomslice.cgroups.tree import CgroupTree
        from oomslice.cli.systemd import snapshot
        from oomslice.whatif.present import read_figures, read_state

        tree = CgroupTree()
        tree.check()
        state = read_state(snapshot(), tree)
        return state, read_figures([*state.cgroups, *state.user_cgroups], tree)
    except ModuleNotFoundError as error:
        raise missing_module(error) from error
    except OomsliceError as error:
        raise CommandFailure(
            clean(str(error)), Exit.FAILED, "A trace of another machine can be used without: --trace FILE"
        ) from error


def decisions_data(decisions: Sequence[WouldBe]) -> list[dict[str, Any]]:
    """For --json."""
    from dataclasses import asdict

    return [asdict(decision) for decision in decisions]


def decisions_table(decisions: Sequence[WouldBe], terminal: Terminal) -> str:
    """One line a decision."""
    columns = (
        Column("TIME", right=True),
        Column("DOMAIN", give=True),
        Column("TRIGGER"),
        Column("AVAILABLE", right=True),
        Column("VICTIM", give=True, least=14),
        Column("PRIORITY", right=True, drop=3),
        Column("HAS", right=True),
        Column("OUTCOME"),
        Column("ACTIONS", give=True, least=8, drop=1),
        Column("REASON", give=True, least=12, drop=2),
    )
    rows = [
        (
            f"+{decision.moment_usec / 1e6:.2f} s",
            clean(decision.domain),
            decision.trigger,
            size(decision.available),
            clean(decision.victim) or "-",
            str(decision.priority) if decision.victim else "-",
            size(decision.frees) if decision.victim else "-",
            decision.outcome,
            clean(decision.actions) or "-",
            clean(decision.reason),
        )
        for decision in decisions
    ]
    styles = ["red" if decision.outcome == "killed" else "yellow" for decision in decisions]
    return table(columns, rows, terminal, styles=styles)


def how_many(decisions: Sequence[WouldBe]) -> str:
    """In a sentence's words. The begin of a ladder and its end are one decision."""
    climbing: set[str] = set()
    count = 0
    for decision in decisions:
        is_end = decision.outcome in ("killed", "held") and decision.victim in climbing
        climbing.discard(decision.victim)
        if decision.outcome == "climbs":
            climbing.add(decision.victim)
        count += not is_end
    return plural(count, "decision") if count else "no decision"
