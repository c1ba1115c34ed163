# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the journal gets, against a socket that plays journald."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice.decisions import journal
from oomslice.decisions.journal import MESSAGES, SEALS, JournalSender
from oomslice.decisions.record import Decision, StepTaken, Undo
from oomslice.decisions.sentence import duration, sentence, size, step_text
from oomslice.decisions.words import AGREEMENTS

CATALOG = Path(__file__).parents[2] / "units" / "oomslice.catalog"

KILL = Decision(
    id="ab-1",
    boot_id="boot",
    carrier="core",
    trigger="memory-available",
    domain="-.slice",
    outcome="freed",
    realtime_usec=1,
    trigger_usec=1_000_000,
    signal_usec=1_000_100,
    memory_back_usec=1_045_200,
    victim="hog.service",
    victim_priority=-200,
    victim_memory_before=642_056_192,
    bytes_freed=600 << 20,
    processes=1,
    memory_total=2 << 30,
    memory_available=85_144_371,
    memory_available_limit=85_899_345,
)


LADDER = dataclasses.replace(
    KILL,
    steps=(
        StepTaken("warn", "done", begin_usec=1_000_000, end_usec=1_000_000),
        StepTaken("purge", "failed", "/run/cache", error=errno.ENOENT, begin_usec=1_000_000, end_usec=1_000_100),
        StepTaken("reclaim", "done", "", 64 << 20, 0, 1_000_000, 1_500_000, 600 << 20, 590 << 20),
        StepTaken("freeze", "done", begin_usec=3_000_000, end_usec=3_000_010, memory_before=5, memory_after=5),
        StepTaken("kill", "done", begin_usec=6_000_000, end_usec=6_100_000, memory_before=600 << 20),
    ),
)


