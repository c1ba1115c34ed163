# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hears the same as listener.py for whoever waits for nothing else: `oomslicectl monitor`, which is to be there before
asyncio and dbus-next would be imported."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from oomslice.bus.asking import MESSAGE_MAX
from oomslice.bus.errors import InvalidArgumentsError, NotRunningError
from oomslice.bus.events import BUS, MATCHES, Ear, Event
from oomslice.bus.interface import BUS_NAME
from oomslice.bus.question import CONNECT_TIMEOUT_S, Heard, Questioner


class QuickListener:
    """For `with`. Raises BusUnreachableError; a daemon that does not run is no error, it may come."""

    def __init__(self, address: str | None = None) -> None:
        self._questioner = Questioner(address, maximum_message=MESSAGE_MAX)
        self._questioner.on_signal = self._heard
        self._ear = Ear()
        self._events: deque[Event] = deque()
        self.unreadable = 0
        """signals of the daemon that could not be read"""

    @property
    def running(self) -> bool:
        """Whether there is a daemon now."""
        return bool(self._ear.owner)

    def __enter__(self) -> QuickListener:
        self._questioner.__enter__()
        try:
            for match in MATCHES:
                self._questioner.call(*BUS, "AddMatch", "s", (match,), timeout=CONNECT_TIMEOUT_S)
            try:
                owner = self._questioner.call(*BUS, "GetNameOwner", "s", (BUS_NAME,), timeout=CONNECT_TIMEOUT_S)
                self._ear.owner = str(owner[0])
            except NotRunningError:
                self._ear.owner = ""
        except BaseException:
            self._questioner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._questioner.close()

    def next(self) -> Event:
        """The next event. Raises BusUnreachableError when the bus has gone and all that came before was taken."""
        while not self._events:
            self._questioner.wait()
        return self._events.popleft()

    def _heard(self, message: Heard) -> None:
        try:
            self._events += self._ear.hear(message)
        except (InvalidArgumentsError, ValueError):
            self.unreadable += 1
