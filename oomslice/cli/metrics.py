# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl metrics: figures for Prometheus, as text, as a file, or over HTTP."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.text import Terminal
from oomslice.errors import BusError

if TYPE_CHECKING:
    from oomslice.metrics.exposition import Family

DESCRIPTION = """\
Writes figures in the text format of Prometheus: pressure, memory above the limit, decisions by unit, step, carrier and
outcome, and how long they took. Without a daemon it says that there is none (oomslice_up 0) and is no failure.

Over HTTP: systemctl enable --now oomslice-metrics.socket, then scrape localhost:9847/metrics. For the textfile
collector of node_exporter: systemctl enable --now oomslice-metrics-textfile.timer."""
EXAMPLES = """\
examples:
  oomslicectl metrics                  on the screen
  oomslicectl metrics -o /var/lib/prometheus/node-exporter/oomslice.prom
                                       for node_exporter; there as a whole or not at all"""

FIRST_DESCRIPTOR = 3
"""The first one that systemd hands over. Source: sd_listen_fds(3)."""
TIMEOUT_SEC = 5.0
"""For one answer of oomsliced: a scrape, of Prometheus by default, waits for ten seconds."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="-", help="where to write it (default: to the output)"
    )
    parser.add_argument("--serve", action="store_true", help="answer HTTP on the socket that systemd hands over")


def run(arguments: argparse.Namespace, terminal: Terminal) -> Exit:
    """Asks oomsliced and writes, or serves."""
    from oomslice.cli.ask import print_json
    from oomslice.metrics.exposition import exposition

    if arguments.serve:
        return serve()
    families = once()
    if arguments.json:
        print_json(
            [
                {"name": family.name + point.suffix, "labels": dict(point.labels), "value": point.value}
                for family in families
                for point in family.points
            ]
        )
    elif arguments.output == "-":
        print(exposition(families), end="")
    else:
        from oomslice.cli.report import write

        write(Path(arguments.output), exposition(families))
    return Exit.OK


def serve() -> Exit:
    """Until nobody has asked for a while. A scraper comes again and again: asyncio and dbus-next are worth it here."""
    import asyncio

    from oomslice.cli.ask import missing_module

    try:
        from oomslice.metrics.server import Server
    except ModuleNotFoundError as error:
        raise missing_module(error) from error

    async def served() -> None:
        await Server(text).run(handed_over())

    asyncio.run(served())
    return Exit.OK


def once() -> list[Family]:
    """All figures, asked for one after the other."""
    from oomslice.bus.asking import MESSAGE_MAX
    from oomslice.bus.question import Questioner
    from oomslice.cli.ask import QuickManager, answered
    from oomslice.metrics.gather import gather

    try:
        with Questioner(timeout=TIMEOUT_SEC, maximum_message=MESSAGE_MAX) as questioner:
            return answered(gather(QuickManager(questioner, TIMEOUT_SEC)))
    except BusError:
        return answered(gather(None))


async def text() -> str:
    """What a scrape gets."""
    from oomslice.metrics.exposition import exposition

    return exposition(await gathered())


async def gathered() -> list[Family]:
    """All figures."""
    from oomslice.bus.client import ManagerClient
    from oomslice.metrics.gather import gather

    try:
        async with ManagerClient(timeout=TIMEOUT_SEC) as manager:
            return await gather(manager)
    except BusError:
        return await gather(None)


def handed_over() -> socket.socket:
    """The listening socket. Raises CommandFailure."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        raise CommandFailure(
            "there is no socket to serve on", Exit.USAGE, "systemctl enable --now oomslice-metrics.socket"
        )
    return socket.socket(fileno=FIRST_DESCRIPTOR)
