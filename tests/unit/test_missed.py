# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kills by systemd-oomd that nobody heard of are found in the journal: each once, whatever was heard or read before."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from oomslice.carriers.oomd import OomdCarrier
from oomslice.daemon import missed
from oomslice.daemon.missed import STATE_KEY, JournalError, MissedKills
from oomslice.decisions.oomd import OomdKills
from oomslice.decisions.oomdlog import SAME_USEC, parse, unrecorded
from oomslice.decisions.record import Decision
from oomslice.decisions.store import DecisionStore
from tests.unit.test_decisions_oomd import BOOT, NOW, plan

PRESSED = (
    "/batch.slice/job.service due to memory pressure for /batch.slice being 7.95% > 5.00% for > 1s"
    " with reclaim activity"
)
USED = "due to memory used (30) / total (33) and swap used (21) / total (21) being more than 90.00%"

JOURNALCTL = """
import json, sys
entries = [json.loads(line) for line in open({journal!r})]
options = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
assert options["_SYSTEMD_UNIT"] == "systemd-oomd.service", sys.argv
after = options.get("--after-cursor")
if after == "damaged":
    sys.exit("Failed to seek to cursor: Invalid argument")
if after is None:
    assert "--boot" in sys.argv
    entries = [entry for entry in entries if entry["_BOOT_ID"] == {boot!r}]
else:
    entries = [entry for entry in entries if entry["__CURSOR"] > after]
with open({journal!r} + ".asked", "a") as asked:
    asked.write(json.dumps([after, len(entries)]) + "\\n")
for entry in entries[: int(options["--lines"])]:
    print(json.dumps(entry))
"""
"""A journalctl that knows what we ask."""


def entry(number: int, message: Any, *, boot: str = BOOT, second: int | None = None) -> dict[str, Any]:
    """The entry of that number, which is that many seconds after NOW unless told."""
    second = number if second is None else second
    return {
        "MESSAGE": message,
        "__CURSOR": f"c{number:06}",
        "_BOOT_ID": boot,
        "__REALTIME_TIMESTAMP": str(NOW + second * 1_000_000),
        "__MONOTONIC_TIMESTAMP": str(1_000_000_000 + second * 1_000_000),
    }


def heard(kills: OomdKills, cgroup: str, second: float) -> Decision:
    """What was recorded when systemd-oomd said so."""
    return kills.decision(cgroup, "memory-used", int(NOW + second * 1e6), int(1e9 + second * 1e6))


