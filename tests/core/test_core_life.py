# SPDX-License-Identifier: LGPL-2.1-or-later
"""The core as a process: at rest, without a heap, in locked memory, and dying in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oomslice._core import ffi, lib
from tests.core.plans import Domain
from tests.core.rig import GUARDED, Core, Records, Scene, name, scenes, wait_until
from tests.core.test_core_asked import ask, release
from tests.core.test_core_ladder import FREEZE, KILL, TERMINATE, after, deaf, hand_over, steps
from tests.core.test_core_pressure import Stallers, stallers

__all__ = ["stallers"]

TWO_SECONDS = 2_000_000
REST = float(os.environ.get("OOMSLICE_TEST_REST", "4"))
"""Seconds for which the core is watched at rest; OOMSLICE_TEST_REST=60 for the full proof."""


@pytest.fixture
def static_scene(programs: Callable[[str], Path], mount: Path, tmp_path: Path) -> Iterator[Scene]:
    """A running core built as it is shipped."""
    yield from scenes(Core(programs("static"), tmp_path, mount), mount)


@pytest.fixture
def guarded_scene(programs: Callable[[str], Path], mount: Path, tmp_path: Path) -> Iterator[Scene]:
    """A running core that ends when its heap is used after it is armed."""
    yield from scenes(Core(programs("guarded"), tmp_path, mount), mount)


def real_pressure(scene: Scene) -> None:
    """Lets the core see this machine's own pressure file."""
    (scene.core.meminfo.parent / "pressure").symlink_to("/proc/pressure")


def machine_stall_usec() -> int:
    """How long all of this machine has stood still for memory since it was booted."""
    full = Path("/proc/pressure/memory").read_text(encoding="ascii").splitlines()[1]
    return int(full.rpartition("total=")[2])