class Journald:
    """Reads what journald would."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)

    def read(self) -> dict[str, str]:
        data, rights, _, _ = socket.recv_fds(self.socket, 1 << 20, 1)
        if rights:
            assert not data
            assert fcntl.fcntl(rights[0], fcntl.F_GET_SEALS) == SEALS
            with os.fdopen(rights[0], "rb") as file:
                file.seek(0)
                data = file.read()
        return parse(data)


def parse(data: bytes) -> dict[str, str]:
    """The native protocol, read independently of its writer."""
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            name, length = line, int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[8 + length :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        fields[name.decode()] = value.decode()
        data = rest
    return fields


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    daemon = Journald(tmp_path / "socket")
    yield daemon
    daemon.socket.close()


def test_an_entry_has_message_id_priority_and_fields(journald: Journald) -> None:
    sender = JournalSender(journald.path)
    assert sender.send(KILL)
    entry = journald.read()
    assert entry["MESSAGE"] == (
        "oomslice killed hog.service (priority -200, 612.3 MiB, 1 process): MemAvailable 81.2 MiB at or below the limit"
        " of 81.9 MiB (4.0% of 2.0 GiB), no swap; 600.0 MiB back after 45 ms"
    )
    assert entry["MESSAGE_ID"] == journal.MESSAGE_KILLED
    assert entry["PRIORITY"] == "4" and entry["SYSLOG_IDENTIFIER"] == "oomsliced"
    assert entry["OOMSLICE_DECISION"] == "ab-1"
    assert entry["OOMSLICE_VICTIM"] == entry["OBJECT_SYSTEMD_UNIT"] == "hog.service"
    assert entry["OOMSLICE_DOMAIN"] == "-.slice" and entry["OOMSLICE_VICTIM_PRIORITY"] == "-200"
    assert Decision.from_dict(json.loads(entry["OOMSLICE_JSON"])) == KILL
    assert sender.dropped == 0


def test_without_a_victim_there_are_no_victim_fields(journald: Journald) -> None:
    JournalSender(journald.path).send(dataclasses.replace(KILL, outcome="no-candidate", victim=""))
    entry = journald.read()
    assert not [name for name in entry if "VICTIM" in name or name.startswith("OBJECT_")]
    assert entry["MESSAGE"].startswith("oomslice found nobody to kill: MemAvailable") and entry["PRIORITY"] == "3"


def test_a_value_with_newlines_is_carried_whole(journald: Journald) -> None:
    JournalSender(journald.path).send_fields([("A", "1\nPRIORITY=0\n"), ("B", "2=3")])
    assert journald.read() == {"A": "1\nPRIORITY=0\n", "B": "2=3"}


def test_text_that_is_no_unicode_is_mended(journald: Journald) -> None:
    assert JournalSender(journald.path).send_fields([("A", "x\udcffy")])
    assert journald.read() == {"A": "x?y"}


def test_a_large_entry_goes_as_a_sealed_memfd(journald: Journald) -> None:
    text = "x" * 4_000_000
    assert JournalSender(journald.path).send_fields([("MESSAGE", text)])
    assert journald.read() == {"MESSAGE": text}


def test_a_stuck_journal_makes_nobody_wait_and_is_counted(journald: Journald) -> None:
    sender = JournalSender(journald.path)
    results = [sender.send(KILL) for _ in range(400)]
    assert results[0] and not results[-1]
    assert sender.dropped == results.count(False)
    while sender.dropped and not results[-1]:
        journald.read()
        results.append(sender.send(KILL))
    assert results[-1]


def test_a_journal_that_is_not_there_or_restarts(tmp_path: Path) -> None:
    sender = JournalSender(str(tmp_path / "socket"))
    assert not sender.send(KILL) and sender.dropped == 1
    first = Journald(tmp_path / "socket")
    assert sender.send(KILL)
    first.socket.close()
    (tmp_path / "socket").unlink()
    second = Journald(tmp_path / "socket")
    assert sender.send(KILL)
    assert second.read()["OOMSLICE_DECISION"] == "ab-1"
    sender.close()
    assert sender.send(KILL)
    second.socket.close()


def test_the_catalog_explains_exactly_our_message_ids() -> None:
    ids = re.findall(r"^-- ([0-9a-f]{32})$", CATALOG.read_text(), re.MULTILINE)
    constants = [getattr(journal, name) for name in vars(journal) if name.startswith("MESSAGE_")]
    assert sorted(ids) == sorted(constants) == sorted(set(ids))
    used = {message_id for message_id, _ in MESSAGES.values()} | {journal.MESSAGE_STEP, journal.MESSAGE_CARRIER}
    assert used == set(ids)


def test_the_catalog_uses_only_fields_that_entries_have() -> None:
    _, *texts = re.split(r"^-- ([0-9a-f]{32})$", CATALOG.read_text(), flags=re.MULTILINE)
    of_unit = {f"OOMSLICE_{name}" for name in ("DECISION", "DOMAIN", "OUTCOME", "STEP", "VICTIM")}
    for message_id, text in zip(texts[::2], texts[1::2], strict=True):
        names = set(re.findall(r"@(\w+)@", text))
        if message_id == journal.MESSAGE_CARRIER:
            assert names <= {name for name, _ in journal.carrier_fields("core", True, "armed", "")}
            continue
        # Each is written by oomsliced and, for the unit that it is about, by oomslice-actions.
        assert names <= of_unit
        own = journal.steps_fields(LADDER)[0] if message_id == journal.MESSAGE_STEP else journal.decision_fields(LADDER)
        assert names <= {name for name, _ in own}


def test_the_catalog_says_how_to_see_whether_the_kernel_went_by_the_plan() -> None:
    _, _, text = CATALOG.read_text().partition(f"-- {journal.MESSAGE_KERNEL}\n")
    text, _, _ = text.partition("\n-- ")
    for word in ("oom_score_adj", "OOMSLICE_AGREEMENT=", "oomslicectl show @OOMSLICE_DECISION@", *AGREEMENTS):
        assert word in text, word


def test_the_catalog_is_taken_by_journalctl(tmp_path: Path) -> None:
    if shutil.which("journalctl") is None:
        pytest.skip("journalctl is not installed")
    directory = tmp_path / "usr/lib/systemd/catalog"
    directory.mkdir(parents=True)
    shutil.copy(CATALOG, directory)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    root = f"--root={tmp_path}"
    subprocess.run(["journalctl", root, "--update-catalog"], check=True, capture_output=True)
    listed = subprocess.run(["journalctl", root, "--list-catalog"], check=True, capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == len({message_id for message_id, _ in MESSAGES.values()}) + 2
    assert f"{journal.MESSAGE_KERNEL} oomslice: The kernel killed processes of" in listed


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"outcome": "deadline", "bytes_freed": 0}, "its memory was not back by the deadline (0 B freed)"),
        (
            {"outcome": "dry-run"},
            "oomslice would have killed hog.service (priority -200, 612.3 MiB, 1 process), but only",
        ),
        (
            {"outcome": "failed", "error": 1},
            "oomslice failed to kill hog.service (priority -200, 612.3 MiB, 1 process): ",
        ),
        ({"outcome": "gone"}, "oomslice chose hog.service, which was gone before the kill"),
        ({"outcome": "refused"}, "left it alone"),
        ({"outcome": "interrupted", "signal_usec": 0}, "died before it acted"),
        (
            {"outcome": "interrupted"},
            "oomslice killed hog.service (priority -200, 612.3 MiB, 1 process), and oomslice-core",
        ),
        ({"outcome": "new-one"}, "oomslice chose hog.service (new-one)"),
        (
            {"swap_total": 1 << 30, "swap_free": 1024, "swap_free_limit": 2048},
            "free swap 1.0 KiB at or below the limit",
        ),
        (
            {"trigger": "pressure", "domain": "batch.slice", "pressure": "some 150ms/1s", "pressure_some_avg10": 1.5},
            " for batch.slice: memory pressure reached some 150ms/1s; avg10 some 1.50%, full 0.00%; 600.0 MiB back",
        ),
        ({"trigger": "thrash", "pressure": "full 400ms/1s"}, "the machine stalled (full 400ms/1s; avg10"),
        (
            {
                "carrier": "kernel",
                "trigger": "kernel-oom",
                "outcome": "killed-by-kernel",
                "domain": "batch.slice",
                "processes": 2,
                "extra": {"task": "hog", "constraint": "CONSTRAINT_MEMCG"},
            },
            "The kernel killed 2 processes (hog, 612.3 MiB) in hog.service for batch.slice: its memory limit was",
        ),
        (
            {"carrier": "kernel", "trigger": "kernel-oom", "outcome": "killed-by-kernel"},
            "The kernel killed a process (612.3 MiB) in hog.service: out of memory",
        ),
        (
            {
                "carrier": "kernel",
                "trigger": "kernel-oom",
                "outcome": "killed-by-kernel",
                "domain": "hog.service",
                "victim_memory_before": 0,
                "extra": {"task": "hog"},
            },
            "The kernel killed hog in hog.service: out of memory",
        ),
    ],
)
def test_sentences(values: dict[str, object], text: str) -> None:
    made = dataclasses.replace(KILL, **values)  # type: ignore[arg-type]
    assert text in sentence(made)
    assert "\n" not in sentence(made)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "oomslice killed hog.service (priority -200, 612.3 MiB, 1 process) after warn, reclaim and freeze: Mem"),
        ({"outcome": "kept", "victim_memory_after": 5 << 20}, "; 5.0 MiB are still charged to it, as files on a tmpfs"),
        ({"outcome": "freed", "step": "terminate", "steps": LADDER.steps[:1]}, "oomslice terminated hog.service"),
        (
            {"outcome": "held", "steps": LADDER.steps[:4]},
            "froze hog.service (priority -200, 612.3 MiB, 1 process) after",
        ),
        ({"outcome": "held", "steps": LADDER.steps[:4]}, " after warn and reclaim and holds it: MemAvailable"),
        (
            {"outcome": "relieved", "steps": LADDER.steps[:4]},
            "oomslice did not have to kill hog.service (priority -200, 612.3 MiB, 1 process), by warn, reclaim and",
        ),
        ({"outcome": "relieved"}, "; that was over after 45 ms"),
        (
            {"outcome": "dry-run"},
            "would have climbed the ladder of hog.service (priority -200, 612.3 MiB, 1 process), warn,",
        ),
        (
            {"outcome": "failed", "error": 5, "steps": LADDER.steps[:4]},
            "oomslice failed to freeze hog.service (priority",
        ),
        (
            {"outcome": "interrupted", "signal_usec": 0, "steps": LADDER.steps[:4]},
            "oomslice began with warn, reclaim and freeze of hog.service (priority -200, 612.3 MiB, 1 process), and",
        ),
        ({"flags": ("restarting",)}, "612.3 MiB, 1 process, started anew again and again)"),
        ({"flags": ("watchdog",)}, "; its deciding thread was stuck, and the watchdog acted"),
        ({"kill_scope": "subtree"}, "1 process, with all units below it)"),
        ({"trigger": "memory-low"}, ": MemAvailable 81.2 MiB at or below the limit"),
    ],
)
def test_sentences_of_ladders(values: dict[str, object], text: str) -> None:
    made = dataclasses.replace(LADDER, **values)  # type: ignore[arg-type]
    assert text in sentence(made)
    assert "\n" not in sentence(made)


def test_the_steps_of_a_ladder_are_one_readable_field(journald: Journald) -> None:
    assert JournalSender(journald.path).send(dataclasses.replace(LADDER, flags=("restarting", "watchdog")))
    entry = journald.read()
    assert entry["OOMSLICE_STEPS"] == (
        "warn done, purge /run/cache failed: No such file or directory, reclaim 64.0 MiB done (10.0 MiB less),"
        " freeze done, kill done"
    )
    assert (entry["OOMSLICE_FLAGS"], entry["OOMSLICE_KILL_SCOPE"]) == ("restarting watchdog", "unit")
    assert Decision.from_dict(json.loads(entry["OOMSLICE_JSON"])).steps == LADDER.steps


def test_each_step_of_a_ladder_has_an_entry_after_that_of_the_decision(journald: Journald) -> None:
    assert JournalSender(journald.path).send(LADDER)
    assert journald.read()["MESSAGE_ID"] == journal.MESSAGE_KILLED
    entries = [journald.read() for _ in LADDER.steps]
    assert {entry["MESSAGE_ID"] for entry in entries} == {journal.MESSAGE_STEP}
    assert {entry["OOMSLICE_VICTIM"] for entry in entries} == {"hog.service"}
    assert [entry["OOMSLICE_STEP"] for entry in entries] == ["warn", "purge", "reclaim", "freeze", "kill"]
    assert [entry["PRIORITY"] for entry in entries] == ["5", "4", "5", "5", "5"]
    purge = entries[1]
    assert (purge["OOMSLICE_STEP_RESULT"], purge["OOMSLICE_STEP_ARGUMENT"]) == ("failed", "/run/cache")
    assert entries[3]["MESSAGE"] == "hog.service: freeze done, 2000 ms after the trigger (step 4 of 5)"
    assert journal.steps_fields(dataclasses.replace(KILL, steps=(StepTaken("kill", "done"),))) == []


def test_a_step_that_the_journal_does_not_take_has_the_decision_told_again(journald: Journald) -> None:
    sender = JournalSender(journald.path)
    taken: list[object] = []

    def full_after_two(fields: object) -> bool:
        taken.append(fields)
        return len(taken) < 3

    sender.send_fields = full_after_two  # type: ignore[method-assign, assignment]
    assert sender.send(LADDER) is False
    assert len(taken) == 3


def test_a_carrier_that_goes_is_a_warning_and_one_that_comes_is_not(journald: Journald) -> None:
    sender = JournalSender(journald.path)
    assert sender.send_carrier("core", False, "oomslice-core is not running", "plan 3: bad checksum")
    entry = journald.read()
    assert entry["MESSAGE"] == "Carrier core cannot act: oomslice-core is not running"
    assert (entry["MESSAGE_ID"], entry["PRIORITY"]) == (journal.MESSAGE_CARRIER, "4")
    assert (entry["OOMSLICE_CARRIER_ACTIVE"], entry["OOMSLICE_CARRIER_ERROR"]) == ("no", "plan 3: bad checksum")
    assert sender.send_carrier("core", True, "armed", "")
    entry = journald.read()
    assert entry["PRIORITY"] == "6"
    assert "OOMSLICE_CARRIER_ERROR" not in entry


def test_the_amount_of_a_throttle_is_the_limit_it_set_or_the_percent_it_was_given() -> None:
    assert step_text(StepTaken("throttle", "done", amount=210 << 20)) == "throttle 210.0 MiB done"
    unavailable = StepTaken("throttle", "unavailable", amount=80, error=errno.ENOENT)
    assert step_text(unavailable) == "throttle 80% unavailable: No such file or directory"


def test_what_is_undone_is_told_with_the_fields_of_the_decision(journald: Journald) -> None:
    undo = Undo("ab-2", "ab-1", 15_300_000, {"freeze": 0})
    decision = LADDER.undone(undo)
    assert JournalSender(journald.path).send_undo(decision, undo)
    entry = journald.read()
    assert entry["MESSAGE"] == "hog.service is thawed after 12.3 s: the machine is calm"
    assert entry["MESSAGE_ID"] == journal.MESSAGE_UNDONE and entry["OOMSLICE_DECISION"] == "ab-1"
    assert "freeze done (frozen 12.3 s, thawed)" in entry["OOMSLICE_STEPS"]


def test_what_could_not_be_undone_is_said_so(journald: Journald) -> None:
    undo = Undo("ab-2", "ab-1", 15_300_000, {"freeze": errno.EIO})
    assert JournalSender(journald.path).send_undo(LADDER.undone(undo), undo)
    assert journald.read()["MESSAGE"].startswith("hog.service could not be undone (freeze: Input/output error)")


def test_sizes_and_durations_are_for_people() -> None:
    assert [size(count) for count in (0, 1023, 1024, 5 << 30, 3 << 40, 5 << 50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 GiB",
        "3.0 TiB",
        "5120.0 TiB",
    ]
    assert [duration(usec) for usec in (5, 45_200, 12_345_678)] == ["5 µs", "45 ms", "12.3 s"]
