# SPDX-License-Identifier: LGPL-2.1-or-later
"""All that a decision touches is in RAM before it: no page fault in any thread of the core, and nothing that is mapped
but not locked. What a decision does was done once before: the dry run.

The builds are as it is shipped: the sanitizers' own memory is neither locked nor touched beforehand."""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oomslice._core import lib
from tests.core.plans import MEBIBYTE, Domain
from tests.core.rig import Core, Records, Scene, name, scenes, wait_until
from tests.core.test_core_asked import ask, release
from tests.core.test_core_ladder import FREEZE, KILL, TERMINATE, after, deaf, frozen, steps
from tests.core.test_core_pressure import SOME_STALL, Stallers, stallers
from tests.core.test_core_watchdog import Stuck, short

__all__ = ["stallers"]

RESERVE = 4 * MEBIBYTE
MANY = 1000
DEEP = "/".join("1234567")
"""As deep as processes are listed."""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in tmpfs, as the core's RuntimeDirectory= is: who writes to a mapped page of another file has a fault
    each time that the page has been written back."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


def cores(program: Path, mount: Path, directory: Path, memory: Path) -> Iterator[Scene]:
    """A running core that sees this machine's own pressure files."""
    core = Core(program, directory, mount)
    (core.meminfo.parent / "pressure").symlink_to("/proc/pressure")
    core.undo = memory / "undo"
    yield from scenes(core, mount)


@pytest.fixture
def scene(programs: Callable[[str], Path], mount: Path, tmp_path: Path, memory: Path) -> Iterator[Scene]:
    yield from cores(programs("static"), mount, tmp_path, memory)


@pytest.fixture
def stuck(memory: Path, monkeypatch: pytest.MonkeyPatch) -> Stuck:
    monkeypatch.setenv("OOMSLICE_TEST_STUCK", str(memory / "stuck"))
    return Stuck(memory / "stuck")


@pytest.fixture
def stuck_scene(
    programs: Callable[[str], Path], mount: Path, tmp_path: Path, memory: Path, stuck: Stuck
) -> Iterator[Scene]:
    """A core that gets stuck on demand."""
    for made in cores(programs("static-stuck"), mount, tmp_path, memory):
        yield made
        stuck.release()


