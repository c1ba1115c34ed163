# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keeps decisions in one SQLite file: each exactly once, the newest of them, over restarts and power cuts.

A record is released from the ring only after `add` returned, so a decision that was not stored is offered again, and
one that was is known by its id. A damaged file is moved aside and a new one begun: history may be lost, the daemon
is not. All methods may be called from any thread; they wait for the disk, so a loop that must not wait calls them in
a thread.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from oomslice.decisions.history import History
from oomslice.decisions.record import Decision, Undo
from oomslice.decisions.statistics import Figures
from oomslice.errors import NoSuchDecisionError, StoreError
from oomslice.settings.model import Problem, Severity, Source

LOGGER = logging.getLogger(__name__)

SCHEMA_VERSION = 1
FILE_MODE = 0o640
BUSY_TIMEOUT_S = 5.0
MAXIMUM_BYTES = 64 << 20
"""Default bound of the file's content, whatever the number of decisions: one with 256 candidates takes about 25 kB."""
HISTORIES_MAX = 256
"""Of so many decisions, the newest, the figures around them are kept: some 10 kB each."""
INTEGER_MAX = (1 << 63) - 1
"""SQLite's integers are signed; D-Bus and the core send unsigned ones."""

SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE decisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    realtime_usec INTEGER NOT NULL,
    announced INTEGER NOT NULL DEFAULT 0,
    data TEXT NOT NULL
);
CREATE INDEX decisions_by_time ON decisions (realtime_usec, number);
CREATE INDEX decisions_unannounced ON decisions (number) WHERE announced = 0;
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
HISTORIES = "CREATE TABLE IF NOT EXISTS histories (id TEXT PRIMARY KEY, data BLOB NOT NULL)"
"""Made when it is not there: a store of before it had one stays what it is."""

Result = TypeVar("Result")
List = list
"""The type, for the methods of a class that has a method of that name."""


class _Unusable(Exception):
    """This file cannot be a store of this version; the text says why."""


