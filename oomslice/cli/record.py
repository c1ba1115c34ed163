# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl record: memory, swap and pressure of this machine and its units over time, to a file."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Terminal, clean, plural, size

if TYPE_CHECKING:
    from oomslice.cgroups.tree import CgroupTree
    from oomslice.whatif.state import Frame, State

DESCRIPTION = """\
Writes a trace of this machine to FILE, until Ctrl-C or for --duration: MemAvailable, swap and stall, and the memory,
swap and stall of every unit, at an interval, with the settings in force. simulate and replay read it, on any machine.

One JSON object a line, compressed if FILE ends in .gz; FILE is - for the standard output. It holds names of units and
[X-OOMSlice] sections, and nothing else of unit files. The daemon is not needed."""
EXAMPLES = """\
examples:
  oomslicectl record night.jsonl.gz    every second until Ctrl-C
  oomslicectl record --interval 0.2 --duration 60 storm.jsonl
  systemd-run oomslicectl record --interval 5 --duration 86400 /var/tmp/day.jsonl.gz
                                       a day, in the background"""

INTERVAL_MIN = 0.05
SUFFIXES = (".slice", ".service", ".scope")
"""Of cgroups that are units, whosever."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("file", metavar="FILE", help="where to; - is the standard output")
    parser.add_argument(
        "--interval", metavar="SECONDS", type=seconds, default=1.0, help="between two looks (default: %(default)g)"
    )
    parser.add_argument("--duration", metavar="SECONDS", type=seconds, help="end after that (default: until Ctrl-C)")


def seconds(text: str) -> float:
    """The arguments of --interval and --duration."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not INTERVAL_MIN <= value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {INTERVAL_MIN:g} on")
    return value


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Writes until it is enough."""
    from oomslice.cli.ask import missing_module

    if arguments.json and arguments.file == "-":
        raise CommandFailure("the standard output has the trace already", Exit.USAGE, "Leave --json out.")
    try:
        return record(arguments)
    except ModuleNotFoundError as error:
        raise missing_module(error) from error


def record(arguments: argparse.Namespace) -> Exit:
    """Raises CommandFailure, ModuleNotFoundError."""
    from oomslice import __version__
    from oomslice.cgroups.tree import CgroupTree
    from oomslice.cli.ask import print_json
    from oomslice.errors import OomsliceError
    from oomslice.whatif.trace import Header, TraceError, Writer, open_for_writing

    tree = CgroupTree()
    try:
        tree.check()
        looks = Looks(tree)
        frame = looks.next()
        stream = open_for_writing(arguments.file)
    except TraceError as error:
        raise CommandFailure(clean(str(error)), Exit.FAILED) from error
    except OomsliceError as error:
        raise CommandFailure(clean(str(error)), Exit.FAILED, "oomslicectl doctor says what is missing.") from error
    interval = round(arguments.interval * 1e6)
    header = Header(__version__, os.uname().release, time.time_ns() // 1000, interval)
    count = 0
    end = time.monotonic() + arguments.duration if arguments.duration else None
    try:
        with stream, contextlib.suppress(KeyboardInterrupt):
            writer = Writer(stream, header)
            due = time.monotonic()
            while end is None or due < end:
                writer.add(frame)
                count += 1
                # What was missed is left out: a machine that is short of memory has no time to make it up.
                due = max(due + arguments.interval, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))
                frame = looks.next()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandFailure(f"{clean(arguments.file)}: {error.strerror or error}", Exit.FAILED) from error
    if arguments.json:
        print_json({"file": arguments.file, "frames": count})
    elif arguments.file != "-":
        written = size(os.path.getsize(arguments.file))
        print(f"{clean(arguments.file)}: {plural(count, 'moment')}, {written}.", file=sys.stderr)
    return Exit.OK


class Looks:
    """Frames of this machine, one after the other."""

    def __init__(self, tree: CgroupTree) -> None:
        self._tree = tree
        self._state: State | None = None
        self._names: dict[int, str] = {}

    def next(self) -> Frame:
        """Figures of now, with a new state if cgroups have come or gone. Raises UnitsError (the first), CgroupError."""
        from oomslice.cli.systemd import snapshot
        from oomslice.errors import UnitsError
        from oomslice.whatif.present import read_figures, read_state
        from oomslice.whatif.state import Frame

        names = {id: name for id, name in self._tree.names().items() if name.endswith(SUFFIXES)}
        if self._state is None or names != self._names:
            try:
                self._state = read_state(snapshot(), self._tree)
                self._names = names
            except UnitsError:
                # systemd may be too busy to say; then those that are known go on.
                if self._state is None:
                    raise
        return Frame(self._state, read_figures([*self._state.cgroups, *self._state.user_cgroups], self._tree))
