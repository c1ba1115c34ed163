# SPDX-License-Identifier: LGPL-2.1-or-later
"""The carrier score_adj, with an oomslice-scores of the test's own at the other end."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from oomslice.carriers.model import Carrier
from oomslice.carriers.score_adj import ScoreAdjCarrier, table
from oomslice.cgroups.model import MemoryInfo
from oomslice.cgroups.tree import CgroupTree
from oomslice.policy.scores import LAST, Scores, SliceScore, UnitScore
from tests.unit.policies import policy, unit

MIB = 1 << 20
PLAN = policy(unit("hog.service", 20, priority=-200), unit("vital.service", 30, protected=True), unit("a.service", 40))
TABLE = (
    b"slice 1 - 0 0 /-.slice\nunit 20 1000 0 1 /hog.service\n"
    b"unit 30 -996 0 0 /vital.service\nunit 40 - 0 0 /a.service\n"
)


class FakeScores:
    """Takes tables as oomslice-scores does, and answers."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.setblocking(False)
        self.client: socket.socket | None = None
        self.tables: list[bytes] = []
        self.refuse = 0
        self.hits = 0

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.client, _ = await loop.sock_accept(self.listener)
            self.client.setblocking(False)
            readable = asyncio.Event()
            loop.add_reader(self.client, readable.set)
            while True:
                await readable.wait()
                readable.clear()
                try:
                    data, control, _, _ = self.client.recvmsg(64, 64)
                except (BlockingIOError, OSError):
                    continue
                if not data:
                    break
                assert data == b"table"
                fds = array.array("i")
                fds.frombytes(control[0][2])
                with open(fds[0], "rb") as file:
                    file.seek(0)
                    self.tables.append(file.read())
                self.answer()
            loop.remove_reader(self.client)
            self.client.close()
            self.client = None

    def answer(self) -> None:
        assert self.client is not None
        self.hits += 5
        text = f"units=3 hits={self.hits} missed=1 line={self.refuse} error=/x: oom_score_adj: Permission denied"
        self.client.send(text.encode())

    def end(self) -> None:
        assert self.client is not None
        self.client.shutdown(socket.SHUT_RDWR)


class Scene(SimpleNamespace):
    carrier: ScoreAdjCarrier
    scores: FakeScores
    enabled: bool
    changes: int

    async def settled(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Scene], Awaitable[None]]], None]:
    tree = CgroupTree(tmp_path / "cgroup")
    monkeypatch.setattr(CgroupTree, "memory", lambda self: MemoryInfo(4096 * MIB, 0, 0, 0))

    def run(body: Callable[[Scene], Awaitable[None]]) -> None:
        async def main() -> None:
            scene = Scene(enabled=True, changes=0, scores=FakeScores(tmp_path / "scores.sock"))

            def changed() -> None:
                scene.changes += 1

            scene.carrier = ScoreAdjCarrier(
                tree,
                lambda: scene.enabled,
                changed,
                path=str(tmp_path / "scores.sock"),
                state_path=str(tmp_path / "scores"),
                pressure=str(tmp_path / "none"),
            )
            server = asyncio.get_running_loop().create_task(scene.scores.serve())
            try:
                await body(scene)
            finally:
                scene.carrier.close()
                server.cancel()
                await asyncio.gather(server, return_exceptions=True)
                scene.scores.listener.close()

        asyncio.run(main())

    return run


Run = Callable[[Callable[[Scene], Awaitable[None]]], None]


def test_a_plan_becomes_a_table(run: Run) -> None:
    async def body(scene: Scene) -> None:
        carrier: Carrier = scene.carrier
        assert carrier.state().detail == "there is no plan yet"
        carrier.follow(PLAN, ())
        await scene.settled(lambda: carrier.state().active)
        assert scene.scores.tables == [TABLE] and scene.changes == 1
        said = carrier.state()
        assert said.detail == "2 units got an oom_score_adj by priority"
        assert (said.hits, said.missed, said.last_error) == (5, 1, "/x: oom_score_adj: Permission denied")
        carrier.follow(PLAN, ())
        await scene.settled(lambda: len(scene.scores.tables) == 2)
        assert scene.scores.tables == [TABLE, TABLE]

    run(body)


def test_it_says_of_a_unit_what_it_gets_and_why(run: Run) -> None:
    async def body(scene: Scene) -> None:
        scene.carrier.follow(PLAN, ())
        await scene.settled(lambda: scene.carrier.state().active)
        assert scene.carrier.described(30) == (LAST, "protected: last of all")
        assert scene.carrier.described(40) == (None, "priority 0: as it is")
        assert scene.carrier.described(99) == (None, "")

    run(body)