def test_nothing_runs_at_rest_with_all_triggers_armed(static_scene: Scene, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    scene = static_scene
    real_pressure(scene)
    trigger = (lib.OOMSLICE_PSI_FULL, 1_900_000, TWO_SECONDS)
    scene.add("a.service", processes=3)
    scene.hand_over(domains=[Domain(0), Domain(1, trigger=trigger)], sign=trigger, thrash=trigger)
    state = scene.core.poke()
    assert state.features & lib.OOMSLICE_FEATURE_PSI_MACHINE
    assert state.features & lib.OOMSLICE_FEATURE_PSI_DOMAINS
    # A trigger made without CAP_SYS_RESOURCE counts from when the kernel last looked for those made with it, so stalls
    # before it may fire it once, at the first look within 2 s (psi_trigger_create() in kernel/sched/psi.c).
    time.sleep(3)

    log = tmp_path / "strace"
    tracer = subprocess.Popen(["strace", "-f", "-p", str(scene.core.pid), "-o", str(log)], stderr=subprocess.DEVNULL)
    time.sleep(1)  # it shows the calls in which it found the threads, and is quiet from then on
    # The triggers are those of the machine: while something else on it stalls for seconds there is no rest to look at.
    # What it stalled in the two windows before counts, too: a trigger looks back by one, and may be a window late.
    stalled = [machine_stall_usec()]
    for _ in range(10):
        before = log.read_text(encoding="utf-8")
        time.sleep(REST)
        after = log.read_text(encoding="utf-8")
        stalled = [*stalled, machine_stall_usec()][-3:]
        if len(stalled) == 3 and stalled[-1] - stalled[0] < 1_000_000:
            break
    scene.core.poke()
    wait_until(lambda: "recvmsg" in log.read_text(encoding="utf-8"))  # it was traced all the while
    tracer.terminate()
    tracer.wait()
    assert after == before, "a system call was made at rest"


def test_timer_is_off_again_when_the_shortage_is_over(static_scene: Scene) -> None:
    scene = static_scene
    scene.add("a.service", processes=1)
    scene.hand_over()
    scene.core.set_memory(500)
    scene.core.poke()
    before = scene.core.poke()
    time.sleep(1)
    during = scene.core.poke()
    assert during.watching == 1 and during.wakeups > before.wakeups + 5
    scene.core.set_memory(4096)
    scene.core.poke()
    resting = scene.core.poke()
    time.sleep(1)
    after = scene.core.poke()
    assert after.watching == 0
    assert after.wakeups - resting.wakeups <= 3, "the connection, the message and the end of a question"


def told(scene: Scene) -> list[str]:
    """What the service manager has been told so far."""
    scene.core.manager.read()
    return scene.core.manager.states


def test_manager_expects_turns_while_memory_is_short_and_none_at_rest(static_scene: Scene) -> None:
    scene = static_scene
    unit = scene.add("a.service", 0, lib.OOMSLICE_UNIT_DRY_RUN, processes=1)
    scene.hand_over(domains=[Domain(0, cooldown_us=3600_000_000)])
    assert not [state for state in told(scene) if state.startswith("WATCHDOG")]
    scene.shortage()
    # A dry run rests for an hour, its pings do not.
    wait_until(lambda: told(scene).count("WATCHDOG=1") == 2, 20)
    assert told(scene).count("WATCHDOG_USEC=20000000") == 1
    scene.core.set_memory(8192)
    scene.core.poke()
    wait_until(lambda: "WATCHDOG_USEC=0" in told(scene))
    resting = scene.core.poke().wakeups
    time.sleep(5)
    # One of them is for the end of the pressure.
    assert told(scene)[-1] == "WATCHDOG_USEC=0" and scene.core.poke().wakeups - resting <= 4
    assert scene.alive(unit) == 1


def test_no_heap_no_stdio_and_no_path_once_armed(guarded_scene: Scene) -> None:
    scene = guarded_scene
    real_pressure(scene)
    trigger = (lib.OOMSLICE_PSI_FULL, 1_900_000, TWO_SECONDS)
    scene.add("a.service", -5, processes=80)
    scene.add("b.service", 0, lib.OOMSLICE_UNIT_PROTECTED, processes=1)
    low = scene.add_slice("low.slice", -2)
    scene.add("one.service", -4, processes=3)
    scene.units[-1].kill_scope = lib.OOMSLICE_SCOPE_PROCESS
    scene.tree.populate(scene.tree.make("a.service/inner"))
    domains = [Domain(0), Domain(low, trigger=trigger)]
    scene.hand_over(domains=domains, sign=trigger, thrash=trigger)
    records = scene.hand_over(domains=domains, sign=trigger, thrash=trigger, reserve=4 << 20)
    wait_until(lambda: scene.core.poke().reserve_bytes == 4 << 20)
    young = scene.tree.make("low.slice/young.service")
    scene.tree.populate(young)
    scene.shortage()
    victims = [name(records.wait().victim_name) for _ in range(4)]
    assert victims == ["a.service", "one.service", "young.service", ""]
    scene.core.poke()
    assert scene.core.stop() == (0, "")
    scene.core.start()


def test_no_heap_no_stdio_and_no_path_in_steps_that_somebody_asks_for(guarded_scene: Scene) -> None:
    scene = guarded_scene
    units = [scene.add(f"{index}.service", processes=2) for index in range(3)]
    records = scene.hand_over(mark_kills=1)
    for unit, step in zip(units, (FREEZE, TERMINATE, KILL), strict=True):
        assert ask(scene, unit, step[0])[0] == 0
        assert records.wait().trigger == lib.OOMSLICE_TRIGGER_ASKED
    assert release(scene, units[0]) == 0
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_UNDONE
    assert scene.core.stop() == (0, "")
    scene.core.start()


def test_no_heap_no_stdio_and_no_path_on_a_ladder(guarded_scene: Scene, stallers: Stallers) -> None:
    scene = guarded_scene
    real_pressure(scene)
    busy = scene.add_slice("busy.slice")
    unit = scene.add("busy.slice/a.service", -5, parent=busy, ladder=(FREEZE, after(1, TERMINATE), after(2, KILL)))
    staller = scene.add("busy.slice/b.service", 5, parent=busy)
    with deaf(scene, unit):
        records = hand_over(scene)
        for _ in range(3):
            stallers.start(staller)
        record = records.wait(30)
    assert [kind for kind, _result in steps(record)] == [FREEZE[0], TERMINATE[0], KILL[0]]
    assert scene.core.stop() == (0, "")
    scene.core.start()


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ("free(malloc(2))", 99),
        ('printf("x")', 99),
        ('puts("x")', 99),
        ('fprintf(stderr, "%d", 1)', 99),
        ("snprintf(text, 9, text)", 99),
        ('fopen("/dev/null", "r")', 99),
        ('open("/dev/null", O_RDONLY)', 99),
        ('openat(AT_FDCWD, "cgroup.kill", O_RDONLY)', 99),
        ('openat(3, "/proc/meminfo", O_RDONLY)', 99),
        ('openat(3, "meminfo", O_RDONLY)', 99),
        ('openat(3, "1/statm", O_RDONLY)', 99),
        ('openat(3, "../x", O_RDONLY | O_DIRECTORY | O_NOFOLLOW)', 99),
        ('openat(3, "1/status", O_RDONLY)', 0),
        ('openat(3, "cgroup.kill", O_WRONLY)', 0),
        ('openat(3, "new.service", O_RDONLY | O_DIRECTORY | O_NOFOLLOW)', 0),
    ],
)
def test_guard_sees_what_is_forbidden(tmp_path: Path, call: str, status: int) -> None:
    guard = Path(__file__).with_name("guard.c")
    source = tmp_path / "uses.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <fcntl.h>\n#include <stdbool.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
        "volatile bool oomslice_armed;\nchar text[9];\n"
        f"int main(void) {{ free(malloc(1)); oomslice_armed = true; (void)!({call}, 1); _Exit(0); }}\n",
        encoding="ascii",
    )
    wraps = [f"-Wl,--wrap={function}" for function in GUARDED]
    command: list[str | Path] = [
        "gcc",
        "-O0",
        "-fno-builtin",
        "-w",
        "-static",
        source,
        guard,
        *wraps,
        "-o",
        tmp_path / "uses",
    ]
    subprocess.run(command, check=True)
    assert subprocess.run([tmp_path / "uses"], stderr=subprocess.DEVNULL, check=False).returncode == status


