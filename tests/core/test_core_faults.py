# SPDX-License-Identifier: LGPL-2.1-or-later
"""The early sign: real page faults on this machine's processors wake the core, as few times as it takes."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice._core import lib
from tests.core.rig import MEBIBYTE, Core, Scene, scenes

ONLINE = "devices/system/cpu/online"
HUGE = "kernel/mm/transparent_hugepage"
PAGE = 4096
CAP_SYS_ADMIN, CAP_PERFMON = 21, 38


def faults() -> int:
    """How many page faults there were on this machine."""
    lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("pgfault "))


def grow(mebibytes: int) -> None:
    """Takes memory page by page, and gives it back."""
    with mmap.mmap(-1, mebibytes * MEBIBYTE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, len(memory), PAGE):
            memory[at] = 1


def fake_sys(core: Core, *, processors: str, huge: str = "always madvise [never]") -> None:
    """What the core takes for /sys."""
    for path, text in ((ONLINE, processors), (f"{HUGE}/enabled", huge), (f"{HUGE}/hpage_pmd_size", "2097152")):
        (core.sys / path).parent.mkdir(parents=True, exist_ok=True)
        (core.sys / path).write_text(text + "\n", encoding="ascii")


@pytest.fixture
def counting(core: Core, mount: Path) -> Iterator[Scene]:
    """A core that counts the faults of all processors."""
    fake_sys(core, processors=(Path("/sys") / ONLINE).read_text("ascii").strip())
    for scene in scenes(core, mount):
        if not scene.core.poke().features & lib.OOMSLICE_FEATURE_FAULTS:
            pytest.skip("this kernel lets nobody here count page faults")
        yield scene


def test_growth_is_noticed_though_nobody_stalls(counting: Scene) -> None:
    scene = counting
    unit = scene.add("a.service", processes=1)
    scene.core.set_memory(1200)
    records = scene.hand_over()
    time.sleep(0.2)  # the end of the connection has woken it
    scene.core.set_memory(50)  # nobody tells the core
    grow(600)  # all that was left above the limit, on whichever processor
    record = records.wait()
    assert (record.trigger, record.outcome) == (lib.OOMSLICE_TRIGGER_AVAILABLE, lib.OOMSLICE_OUTCOME_FREED)
    assert scene.alive(unit) == 0


def test_without_counters_growth_alone_is_not_noticed_and_the_feature_is_missing(scene: Scene) -> None:
    unit = scene.add("a.service", processes=1)
    scene.core.set_memory(1200)
    records = scene.hand_over()
    assert not scene.core.poke().features & lib.OOMSLICE_FEATURE_FAULTS
    time.sleep(0.2)
    scene.core.set_memory(50)
    grow(600)
    time.sleep(0.5)
    assert records.next() is None
    # The rest works.
    scene.core.poke()
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_FREED and scene.alive(unit) == 0


def test_fewer_faults_than_could_matter_wake_nobody(counting: Scene) -> None:
    scene = counting
    scene.add("a.service", processes=1)
    scene.core.set_memory(16000)
    before = faults()
    scene.hand_over(available_min=0)
    # Half of 16000 MiB, shared by all processors, 4 KiB each, as a power of two.
    period = 1 << (16000 * MEBIBYTE // 2 // PAGE // (os.cpu_count() or 1)).bit_length() - 1
    resting = scene.core.poke().wakeups
    grow(64)
    time.sleep(1)
    woken = scene.core.poke().wakeups - resting
    assert faults() - before < period, "too much else was going on to say anything"
    assert woken <= 3, "the connection, the message and the end of a question"


def test_many_faults_wake_it_once_for_each_pause(counting: Scene) -> None:
    scene = counting
    scene.core.stop()
    fake_sys(scene.core, processors=(scene.core.sys / ONLINE).read_text("ascii").strip(), huge="[always] madvise never")
    scene.core.start()
    scene.add("a.service", processes=1)
    scene.core.set_memory(8192)
    scene.hand_over(available_min=0)
    end = threading.Event()

    def work() -> None:
        while not end.is_set():
            grow(64)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        before, begin = scene.core.poke().wakeups, time.monotonic()
        time.sleep(4)
        woken, elapsed = scene.core.poke().wakeups - before - 3, time.monotonic() - begin
    finally:
        end.set()
        worker.join()
    assert woken >= 2, "the faults were noticed"
    assert woken <= elapsed + 2, "8 GiB above the limit last for a second, however many faults there are"


def test_what_the_counters_need_is_given_up_for_good(counting: Scene) -> None:
    tasks = list(Path(f"/proc/{counting.core.pid}/task").iterdir())
    assert len(tasks) > 5
    for task in tasks:
        fields = dict(line.split(":", 1) for line in (task / "status").read_text("ascii").splitlines())
        for which in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert not int(fields[which], 16) & (1 << CAP_SYS_ADMIN | 1 << CAP_PERFMON), f"{task.name} {which}"
