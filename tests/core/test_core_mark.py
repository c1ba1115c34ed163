# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd reads of a kill: counted up whatever was there, and never in the way of the kill."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from oomslice._core import lib
from tests.core.rig import Core, Scene, name, scenes, wait_until

CALL = re.compile(r"^(?P<thread>\d+) +(?P<began>\w+\(.*?)(?P<rest> <unfinished \.\.\.>|\) += .*)$")
RESUMED = re.compile(r"^(?P<thread>\d+) +<\.\.\. (?P<name>\w+) resumed>")


@pytest.fixture
def scene(core: Core, mount: Path) -> Iterator[Scene]:
    yield from scenes(core, mount)


def attributes(unit: Path) -> dict[str, bytes]:
    return {name: os.getxattr(unit, name) for name in os.listxattr(unit) if name.startswith("user.oomd_")}


def test_a_kill_is_counted_before_and_its_processes_after(scene: Scene) -> None:
    unit = scene.add("a.service", processes=3)
    os.setxattr(unit, "user.oomd_kill", b"40")
    records = scene.hand_over(mark_kills=1)
    scene.shortage()
    record = records.wait()
    assert (record.outcome, record.flags) == (lib.OOMSLICE_OUTCOME_FREED, 0)
    wait_until(lambda: attributes(unit).get("user.oomd_kill") == b"43")
    assert attributes(unit)["user.oomd_ooms"] == b"1"


class Call(NamedTuple):
    """A system call that strace saw: the numbers of the lines in which it began and ended."""

    text: str
    began: int
    ended: int


def calls(log: Path) -> list[Call]:
    """All of all threads, in the order in which they began."""
    found: list[Call] = []
    open_calls: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(log.read_text("utf-8", "replace").splitlines()):
        if resumed := RESUMED.match(line):
            began, text = open_calls.pop(resumed["thread"])
            found.append(Call(text, began, number))
        elif call := CALL.match(line):
            if "unfinished" in call["rest"]:
                open_calls[call["thread"]] = number, call["began"]
            else:
                found.append(Call(call["began"], number, number))
    return sorted(found, key=lambda call: call.began)


def test_systemd_is_told_before_the_signal_and_of_the_processes_after_it(
    programs: Callable[[str], Path], mount: Path, tmp_path: Path
) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "strace"
    wrapper = tmp_path / "traced"
    # The environment tells the core its own process id, so strace has to be the child (-D).
    wrapper.write_text(
        f'#!/bin/sh\nexec {strace} -D -f -y -o {log} -e trace=pwrite64,write,fsetxattr {programs("static")} "$@"\n',
        "ascii",
    )
    wrapper.chmod(0o755)
    for scene in scenes(Core(wrapper, tmp_path, mount), mount):
        for number in range(5):
            scene.add(f"{number}.service", number, processes=3)
        records = scene.hand_over(mark_kills=1)
        scene.shortage()
        # A kill waits for it for a few milliseconds, and under strace it may take longer: then the next unit shows it.
        while (record := records.wait()).flags:
            assert record.flags == lib.OOMSLICE_RECORD_UNMARKED
            scene.core.poke()
        scene.core.set_memory(8192)
        victim = name(record.victim_name)
        wait_until(lambda: attributes(scene.tree.root / victim).get("user.oomd_kill") == b"3")  # noqa: B023
    marked = f"/{victim}>"
    told, kill, counted = [
        call
        for call in calls(log)
        if (marked in call.text and "user.oomd_" in call.text) or f"/{victim}/cgroup.kill>" in call.text
    ]
    assert '"user.oomd_ooms", "1"' in told.text and '"user.oomd_kill", "3"' in counted.text
    assert told.ended < kill.began and kill.ended < counted.began


def test_nothing_is_written_where_it_is_switched_off(scene: Scene) -> None:
    unit = scene.add("a.service", processes=2)
    records = scene.hand_over()
    scene.shortage()
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_FREED
    assert scene.alive(unit) == 0 and attributes(unit) == {}


def test_one_process_of_several_is_not_the_end_of_the_unit_but_the_last_one_is(scene: Scene) -> None:
    unit = scene.add("a.service", processes=4)
    scene.units[-1].kill_scope = lib.OOMSLICE_SCOPE_PROCESS
    for pid in scene.tree.pids(unit):
        (scene.core.meminfo.parent / str(pid)).symlink_to(f"/proc/{pid}")
    records = scene.hand_over(mark_kills=1)
    scene.shortage()
    while scene.alive(unit):
        records.wait()
        scene.core.poke()
    wait_until(lambda: attributes(unit) == {"user.oomd_ooms": b"1", "user.oomd_kill": b"1"})


def test_an_attribute_that_cannot_be_counted_is_left_alone_and_noted(scene: Scene) -> None:
    unit = scene.add("a.service", processes=1)
    os.setxattr(unit, "user.oomd_ooms", b"what is this")
    records = scene.hand_over(mark_kills=1)
    scene.shortage()
    record = records.wait()
    assert (record.outcome, record.flags) == (lib.OOMSLICE_OUTCOME_FREED, lib.OOMSLICE_RECORD_UNMARKED)
    assert attributes(unit) == {"user.oomd_ooms": b"what is this"} and scene.alive(unit) == 0
