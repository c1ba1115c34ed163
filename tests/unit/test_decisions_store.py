# SPDX-License-Identifier: LGPL-2.1-or-later
"""The decision store: exactly once, bounded, and never the reason that the daemon dies."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from oomslice.decisions.record import Candidate, Decision, StepTaken, Undo
from oomslice.decisions.store import SCHEMA_VERSION, DecisionStore
from oomslice.errors import NoSuchDecisionError, StoreError


def decision(number: int, **values: object) -> Decision:
    fields: dict[str, object] = {
        "id": f"ring-{number}",
        "boot_id": "boot",
        "carrier": "core",
        "trigger": "memory-available",
        "domain": "-.slice",
        "outcome": "freed",
        "realtime_usec": 1_000 * number,
    }
    return Decision(**{**fields, **values})  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "decisions.sqlite"


def test_a_decision_comes_back_as_it_was(path: Path) -> None:
    full = decision(
        1,
        pids=(4, 5),
        candidates=(Candidate("a.service", 7, -5, 1 << 63, "chosen"),),
        extra={"deep": {"list": [1, "x"]}},
        pressure_some_avg10=12.5,
        victim="ä\n.service",
    )
    with DecisionStore(path, 10) as store:
        assert store.add(full)
    with DecisionStore(path, 10) as store:
        assert store.get("ring-1") == full


def test_the_same_id_is_stored_once_and_the_first_stays(path: Path) -> None:
    with DecisionStore(path, 10) as store:
        assert store.add(decision(1, victim="first"))
        assert not store.add(decision(1, victim="second"))
        assert store.count() == 1
        assert store.get("ring-1").victim == "first"


def test_list_is_newest_first_from_a_time_on_and_limited(path: Path) -> None:
    with DecisionStore(path, 10) as store:
        for number in (3, 1, 2):
            store.add(decision(number))
        store.add(decision(9, realtime_usec=2000))
        assert [item.id for item in store.list(0, 10)] == ["ring-3", "ring-9", "ring-2", "ring-1"]
        assert [item.id for item in store.list(2000, 2)] == ["ring-3", "ring-9"]
        assert store.list((1 << 64) - 1, (1 << 32) - 1) == []
        assert len(store.list(0, (1 << 64) - 1)) == 4


FROZEN = decision(
    1, steps=(StepTaken("throttle", "done"), StepTaken("freeze", "done"), StepTaken("freeze", "failed", error=5))
)


def test_what_is_undone_is_noted_durably_and_once(path: Path) -> None:
    with DecisionStore(path, 10) as store:
        store.add(FROZEN)
        store.announced("ring-1")
        changed = store.undo(Undo("ring-2", "ring-1", 50, {"freeze": 0, "throttle": errno.EIO}))
        assert changed is not None and changed.id == "ring-1"
    with DecisionStore(path, 10) as store:
        steps = store.get("ring-1").steps
        assert [(step.undone_usec, step.undo_error) for step in steps] == [(0, errno.EIO), (50, 0), (0, 0)]
        assert [step.in_force for step in steps] == [True, False, False]
        assert store.undo(Undo("ring-2", "ring-1", 60, {"freeze": 0, "throttle": errno.EIO})) is None
        # Tried again, with success.
        assert store.undo(Undo("ring-3", "ring-1", 70, {"throttle": 0})) is not None
        assert [(step.undone_usec, step.undo_error) for step in store.get("ring-1").steps] == [(70, 0), (50, 0), (0, 0)]
        assert store.unannounced() == [], "who was told is not told again"
        assert store.undo(Undo("ring-3", "ring-9", 70, {"freeze": 0})) is None


def test_decisions_of_an_older_version_are_read(path: Path) -> None:
    with DecisionStore(path, 10) as store:
        store.add(decision(1))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (data,) = connection.execute("SELECT data FROM decisions").fetchone()
        values = json.loads(data)
        for name in ("steps", "kill_scope", "flags"):
            del values[name]
        values["of_a_newer_version"] = 1
        connection.execute("UPDATE decisions SET data = ?", (json.dumps(values),))
        connection.commit()
    with DecisionStore(path, 10) as store:
        assert store.get("ring-1") == decision(1)


def test_steps_of_a_newer_version_are_read() -> None:
    values = FROZEN.to_dict()
    values["steps"][0]["of_a_newer_version"] = 1
    assert Decision.from_dict(values) == FROZEN


@pytest.mark.parametrize("id", ["", "x", "ring-1' OR 1=1 --", "\udc80", "a\0b", "ring-1\n"])
def test_an_unknown_id_is_said_so(path: Path, id: str) -> None:
    with DecisionStore(path, 10) as store:
        store.add(decision(1))
        with pytest.raises(NoSuchDecisionError):
            store.get(id)


def test_the_oldest_go_when_there_are_too_many(path: Path) -> None:
    with DecisionStore(path, 5) as store:
        for number in range(12):
            store.add(decision(number))
        assert sorted(item.id for item in store.list(0, 100)) == sorted(f"ring-{number}" for number in range(7, 12))


def test_the_file_is_bounded_whatever_the_records_hold(path: Path) -> None:
    with DecisionStore(path, 10_000, maximum_bytes=1 << 20) as store:
        for number in range(400):
            assert store.add(decision(number, extra={"x": "y" * 10_000}))
        assert 50 < store.count() < 110
        assert store.list(0, 1)[0].id == "ring-399"
        store.close()
        assert path.stat().st_size < 2 << 20


def test_one_record_beyond_the_bound_is_kept_all_the_same(path: Path) -> None:
    with DecisionStore(path, 10, maximum_bytes=1) as store:
        assert store.add(decision(1)) and store.add(decision(2))
        assert [item.id for item in store.list(0, 10)] == ["ring-2"]


def test_unannounced_are_oldest_first_until_announced(path: Path) -> None:
    with DecisionStore(path, 10) as store:
        store.add(decision(2))
        store.add(decision(1))
        assert [item.id for item in store.unannounced()] == ["ring-2", "ring-1"]
        store.announced("ring-2")
        store.announced("no such")
    with DecisionStore(path, 10) as store:
        assert [item.id for item in store.unannounced()] == ["ring-1"]


def test_nobody_else_may_read_the_file(path: Path) -> None:
    before = os.umask(0)
    try:
        with DecisionStore(path, 10) as store:
            store.add(decision(1))
            for file in path.parent.iterdir():
                assert file.stat().st_mode & 0o777 == 0o640, file
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 100, b"SQLite format 3\0" + b"\xff" * 4080, os.urandom(20_000)],
    ids=["empty", "short", "header", "noise"],
)
def test_a_file_that_is_no_store_is_replaced(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with DecisionStore(path, 10) as store:
        assert store.add(decision(1))
        assert store.count() == 1
        if content:
            assert "moved to" in str(store.problems[0])
            assert path.with_name(path.name + ".damaged").read_bytes() == content
        else:
            assert store.problems == ()


def test_damage_that_is_met_later_is_replaced_too(path: Path) -> None:
    with DecisionStore(path, 1000) as store:
        for number in range(200):
            store.add(decision(number, extra={"x": "y" * 500}))
    data = bytearray(path.read_bytes())
    for offset in range(4096 * 3, len(data), 512):
        data[offset : offset + 200] = os.urandom(200)
    path.write_bytes(data)
    with DecisionStore(path, 1000) as store:
        for number in range(1000, 1100):
            assert store.add(decision(number))
        assert store.get("ring-1099").id == "ring-1099"
        assert len(store.list(1_000_000, 200)) == 100
        assert store.problems


def test_a_log_without_its_file_is_not_played_into_a_new_one(path: Path, tmp_path: Path) -> None:
    live = tmp_path / "live.sqlite"
    with DecisionStore(live, 10) as store:
        store.add(decision(99))
        shutil.copy(live.with_name(live.name + "-wal"), path.with_name(path.name + "-wal"))
    with DecisionStore(path, 10) as store:
        assert store.count() == 0 and store.add(decision(1))
        assert [item.id for item in store.list(0, 100)] == ["ring-1"]


def test_a_store_of_a_newer_version_is_kept_aside(path: Path) -> None:
    DecisionStore(path, 10).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with DecisionStore(path, 10) as store:
        assert store.add(decision(1))
        assert f"schema version {SCHEMA_VERSION + 1}" in str(store.problems[0])


def test_a_store_with_other_tables_is_kept_aside(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("CREATE TABLE decisions (x)")
    connection.close()
    with DecisionStore(path, 10) as store:
        assert store.add(decision(1)) and store.problems


def test_one_unreadable_record_does_not_hide_the_others(path: Path) -> None:
    with DecisionStore(path, 10) as store:
        store.add(decision(1))
        store.add(decision(2))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE decisions SET data = '[]' WHERE id = 'ring-1'")
    connection.close()
    with DecisionStore(path, 10) as store:
        assert [item.id for item in store.list(0, 10)] == ["ring-2"]


def test_a_full_disk_is_a_store_error_and_goes_by(path: Path) -> None:
    with DecisionStore(path, 1000) as store:
        store.add(decision(1))
        assert store._connection is not None
        store._connection.execute("PRAGMA max_page_count = 12")
        with pytest.raises(StoreError, match="full"):
            for number in range(2, 200):
                store.add(decision(number, extra={"x": "y" * 3000}))
        kept = store.count()
        # The connection is a new one, and the disk has room again.
        assert store.add(decision(500)) and store.count() == kept + 1
        assert store.problems == ()


def test_a_directory_that_is_not_there_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing/decisions\.sqlite: No such file"):
        DecisionStore(tmp_path / "missing" / "decisions.sqlite", 10)


def test_threads_may_share_a_store(path: Path) -> None:
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 30):
                store.add(decision(number))
                store.list(0, 5)
        except BaseException as error:
            failures.append(error)

    with DecisionStore(path, 1000) as store:
        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 15, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert store.count() == 75


def test_kernel_kills_and_how_far_they_were_read_are_stored_together(path: Path) -> None:
    with DecisionStore(path, 10) as store:
        assert store.kernel_state("boot") is None and store.next_kernel_sequence("boot") == 0
        first = decision(1)
        assert store.add_kernel_kills([first], "boot", {"next_sequence": 7}) == [first]
        assert store.add_kernel_kills([first, decision(2)], "boot", {"next_sequence": 9}) == [decision(2)]
        assert store.next_kernel_sequence("boot") == 9
        store.add_kernel_kills([], "other boot", {"next_sequence": 1})
        assert store.kernel_state("boot") is None


def test_kernel_state_is_not_noted_if_a_decision_cannot_be_stored(path: Path) -> None:
    with DecisionStore(path, 1000) as store:
        store.add_kernel_kills([], "boot", {"next_sequence": 1})
        assert store._connection is not None
        store._connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(StoreError, match="full"):
            store.add_kernel_kills([decision(1, extra={"x": "y" * 100_000})], "boot", {"next_sequence": 2})
        assert store.next_kernel_sequence("boot") == 1 and store.count() == 0
