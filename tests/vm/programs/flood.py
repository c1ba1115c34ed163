# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls org.oomslice1 as often as the bus lets it, over several connections at once, until it is killed.

`flood.py COUNTERS [ADDRESS]`: the n-th connection keeps in the file COUNTERS.n how many calls it has made and how many
answers and refusals it got. Half of the calls want no answer, so that nothing but the bus holds them up. Runs with the
installed package, as anybody.
"""

from __future__ import annotations

import os
import selectors
import struct
import sys

from oomslice.bus.question import Questioner, _encoded

MANAGER = ("org.oomslice1", "/org/oomslice1", "org.oomslice1.Manager")
PING = ("org.oomslice1", "/", "org.freedesktop.DBus.Peer", "Ping")
ALL = ("org.oomslice1", "/org/oomslice1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
NO_REPLY_EXPECTED = 1
CONNECTIONS = 4
SERIAL = 7
"""The bus looks at no serial that comes from a client."""


def pieces() -> list[tuple[bytes, int]]:
    """What is sent again and again, and how many calls are in each piece."""
    silent = _encoded(PING, "", (), NO_REPLY_EXPECTED, SERIAL) * 60
    asking = _encoded(PING, "", (), 0, SERIAL) * 57
    heavy = b"".join(_encoded(to, "", (), 0, SERIAL) for to in ((*MANAGER, "Explain"), (*MANAGER, "ListSlices"), ALL))
    return [(silent, 60), (asking + heavy, 60)]


class Flooder:
    """One connection."""

    def __init__(self, address: str | None, counter: str) -> None:
        questioner = Questioner(address).__enter__()
        assert questioner._socket is not None
        self.socket = questioner._socket
        self.socket.setblocking(False)
        self.counter = counter
        self.made = self.answered = self.refused = 0
        self._pieces = pieces()
        self._waiting = b""
        self._calls = 0
        self._read = b""

    def write(self) -> None:
        """As much as the bus takes; a call counts when its last byte is gone."""
        while True:
            if not self._waiting:
                self.made += self._calls
                self._waiting, self._calls = self._pieces[0]
                self._pieces.reverse()
            try:
                self._waiting = self._waiting[self.socket.send(self._waiting) :]
            except BlockingIOError:
                return

    def read(self) -> None:
        """What came back, counted."""
        try:
            self._read += self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        at = 0
        while len(self._read) - at >= 16:
            body, _, fields = struct.unpack_from("<III", self._read, at + 4)
            size = 16 + (fields + 7) // 8 * 8 + body
            if len(self._read) - at < size:
                break
            if self._read[at + 1] == 2:
                self.answered += 1
            elif self._read[at + 1] == 3:
                self.refused += 1
            at += size
        self._read = self._read[at:]

    def note(self) -> None:
        """Writes the counts, whole or not at all."""
        with open(f"{self.counter}.new", "w") as file:
            file.write(f"{self.made} {self.answered} {self.refused}\n")
        os.rename(f"{self.counter}.new", self.counter)


def main() -> None:
    """Until somebody ends it."""
    address = sys.argv[2] if len(sys.argv) > 2 else None
    selector = selectors.DefaultSelector()
    for number in range(CONNECTIONS):
        flooder = Flooder(address, f"{sys.argv[1]}.{number}")
        selector.register(flooder.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, flooder)
    while True:
        for key, events in selector.select():
            if events & selectors.EVENT_READ:
                key.data.read()
            if events & selectors.EVENT_WRITE:
                key.data.write()
                key.data.note()


if __name__ == "__main__":
    main()