def test_program_is_static(programs: Callable[[str], Path]) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    headers = subprocess.run(["readelf", "-lW", programs("static")], capture_output=True, text=True, check=True).stdout
    assert "LOAD" in headers and "INTERP" not in headers


def test_memory_is_locked_and_little_with_200_units(static_scene: Scene) -> None:
    scene = static_scene
    for index in range(199):
        scene.add(f"a-unit-with-a-name-of-usual-length-{index}.service")
    scene.hand_over()
    state = scene.core.poke()
    assert state.features & lib.OOMSLICE_FEATURE_LOCKED
    assert 0.5 * 2**20 < state.locked_bytes <= 1.75 * 2**20


def test_threads_that_decide_are_real_time_and_those_that_may_wait_are_not(static_scene: Scene) -> None:
    if not static_scene.core.poke().features & lib.OOMSLICE_FEATURE_REALTIME:
        pytest.skip("this machine grants no real-time priority")
    pid = static_scene.core.pid
    priorities = {
        int(task.name): os.sched_getparam(int(task.name)).sched_priority
        for task in Path(f"/proc/{pid}/task").iterdir()
        if os.sched_getscheduler(int(task.name)) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
    }
    deciding = priorities.pop(pid)
    # The watchdog and its hand come before the thread that may be stuck; who tells systemd is waited for by it.
    assert sorted(priorities.values()) == [deciding, deciding + 1, deciding + 1]
    # Above the reapers, even when those have to hurry (49), and below what keeps the processors going.
    assert 49 < deciding < 98
    # Two reapers, two hands, and the one that takes the reserve.
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 4 + 5


def test_core_that_was_killed_acts_again_by_the_stored_plan_without_any_client(scene: Scene) -> None:
    unit = scene.add("a.service", -5, processes=2)
    gone = scene.add("gone.service", -10)
    scene.add("b.service", 5, processes=1)
    records = scene.hand_over()
    ring_id = ffi.cast("struct oomslice_ring_header *", records.address).ring_id
    scene.core.stop(signal.SIGKILL)
    assert sorted(stored for stored, _fd in scene.core.manager.store) == ["plan", "ring"]

    gone.rmdir()
    scene.core.start()
    scene.shortage()
    record = records.wait()
    assert (name(record.victim_name), record.plan_generation) == ("a.service", 1)
    assert scene.alive(unit) == 0
    with scene.core.client() as client:
        hello = client.hello()
    assert ffi.cast("struct oomslice_ring_header *", Records(hello.fds[0]).address).ring_id == ring_id


