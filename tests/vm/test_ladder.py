# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ladders: what comes before a kill, what is undone afterwards, and that nobody is ever left standing still."""

from __future__ import annotations

from typing import Any

from .lab import HOG, Lab

CGROUP = "/sys/fs/cgroup/jail.slice/jailed.service"


def jail(lab: Lab, actions: str, *settings: str, limits: str = "MemoryHigh=120M\nMemorySwapMax=0") -> None:
    """A slice that stalls above its limit and handles that itself, with the ladder of whatever is in it."""
    lab.write("/etc/systemd/system/jail.slice", f"[Slice]\n{limits}\n")
    lab.drop_in("jail.slice", "\n".join(["PressureTrigger=some 100ms/1s", f"Actions={actions}", *settings]))
    lab.daemon_reload()


def grow(lab: Lab, max_mb: int = 160, rate: int = 60, **properties: str) -> None:
    """Starts what is in the jail, and lets it grow beyond the limit once the plan has it."""
    lab.start_hog("jailed", rate=rate, max_mb=max_mb, slice="jail.slice", wait_for="go", **properties)
    lab.wait_planned(jailed=0)
    lab.go()


def steps(decision: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and result of each step."""
    return [(step["step"], step["result"]) for step in decision["steps"]]


def frozen(lab: Lab, path: str = CGROUP) -> bool:
    return "frozen 1" in lab.machine.check(f"cat {path}/cgroup.events")


def high(lab: Lab, path: str = CGROUP) -> int:
    """memory.high of a unit, the jailed one if not said; 0 for max, or if the unit is gone."""
    value = lab.machine.run(f"cat {path}/memory.high").out.strip()
    return int(value) if value.isdecimal() else 0


def the_decision(lab: Lab, outcome: str) -> dict[str, Any]:
    """The oldest decision about the jailed unit with this outcome; waits for it."""

    def find() -> dict[str, Any] | None:
        return next((one for one in lab.decisions() if one["outcome"] == outcome), None)

    return lab.machine.wait_for(f'a decision that ends as "{outcome}"', find, 90, 0.5)  # type: ignore[return-value]


def told(lab: Lab, decision: str) -> list[tuple[str, ...]]:
    """What the bus was told of a decision for the jail, until the pressure ended for the first time."""
    found: list[tuple[str, ...]] = []
    for event in lab.heard("PressureBegan", "StepTaken", "PressureEnded"):
        if event.get("domain") == "jail.slice":
            found.append((event["event"], event["domain"]))
        elif event.get("decision") == decision:
            found.append((event["event"], event["unit"], event["step"], event["result"]))
        if event["event"] == "PressureEnded" and found[-1:] == [("PressureEnded", "jail.slice")]:
            break
    return found


def test_throttled_and_frozen_while_the_pressure_lasts_and_both_undone_when_it_is_calm(lab: Lab) -> None:
    jail(lab, "warn throttle:80 freeze@4s kill@120s")
    lab.start_service("outsider", 50)
    lab.hear()
    grow(lab, MemoryHigh="400M")
    limit = lab.machine.wait_for("its limit is lower", lambda: value if (value := high(lab)) < 400 << 20 else 0, 60)
    lab.machine.wait_for("it stands still", lambda: frozen(lab), 60)
    decision = the_decision(lab, "relieved")
    assert decision["victim"] == "jailed.service" and decision["domain"] == "jail.slice"
    assert [name for name, _result in steps(decision)] == ["warn", "throttle", "freeze"]
    _warn, throttle, freeze = decision["steps"]
    assert limit == throttle["amount"]
    assert 0.7 < limit / throttle["memory_before"] < 0.85
    assert freeze["result"] == "done"
    assert freeze["memory_before"] > 100 << 20
    lab.machine.wait_for("it is as before", lambda: not frozen(lab) and high(lab) == 400 << 20, 60)
    undone_last_first(lab, decision)
    assert told(lab, decision["id"]) == [
        ("PressureBegan", "jail.slice"),
        *(("StepTaken", "jailed.service", *step) for step in steps(decision)),
        ("PressureEnded", "jail.slice"),
    ]
    assert lab.machine.active("jailed.service")
    shown = lab.machine.check(f"oomslicectl show {decision['id']}")
    assert "freeze" in shown and "relieved" in shown
    assert lab.lives("outsider")
    assert lab.kernel_killed() == 0


def test_whoever_ends_the_core_the_frozen_are_thawed_and_limits_put_back(lab: Lab) -> None:
    jail(lab, "throttle:80 freeze@4s kill@600s", "CooldownSec=10min")
    lab.hear()
    grow(lab, MemoryHigh="400M")

    def is_held() -> bool:
        return frozen(lab) and 0 < high(lab) < 200 << 20

    lab.machine.wait_for("it stands still with a lower limit", is_held, 60)
    # Killed: a successor comes at once, and finds nobody standing still. It begins anew soon: seen from close by.
    core = lab.machine.main_pid("oomslice-core.service")
    as_before = f"grep -qx 'frozen 0' {CGROUP}/cgroup.events && grep -qx {400 << 20} {CGROUP}/memory.high"
    lab.machine.check(f"kill -KILL {core}; for i in $(seq 600); do {as_before} && exit; sleep 0.05; done; exit 1")
    decision = the_decision(lab, "interrupted")
    assert [name for name, _result in steps(decision)] == ["throttle", "freeze"]
    undone_last_first(lab, decision)
    lab.machine.wait_for("oomslice is back", lab.armed, 60, 0.5)

    def came_and_went() -> list[tuple[bool, str]]:
        carriers = [event for event in lab.heard("CarrierChanged") if event["name"] == "core"]
        return [(event["active"], event["detail"]) for event in carriers] if len(carriers) > 1 else []

    assert lab.machine.wait_for("the bus is told", came_and_went, 30, 0.5) == [
        (False, "oomslice-core is not running"),
        (True, "armed"),
    ]
    # The pressure is still there, so is the ladder.
    lab.machine.wait_for("it stands still again with a lower limit", is_held, 60)
    lab.machine.check("systemctl stop oomslice-core.socket oomslice-core.service")
    assert not frozen(lab) and high(lab) == 400 << 20 and lab.machine.active("jailed.service")
    # Whoever it is has to be gone by then: a decision about it would keep the slice's cooldown for the next scenario.
    lab.machine.check("systemctl kill -s KILL jailed.service")
    lab.machine.check("systemctl start oomslice-core.socket oomslice-core.service")


def undone_last_first(lab: Lab, decision: dict[str, Any]) -> None:
    """Waits until the record says that both steps were undone, in which order."""

    def undone() -> list[int]:
        times = [step.get("undone_usec", 0) for step in lab.busctl("GetDecision", "s", decision["id"])["steps"][-2:]]
        return times if all(times) else []

    throttle, freeze = lab.machine.wait_for("the record says so", undone, 30)
    assert throttle > freeze > decision["steps"][-1]["end_usec"]


def test_reclaim_brings_memory_back_without_harm(lab: Lab) -> None:
    lab.use_swap()
    jail(lab, "reclaim:64M kill@60s", limits="MemoryHigh=120M")
    grow(lab, max_mb=220)  # so much goes to swap that it has to wait for that
    decision = the_decision(lab, "relieved")
    step = decision["steps"][0]
    assert (step["step"], step["result"]) == ("reclaim", "done")
    assert step["amount"] == 64 << 20
    assert lab.machine.active("jailed.service")


def test_record_says_in_bytes_what_each_step_gave_back(lab: Lab) -> None:
    lab.use_swap()
    files = "/run/oomtest/files"
    lab.start("full", f"/bin/sh -c 'mkdir {files}; head -c 64M /dev/zero >{files}/zero; exec {HOG} 0 128'")
    lab.wait_planned(full=0)
    path = "/sys/fs/cgroup/system.slice/full.service/memory.current"
    lab.machine.wait_for("it has all", lambda: int(lab.machine.check(f"cat {path}")) >= 192 << 20, 60)
    for step, least_mb in (f"purge:{files}", 60), ("reclaim:64M", 32), ("kill", 60):
        lab.machine.check(f"oomslicectl act full.service {step}", timeout=120)
        decision = lab.decisions()[-1]
        (done,) = decision["steps"]
        assert (done["step"], done["result"]) == (step.partition(":")[0], "done")
        assert done["memory_before"] - done["memory_after"] > least_mb << 20, done
    assert decision["outcome"] == "freed" and not lab.machine.active("full.service")


def test_deaf_to_sigterm_it_is_killed_at_its_time(lab: Lab) -> None:
    jail(lab, "terminate kill@5s")
    lab.start(
        "jailed",
        f"/bin/sh -c 'trap \"\" TERM; until [ -e /run/oomtest/go ]; do sleep 0.2; done; {HOG} 60 160 & wait; wait'",
        slice="jail.slice",
    )
    lab.wait_planned(jailed=0)
    lab.go()
    lab.wait_until_dead("jailed")
    decision = lab.decision_about("jailed")
    assert decision["outcome"] == "freed", decision
    assert steps(decision) == [("terminate", "done"), ("kill", "done")]
    assert decision["steps"][1]["begin_usec"] - decision["trigger_usec"] >= 5_000_000
    assert lab.kernel_killed() == 0


def test_when_the_machine_itself_runs_out_nobody_waits_for_a_ladder(lab: Lab) -> None:
    lab.drop_in("hog.service", "Priority=-100\nActions=warn throttle@2s freeze@5s terminate@10s kill@15min")
    lab.start_service("kept", 150)
    lab.start_hog("hog", rate=150, wait_for="go")
    lab.wait_planned(hog=-100, kept=0)
    lab.go()
    lab.wait_until_dead("hog")
    decision = lab.decision_about("hog")
    assert decision["outcome"] == "freed", decision
    assert steps(decision)[-1] == ("kill", "done")
    assert lab.kernel_killed() == 0
    assert lab.lives("kept")


def test_only_the_largest_process_is_killed_where_that_is_the_scope(lab: Lab) -> None:
    jail(lab, "kill", "KillScope=process", "CooldownSec=1min")
    lab.start(
        "jailed",
        f"/bin/sh -c '{HOG} 60 30 & until [ -e /run/oomtest/go ]; do sleep 0.2; done; {HOG} 60 140 & wait; wait; wait'",
        slice="jail.slice",
    )
    lab.wait_planned(jailed=0)
    lab.go()
    decision = lab.decision_about("jailed")
    assert decision["outcome"] == "freed", decision
    assert decision["kill_scope"] == "process"
    assert decision["processes"] == 1
    assert lab.machine.active("jailed.service"), "the rest of it should live"
    assert lab.machine.check(f"wc -l < {CGROUP}/cgroup.procs").strip() == "2"


def test_slice_that_is_taken_as_one_dies_with_all_that_is_in_it(lab: Lab) -> None:
    lab.drop_in("pack.slice", "KillScope=subtree\nPriority=-100")
    lab.daemon_reload()
    lab.start_service("pack-helper", 30, slice="pack.slice")
    lab.start_service("kept", 150)
    lab.start_hog("pack-hog", rate=150, slice="pack.slice", wait_for="go")
    lab.wait_planned(**{"pack.slice": -100, "kept": 0})
    lab.go()
    lab.wait_until_dead("pack-hog")
    lab.wait_until_dead("pack-helper")
    decision = lab.decision_about("pack.slice")
    assert decision["outcome"] == "freed", decision
    assert lab.victims() == ["pack.slice"]
    assert lab.lives("kept")
    assert lab.kernel_killed() == 0


def test_low_memory_has_the_harmless_part_of_a_ladder_climbed(lab: Lab) -> None:
    lab.configure("machine:\n  available-ladder: 30%\n  available-watch: 40%\n")
    # Somebody stalls, which shows as pressure of the machine, too.
    lab.write("/etc/systemd/system/jail.slice", "[Slice]\nMemoryHigh=60M\nMemorySwapMax=0\n")
    lab.drop_in("hog.service", "Priority=-100\nActions=freeze kill@1s")
    lab.daemon_reload()
    lab.start_hog("hog", rate=150, max_mb=lab.machine.available_mb() * 3 // 4, wait_for="go")
    lab.start_hog("jailed", rate=60, max_mb=100, slice="jail.slice", wait_for="go")
    lab.wait_planned(hog=-100, jailed=0)
    lab.go()
    path = "/sys/fs/cgroup/system.slice/hog.service"
    lab.machine.wait_for("it stands still", lambda: frozen(lab, path), 60)
    lab.machine.check("sleep 3")
    assert lab.machine.active("hog.service"), "a kill should wait for the limits"
    lab.machine.check("systemctl kill -s KILL jailed.service")
    decision = the_decision(lab, "relieved")
    assert (decision["trigger"], decision["victim"]) == ("memory-low", "hog.service")
    assert steps(decision) == [("freeze", "done")]
    lab.machine.wait_for("it is thawed", lambda: not frozen(lab, path), 60)
    assert lab.kernel_killed() == 0


def test_where_only_swap_is_left_a_ladder_begins_before_anybody_has_waited_for_memory(lab: Lab) -> None:
    lab.use_swap()
    lab.configure("machine:\n  swap-free-ladder: 100%\n  sign: full 450ms/500ms\n")
    lab.drop_in("hog.service", "Priority=-100\nActions=throttle:100 kill@10min")
    lab.start_service("important", 100)
    lab.start_service("relief", 150)
    lab.start_hog("hog", rate=40, max_mb=lab.machine.available_mb() + 120, wait_for="go")
    lab.wait_planned(hog=-100, important=0, relief=0)
    lab.go()
    path = "/sys/fs/cgroup/system.slice/hog.service"
    limit = lab.machine.wait_for("it pays for its growth", lambda: high(lab, path), 120, 0.2)
    lab.machine.check("sleep 3")
    assert lab.machine.active("hog.service"), "a kill should wait for the limits"
    lab.machine.check("systemctl stop relief.service")
    decision = the_decision(lab, "relieved")
    assert (decision["trigger"], decision["victim"]) == ("memory-low", "hog.service")
    assert [name for name, _result in steps(decision)] == ["throttle"]
    assert decision["steps"][0]["amount"] == limit
    # Most of swap was free, and memory was at the limit and not yet used up.
    assert decision["swap_free_limit"] == decision["swap_total"] and decision["swap_free"] > 900 << 20, decision
    assert 0 < decision["memory_available"] <= decision["memory_total"] // 25, decision
    lab.machine.check("journalctl -b -o cat -u oomsliced.service | grep 'by throttle: MemAvailable .* (8.0% of '")
    lab.machine.wait_for("it pays no longer", lambda: not high(lab, path), 60)
    assert lab.lives("important") and lab.kernel_killed() == 0
