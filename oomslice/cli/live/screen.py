# SPDX-License-Identifier: LGPL-2.1-or-later
"""The screen of `oomslicectl top`: curses on the alternate screen, keys, resizes and a look every few seconds.

One event loop does all of it, so keys work while the daemon is silent. Whatever ends it, the terminal is as it was. The
first picture is drawn without the loop, which is imported only then.
"""

from __future__ import annotations

import contextlib
import curses
import locale
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.live.figures import Limits, Order, Picture, Reader, picture
from oomslice.cli.live.view import Line, View, frame
from oomslice.cli.text import Terminal
from oomslice.errors import OomsliceError

if TYPE_CHECKING:
    import asyncio

Ask = Callable[[str], Awaitable[Order]]
"""Domain -> the order now. Raises OomsliceError."""

KEY_NAMES = {
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_PPAGE: "pgup",
    curses.KEY_NPAGE: "pgdn",
    curses.KEY_HOME: "home",
    curses.KEY_END: "end",
}
COLOURS = {
    "red": curses.COLOR_RED,
    "green": curses.COLOR_GREEN,
    "yellow": curses.COLOR_YELLOW,
    "blue": curses.COLOR_BLUE,
}
ESCAPE_MSEC = 25
PATIENCE_S = 5.0
"""How long the daemon may take to answer; the figures of the machine do not wait for it."""


SIGNALS = frozenset({signal.SIGWINCH, signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""What ends it or is about the size of the terminal."""


class Screen:
    """One run of top, to be used in `with`: there from the first picture on. `first` is the daemon's first answer."""

    def __init__(self, reader: Reader, limits: Limits, view: View, terminal: Terminal, first: Order) -> None:
        self._ask: Ask
        self._reader = reader
        self._limits = limits
        self._view = view
        self._terminal = terminal
        self._order = first
        self._complaint = ""
        self._shown: Picture | None = None
        self._wake: asyncio.Event
        self._ended = False
        self._window: curses.window
        self._attributes: dict[str, int] = {}

    def __enter__(self) -> Screen:
        """Draws the first picture. Raises CommandFailure."""
        # Kept for the loop, which will know what to do; curses would take the first one for itself and tell nobody.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            signal.signal(signal.SIGWINCH, lambda number, stack: None)
            self._start()
            try:
                self._shown = self._picture()
                self._draw()
            except BaseException:
                self._stop()
                raise
        except BaseException:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    async def run(self, ask: Ask) -> Exit:
        """Until the user has seen enough. `ask` gets the order."""
        import asyncio

        self._ask = ask
        self._wake = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._resized)
        for number in SIGNALS - {signal.SIGWINCH}:
            loop.add_signal_handler(number, self._end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        loop.add_reader(sys.stdin.fileno(), self._keys)
        asking: asyncio.Task[None] | None = None
        try:
            while not self._ended:
                if not self._view.paused:
                    if asking is None or asking.done():
                        asking = asyncio.create_task(self._look())
                    await asyncio.wait([asking], timeout=min(1.0, self._view.interval))
                    self._shown = self._picture()
                self._draw()
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), None if self._view.paused else self._view.interval)
        finally:
            if asking is not None:
                asking.cancel()
            loop.remove_reader(sys.stdin.fileno())
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the terminal is as it was
        return Exit.OK

    async def _look(self) -> None:
        import asyncio

        try:
            async with asyncio.timeout(PATIENCE_S):
                self._order = await self._ask(self._view.domain or self._order.domain)
            self._complaint = ""
        except (OomsliceError, TimeoutError) as error:
            said = str(error) or f"no answer within {PATIENCE_S:g} s"
            self._complaint = f"The order is an old one: {said}"

    def _picture(self) -> Picture:
        return picture(self._reader, self._order, self._limits, time.time_ns() // 1000, self._complaint)

    # The terminal

    def _start(self) -> None:
        locale.setlocale(locale.LC_ALL, "")
        os.environ.setdefault("ESCDELAY", str(ESCAPE_MSEC))
        try:
            self._window = curses.initscr()
        except curses.error as error:
            raise CommandFailure(
                f"this terminal cannot be drawn on: {error}", Exit.FAILED, "oomslicectl top --once prints a table."
            ) from error
        curses.noecho()
        curses.cbreak()
        self._window.keypad(True)
        self._window.nodelay(True)
        with contextlib.suppress(curses.error):  # some terminals cannot hide it
            curses.curs_set(0)
        self._attributes = {"bold": curses.A_BOLD, "dim": curses.A_DIM, "reverse": curses.A_REVERSE}
        if self._terminal.colour and curses.has_colors():
            curses.start_color()
            curses.use_default_colors()
            for number, (name, colour) in enumerate(COLOURS.items(), 1):
                curses.init_pair(number, colour, -1)
                self._attributes[name] = curses.color_pair(number)
        else:
            self._attributes["red"] = curses.A_BOLD

    def _stop(self) -> None:
        self._window.keypad(False)
        curses.nocbreak()
        curses.echo()
        with contextlib.suppress(curses.error):
            curses.curs_set(1)
        curses.endwin()

    def _draw(self) -> None:
        if self._shown is None:
            return
        height, width = self._window.getmaxyx()
        self._window.erase()
        for number, line in enumerate(frame(self._shown, self._view, width, height, self._terminal)):
            self._draw_line(number, line)
        self._window.refresh()

    def _draw_line(self, number: int, line: Line) -> None:
        column = 0
        for style, text in line:
            with contextlib.suppress(curses.error):  # the last cell: written, but the cursor cannot go on
                self._window.addstr(number, column, text, self._attributes.get(style, 0))
            column = self._window.getyx()[1]

    # Events, in the loop

    def _keys(self) -> None:
        while True:
            try:
                code = self._window.getch()
            except KeyboardInterrupt:
                self._end()
                return
            if code == -1:
                break
            self._key(KEY_NAMES.get(code) or (chr(code) if 32 <= code < 127 else ""))
        if _hung_up():
            self._end()

    def _key(self, key: str) -> None:
        height, width = self._window.getmaxyx()
        page = max(1, height - (6 if width >= 120 else 9))
        match self._view.key(key, page, self._order.domains):
            case "quit":
                self._end()
            case "look":
                self._wake.set()
            case _ if key:
                self._draw()

    def _resized(self) -> None:
        with contextlib.suppress(OSError):
            columns, lines = os.get_terminal_size(sys.stdout.fileno())
            curses.resizeterm(lines, columns)
            self._window.clear()
            self._draw()

    def _end(self) -> None:
        self._ended = True
        self._wake.set()


def _hung_up() -> bool:
    """Whether the terminal is gone: then its descriptor is readable for ever, with nothing in it."""
    import select

    poll = select.poll()
    poll.register(sys.stdin.fileno(), 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def terminal_for(terminal: Terminal, name: str) -> Terminal:
    """Line drawing only where it can be expected: a VT220 on a serial line has none in UTF-8."""
    return terminal._replace(unicode=terminal.unicode and not name.startswith("vt"))