def test_only_the_newest_plan_is_stored(scene: Scene) -> None:
    scene.add("a.service")
    scene.hand_over()
    scene.hand_over()
    scene.core.manager.read()
    assert sorted(stored for stored, _fd in scene.core.manager.store) == ["plan", "ring"]
    scene.core.stop(signal.SIGKILL)
    scene.core.start()
    with scene.core.client() as client:
        assert client.hello().message.generation == 2


def test_decision_cut_off_by_death_is_finished_by_the_successor(scene: Scene) -> None:
    records = scene.hand_over()
    scene.core.stop(signal.SIGKILL)
    record = lib.oomslice_ring_take(records.address)
    lib.oomslice_ring_set_state(record, lib.OOMSLICE_RECORD_SIGNALLED)
    assert records.next() is None
    scene.core.start()
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_INTERRUPTED


def test_stored_ring_that_is_none_is_replaced(scene: Scene) -> None:
    scene.core.stop(signal.SIGKILL)
    store = scene.core.manager.store
    for index, (stored, fd) in enumerate(store):
        os.close(fd)
        other = os.memfd_create("other")
        os.truncate(other, lib.OOMSLICE_RING_SIZE)
        store[index] = (stored, other)
    scene.core.start()
    records = scene.hand_over()
    assert records.next() is None
    _status, said = scene.core.stop()
    assert "stored ring, made anew" in said
    scene.core.start()


def test_stored_plan_that_is_broken_leaves_the_core_waiting_for_another(scene: Scene) -> None:
    scene.hand_over()
    scene.core.stop(signal.SIGKILL)
    store = scene.core.manager.store
    store[:] = [(stored, os.memfd_create("x") if stored == "plan" else fd) for stored, fd in store]
    scene.core.start()
    assert scene.core.poke().units == 0
    scene.hand_over()
    assert scene.core.poke().units == 1
    scene.core.stop()
    scene.core.start()


def test_termination_is_clean(scene: Scene) -> None:
    scene.hand_over()
    assert scene.core.stop(signal.SIGTERM) == (0, "")
    assert "STOPPING=1" in scene.core.manager.states
    scene.core.start()


def test_missing_pressure_file_and_controllers_are_missing_features(scene: Scene) -> None:
    scene.add("a.service")
    trigger = (lib.OOMSLICE_PSI_SOME, 100_000, TWO_SECONDS)
    scene.hand_over(sign=trigger)
    features = scene.core.poke().features
    assert not features & lib.OOMSLICE_FEATURE_PSI_MACHINE
    assert features & lib.OOMSLICE_FEATURE_PSI_DOMAINS
    has_memory = (scene.paths[1] / "memory.current").exists()
    assert bool(features & lib.OOMSLICE_FEATURE_MEMORY) == has_memory


def test_trigger_of_a_domain_outlives_the_plan_and_ends_with_its_cgroup(scene: Scene) -> None:
    trigger = (lib.OOMSLICE_PSI_FULL, 1_900_000, TWO_SECONDS)
    unit = scene.add("a.service")
    scene.hand_over(domains=[Domain(0), Domain(1, trigger=trigger)])
    scene.hand_over(domains=[Domain(0), Domain(1, trigger=trigger)])
    assert scene.core.poke().features & lib.OOMSLICE_FEATURE_PSI_DOMAINS
    unit.rmdir()
    wait_until(lambda: not scene.core.poke().features & lib.OOMSLICE_FEATURE_PSI_DOMAINS)
    before = scene.core.poke().wakeups
    time.sleep(0.5)
    assert scene.core.poke().wakeups - before <= 3


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "Usage: oomslice-core"),
        (["--version"], 0, "oomslice-core "),
        (["--nonsense"], 2, "--nonsense (see --help)"),
        (["--socket"], 2, "--socket (see --help)"),
        (["--proc-root", "/nonexistent"], 1, "/nonexistent: No such file or directory"),
        (["--cgroup-root=/nonexistent"], 1, "/nonexistent: No such file or directory"),
        (["--socket=/nonexistent/s"], 1, "/nonexistent/s: No such file or directory"),
    ],
)
def test_command_line(programs: Callable[[str], Path], arguments: list[str], status: int, said: str) -> None:
    result = subprocess.run([programs("sanitized"), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == status
    assert said in result.stdout + result.stderr
