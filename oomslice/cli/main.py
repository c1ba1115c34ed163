# SPDX-License-Identifier: LGPL-2.1-or-later
"""The entry point of oomslicectl: options, dispatch to a verb, exit code.

Nothing but argparse is imported before the verb is known, so that --help and errors come at once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol, cast

from oomslice.cli import decisions, explain, restore, show, slices, status, verify
from oomslice.cli.failure import EXIT_CODES, CommandFailure, Exit
from oomslice.cli.text import Terminal

DESCRIPTION = """\
Asks oomslice who pays when this machine runs out of memory, and who paid.

Priorities and actions are set in unit files: see oomslice.unit(5)."""

EPILOG = """\
examples:
  oomslicectl status                   is this machine looked after?
  oomslicectl explain                  who would be chosen now, and why?
  oomslicectl show                     what was done the last time, and how fast?
  oomslicectl verify                   is what I wrote into unit files right?

oomslicectl VERB --help says more. Manual pages: oomslicectl(1), oomslice(7)."""


class Verb(Protocol):
    """What each verb's module offers."""

    NAME: str
    HELP: str
    DESCRIPTION: str
    EXAMPLES: str

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Its options and arguments."""

    def run(self, arguments: argparse.Namespace, terminal: Terminal) -> Exit:
        """Does it."""


VERBS: tuple[Verb, ...] = tuple(
    cast(Verb, verb) for verb in (status, slices, decisions, show, explain, verify, restore)
)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


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


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
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
    for verb in VERBS:
        own = verbs.add_parser(
            verb.NAME,
            help=verb.HELP,
            description=verb.DESCRIPTION,
            epilog=verb.EXAMPLES,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        own.add_argument("--json", action="store_true", help="exact values as JSON, for programs")
        verb.add_options(own)
        own.set_defaults(run=verb.run)
    return parser


def terminal_of(stream: IO[str], environment: Mapping[str, str] = os.environ) -> Terminal:
    """What can be printed to `stream`. NO_COLOR and TERM=dumb switch colours off; COLUMNS sets the width."""
    is_terminal = stream.isatty()
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        boot_id = ""
    return Terminal(
        width=shutil.get_terminal_size().columns if is_terminal else None,
        colour=is_terminal and not environment.get("NO_COLOR") and environment.get("TERM", "dumb") != "dumb",
        unicode=encoding.startswith("utf"),
        now_usec=time.time_ns() // 1000,
        boot_id=boot_id,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one call and returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the locale cannot show must not end the call with a traceback.
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        try:
            options = build_parser().parse_args(arguments)
        except SystemExit:
            sys.stdout.flush()  # of --help, while a reader that has gone is still no error
            raise
        code = options.run(options, terminal_of(sys.stdout))
        sys.stdout.flush()
        return int(code)
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
