# SPDX-License-Identifier: LGPL-2.1-or-later
"""With swap: free swap is used before anybody dies, and then priority counts as without."""

from __future__ import annotations

import pytest

from .lab import Lab


@pytest.mark.both_kernels
def test_with_swap_the_hog_dies_when_that_is_used_up_or_nothing_else_runs_any_more(lab: Lab) -> None:
    lab.use_swap()
    lab.drop_in("high.slice", "Priority=500")
    lab.drop_in("low.slice", "Priority=-200")
    lab.daemon_reload()
    lab.start_service("important", 200, slice="high.slice")
    lab.start_hog("hog", rate=100, slice="low.slice", wait_for="go")
    lab.wait_planned(important=500, hog=-200)
    lab.go()
    lab.wait_until_dead("hog", timeout=400)
    decision = lab.assert_killed("hog")
    assert decision["swap_total"] > 900 << 20
    swapped = decision["swap_total"] - decision["swap_free"]
    if decision["trigger"] == "memory-available":
        assert decision["swap_free"] <= decision["swap_free_limit"]
    else:
        # Or it kept the whole machine from working for seconds: an emulated disk is slow.
        assert decision["trigger"] == "thrash"
        assert decision["pressure"] == "full 5s/10s"
    assert swapped > 0
    assert lab.lives("important")


def test_with_swap_two_priorities_die_in_order(lab: Lab) -> None:
    lab.use_swap()
    lab.drop_in("first.service", "Priority=-300")
    lab.drop_in("second.service", "Priority=-100")
    lab.start_service("first", 60)
    lab.start_service("kept", 100)
    lab.start_hog("second", rate=100, wait_for="go")
    lab.wait_planned(first=-300, second=-100, kept=0)
    lab.go()
    lab.wait_until_dead("second", timeout=400)
    lab.assert_killed("first")
    lab.assert_killed("second")
    assert lab.victims() == ["first.service", "second.service"]
    assert lab.lives("kept")


def swapped_out_to_zram(lab: Lab) -> int:
    """Bytes that have ever been written there."""
    # The seventh number counts sectors of 512 bytes (Documentation/block/stat.rst).
    return int(lab.machine.check("cat /sys/block/zram*/stat").split()[6]) * 512


@pytest.mark.both_kernels
def test_zram_that_gains_nothing_is_no_swap(lab: Lab) -> None:
    """What the hog writes is random: in the zram it takes as much memory as it did before."""
    lab.use_zram(512)
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("important", 300)
    lab.start("hog", "/opt/vmtest/storm /run/oomtest/go grow 30 0")
    lab.wait_planned(hog=-100, important=0)
    lab.go()
    lab.wait_until_dead("hog")
    decision = lab.assert_killed("hog")
    assert decision["trigger"] == "memory-available", decision
    assert decision["swap_total"] > 500 << 20 and decision["swap_free"] <= decision["swap_free_limit"]
    # It was not used up: of 512 MiB not half have ever been written.
    written = swapped_out_to_zram(lab)
    assert written < 256 << 20, f"{written >> 20} MiB were swapped out"
    # Nor did it have to be found out by the kernel's own swapping, which begins when there is nothing else left.
    assert decision["memory_available"] > decision["memory_available_limit"] // 2, decision
    assert lab.victims() == ["hog.service"] and lab.lives("important")
    assert lab.kernel_killed() == 0


@pytest.mark.both_kernels
def test_file_on_a_tmpfs_beside_zram_that_gains_nothing_costs_nobody_but_its_writer(lab: Lab) -> None:
    """The file stays when its writer is dead: what is left then must do for everybody else."""
    lab.use_zram(512)
    lab.drop_in("writer.service", "Priority=-100")
    lab.start_service("important", 300)
    lab.machine.check("mkdir -p /tmp/shm && mount -t tmpfs -o size=4G tmpfs /tmp/shm")
    try:
        lab.start("writer", "/opt/vmtest/storm /run/oomtest/go tmpfs 30 /tmp/shm/file")
        lab.wait_planned(writer=-100, important=0)
        lab.go()
        lab.wait_until_dead("writer")
        decision = lab.decision_about("writer")
        assert decision["outcome"] == "kept", decision
        assert decision["memory_available"] > decision["memory_available_limit"] // 2, decision
        lab.machine.check("sleep 5")
        assert lab.victims() == ["writer.service"] and lab.lives("important")
        assert lab.kernel_killed() == 0
    finally:
        lab.machine.run("umount /tmp/shm")


@pytest.mark.both_kernels
def test_zram_that_gains_a_lot_is_used_before_anybody_dies(lab: Lab) -> None:
    """What the hog writes can be compressed, and a few MiB of it tell so."""
    lab.use_zram(256)
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("important", 300)
    lab.start_hog("hog", rate=60, wait_for="go")
    lab.wait_planned(hog=-100, important=0)
    lab.go()
    lab.wait_until_dead("hog", timeout=200)
    lab.assert_killed("hog")
    written = swapped_out_to_zram(lab)
    assert written > 128 << 20, f"{written >> 20} MiB were swapped out"
    assert lab.victims() == ["hog.service"] and lab.lives("important")


@pytest.mark.both_kernels
def test_who_is_throttled_is_swapped_out_to_zram_only_where_that_gains_something(lab: Lab) -> None:
    """memory.high makes the kernel swap a unit out. Random data takes as much memory in the zram as it did before."""
    lab.start("random", "/opt/vmtest/storm /run/oomtest/go static 30")
    lab.start_service("plain", 100)
    lab.wait_planned(random=0, plain=0)
    lab.go()
    random, plain = (f"/sys/fs/cgroup{lab.slice(unit)['ControlGroup']}" for unit in ("random.service", "plain.service"))
    lab.machine.wait_for("it has what it wants", lambda: number(lab, f"{random}/memory.current") > 300 << 20, 60, 0.5)
    lab.use_zram(512)

    assert "throttle:50 of plain.service: done" in lab.machine.check("oomslicectl act plain.service throttle:50")
    assert number(lab, f"{plain}/memory.swap.current") > 40 << 20
    assert lab.machine.check(f"cat {plain}/memory.swap.max").strip() == "max"

    as_before = f"grep -qx max {random}/memory.high && grep -qx max {random}/memory.swap.max"
    for end in ("oomslicectl release random.service", "systemctl kill --kill-whom=main -s KILL oomslice-core.service"):
        held = number(lab, f"{random}/memory.current")
        assert "throttle:50 of random.service: done" in lab.machine.check("oomslicectl act random.service throttle:50")
        assert number(lab, f"{random}/memory.high") < held * 6 // 10
        assert lab.machine.check(f"cat {random}/memory.swap.max").strip() == "0"
        swapped = number(lab, f"{random}/memory.swap.current")
        assert swapped < held // 4, f"{swapped >> 20} of {held >> 20} MiB are swapped out"
        lab.machine.check(f"{end} && for i in $(seq 600); do {as_before} && exit; sleep 0.05; done; exit 1")
    lab.machine.wait_for("oomslice is back", lab.armed, 60, 0.5)
    assert lab.lives("random") and lab.lives("plain")


def number(lab: Lab, path: str) -> int:
    """What a file with one number says."""
    return int(lab.machine.check(f"cat {path}"))
