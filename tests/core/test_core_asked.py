# SPDX-License-Identifier: LGPL-2.1-or-later
"""Steps that somebody asks for: recorded, by the same last checks as any, and in force until they are released."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice._core import lib
from tests.core.rig import Core, Scene, name, scenes, wait_until

FREEZE, THROTTLE, KILL = lib.OOMSLICE_STEP_FREEZE, lib.OOMSLICE_STEP_THROTTLE, lib.OOMSLICE_STEP_KILL
TERMINATE = lib.OOMSLICE_STEP_TERMINATE


@pytest.fixture
def scene(core: Core, mount: Path) -> Iterator[Scene]:
    yield from scenes(core, mount)


def ask(scene: Scene, path: Path, kind: int, *, amount: int = 0, user: int = 0) -> tuple[int, int]:
    """Status and sequence."""
    with scene.core.client() as client:
        fields = {"cgroup_id": os.stat(path).st_ino, "amount": amount, "user": user}
        reply = client.ask(lib.OOMSLICE_MESSAGE_ACT, step=kind, **fields).message
        assert reply.type == lib.OOMSLICE_MESSAGE_ACT_REPLY
        return reply.status, reply.size


def release(scene: Scene, path: Path) -> int:
    with scene.core.client() as client:
        reply = client.ask(lib.OOMSLICE_MESSAGE_RELEASE, cgroup_id=os.stat(path).st_ino).message
        assert reply.type == lib.OOMSLICE_MESSAGE_RELEASE_REPLY
        return int(reply.status)


def frozen(unit: Path) -> bool:
    return "frozen 1" in (unit / "cgroup.events").read_text(encoding="ascii")


def test_frozen_without_a_ladder_that_says_so_until_it_is_released(scene: Scene) -> None:
    unit = scene.add("a.service", 5, processes=2)
    records = scene.hand_over()
    status, sequence = ask(scene, unit, FREEZE, user=1000)
    assert status == 0
    record = records.wait()
    assert (record.sequence, record.trigger, record.outcome) == (
        sequence,
        lib.OOMSLICE_TRIGGER_ASKED,
        lib.OOMSLICE_OUTCOME_DONE,
    )
    assert (name(record.victim_name), record.victim_priority, record.asked_user) == ("a.service", 5, 1000)
    assert record.processes_total == 2 and record.candidates_count == 0
    assert frozen(unit)
    # Another act that ends does not take it for calm.
    other = scene.add("b.service", processes=1)
    scene.hand_over()
    assert ask(scene, other, KILL)[0] == 0
    killed = records.wait()
    assert (killed.outcome, killed.trigger) == (lib.OOMSLICE_OUTCOME_FREED, lib.OOMSLICE_TRIGGER_ASKED)
    assert scene.alive(other) == 0
    scene.core.poke()
    assert frozen(unit)
    assert release(scene, unit) == 0
    assert not frozen(unit) and scene.alive(unit) == 2
    undone = records.wait()
    assert (undone.trigger, undone.undoes_sequence) == (lib.OOMSLICE_TRIGGER_CALM, sequence)
    assert release(scene, unit) == -errno.ENODATA


def test_the_end_of_the_core_releases_what_was_asked_for(scene: Scene) -> None:
    unit = scene.add("a.service", processes=1)
    scene.hand_over()
    assert ask(scene, unit, FREEZE)[0] == 0
    wait_until(lambda: frozen(unit))
    scene.core.stop()
    assert not frozen(unit)
    scene.core.start()


def test_told_to_end(scene: Scene) -> None:
    unit = scene.add("a.service", processes=2)
    records = scene.hand_over()
    assert ask(scene, unit, TERMINATE)[0] == 0
    assert records.wait().outcome in (lib.OOMSLICE_OUTCOME_DONE, lib.OOMSLICE_OUTCOME_FREED)
    wait_until(lambda: scene.alive(unit) == 0)


@pytest.mark.parametrize("flag", [lib.OOMSLICE_UNIT_PROTECTED, lib.OOMSLICE_UNIT_SELF, lib.OOMSLICE_UNIT_LEFT_TO_OOMD])
def test_whom_the_plan_protects_is_not_touched_for_anybody(scene: Scene, flag: int) -> None:
    unit = scene.add("a.service", flags=flag, processes=1)
    records = scene.hand_over()
    for kind in (KILL, FREEZE, TERMINATE):
        assert ask(scene, unit, kind)[0] == -errno.EPERM
    assert scene.alive(unit) == 1 and not frozen(unit) and records.next() is None


def test_what_cannot_be_is_refused_and_nothing_is_recorded(scene: Scene) -> None:
    container = scene.add_slice("x.slice")
    unit = scene.add("x.slice/a.service", parent=container, processes=1)
    empty = scene.add("empty.service")
    stranger = scene.tree.make("stranger.service")
    scene.tree.populate(stranger, 1)
    records = scene.hand_over()
    assert ask(scene, scene.paths[container], KILL)[0] == -errno.EISDIR
    assert ask(scene, empty, KILL)[0] == -errno.ESRCH
    assert ask(scene, stranger, KILL)[0] == -errno.ESRCH
    for kind, amount in ((0, 0), (99, 0), (THROTTLE, 0), (THROTTLE, 101)):
        assert ask(scene, unit, kind, amount=amount)[0] == -errno.EINVAL
    assert scene.alive(unit) == 1 and scene.alive(stranger) == 1 and records.next() is None


def test_who_is_never_touched_is_not_for_those_who_ask(scene: Scene) -> None:
    unit = scene.add("a.service", processes=1)
    (unit / "cgroup.procs").write_text(str(scene.core.pid), encoding="ascii")
    records = scene.hand_over()
    assert ask(scene, unit, KILL)[0] == -errno.EPERM
    assert scene.core.poke() is not None and scene.alive(unit) == 2 and records.next() is None
    (scene.tree.mount / "cgroup.procs").write_text(str(scene.core.pid), encoding="ascii")


def test_a_dry_run_is_recorded_and_does_nothing(scene: Scene) -> None:
    unit = scene.add("a.service", flags=lib.OOMSLICE_UNIT_DRY_RUN, processes=1)
    records = scene.hand_over()
    assert ask(scene, unit, KILL)[0] == 0
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_DRY_RUN and scene.alive(unit) == 1


def test_a_step_without_its_file_fails_and_says_so(scene: Scene) -> None:
    if (scene.tree.root / "memory.high").exists():
        pytest.skip("this machine has a memory controller, and the step would be done")
    unit = scene.add("a.service", processes=1)
    records = scene.hand_over()
    assert ask(scene, unit, THROTTLE, amount=50)[0] == 0
    record = records.wait()
    assert (record.outcome, record.steps[0].result) == (
        lib.OOMSLICE_OUTCOME_FAILED,
        lib.OOMSLICE_RESULT_UNAVAILABLE,
    )
    assert release(scene, unit) == -errno.ENODATA
