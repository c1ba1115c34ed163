# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory that grows where nothing can be reclaimed: pressure figures say nothing until all is gone, page faults do."""

from __future__ import annotations

from typing import Any

from .lab import Lab

LEFT = 0.03
"""Share of memory that is left at least when the core decides. Its limit is a little above."""
CACHE = "/var/tmp/cache"
CACHE_MB = 250
WITHOUT = "/etc/systemd/system/oomslice-core.service.d/50-test.conf"


def grow_without_cache(lab: Lab) -> dict[str, Any]:
    """A hog that takes all there is as fast as it can, huge pages and all; the decision about it."""
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("kept", 100)
    lab.start_hog("hog", rate=0, ahead=0, wait_for="go", options="-h")
    lab.wait_planned(hog=-100, kept=0)
    lab.machine.check("sync; echo 3 >/proc/sys/vm/drop_caches")
    lab.go()
    lab.wait_until_dead("hog")
    decision = lab.assert_killed("hog")
    assert lab.lives("kept")
    share = decision["memory_available"] / decision["memory_total"]
    print(f"\ndecided with {share:.2%} available")
    return decision


def test_growth_without_page_cache_is_noticed_before_memory_is_gone(lab: Lab) -> None:
    assert "page-faults" in lab.property("State")["CoreFeatures"]
    core = lab.machine.main_pid("oomslice-core.service")
    rights = [
        int(word, 16) for word in lab.machine.check(f"awk '/CapPrm/{{print $2}}' /proc/{core}/task/*/status").split()
    ]
    assert len(rights) > 5 and not any(right & (1 << 21 | 1 << 38) for right in rights), "CAP_SYS_ADMIN and CAP_PERFMON"
    decision = grow_without_cache(lab)
    assert decision["memory_available"] >= LEFT * decision["memory_total"]


def test_a_core_that_may_not_count_page_faults_says_so_and_kills_all_the_same(lab: Lab) -> None:
    lab.write(WITHOUT, "[Service]\nCapabilityBoundingSet=~CAP_PERFMON CAP_SYS_ADMIN\n")
    try:
        lab.machine.check("systemctl daemon-reload; systemctl restart oomslice-core.service", timeout=120)
        lab.settle()
        state = lab.property("State")
        assert "page-faults" in state["CoreFeaturesMissing"] and "psi-machine" in state["CoreFeatures"]
        assert "page-faults:" in lab.machine.run("oomslicectl status").out
        grow_without_cache(lab)
    finally:
        lab.machine.check(
            f"rm {WITHOUT}; systemctl daemon-reload; systemctl restart oomslice-core.service", timeout=120
        )


def test_page_faults_alone_wake_the_core_no_more_often_than_memory_could_run_short(lab: Lab) -> None:
    def woken(command: str) -> float:
        """How often a second, while a command runs."""
        figures = lab.machine.check(
            "ask() { busctl --system --json=short get-property org.oomslice1 /org/oomslice1 org.oomslice1.Manager State"
            " | grep -o 'CoreWakeups[^}]*' | grep -o '[0-9]*$'; };"
            f" a=$(ask); t=$(date +%s%N); {command}; u=$(date +%s%N); b=$(ask); echo $a $b $(((u - t) / 1000000))",
            timeout=120,
        ).split()
        before, after, milliseconds = (int(word) for word in figures)
        print(f"\n{command}: {after - before} wakeups in {milliseconds} ms")
        return (after - before) * 1000 / milliseconds

    busy = "timeout 10 sh -c 'while :; do /bin/true; done' & timeout 10 sh -c 'while :; do /bin/true; done'; wait"
    total = int(lab.machine.check("awk '/^MemTotal/{print $2}' /proc/meminfo")) / 1024
    above = lab.machine.available_mb() - 0.04 * total
    # Half of it at 2 GiB/s and processor, of which there are two; and the questions. A little less is left meanwhile.
    assert woken(busy) <= 1.5 * 2 * 2 * 2048 / above + 1


def test_page_cache_that_is_protected_is_not_taken_for_memory_that_is_left(lab: Lab) -> None:
    """MemAvailable counts it, but it cannot be reclaimed: who waits for that to sink waits for the kernel's killer."""
    lab.drop_in("hog.service", "Priority=-100")
    lab.machine.check(f"systemctl set-property --runtime cache.slice MemoryMin={CACHE_MB + 50}M")
    try:
        fill = f"head -c {CACHE_MB}M /dev/zero >{CACHE}; sync; cat {CACHE} >/dev/null; exec sleep infinity"
        lab.start("cache", f"/bin/sh -c '{fill}'", slice="cache.slice")
        held = "awk '/^file /{print int($2 / 1048576)}' /sys/fs/cgroup/cache.slice/memory.stat"
        lab.machine.wait_for("the cache is there", lambda: int(lab.machine.check(held)) >= CACHE_MB - 5, 120, 0.5)
        lab.start_service("kept", 80)
        lab.start_hog("hog", wait_for="go")
        lab.wait_planned(hog=-100, kept=0, cache=0)
        lab.go()
        lab.wait_until_dead("hog")
        said = int(lab.machine.check(held))
        decision = lab.assert_killed("hog")
        assert said >= CACHE_MB - 5
        assert lab.lives("kept") and lab.machine.active("cache.service")
        assert decision["memory_available"] <= decision["memory_available_limit"]
    finally:
        lab.machine.check(f"rm -f {CACHE}; systemctl revert cache.slice")
