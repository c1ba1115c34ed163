# SPDX-License-Identifier: LGPL-2.1-or-later
"""Brings a message to a user: `oomslice-tell-owner ID`. Terminals that do not want messages (mesg n) get none."""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import oomslice
from oomslice.errors import OomsliceError
from oomslice.owner.words import Message, message, printable

TERMINALS_MAX = 32
NOTIFY_SEC = 10
USERS_FROM = 1000
"""Smaller numbers are the system's own: nobody sits there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status: 0 also if there was nobody to be told."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) != 1:
        print("usage: oomslice-tell-owner DECISION", file=sys.stderr)
        return 2
    try:
        decision = asyncio.run(_decision(words[0]))
    except OomsliceError as error:
        print(f"oomslice-tell-owner: {error}", file=sys.stderr)
        return 1
    user = decision.extra.get("owner")
    said = message(decision)
    if not isinstance(user, int) or user < USERS_FROM or said is None:
        return 0
    told = tell_terminals(user, said)
    print(f"user {user} was told on {told} terminals" + (" and by a notification" if notify(user, said) else ""))
    return 0


async def _decision(id: str) -> oomslice.Decision:
    async with oomslice.Client() as client:
        return await client.decision(id)


def tell_terminals(user: int, said: Message, devices: Path = Path("/dev")) -> int:
    """Writes to all terminals of that user that take messages; returns how many did."""
    text = "\r\n" + "".join(f"{printable(line)}\r\n" for line in said) + "\a"
    told = 0
    for path in sorted((*devices.glob("pts/[0-9]*"), *devices.glob("tty[0-9]*"))):
        if told >= TERMINALS_MAX:
            break
        with contextlib.suppress(OSError):
            # Never as a controlling terminal of ours, and never waiting for one that is stopped.
            descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                if stat.S_ISCHR(status.st_mode) and status.st_uid == user and status.st_mode & stat.S_IWGRP:
                    os.write(descriptor, text.encode())
                    told += 1
            finally:
                os.close(descriptor)
    return told


def notify(user: int, said: Message, runtime: Path = Path("/run/user")) -> bool:
    """As a notification on the desktop of that user, as himself. False if he has none."""
    bus = runtime / str(user) / "bus"
    try:
        if not stat.S_ISSOCK(bus.lstat().st_mode):
            return False
        group = pwd.getpwuid(user).pw_gid
        # The body may be marked up, so what is in it must not be.
        body = html.escape(printable(said.body), quote=False)
        ended = subprocess.run(
            [
                # A program may have a name that begins like an option.
                *("busctl", f"--address=unix:path={bus}", f"--timeout={NOTIFY_SEC}", "--quiet", "--", "call"),
                *("org.freedesktop.Notifications", "/org/freedesktop/Notifications", "org.freedesktop.Notifications"),
                *("Notify", "susssasa{sv}i", "oomslice", "0", "dialog-warning", printable(said.summary), body),
                *("0", "0", "-1"),
            ],
            user=user,
            group=group,
            extra_groups=[],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=2 * NOTIFY_SEC,
            check=False,
        )
    except (OSError, KeyError, subprocess.SubprocessError):
        return False
    return ended.returncode == 0