def test_nobody_is_started_where_there_is_nothing_to_give(run: Run) -> None:
    async def body(scene: Scene) -> None:
        scene.carrier.follow(policy(unit("a.service", 40)), ())
        await asyncio.sleep(0.2)
        assert scene.scores.tables == [] and scene.scores.client is None
        assert scene.carrier.state().active and "nobody needs another" in scene.carrier.state().detail

    run(body)


def test_what_an_oomsliced_before_gave_is_taken_back(run: Run, tmp_path: Path) -> None:
    (tmp_path / "scores").touch()

    async def body(scene: Scene) -> None:
        scene.carrier.follow(policy(unit("a.service", 40)), ())
        await scene.settled(lambda: scene.scores.tables == [b""])

    run(body)


def test_switched_off_everything_is_taken_back(run: Run) -> None:
    async def body(scene: Scene) -> None:
        scene.carrier.follow(PLAN, ())
        await scene.settled(lambda: scene.carrier.state().active)
        scene.enabled = False
        scene.carrier.follow(PLAN, ())
        await scene.settled(lambda: scene.scores.tables == [TABLE, b""])
        assert scene.carrier.state().detail == "switched off: carriers: score-adj: no"
        assert scene.carrier.described(20) == (None, "")

    run(body)


def test_after_its_end_the_table_is_sent_again(run: Run) -> None:
    async def body(scene: Scene) -> None:
        scene.carrier.follow(PLAN, ())
        await scene.settled(lambda: scene.carrier.state().active)
        scene.scores.end()
        await scene.settled(lambda: not scene.carrier.state().active)
        assert scene.carrier.state().detail == "oomslice-scores has ended"
        await scene.settled(lambda: len(scene.scores.tables) == 2 and scene.carrier.state().active)
        assert scene.carrier.state().last_error and scene.changes >= 3

    run(body)


def test_without_the_service_it_says_so_and_a_later_plan_tries_again(run: Run, tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        os.rename(tmp_path / "scores.sock", tmp_path / "away")
        scene.carrier.follow(PLAN, ())
        await scene.settled(lambda: "cannot be reached: No such file" in scene.carrier.state().detail)
        assert not scene.carrier.state().active
        os.rename(tmp_path / "away", tmp_path / "scores.sock")
        scene.carrier.follow(PLAN, ())
        await scene.settled(lambda: scene.carrier.state().active)

    run(body)


def test_a_table_that_is_refused_is_not_in_force(run: Run) -> None:
    async def body(scene: Scene) -> None:
        scene.scores.refuse = 2
        scene.carrier.follow(PLAN, ())
        await scene.settled(lambda: "line 2 of the table was refused" in scene.carrier.state().detail)
        assert not scene.carrier.state().active

    run(body)


def test_values_written_between_tables_are_counted(run: Run) -> None:
    async def body(scene: Scene) -> None:
        scene.carrier.follow(PLAN, ())
        await scene.settled(lambda: scene.carrier.state().active)
        scene.scores.answer()
        await scene.settled(lambda: scene.carrier.state().hits == 10 and scene.changes == 2)

    run(body)


def test_when_memory_is_short_units_are_measured_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"/b.service": 0}
    monkeypatch.setattr(CgroupTree, "process_bound", lambda self, path, coarse: sizes.get(path, 0))
    # Urgent data on a connection is what a pressure trigger looks like to epoll.
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    monkeypatch.setattr("oomslice.carriers.score_adj.psi_trigger", lambda where, trigger: theirs)

    async def body(scene: Scene) -> None:
        plan = policy(unit("a.service", 2, priority=-20), unit("b.service", 3, priority=-10), unit("c.service", 4))
        scene.carrier.follow(plan, ())
        await scene.settled(lambda: scene.carrier.state().active)
        first = scene.carrier.described(3)[0]
        assert first is not None and first > 100
        sizes["/b.service"] = 3900 * MIB
        ours.send(b"!", socket.MSG_OOB)
        await scene.settled(lambda: len(scene.scores.tables) == 2)
        grown = scene.carrier.described(3)[0]
        assert grown is not None and grown < 100
        assert f"unit 3 {grown} 0 1 /b.service" in scene.scores.tables[1].decode()

    run(body)
    for connection in (ours, theirs, listener):
        connection.close()


def test_a_path_that_would_be_another_line_is_left_out() -> None:
    bad = UnitScore(7, "/a\nunit 1 -996 0 0 /b", 5, 0, False, True, "")
    kept = UnitScore(3, "/kept", None, 0, False, False, "")
    slices = (SliceScore(9, "/s.slice", 7, 0, True), SliceScore(1, "/a\nb", 7, 0, True))
    given = Scores((bad, kept, UnitScore(8, "/c", 5, 200, True, True, "")), slices, {2: "/plain.slice", 4: "/a\nb"})
    assert table(given).decode().splitlines() == [
        "keep 2 /plain.slice",
        "keep 3 /kept",
        "unit 8 5 200 1 /c",
        "slice 9 7 0 1 /s.slice",
    ]
