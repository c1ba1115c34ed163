# SPDX-License-Identifier: LGPL-2.1-or-later
"""What oomsliced tells systemd: one datagram per message, as in sd_notify(3). Never raises: a manager that does not
listen is no reason to stop."""

from __future__ import annotations

import asyncio
import os
import socket
import time


def notify(*assignments: str) -> bool:
    """Sends e.g. "READY=1"; False if there is nobody to tell or it could not be sent."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.sendto("\n".join(assignments).encode(), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT, address)
        except OSError:
            return False
    return True


def notify_reloading() -> bool:
    """The start of a reload for Type=notify-reload (systemd.service(5)): needs the monotonic time in microseconds."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


async def watchdog() -> None:
    """Pings at half of WatchdogSec= for as long as the event loop turns; returns at once if there is no watchdog."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isdigit() or int(usec) == 0 or pid != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(int(usec) / 2_000_000)