def faults(scene: Scene) -> dict[str, tuple[int, int]]:
    """Minor and major faults of each thread, all of them, when all have come to rest."""
    if not scene.core.poke().features & lib.OOMSLICE_FEATURE_LOCKED:
        pytest.skip("nothing can be locked here: RLIMIT_MEMLOCK, no CAP_IPC_LOCK")
    balancing = Path("/proc/sys/kernel/numa_balancing")
    if balancing.exists() and balancing.read_text(encoding="ascii").strip() != "0":
        pytest.skip("this kernel makes page faults of its own, to see which node uses a page")
    seen: dict[str, tuple[int, int]] = {}

    def at_rest() -> bool:
        states = set()
        for task in Path(f"/proc/{scene.core.pid}/task").iterdir():
            fields = (task / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
            states.add(fields[0])
            seen[task.name] = (int(fields[10 - 3]), int(fields[12 - 3]))
        return states == {"S"}

    wait_until(at_rest)
    assert len(seen) > 5
    return seen


def first_decision(scene: Scene, records: Records, victim: str) -> Any:
    """The machine is short of memory for the first time, and that costs no thread a fault."""
    before = faults(scene)
    scene.shortage()
    record = records.wait()
    assert (name(record.victim_name), record.outcome) == (victim, lib.OOMSLICE_OUTCOME_FREED)
    scene.core.set_memory(8192)
    assert faults(scene) == before
    return record


def test_first_kill_of_many_processes_with_a_mark_and_a_reserve_given_back(scene: Scene) -> None:
    scene.add("a.service", -5, processes=80)
    scene.add("b.service", processes=1)
    scene.tree.populate(scene.tree.make(f"a.service/{DEEP}"), 3)
    records = scene.hand_over(reserve=RESERVE, mark_kills=1)
    wait_until(lambda: scene.core.poke().reserve_bytes == RESERVE)
    first_decision(scene, records, "a.service")


def test_first_kill_of_the_largest_process_of_a_unit(scene: Scene) -> None:
    unit = scene.add("a.service", processes=80, kill_scope=lib.OOMSLICE_SCOPE_PROCESS)
    for pid in scene.tree.pids(unit):
        (scene.core.meminfo.parent / str(pid)).symlink_to(f"/proc/{pid}")
    records = scene.hand_over()
    record = first_decision(scene, records, "a.service")
    assert (record.kill_scope, record.pids_count) == (lib.OOMSLICE_SCOPE_PROCESS, 1)


def test_first_kill_of_a_unit_that_is_younger_than_the_plan(scene: Scene) -> None:
    scene.add("a.service", 5, processes=1)
    scene.add_slice("low.slice", -5)
    records = scene.hand_over()
    scene.tree.populate(scene.tree.make("low.slice/young.service"), 3)
    first_decision(scene, records, "young.service")


def test_first_kill_by_a_plan_that_is_larger_than_the_one_before(scene: Scene) -> None:
    scene.add("a.service", -5, processes=1)
    scene.hand_over()
    for index in range(MANY):
        scene.add(f"b-{index}.service", 5)
    records = scene.hand_over(domains=[Domain(0), *(Domain(index) for index in range(1, 30))])
    first_decision(scene, records, "a.service")


def test_first_kill_of_a_successor_by_the_stored_plan(scene: Scene) -> None:
    scene.add("a.service", processes=3)
    records = scene.hand_over()
    scene.core.stop(signal.SIGKILL)
    scene.core.start()
    first_decision(scene, records, "a.service")


def test_steps_and_kills_that_somebody_asks_for(scene: Scene) -> None:
    units = [scene.add(f"{index}.service", processes=10) for index in range(3)]
    records = scene.hand_over(mark_kills=1)
    before = faults(scene)
    for unit, step in zip(units, (FREEZE, TERMINATE, KILL), strict=True):
        assert ask(scene, unit, step[0])[0] == 0
        assert records.wait().trigger == lib.OOMSLICE_TRIGGER_ASKED
    assert release(scene, units[0]) == 0
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_UNDONE
    assert faults(scene) == before


def test_whole_ladder(scene: Scene, stallers: Stallers) -> None:
    busy = scene.add_slice("busy.slice")
    unit = scene.add("busy.slice/a.service", -5, parent=busy, ladder=(FREEZE, after(1, TERMINATE), after(2, KILL)))
    staller = scene.add("busy.slice/b.service", 5, parent=busy)
    with deaf(scene, unit):
        records = scene.hand_over(domains=[Domain(0), Domain(1, trigger=SOME_STALL, cooldown_us=60_000_000)])
        before = faults(scene)
        for _ in range(3):
            stallers.start(staller)
        record = records.wait(30)
    assert [kind for kind, _result in steps(record)] == [FREEZE[0], TERMINATE[0], KILL[0]]
    assert faults(scene) == before


def test_ladder_that_ends_in_standing_still_and_is_undone(scene: Scene) -> None:
    unit = scene.add("a.service", processes=3, ladder=(FREEZE,))
    records = scene.hand_over()
    before = faults(scene)
    scene.shortage()
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_HELD
    assert frozen(unit)
    scene.core.set_memory(8192)
    assert faults(scene) == before


def test_first_decisions_taken_by_the_watchdog(stuck_scene: Scene, stuck: Stuck) -> None:
    scene = stuck_scene
    scene.add("a.service", -10, processes=80)
    scene.add("b.service", processes=80)
    scene.add("c.service", 10, processes=1)
    records = scene.hand_over(reserve=RESERVE)
    wait_until(lambda: scene.core.poke().reserve_bytes == RESERVE)
    before = faults(scene)
    # The second kill does not come back from the write either, and goes on with signals.
    stuck.at("c.service/cgroup.events", "*b.service/cgroup.kill")
    short(scene)
    decisions = [records.wait(20) for _ in range(2)]
    assert [(name(record.victim_name), record.flags) for record in decisions] == [
        ("a.service", lib.OOMSLICE_RECORD_WATCHDOG),
        ("b.service", lib.OOMSLICE_RECORD_WATCHDOG),
    ]
    scene.core.set_memory(8192)
    stuck.release()
    assert faults(scene) == before


def test_what_is_not_locked_is_not_there(scene: Scene) -> None:
    for index in range(300):
        scene.add(f"{index}.service")
    scene.hand_over(reserve=RESERVE)
    wait_until(lambda: scene.core.poke().reserve_bytes == RESERVE)
    faults(scene)  # skips where nothing is locked
    text = Path(f"/proc/{scene.core.pid}/smaps").read_text(encoding="ascii")
    mappings = re.findall(r"^([0-9a-f]+-[0-9a-f]+ .*)\n((?:\w+: .*\n)+)", text, re.M)
    assert len(mappings) > 10
    locked = 0
    for title, figures in mappings:
        kilobytes = {key: int(value) for key, value in re.findall(r"^(\w+): +(\d+) kB$", figures, re.M)}
        if re.search(r"\[(vdso|vvar\w*|vsyscall)\]$", title):
            continue  # the kernel's own pages
        if re.search(r"^VmFlags:.* lo\b", figures, re.M):
            assert kilobytes["Rss"] == kilobytes["Size"], title
            locked += kilobytes["Size"]
        else:
            assert kilobytes["Rss"] == 0, title
    assert locked > 500 + RESERVE // 1024


def test_dry_run_comes_before_the_lock_and_signals_nobody(
    programs: Callable[[str], Path], mount: Path, tmp_path: Path, memory: Path
) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    log, wrapper = tmp_path / "strace", tmp_path / "traced"
    wrapper.write_text(f'#!/bin/sh\nexec {strace} -D -f -o {log} {programs("static")} "$@"\n', "ascii")
    wrapper.chmod(0o755)
    for scene in cores(wrapper, mount, tmp_path, memory):
        scene.core.poke()
        before, _lock, armed = log.read_text("utf-8").partition("mlockall(")
        # Each is the first of its kind: of the last check, the sizes, the kill, the reapers, the hands, the mark, the
        # watchdog's own list and its hand.
        for call in (
            r'openat\(\d+, "cgroup.procs"',
            rf'openat\(\d+, "{scene.core.pid}/status"',
            rf"pidfd_open\({scene.core.pid}",
            rf"^(?!{scene.core.pid} )\d+ +process_mrelease\(",
            r'pwrite64\(\d+, "0"',
            r'fgetxattr\(\d+, "user.oomd_ooms"',
            r'pwrite64\(\d+, "1"',
        ):
            assert re.search(call, before, re.M), call
        assert re.findall(r"pidfd_send_signal\(\d+, ([^,]+),", before + armed) == ["0"]
        assert "cgroup.kill" not in before