class DecisionStore:
    """The decisions of this machine, newest first.

    `maximum` decisions are kept, and `maximum_bytes` of them; the oldest go first. Raises StoreError if the file can
    neither be opened nor made.
    """

    def __init__(self, path: Path, maximum: int, *, maximum_bytes: int = MAXIMUM_BYTES) -> None:
        if maximum < 1:
            raise ValueError("a store keeps at least one decision")
        self.path = Path(path)
        self.maximum = maximum
        self.maximum_bytes = maximum_bytes
        self._problems: list[Problem] = []
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        with self._lock:
            self._run(lambda connection: None)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What went wrong with the file since this store was opened: damaged files moved aside."""
        return tuple(self._problems)

    def add(self, decision: Decision) -> bool:
        """Stores a decision durably; False if one with this id is there. Raises StoreError: nothing was stored."""

        def insert(connection: sqlite3.Connection) -> bool:
            with _transaction(connection):
                return self._insert(connection, decision)

        return self._run(insert)

    def undo(self, undo: Undo) -> Decision | None:
        """Notes durably what of a decision was undone; the decision, or None if that changed nothing: it is known
        already, or the decision is no longer kept. Raises StoreError: nothing was noted."""

        def update(connection: sqlite3.Connection) -> Decision | None:
            with _transaction(connection):
                rows = connection.execute("SELECT data FROM decisions WHERE id = ?", (undo.decision,)).fetchall()
                for before in _decisions(rows):
                    after = before.undone(undo)
                    if after != before:
                        connection.execute("UPDATE decisions SET data = ? WHERE id = ?", (_data(after), after.id))
                        return after
                return None

        return self._run(update)

    def list(self, since_usec: int = 0, limit: int = 100) -> List[Decision]:
        """At most `limit` decisions whose realtime_usec is `since_usec` or later, newest first. Raises StoreError."""
        return self._select(
            "WHERE realtime_usec >= ? ORDER BY realtime_usec DESC, number DESC LIMIT ?",
            _integer(since_usec),
            _integer(limit),
        )

    def get(self, id: str) -> Decision:
        """The decision of this id. Raises NoSuchDecisionError, StoreError."""
        # D-Bus strings are valid UTF-8; callers of the library may pass what SQLite cannot encode.
        found = self._select("WHERE id = ?", id) if id.isprintable() else []
        if not found:
            raise NoSuchDecisionError(f"there is no decision {id!r}; `oomslicectl decisions` lists those that are kept")
        return found[0]

    def add_history(self, id: str, history: History) -> bool:
        """Stores the figures around a decision, in place of earlier ones; False if there is no such decision.

        Raises StoreError: nothing was stored.
        """
        data = history.thinned().to_bytes()

        def insert(connection: sqlite3.Connection) -> bool:
            with _transaction(connection):
                if not connection.execute("SELECT 1 FROM decisions WHERE id = ?", (id,)).fetchall():
                    return False
                connection.execute("INSERT OR REPLACE INTO histories VALUES (?, ?)", (id, data))
                connection.execute(
                    "DELETE FROM histories WHERE id NOT IN (SELECT decisions.id FROM decisions"
                    " JOIN histories USING (id) ORDER BY number DESC LIMIT ?)",
                    (HISTORIES_MAX,),
                )
                return True

        return self._run(insert)

    def history(self, id: str) -> History:
        """The figures around a decision; empty if none are kept. Raises NoSuchDecisionError, StoreError."""
        self.get(id)
        row = self._run(
            lambda connection: connection.execute("SELECT data FROM histories WHERE id = ?", (id,)).fetchone()
        )
        try:
            return History.from_bytes(row[0]) if row is not None else History()
        except (ValueError, TypeError) as error:
            LOGGER.warning("the figures around decision %s cannot be read: %s", id, error)
            return History()

    def figures(self, after: int, limit: int) -> List[Figures]:
        """What is counted of the oldest `limit` decisions stored after the one of that number. Raises StoreError."""
        rows = self._run(
            lambda connection: connection.execute(
                "SELECT number, data FROM decisions WHERE number > ? ORDER BY number LIMIT ?",
                (_integer(after), _integer(limit)),
            ).fetchall()
        )
        # Out of the lock: who stores a decision does not wait for who counts thousands.
        return [_figures(number, data) for number, data in rows]

    def count(self) -> int:
        """How many decisions are kept. Raises StoreError."""
        return self._run(lambda connection: int(connection.execute("SELECT count(*) FROM decisions").fetchone()[0]))

    def unannounced(self, limit: int = 1000) -> List[Decision]:
        """Decisions nobody was told of yet, oldest first. Raises StoreError."""
        return self._select("WHERE announced = 0 ORDER BY number LIMIT ?", _integer(limit))

    def announced(self, id: str) -> None:
        """Notes that the journal has this decision. Raises StoreError."""

        def update(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.execute("UPDATE decisions SET announced = 1 WHERE id = ?", (id,))

        self._run(update)

    def kernel_state(self, boot_id: str) -> dict[str, Any] | None:
        """What `kernel` noted in this boot, None if nothing. Raises StoreError."""
        text = self._run(
            lambda connection: connection.execute(
                "SELECT value FROM state WHERE key = ?", (f"kernel:{boot_id}",)
            ).fetchone()
        )
        if text is None:
            return None
        try:
            state = json.loads(text[0])
        except ValueError:
            return None
        return state if isinstance(state, dict) else None

    def add_kernel_kills(self, decisions: List[Decision], boot_id: str, state: dict[str, Any]) -> List[Decision]:
        """Stores decisions and notes how far the kernel's kills were read in this boot, both or neither.

        Returns those that were not there yet. Earlier boots' notes are forgotten. Raises StoreError.
        """
        value = json.dumps(state, separators=(",", ":"))

        def insert(connection: sqlite3.Connection) -> List[Decision]:
            with _transaction(connection):
                connection.execute("DELETE FROM state WHERE key LIKE 'kernel:%'")
                connection.execute("INSERT INTO state VALUES (?, ?)", (f"kernel:{boot_id}", value))
                return [decision for decision in decisions if self._insert(connection, decision)]

        return self._run(insert)

    def note(self, key: str) -> str:
        """What was noted under this key, "" if nothing. Raises StoreError."""
        row = self._run(
            lambda connection: connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        )
        return str(row[0]) if row is not None else ""

    def add_noted(self, decisions: List[Decision], key: str, value: str) -> List[Decision]:
        """Stores decisions and notes `value` under the key, both or neither; returns those that are new. Raises
        StoreError."""

        def insert(connection: sqlite3.Connection) -> List[Decision]:
            with _transaction(connection):
                connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))
                return [decision for decision in decisions if self._insert(connection, decision)]

        return self._run(insert)

    def next_kernel_sequence(self, boot_id: str) -> int:
        """The first kernel log sequence number of this boot that was not read yet, 0 at first. Raises StoreError."""
        state = self.kernel_state(boot_id) or {}
        sequence = state.get("next_sequence", 0)
        return sequence if isinstance(sequence, int) else 0

    def close(self) -> None:
        """Closes the file; a later call of another method opens it again."""
        with self._lock:
            self._close()

    def __enter__(self) -> DecisionStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # The rest is not public.

    def _select(self, condition: str, *values: int | str) -> List[Decision]:
        rows = self._run(
            lambda connection: connection.execute(f"SELECT data FROM decisions {condition}", values).fetchall()
        )
        # Out of the lock: who stores a decision does not wait for who reads thousands.
        return _decisions(rows)

    def _run(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Does it on an open connection; a file found damaged on the way is replaced once, and it is done again."""
        with self._lock:
            for attempt in (1, 2):
                try:
                    if self._connection is None:
                        self._connection = self._open()
                    return action(self._connection)
                except _Unusable as error:
                    self._move_aside(str(error))
                except sqlite3.OperationalError as error:
                    # Full, locked, read-only, gone: the file itself is good. Opened afresh next time.
                    self._close()
                    raise StoreError(f"{self.path}: {error}") from error
                except sqlite3.DatabaseError as error:
                    self._close()
                    if attempt == 2 or isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
                        raise StoreError(f"{self.path}: {error}") from error
                    self._move_aside(str(error))
                except OSError as error:
                    self._close()
                    raise StoreError(f"{self.path}: {error.strerror}") from error
            raise StoreError(f"{self.path}: cannot be replaced by a new store")

    def _open(self) -> sqlite3.Connection:
        # Made before SQLite sees it, so that it is never readable by others; -wal and -shm take its mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
            # A reader may set this trap: a file with triggers or views of its own is not ours.
            connection.execute("PRAGMA trusted_schema = OFF")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version == 0 and tables == 0:
                connection.executescript(SCHEMA)
            elif version != SCHEMA_VERSION:
                raise _Unusable(f"schema version {version} where {SCHEMA_VERSION} is known")
            # Touches the tables, so that a file with the right header and other content is found out now.
            connection.execute("SELECT id, realtime_usec, announced, data FROM decisions LIMIT 1").fetchone()
            connection.execute("SELECT key, value FROM state LIMIT 1").fetchone()
            connection.execute(HISTORIES)
        except sqlite3.OperationalError as error:
            connection.close()
            if "no such" in str(error) or "malformed" in str(error):
                raise _Unusable(str(error)) from error
            raise
        except BaseException:
            connection.close()
            raise
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _move_aside(self, reason: str) -> None:
        """One damaged file is kept for whoever wants to look at it, never more: the disk is bounded too."""
        self._close()
        aside = self.path.with_name(self.path.name + ".damaged")
        try:
            # With its logs, if SQLite left any: whoever looks at it wants all of it.
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.path.with_name(self.path.name + suffix), aside.with_name(aside.name + suffix))
        except OSError as error:
            raise StoreError(f"{self.path}: {reason}; and it cannot be moved aside: {error.strerror}") from error
        message = f"the decision store was unusable ({reason}); it was moved to {aside} and a new one begun"
        LOGGER.error("%s: %s", self.path, message)
        self._problems.append(Problem(Source(str(self.path), 0), "", "", "", message, Severity.ERROR))

    def _insert(self, connection: sqlite3.Connection, decision: Decision) -> bool:
        cursor = connection.execute(
            "INSERT OR IGNORE INTO decisions (id, realtime_usec, data) VALUES (?, ?, ?)",
            (decision.id, _integer(decision.realtime_usec), _data(decision)),
        )
        if cursor.rowcount == 1:
            self._trim(connection)
        return cursor.rowcount == 1

    def _trim(self, connection: sqlite3.Connection) -> None:
        # By age of the entry, not by its time: clocks jump.
        connection.execute(
            "DELETE FROM decisions WHERE number IN"
            " (SELECT number FROM decisions ORDER BY number DESC LIMIT -1 OFFSET ?)",
            (self.maximum,),
        )
        page_size = _pragma(connection, "page_size")
        if (_pragma(connection, "page_count") - _pragma(connection, "freelist_count")) * page_size > self.maximum_bytes:
            connection.execute(
                "DELETE FROM decisions WHERE number IN (SELECT number FROM decisions ORDER BY number LIMIT"
                " (SELECT min(count(*) - 1, count(*) / 16 + 1) FROM decisions))"
            )


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors (disk full among them).
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _data(decision: Decision) -> str:
    return json.dumps(decision.to_dict(), separators=(",", ":"), default=str)


def _decisions(rows: list[tuple[str]]) -> list[Decision]:
    decisions = []
    for (data,) in rows:
        try:
            decisions.append(Decision.from_dict(json.loads(data)))
        except (ValueError, TypeError, AttributeError):
            LOGGER.warning("a stored decision cannot be read: %.200r", data)
    return decisions


def _figures(number: int, data: str) -> Figures:
    """Of a record that cannot be read, that there was one."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError, TypeError):
        record = None
    if not isinstance(record, dict):
        record = {}
    unit, step, carrier, outcome = (str(record.get(name) or "") for name in ("victim", "step", "carrier", "outcome"))
    usecs = (
        value if isinstance(value := record.get(f"{name}_usec"), int) else 0
        for name in ("trigger", "signal", "death", "memory_back")
    )
    return Figures(number, unit, step, carrier, outcome, *usecs)


def _integer(value: int) -> int:
    return max(-INTEGER_MAX, min(value, INTEGER_MAX))
