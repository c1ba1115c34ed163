# SPDX-License-Identifier: LGPL-2.1-or-later
"""Looks up in the journal whom systemd-oomd killed while nobody listened to it: oomsliced was not there, or the bus.

journalctl is asked when the bus can be heard again, and a while after each kill that was heard, so that the next look
begins behind that. Work and output are bounded, and nothing here is waited for by anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from oomslice.decisions.oomd import CARRIER, OomdKills
from oomslice.decisions.oomdlog import SAME_USEC, UNIT, Page, Told, parse, unrecorded
from oomslice.decisions.record import Decision
from oomslice.decisions.store import DecisionStore
from oomslice.errors import StoreError

log = logging.getLogger("oomsliced")

JOURNALCTL = ("journalctl", "--quiet", "--no-pager", "--output=json", "--output-fields=MESSAGE", "--priority=info")
PAGE = 2000
"""Entries in one question."""
PAGES_MAX = 10
OUTPUT_MAX = 4 << 20
TIMEOUT_SEC = 30.0
SETTLE_SEC = 5.0
"""After a kill was heard: its entry is in the journal by then."""
STATE_KEY = "oomd-journal"
DECISIONS_MAX = 10_000


class JournalError(Exception):
    """The journal cannot be read; the text says why."""


class MissedKills:
    """`run` it as long as the daemon runs. `prepared` finishes a decision before it is stored, `made` is called after
    new ones were, with their number, `problem` with why the journal cannot be read, "" if it can."""

    def __init__(
        self,
        kills: OomdKills,
        store: DecisionStore,
        prepared: Callable[[Decision], Decision],
        made: Callable[[int], None],
        problem: Callable[[str], None],
        command: Sequence[str] = JOURNALCTL,
    ) -> None:
        self._kills = kills
        self._store = store
        self._prepared = prepared
        self._made = made
        self._problem = problem
        self._command = tuple(command)
        self._wanted = asyncio.Event()

    def look(self) -> None:
        """A look is due, now or a little later."""
        self._wanted.set()

    async def run(self) -> None:
        """Looks whenever it is due, until it is cancelled."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(SETTLE_SEC)
            self._wanted.clear()
            try:
                await self.once()
                self._problem("")
            except (JournalError, StoreError) as error:
                self._problem(str(error))

    async def once(self) -> None:
        """One look: everything since the last one, or in this boot. Raises JournalError, StoreError."""
        cursor = await asyncio.to_thread(self._store.note, STATE_KEY)
        for _ in range(PAGES_MAX):
            page, more = await self._page(cursor)
            if not page.cursor:
                return
            cursor = page.cursor
            told = await asyncio.to_thread(self._unrecorded, page.kills)
            decisions = [self._prepared(self._kills.missed(one)) for one in told]
            new = await asyncio.to_thread(self._store.add_noted, decisions, STATE_KEY, cursor)
            if new:
                log.info("systemd-oomd killed %d times while nobody listened", len(new))
                self._made(len(new))
            if not more:
                return

    def _unrecorded(self, kills: Sequence[Told]) -> Sequence[Told]:
        if not kills:
            return ()
        since = min(kill.realtime_usec for kill in kills) - 10 * SAME_USEC
        recorded = [one for one in self._store.list(since, DECISIONS_MAX) if one.carrier == CARRIER]
        return unrecorded(kills, recorded)

    async def _page(self, cursor: str) -> tuple[Page, bool]:
        """What comes next, and whether there may be more. Raises JournalError."""
        begin = f"--after-cursor={cursor}" if cursor else "--boot"
        command = (*self._command, f"--lines={PAGE}", begin, f"_SYSTEMD_UNIT={UNIT}")
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=OUTPUT_MAX,
            )
        except OSError as error:
            raise JournalError(f"the journal cannot be read: {command[0]}: {error.strerror}") from error
        assert process.stdout is not None and process.stderr is not None
        output, errors = bytearray(), bytearray()
        saying = asyncio.ensure_future(_read(process.stderr, errors, 4096))
        try:
            async with asyncio.timeout(TIMEOUT_SEC):
                await _read(process.stdout, output, OUTPUT_MAX)
                if len(output) < OUTPUT_MAX:
                    await saying
                    await process.wait()
        except TimeoutError as error:
            raise JournalError(f"the journal cannot be read: no answer within {TIMEOUT_SEC:g} s") from error
        finally:
            saying.cancel()
            await asyncio.gather(saying, return_exceptions=True)
            await _end(process)
        # Some programs of this kind end with 1 when they found nothing; then they say nothing either.
        if process.returncode and not output and (errors or process.returncode != 1):
            said = errors.decode(errors="replace").strip().splitlines()
            reason = said[0] if said else f"{command[0]} ended with {process.returncode}"
            if cursor:
                return await self._page("")  # it may be damaged, or that of a journal of another kind
            raise JournalError(f"the journal cannot be read: {reason}")
        page = parse(bytes(output))
        return page, page.entries >= PAGE or len(output) >= OUTPUT_MAX


async def _read(stream: asyncio.StreamReader, into: bytearray, maximum: int) -> None:
    """All of it, or what of it may be kept."""
    while len(into) < maximum and (data := await stream.read(min(1 << 16, maximum - len(into)))):
        into += data


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends it. What it has still to say is thrown away: asyncio waits for the end of that as well."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    for stream in (process.stdout, process.stderr):
        while stream is not None and await stream.read(1 << 16):
            pass
    await process.wait()