class Journal:
    """A store, a journal, and what looks into both."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "journal"
        self.script = folder / "journalctl.py"
        self.script.write_text(JOURNALCTL.format(journal=str(self.file), boot=BOOT), encoding="utf-8")
        self.store = DecisionStore(folder / "store", 100)
        self.kills = OomdKills(BOOT)
        self.made: list[int] = []
        self.problems: list[str] = []
        self.write([])

    def write(self, entries: Sequence[dict[str, Any]]) -> None:
        self.file.write_text("".join(json.dumps(one) + "\n" for one in entries), encoding="utf-8")

    def asked(self) -> list[list[Any]]:
        """Of every question so far, after which cursor it was and how many entries there were."""
        return [json.loads(line) for line in Path(f"{self.file}.asked").read_text().splitlines()]

    def looker(self, *command: str) -> MissedKills:
        return MissedKills(
            self.kills,
            self.store,
            lambda decision: decision,
            self.made.append,
            self.problems.append,
            command or (sys.executable, str(self.script)),
        )

    def look(self, *command: str) -> None:
        asyncio.run(self.looker(*command).once())

    def victims(self) -> list[str]:
        return [decision.victim for decision in reversed(self.store.list())]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path)
    yield made
    made.store.close()


def test_entries_of_all_versions_are_understood_and_others_are_not() -> None:
    lines = [
        entry(1, f"Killed {PRESSED}"),
        entry(2, "Marked /a.slice/b c.service for killing " + USED),
        entry(3, "Killed /d.service due to something new"),
        entry(4, "Considered 2 cgroups for killing, top candidates were:"),
        entry(5, "Failed to kill any cgroup(s) based on swap: No data available"),
        entry(6, f"x\nKilled {PRESSED}"),
        entry(7, [75, 105]),
        entry(8, None),
    ]
    page = parse("".join(json.dumps(line) + "\n" for line in lines).encode() + b"no entry\n{}\n" + b'{"cut": "off')
    assert [(told.cgroup, told.reason, told.under) for told in page.kills] == [
        ("/batch.slice/job.service", "memory-pressure", "/batch.slice"),
        ("/a.slice/b c.service", "memory-used", ""),
        ("/d.service", "something new", ""),
    ]
    assert page.kills[0].realtime_usec == NOW + 1_000_000 and page.kills[0].usec == 1_001_000_000
    assert (page.cursor, page.entries) == ("c000008", 10)


def test_each_decision_stands_for_one_kill_of_its_cgroup() -> None:
    kills = OomdKills(BOOT)
    told = parse("".join(json.dumps(entry(n, f"Killed /a.service {USED}")) + "\n" for n in (1, 20, 40)).encode()).kills
    assert unrecorded(told, []) == list(told)
    assert unrecorded(told, [heard(kills, "/a.service", 20.5)]) != list(told)
    left = unrecorded(told, [heard(kills, "/a.service", 1.5), heard(kills, "/a.service", 40.5)])
    assert [one.usec for one in left] == [1_020_000_000]
    assert unrecorded(told[:1], [heard(kills, "/b.service", 1)]) == list(told[:1])
    late = heard(kills, "/a.service", 1 + SAME_USEC / 1e6 + 1)
    assert unrecorded(told[:1], [late]) == list(told[:1])
    elsewhere = OomdKills("e" * 32)
    assert unrecorded(told[:1], [heard(elsewhere, "/a.service", 1)]) == list(told[:1])


def test_a_kill_that_nobody_heard_of_is_a_decision_like_the_others(journal: Journal) -> None:
    journal.kills.follow(plan("/batch.slice", "/batch.slice/job.service", priority=-200))
    journal.write([entry(1, f"Killed {PRESSED}")])
    journal.look()
    (made,) = journal.store.list()
    assert (made.carrier, made.trigger, made.outcome) == ("systemd-oomd", "oomd", "killed-by-oomd")
    assert (made.victim, made.domain, made.victim_priority) == ("job.service", "batch.slice", -200)
    assert (made.realtime_usec, made.trigger_usec, made.boot_id) == (NOW + 1_000_000, 1_001_000_000, BOOT)
    # The unit of that place in this plan may be another one by now.
    assert made.victim_cgroup_id == 0
    assert made.extra == {"cgroup": "/batch.slice/job.service", "reason": "memory-pressure", "source": "journal"}
    assert journal.made == [1]


def test_nothing_is_read_or_recorded_twice(journal: Journal) -> None:
    first = [entry(1, f"Killed /a.service {USED}"), entry(2, "Considered 1 cgroups for killing, top candidates were:")]
    journal.write(first)
    journal.look()
    journal.look()
    journal.write([*first, entry(3, f"Killed /b.service {USED}")])
    journal.look()
    assert journal.victims() == ["a.service", "b.service"]
    assert journal.asked() == [[None, 2], ["c000002", 0], ["c000002", 1]]
    # Read, and not noted how far: the id is the same.
    journal.store.add_noted([], STATE_KEY, "")
    journal.look()
    assert journal.victims() == ["a.service", "b.service"]


def test_what_was_heard_is_not_recorded_again(journal: Journal) -> None:
    journal.store.add(heard(journal.kills, "/a.service", 1.2))
    journal.write([entry(1, f"Killed /a.service {USED}"), entry(30, f"Killed /a.service {USED}")])
    journal.look()
    assert [one.extra.get("source") for one in reversed(journal.store.list())] == [None, "journal"]


def test_what_the_journal_told_first_is_not_heard_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    carrier = OomdCarrier(BOOT, lambda: True, journal.store.add)
    journal.kills = carrier.kills
    journal.write([entry(1, f"Killed /a.service {USED}")])
    journal.look()
    monkeypatch.setattr("time.monotonic_ns", lambda: 1_002_000_000_000)
    carrier.heard("/b.service", "memory-used")
    carrier.heard("/a.service", "memory-used")
    assert journal.victims() == ["a.service", "b.service"] or journal.victims() == ["b.service", "a.service"]
    carrier.heard("/a.service", "memory-used")  # the second one is another kill
    assert journal.store.count() == 3


def test_kills_of_an_earlier_boot_are_found_after_where_was_read_then(journal: Journal) -> None:
    old = "0" * 32
    journal.write([entry(1, f"Killed /never.service {USED}", boot=old)])
    journal.look()
    assert journal.victims() == []  # from before there was an oomslice
    journal.write([entry(n, f"Killed /s{n}.service {USED}", boot=old if n < 5 else BOOT) for n in (2, 3, 5)])
    journal.store.add_noted([], STATE_KEY, "c000002")
    journal.look()
    assert journal.victims() == ["s3.service", "s5.service"]
    assert journal.store.list()[1].boot_id == old


def test_a_long_journal_is_read_in_pieces(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed, "PAGE", 10)
    journal.write([entry(n, f"Killed /s{n}.service {USED}") for n in range(1, 26)])
    journal.look()
    assert len(journal.victims()) == 25 and journal.made == [10, 10, 5]
    monkeypatch.setattr(missed, "PAGES_MAX", 2)
    journal.write([entry(n, f"Killed /s{n}.service {USED}") for n in range(26, 60)])
    journal.look()
    assert len(journal.victims()) == 45
    journal.look()
    assert len(journal.victims()) == 59


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("/nonexistent/journalctl",), "No such file or directory"),
        (
            (sys.executable, "-c", "import sys; sys.exit('No journal files were opened')"),
            "No journal files were opened",
        ),
        ((sys.executable, "-c", "import time; time.sleep(60)"), "no answer within"),
    ],
)
def test_a_journal_that_cannot_be_read_is_said(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setattr(missed, "TIMEOUT_SEC", 0.5)
    with pytest.raises(JournalError, match=reason):
        journal.look(*command)
    assert journal.victims() == []


def test_a_journal_in_which_nothing_is_found_is_none_that_cannot_be_read(journal: Journal) -> None:
    journal.look(sys.executable, "-c", "import sys; sys.exit(1)")
    with pytest.raises(JournalError, match="ended with 2"):
        journal.look(sys.executable, "-c", "import sys; sys.exit(2)")


def test_a_cursor_that_is_none_is_forgotten(journal: Journal) -> None:
    journal.store.add_noted([], STATE_KEY, "damaged")
    journal.write([entry(1, f"Killed /a.service {USED}")])
    journal.look()
    assert journal.victims() == ["a.service"] and journal.store.note(STATE_KEY) == "c000001"


def test_a_journal_without_end_is_cut_off(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed, "OUTPUT_MAX", 10_000)
    monkeypatch.setattr(missed, "PAGES_MAX", 3)
    journal.look(sys.executable, "-c", f"while True: print({json.dumps(json.dumps(entry(1, 'x')))})")
    assert journal.store.note(STATE_KEY) == "c000001"


def test_it_looks_when_it_is_asked_to_and_says_how_that_went(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed, "SETTLE_SEC", 0.0)
    journal.write([entry(1, f"Killed /a.service {USED}")])

    async def main() -> None:
        looker = journal.looker()
        running = asyncio.create_task(looker.run())
        await asyncio.sleep(0.05)
        assert journal.problems == []
        looker.look()
        async with asyncio.timeout(20):
            while not journal.problems:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
    assert journal.problems == [""] and journal.victims() == ["a.service"]


def test_the_carrier_says_what_is_lost() -> None:
    carrier = OomdCarrier(BOOT, lambda: True, lambda decision: True)
    assert "from the journal" in carrier.state().detail
    carrier.missed(2)
    carrier.journal_error = "the journal cannot be read: why"
    state = carrier.state()
    assert (state.active, state.hits, state.last_error) == (True, 2, "the journal cannot be read: why")
    assert "lost when nobody listens" in state.detail
