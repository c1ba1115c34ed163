# SPDX-License-Identifier: LGPL-2.1-or-later
"""The entry point of oomslicectl: options, dispatch to a verb, exit code.

Nothing but argparse is imported before the verb is known, so that --help and errors come at once.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import IO, Any, NoReturn, Protocol, cast

from oomslice.cli.failure import EXIT_CODES, CommandFailure, Exit
from oomslice.cli.text import Terminal

DESCRIPTION = """\
Asks oomslice who pays when this machine runs out of memory, and who paid.

Priorities and actions are set in unit files: see oomslice.unit(5)."""

EPILOG = """\
examples:
  oomslicectl status                   is this machine looked after?
  oomslicectl doctor                   what is there to mend, and how?
  oomslicectl top                      who would go first, live
  oomslicectl explain                  who would be chosen now, and why?
  oomslicectl simulate --set batch.slice:Priority=-200
                                       who, if I wrote that?
  oomslicectl show                     what was done the last time, and how fast?
  oomslicectl verify                   is what I wrote into unit files right?

oomslicectl VERB --help says more. Manual pages: oomslicectl(1), oomslice(7)."""


VERBS: Mapping[str, str] = {
    "status": "whether the machine is looked after, and what is missing",
    "slices": "all units with their priorities, or the settings of some",
    "top": "who would go first, live, with memory and pressure",
    "decisions": "what was decided, newest first",
    "show": "one decision with everything known of it",
    "report": "a page for a post-mortem, as one HTML file",
    "metrics": "figures for Prometheus",
    "explain": "who would be chosen now, and why, or why not",
    "simulate": "who would be chosen with other settings, or in a storm",
    "record": "memory and pressure of this machine over time, to a file",
    "replay": "which decisions a recorded trace would have had",
    "monitor": "what happens from now on, one line an event",
    "doctor": "what is there to mend on this machine",
    "verify": "what is wrong in unit files and YAML",
    "set": "give a unit priorities and actions",
    "act": "have a step done to a unit now",
    "release": "let a unit go on that was frozen or throttled",
    "reload": "have configuration and units read again",
    "restore": "bring back what the step checkpoint wrote to disk",
}
"""Verb -> what it is for, in a line. Each is the module of its name beside this one, imported when it is called."""


PAGED = frozenset(
    {"status", "slices", "decisions", "show", "explain", "simulate", "replay", "doctor"},
)
"""Verbs whose output may be longer than a screen."""


GARBAGE_MIN = 50_000
"""So many new objects are worth a search for garbage; Python's own limit is 700 or 2000."""


class Verb(Protocol):
    """What each verb's module offers."""

    DESCRIPTION: str
    EXAMPLES: str

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Its options and arguments."""

    def run(self, arguments: argparse.Namespace, terminal: Terminal) -> Exit:
        """Does it."""


def verb_module(name: str) -> Verb:
    """The module of a verb."""
    return cast(Verb, import_module(f"oomslice.cli.{name}"))


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        # Given a width, argparse does not ask shutil, which imports four compressors.
        super().__init__(prog, max_help_position=28, width=max(40, width_of(sys.stdout, os.environ) - 2))

    def add_argument(self, action: argparse.Action) -> None:
        """It forgets that verbs are indented below their heading, and then the longest one has no room."""
        super().add_argument(action)
        if action.nargs == argparse.PARSER:
            self._action_max_length += self._indent_increment


class _Version(argparse.Action):
    """--version; asks for the version only when it is wanted."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> NoReturn:
        from oomslice import __version__

        print(f"oomslicectl {__version__}")
        raise SystemExit(Exit.OK)


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The whole command line, or as much of it as is needed for one verb: the others are listed, not imported."""
    codes = "\n".join(f"  {code.value}  {meaning}" for code, meaning in EXIT_CODES)
    parser = argparse.ArgumentParser(
        prog="oomslicectl",
        description=DESCRIPTION,
        epilog=f"{EPILOG}\n\nexit codes:\n{codes}",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    for name, purpose in VERBS.items():
        if only not in (None, name):
            verbs.add_parser(name, help=purpose, add_help=False)
            continue
        verb = verb_module(name)
        own = verbs.add_parser(
            name,
            help=purpose,
            description=verb.DESCRIPTION,
            epilog=verb.EXAMPLES,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        own.add_argument("--json", action="store_true", help="exact values as JSON, for programs")
        if name in PAGED:
            own.add_argument("--no-pager", action="store_true", help="print all at once, also on a terminal")
        verb.add_options(own)
        own.set_defaults(run=verb.run)
    return parser


def verb_of(arguments: Sequence[str]) -> str:
    """The verb that is called: the first word that is no option; "" if there is none. No option here takes a value."""
    return next((word for word in arguments if not word.startswith("-")), "")


def terminal_of(stream: IO[str], environment: Mapping[str, str] = os.environ) -> Terminal:
    """What can be printed to `stream`. NO_COLOR and TERM=dumb switch colours off; COLUMNS sets the width."""
    is_terminal = stream.isatty()
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot_id = file.read().strip()
    except (OSError, ValueError):
        boot_id = ""
    return Terminal(
        width=width_of(stream, environment) if is_terminal else None,
        colour=is_terminal and not environment.get("NO_COLOR") and environment.get("TERM", "dumb") != "dumb",
        unicode=encoding.startswith("utf"),
        now_usec=time.time_ns() // 1000,
        boot_id=boot_id,
    )


def run(options: argparse.Namespace) -> int:
    """Runs the verb, behind a pager where that is of use."""
    terminal = terminal_of(sys.stdout)
    pager = None
    if options.verb in PAGED and terminal.width is not None and not options.no_pager:
        from oomslice.cli.pager import Pager

        pager = Pager.start()
    try:
        code = options.run(options, terminal)
        sys.stdout.flush()
    finally:
        if pager is not None:
            pager.finish()
    return int(code)


def width_of(stream: IO[str], environment: Mapping[str, str]) -> int:
    """Columns of the terminal; shutil knows it too, and imports four compressors."""
    given = environment.get("COLUMNS", "")
    if given.isascii() and given.isdecimal() and int(given[:9]) > 0:
        return int(given[:9])
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one call and returns its exit code."""
    # Modules are all that most calls make, and there is no garbage in them to look for again and again.
    gc.set_threshold(GARBAGE_MIN)
    for stream in (sys.stdout, sys.stderr):
        # A name that the locale cannot show must not end the call with a traceback.
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        try:
            given = sys.argv[1:] if arguments is None else arguments
            options = build_parser(verb_of(given)).parse_args(given)
        except SystemExit:
            sys.stdout.flush()  # of --help, while a reader that has gone is still no error
            raise
        return run(options)
    except CommandFailure as failure:
        sys.stdout.flush()
        style = terminal_of(sys.stderr).style
        print(f"oomslicectl: {style('red', str(failure))}", file=sys.stderr)
        if failure.hint:
            print(failure.hint, file=sys.stderr)
        return int(failure.code)
    except BrokenPipeError:
        # The reader has seen enough (| head). Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.OK)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
