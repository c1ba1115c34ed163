# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was done to a unit, told in that unit's journal: asked for by oomsliced, written by oomslice-actions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice.actions import tell
from oomslice.actions.checks import CheckError
from oomslice.actions.client import ActionsClient
from oomslice.actions.messages import ActionAnswer, ActionRequest
from oomslice.daemon.tell import LINES_MAX, UnitJournal
from oomslice.decisions import journal
from oomslice.decisions.record import Decision, Undo
from tests.unit.test_actions_service import Running
from tests.unit.test_journal import KILL, LADDER, Journald

REQUEST = ActionRequest(
    1, "tell", decision="ab-1", unit="hog.service", text="what was done", outcome="freed", step="kill"
)


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journald]:
    daemon = Journald(tmp_path / "journal")
    monkeypatch.setattr(tell, "SOCKET_PATH", daemon.path)
    yield daemon
    daemon.socket.close()


def test_a_line_is_for_the_unit_and_has_the_message_of_its_outcome(journald: Journald) -> None:
    assert tell.tell(REQUEST) == ("done", 0, "")
    entry = journald.read()
    assert entry["OBJECT_SYSTEMD_UNIT"] == entry["OOMSLICE_VICTIM"] == "hog.service"
    assert (entry["MESSAGE"], entry["MESSAGE_ID"], entry["PRIORITY"]) == ("what was done", journal.MESSAGE_KILLED, "4")
    assert tell.tell(REQUEST._replace(outcome="step", step="freeze", unit="getty@tty1.service")) == ("done", 0, "")
    assert journald.read()["MESSAGE_ID"] == journal.MESSAGE_STEP


@pytest.mark.parametrize("unit", ["", "hog", "x.service\nPRIORITY=0", "template@.service", "../x.service"])
def test_what_is_no_unit_is_told_nothing(journald: Journald, unit: str) -> None:
    with pytest.raises(CheckError):
        tell.tell(REQUEST._replace(unit=unit))


def test_there_are_no_other_messages(journald: Journald) -> None:
    with pytest.raises(CheckError):
        tell.tell(REQUEST._replace(outcome="fc2e22bc6ee647b6b90729ab34a250b1"))


def test_without_a_journal_the_line_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tell, "SOCKET_PATH", str(tmp_path / "nosuch"))
    assert tell.tell(REQUEST)[0] == "unavailable"


def test_the_service_writes_it(tmp_path: Path) -> None:
    daemon = Journald(tmp_path / "journal")
    running = Running(tmp_path, patch=f"from oomslice.actions import tell; tell.SOCKET_PATH = {daemon.path!r}")
    try:
        assert running.ask(kind="tell", text="a line", outcome="undone", decision="ab-1").result == "done"
        assert daemon.read()["MESSAGE"] == "a line"
        assert running.ask(kind="tell", text="a line", outcome="nonsense").result == "failed"
    finally:
        running.process.kill()
        running.process.wait()
        daemon.socket.close()


class Actions(ActionsClient):
    """Keeps what it is asked, and answers the same to all."""

    def __init__(self, result: str = "done") -> None:
        super().__init__()
        self.asked: list[ActionRequest] = []
        self.result = result

    async def ask(self, request: ActionRequest) -> ActionAnswer:
        self.asked.append(request)
        await asyncio.sleep(0)
        return ActionAnswer(request.number, self.result)


def told(actions: Actions, *decisions: Decision, undo: Undo | None = None) -> list[ActionRequest]:
    """What is asked for these decisions."""

    async def main() -> None:
        units = UnitJournal(actions)
        for decision in decisions:
            if undo is not None:
                units.undone(decision, undo)
            else:
                units.decision(decision)
        while units._tasks:
            await asyncio.sleep(0)

    asyncio.run(main())
    return actions.asked


def test_a_kill_is_one_line_and_a_ladder_one_for_each_step() -> None:
    (line,) = told(Actions(), KILL)
    assert (line.kind, line.unit, line.outcome, line.decision) == ("tell", "hog.service", "freed", "ab-1")
    assert line.text.startswith("oomslice killed hog.service")
    lines = told(Actions(), LADDER)
    assert [line.outcome for line in lines] == ["step"] * 5 + ["freed"]
    assert [line.step for line in lines[:5]] == ["warn", "purge", "reclaim", "freeze", "kill"]


def test_what_is_undone_is_told_and_nothing_without_a_victim() -> None:
    (line,) = told(Actions(), LADDER, undo=Undo("ab-2", "ab-1", 15_300_000, {"freeze": 0}))
    assert line.outcome == "undone"
    assert told(Actions(), Decision("x-1", "b", "core", "pressure", "-.slice", "no-candidate", 1)) == []


def test_what_is_undone_is_told_after_what_was_done() -> None:
    actions = Actions()

    async def main() -> None:
        units = UnitJournal(actions)
        units.decision(LADDER)
        units.undone(LADDER, Undo("ab-2", "ab-1", 15_300_000, {"freeze": 0}))
        while units._tasks:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert [line.outcome for line in actions.asked][-2:] == ["freed", "undone"]


def test_nobody_writes_it_before_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oomslice.daemon.tell.ROOM_SEC", 0)
    actions = Actions()
    looks = iter([False, False, True, True])
    asked_before = []

    def has_room() -> bool:
        asked_before.append(len(actions.asked))
        return next(looks)

    async def main() -> None:
        units = UnitJournal(actions, has_room)
        units.decision(KILL)
        units.undone(LADDER, Undo("ab-2", "ab-1", 15_300_000, {"freeze": 0}))
        while units._tasks:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert asked_before == [0, 0, 0, 1]
    assert [line.outcome for line in actions.asked] == ["freed", "undone"]


def test_a_service_that_is_not_there_is_not_asked_for_the_rest() -> None:
    assert len(told(Actions("unavailable"), LADDER)) == 1


def test_a_flood_of_decisions_does_not_pile_up() -> None:
    assert len(told(Actions(), *[KILL] * (LINES_MAX + 50))) == LINES_MAX
