# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl restore: brings back the processes that a decision wrote to disk."""

from __future__ import annotations

import argparse
import errno
import os

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Terminal, clean

DESCRIPTION = """\
Restores the processes that the step checkpoint of a decision wrote to disk with CRIU, into a transient service
UNIT-restored.service in the slice where the unit was. For root. The dump is kept; the settings of the old unit are
not those of the new one."""
EXAMPLES = """\
examples:
  oomslicectl restore 5f3a09c2e4b1d786-4
  oomslicectl restore --directory /srv/dumps 5f3a09c2e4b1d786-4
                                       where the unit has Actions=... checkpoint:/srv/dumps"""

DIRECTORY = "/var/lib/oomslice-checkpoints"
"""As in actions/checkpoint.py, which is too much to import for a --help."""
CODES = {errno.ENOPKG: Exit.NOT_INSTALLED, errno.EPERM: Exit.NO_PERMISSION}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "--directory", metavar="DIR", default=DIRECTORY, help="where the dump is (default: %(default)s)"
    )
    parser.add_argument("id", metavar="DECISION", help="id of the decision, as oomslicectl decisions lists it")


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Restores and says where it runs."""
    from dataclasses import asdict

    from oomslice.actions.restore import RestoreError, restore
    from oomslice.cli.ask import print_json

    if os.geteuid() != 0:
        raise CommandFailure("only root may restore processes", Exit.NO_PERMISSION, "Try again as root.")
    try:
        restored = restore(arguments.id, arguments.directory)
    except RestoreError as error:
        raise CommandFailure(clean(str(error)), CODES.get(error.error, Exit.FAILED), error.hint) from error
    if arguments.json:
        print_json(asdict(restored))
    else:
        print(f"{clean(restored.was)} runs again as {clean(restored.unit)}, main process {restored.pid}.")
        print(f"The dump is of no more use once it has run on: rm -r {clean(restored.directory)}")
    return Exit.OK
