# SPDX-License-Identifier: LGPL-2.1-or-later
"""Early signs: the kernel wakes the core when it runs short of memory, and does not while enough can be reclaimed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from .lab import Lab
from .pulse import DEAF_NSEC, look, only_signs, watcher
from .test_bpf import carriers, status

ASKED = 3
"""As in core/sign.h."""
POKE = "systemctl kill -s STOP oomslice-core.service; systemctl kill -s CONT oomslice-core.service"
"""Ends the core's wait, and so is a turn, for which nobody has to connect."""


def has_pulse(lab: Lab) -> bool:
    return "pulse" in lab.property("State")["CoreFeatures"]


def grow(lab: Lab, name: str, *, rate: int, options: str = "") -> dict[str, Any]:
    """A hog that grows until it is chosen; the decision, with the number of "signs" meanwhile and "sign_usec", the time
    of the last of them before the trigger, which woke the core for it; 0: there was none."""
    lab.drop_in(f"{name}.service", "Priority=-100")
    kept = f"kept-by-{name}"
    lab.start_service(kept, 100)
    lab.start_hog(name, rate=rate, ahead=0, wait_for=name, options=options)
    lab.wait_planned(**{name: -100, kept: 0})
    before = lab.property("State")["CoreWakeups"]
    hits = status(lab)["signs"]["hits"]
    lab.go(name)
    lab.wait_until_dead(name)
    decision = lab.assert_killed(name)
    assert lab.lives(kept)
    lab.machine.check(f"systemctl stop {kept}.service")
    signs = status(lab)["signs"]["hits"] - hits
    given = look(lab)["signs"][-signs:] if signs else []
    kinds = [kind for kind, _nsec, _available in given]
    times = [nsec // 1000 for _kind, nsec, _available in given if nsec // 1000 <= decision["trigger_usec"]]
    print(
        f"\n{name}: decided with {decision['memory_available'] / decision['memory_total']:.2%} available,"
        f" {signs} signs {kinds}, {lab.property('State')['CoreWakeups'] - before} wakeups"
    )
    return {**decision, "signs": signs, "sign_usec": max(times, default=0)}


@pytest.mark.both_kernels
def test_programs_are_loaded_and_the_core_shares_their_maps(lab: Lab) -> None:
    said = status(lab)["signs"]
    assert (said["active"], said["why"]) == (True, "")
    carrier = carriers(lab)["bpf-signs"]
    assert (carrier["Active"], carrier["Acts"], carrier["LastError"]) == (True, False, "")
    assert has_pulse(lab)
    seen = look(lab)
    total = int(lab.machine.check("awk '/^MemTotal/{print $2}' /proc/meminfo")) << 10
    # With what MemAvailable counts and nobody can have, which is more the shorter after a storm this is.
    assert 0.039 * total < seen["available_min"] < 0.15 * total
    assert seen["available_watch"] - seen["available_min"] == pytest.approx(0.21 * total, rel=0.01)
    assert seen["beat_nsec"] > 0


@pytest.mark.both_kernels
def test_growth_without_page_cache_is_noticed_by_the_kernels_sign_alone(lab: Lab) -> None:
    with only_signs(lab):
        lab.machine.check("sync; echo 3 >/proc/sys/vm/drop_caches")
        # The core may happen to look by itself in the moment before the sign; that is as good, and no proof.
        assert any(grow(lab, f"bare-{number}", rate=60)["signs"] > 0 for number in range(3))


@pytest.mark.both_kernels
def test_growth_into_page_cache_is_noticed_by_the_kernels_sign_alone(lab: Lab) -> None:
    with only_signs(lab):
        lab.machine.check("dd if=/dev/vda of=/dev/null bs=1M count=900 status=none", timeout=300)
        decision = grow(lab, "cached", rate=60)
        assert decision["signs"] > 0
        assert decision["memory_available"] >= 0.03 * decision["memory_total"]


@pytest.mark.both_kernels
def test_core_looks_after_each_sign_before_pressure_could_have_told_it(lab: Lab) -> None:
    with only_signs(lab), watcher(lab) as watch:
        lab.machine.check("dd if=/dev/vda of=/dev/null bs=1M count=900 status=none", timeout=300)
        decision = grow(lab, "seen", rate=60)
        looks = watch.looks()
    print(f"\nfrom sign to look: {[f'{one.delay_nsec / 1e6:.2f} ms' for one in looks]}")
    assert looks and decision["sign_usec"] in [one.signalled_nsec // 1000 for one in looks]
    assert all(one.signalled_nsec < one.looked_nsec < one.signalled_nsec + DEAF_NSEC for one in looks), looks


@pytest.mark.both_kernels
def test_page_cache_that_comes_and_goes_wakes_nobody(lab: Lab) -> None:
    hits, wakeups, scanned = status(lab)["signs"]["hits"], lab.property("State")["CoreWakeups"], kswapd(lab)
    begin = time.monotonic()
    lab.machine.check("for i in 1 2; do dd if=/dev/vda of=/dev/null bs=1M count=1100 status=none; done", timeout=300)
    elapsed = time.monotonic() - begin
    assert kswapd(lab) > scanned, "kswapd had nothing to do, so nothing was tried"
    signs = status(lab)["signs"]["hits"] - hits
    print(f"\n{signs} signs, {lab.property('State')['CoreWakeups'] - wakeups} wakeups in {elapsed:.0f} s of reading")
    assert signs <= 1 + elapsed, "one a second would be many: enough is available all the time"
    assert lab.decisions() == []


@pytest.mark.both_kernels
def test_question_that_wakes_nobody_is_sent_by_the_next_sign(lab: Lab) -> None:
    hits = status(lab)["signs"]["hits"]
    # Enough is available, so nothing but the question is a reason to send something. Others may wake the core before
    # kswapd has to work, and then it is answered already: so it is asked again and again.
    look(lab)
    lab.machine.check(
        "dd if=/dev/vda of=/dev/null bs=1M count=1100 status=none & python3 /run/oomtest/look.py 200 >/dev/null; wait",
        timeout=300,
    )
    seen = look(lab)
    assert status(lab)["signs"]["hits"] > hits
    assert seen["signs"][-1][0] == ASKED
    lab.machine.wait_for("it has its answer", lambda: look(lab)["beat_nsec"] > seen["asked_nsec"], 30)
    assert lab.decisions() == []


def kswapd(lab: Lab) -> int:
    """Pages that kswapd has looked at since the machine was booted."""
    return int(lab.machine.check("awk '/^pgscan_kswapd /{print $2}' /proc/vmstat"))


def answers(lab: Lab) -> bool:
    """Whether the core beats in the map that is pinned now, when it is woken."""
    before = look(lab)["beat_nsec"]
    lab.machine.check(POKE)
    return bool(look(lab)["beat_nsec"] > before)


@pytest.mark.both_kernels
def test_core_has_the_maps_of_the_programs_that_are_loaded_whoever_is_started_anew(lab: Lab) -> None:
    machine = lab.machine
    try:
        for verb in ("restart", "reload"):
            machine.check(f"systemctl {verb} oomslice-bpf.service")
            machine.wait_for("the core has the new maps", lambda: answers(lab), 30, 0.5)
        # A core that is started anew has them of systemd: nobody is there to hand them over.
        machine.check("systemctl kill -s STOP oomsliced.service")
        pid = machine.main_pid("oomslice-core.service")
        before = look(lab)["beat_nsec"]
        machine.check("systemctl kill -s KILL oomslice-core.service")
        machine.wait_for("it is back", lambda: machine.main_pid("oomslice-core.service") not in (0, pid), 30)
        machine.wait_for("it beats", lambda: look(lab)["beat_nsec"] > before, 30)
        machine.check("systemctl kill -s CONT oomsliced.service")
        machine.wait_for("all is as it was", lambda: lab.armed() and has_pulse(lab), 60, 0.5)
        machine.check("systemctl restart oomsliced.service")
        machine.wait_for("the daemon is back", lambda: lab.armed() and has_pulse(lab), 60, 0.5)
        assert answers(lab)
        machine.check("systemctl stop oomslice-bpf.service")
        machine.wait_for("the core let go", lambda: not has_pulse(lab), 30, 0.5)
        assert machine.properties("oomslice-core.service", "NFileDescriptorStore")["NFileDescriptorStore"] == "2"
        assert carriers(lab)["bpf-signs"]["Detail"] == "oomslice-bpf.service is not running"
    finally:
        machine.run("systemctl kill -s CONT oomsliced.service; systemctl start oomslice-bpf.service")
    machine.wait_for("the programs are back", lambda: has_pulse(lab), 30, 0.5)
