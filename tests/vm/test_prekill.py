# SPDX-License-Identifier: LGPL-2.1-or-later
"""The BPF program that kills by the plan: when nothing else of oomslice runs, and never on a machine that is well."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from .lab import Lab, unit_name
from .machine import CommandError
from .test_bpf import OOMSLICE_BPF
from .test_bpf_choice import choose, wait_chosen

STORMS = int(os.environ.get("OOMSLICE_PREKILL_STORMS", "0"))
"""Shortages in a row for the figure of `test_share_of_storms`; it runs only if that is set."""
FORKS = (
    "sleep .1 until -e $ARGV[0]; for (;;) { my $p = fork; if (!defined $p) { select undef, undef, undef, .01 }"
    " elsif (!$p) { $x = q(x) x 3000000 } }"
)
"""Perl: every process forks without end, and each child takes 3 MB of its own."""
BUSY_LOOP = "/usr/bin/perl -e 'select undef, undef, undef, .1 until -e $ARGV[0]; for (;;) { }' /run/oomtest/go"
"""Wants a whole processor from go() on."""
KILLERS = "oomsliced.service oomslice-core.service"


def prekill(lab: Lab) -> dict[str, Any]:
    """What `oomslice-bpf status` says of it; needs neither daemon nor core."""
    said = json.loads(lab.machine.check(f"{OOMSLICE_BPF} status --json"))
    return next(program for program in said["programs"] if program["name"] == "prekill")


def carrier(lab: Lab) -> dict[str, Any]:
    """Its line in the property Carriers."""
    return next(carrier for carrier in lab.property("Carriers") if carrier["Name"] == "bpf-prekill")


@pytest.fixture
def armed(lab: Lab) -> Lab:
    """A lab in which the program runs and has the plan; kernels before 6.13 have not what it needs."""
    said = prekill(lab)
    if "this kernel has no function" in said.get("why", ""):
        pytest.skip(f"this kernel cannot: {said['why']}")
    assert said["active"], said
    return lab


@contextlib.contextmanager
def nobody_else(lab: Lab) -> Iterator[None]:
    """Neither core nor daemon runs meanwhile."""
    # systemd would take who says nothing for stuck, and start another.
    lab.machine.check(f"systemctl service-watchdogs no && systemctl kill -s STOP {KILLERS}")
    try:
        yield
    finally:
        lab.machine.check(f"systemctl kill -s CONT {KILLERS} && systemctl service-watchdogs yes")
        lab.machine.wait_for("the daemon answers", lab.armed, 60, 0.5)


def populated(lab: Lab, unit: str, slice: str = "system.slice") -> bool:
    """Whether a process of the unit is left. systemd is not asked: it may be slow now."""
    path = f"/sys/fs/cgroup/{slice}/{unit_name(unit)}/cgroup.events"
    return "populated 1" in lab.machine.run(f"cat {path}").out


def wait_emptied(lab: Lab, unit: str, slice: str = "system.slice") -> None:
    lab.machine.wait_for(f"{unit} is dead", lambda: not populated(lab, unit, slice), 120, 0.2)


def assert_prekilled(lab: Lab, unit: str, domain: str, triggers: tuple[str, ...]) -> dict[str, Any]:
    """The unit was killed by the program, once, and the kernel's own killer had no part in it."""
    decision = lab.decision_about(unit)
    assert decision["carrier"] == "bpf", decision
    assert decision["trigger"] in triggers, decision
    assert decision["domain"] == domain
    assert decision["outcome"] == "freed", decision
    assert decision["bytes_freed"] > 0
    times = [decision[f"{what}_usec"] for what in ("trigger", "decision", "signal", "death", "memory_back")]
    assert all(times) and times == sorted(times), decision
    assert lab.kernel_killed() == 0, "the kernel's own killer acted, too"
    return decision


def jail(lab: Lab, mb: int) -> None:
    """A slice that may have so many MiB, and no swap."""
    lab.write("/etc/systemd/system/jail.slice", f"[Slice]\nMemoryMax={mb}M\nMemorySwapMax=0\n")
    lab.daemon_reload()


MACHINE = ("memory-available", "last-moment")


def run_out(lab: Lab, unit: str) -> None:
    """Lets the hogs grow that wait, until the unit is dead."""
    with nobody_else(lab):
        lab.go()
        wait_emptied(lab, unit)


@pytest.mark.both_kernels
def test_status_says_whether_it_acts_and_why_not(lab: Lab) -> None:
    said = prekill(lab)
    line = carrier(lab)
    assert (line["Active"], line["Acts"], line["LastError"]) == (said["active"], True, "")
    if said["active"]:
        assert "before the kernel would" in line["Detail"]
        assert said["hits"] == line["Hits"]
    else:
        assert said["why"] == "this kernel has no function bpf_send_signal_task for BPF programs" == line["Detail"]
    shown = lab.machine.check("oomslicectl status")
    assert "bpf-prekill" in shown


@pytest.mark.both_kernels
def test_lowest_priority_dies_for_the_machine_while_nothing_else_runs(armed: Lab) -> None:
    lab = armed
    lab.drop_in("batch.service", "Priority=-300")
    lab.drop_in("dear.service", "Priority=300")
    lab.start_service("batch", 250)
    lab.start_service("important", 100)
    # It grows beyond what there is, and stops far from that once the other is gone.
    lab.start_hog("dear", rate=100, max_mb=lab.machine.available_mb() + 40, ahead=160, wait_for="go")
    lab.wait_planned(batch=-300, important=0, dear=300)
    hits = prekill(lab)["hits"]
    run_out(lab, "batch")
    decision = assert_prekilled(lab, "batch", "-.slice", MACHINE)
    assert decision["victim_priority"] == -300
    assert decision["victim_memory_before"] > 240 << 20
    assert lab.victims() == ["batch.service"]
    assert lab.lives("important") and lab.machine.active("dear")
    assert prekill(lab)["hits"] == hits + 1 == carrier(lab)["Hits"]
    listed = {name: (priority, verdict) for name, _, priority, _, verdict in decision["candidates"]}
    assert decision["extra"]["candidates_from"] == "plan"
    assert listed["batch.service"] == (-300, "chosen") and listed["dear.service"] == (300, "planned")
    assert listed["important.service"] == (0, "planned") and listed["oomsliced.service"][1] == "self"
    shown = lab.machine.check(f"oomslicectl show {decision['id']}")
    assert "a BPF program in the kernel" in shown and "may be chosen by the plan" in shown


@pytest.mark.both_kernels
def test_lowest_priority_dies_at_a_limit_while_nothing_else_runs(armed: Lab) -> None:
    lab = armed
    jail(lab, 200)
    lab.drop_in("dear.service", "Priority=300")
    lab.drop_in("cheap.service", "Priority=-300")
    lab.start_service("cheap", 40, slice="jail.slice")
    lab.start_hog("dear", rate=60, max_mb=185, slice="jail.slice", wait_for="go")
    lab.wait_planned(dear=300, cheap=-300)
    with nobody_else(lab):
        lab.go()
        wait_emptied(lab, "cheap", "jail.slice")
    decision = assert_prekilled(lab, "cheap", "jail.slice", ("memory-limit",))
    assert decision["victim_priority"] == -300
    assert lab.victims() == ["cheap.service"]
    assert lab.machine.active("dear")


@pytest.mark.both_kernels
@pytest.mark.parametrize("what", ["many processes", "a fork storm", "eight allocators"])
def test_all_of_a_victim_dies_at_a_limit(armed: Lab, what: str) -> None:
    lab = armed
    lab.write("/etc/systemd/system/jail.slice", "[Slice]\nMemoryMax=300M\nMemorySwapMax=0\n")
    victim, below, names = "wild.service", "jail.slice", ["wild"]
    if what == "eight allocators":
        victim, below, names = "jail-wild.slice", "jail.slice/jail-wild.slice", [f"wild-{n}" for n in range(8)]
        lab.drop_in(victim, "Priority=-100\nKillScope=subtree")
    else:
        lab.drop_in(victim, "Priority=-100")
    lab.daemon_reload()
    lab.start_service("kept", 80, slice="jail.slice")
    for name in names:
        match what:
            case "many processes":
                lab.start_hog(name, rate=200, max_mb=500, children=80, slice=below, wait_for="go")
            case "a fork storm":
                command = f"/usr/bin/perl -e '{FORKS}' /run/oomtest/go"
                lab.start(name, command, slice=below, TasksMax="400")
            case _:
                lab.start_hog(name, rate=0, max_mb=500, slice=victim, wait_for="go")
    lab.wait_planned(kept=0, **{victim: -100})
    with nobody_else(lab):
        lab.go()
        lab.machine.wait_for("all are dead", lambda: not any(populated(lab, name, below) for name in names), 120, 0.2)
    assert_prekilled(lab, victim, "jail.slice", ("memory-limit",))
    assert lab.victims() == [victim]
    assert lab.lives("kept")


@pytest.mark.both_kernels
def test_victims_own_do_not_call_the_kernels_killer_while_the_walk_is_kept_from_the_processor(armed: Lab) -> None:
    """Others that want memory at that limit may get past what holds them: then it finds whoever is dying already."""
    lab = armed
    jail(lab, 300)
    lab.drop_in("wild.service", "Priority=-100")
    lab.start_service("kept", 80, slice="jail.slice")
    lab.start_hog("wild", rate=200, max_mb=500, children=80, slice="jail.slice", wait_for="go")
    for number in range(4):
        lab.start(f"busy-{number}", BUSY_LOOP, slice="busy.slice")
    lab.wait_planned(kept=0, wild=-100)
    called = "dmesg | grep -c ' hog invoked oom-killer' || true"
    before = lab.machine.check(called)
    with nobody_else(lab):
        lab.go()
        wait_emptied(lab, "wild", "jail.slice")
    carriers = lab.machine.wait_for("it is told", lambda: [one["carrier"] for one in lab.decisions()], 60, 0.5)
    assert "bpf" in carriers
    # It happened once, and for what allocation is not known.
    told = "dmesg | grep -A 40 ' hog invoked oom-killer' | head -n 90"
    assert lab.machine.check(called) == before, lab.machine.run(told).out
    assert set(lab.victims()) == {"wild.service"}
    assert lab.lives("kept")


@pytest.mark.both_kernels
def test_unit_of_many_processes_dies_as_a_whole(armed: Lab) -> None:
    lab = armed
    lab.drop_in("many.service", "Priority=-100")
    lab.start_service("important", 100)
    lab.start_hog("many", rate=200, children=80, wait_for="go")
    lab.wait_planned(many=-100, important=0)
    run_out(lab, "many")
    decision = assert_prekilled(lab, "many", "-.slice", MACHINE)
    # With the first of them the others begin to die, and some are gone before they are come to.
    assert 1 <= decision["processes"] <= 81
    assert lab.machine.run("pgrep -x hog").out == ""
    assert lab.victims() == ["many.service"]
    assert lab.lives("important")


@pytest.mark.both_kernels
def test_fork_storm_dies_as_a_whole(armed: Lab) -> None:
    lab = armed
    lab.drop_in("forks.service", "Priority=-100")
    lab.start_service("important", 100)
    lab.start("forks", f"/usr/bin/perl -e '{FORKS}' /run/oomtest/go", TasksMax="400")
    lab.wait_planned(forks=-100, important=0)
    run_out(lab, "forks")
    decision = assert_prekilled(lab, "forks", "-.slice", MACHINE)
    assert decision["processes"] > 20
    assert lab.victims() == ["forks.service"]
    assert lab.lives("important")


@pytest.mark.both_kernels
def test_hundreds_that_die_slowly_are_waited_for(armed: Lab) -> None:
    """Others want the processors and memory: the victim needs longer than one that is stuck may. Nobody follows it."""
    lab = armed
    lab.drop_in("forks.service", "Priority=-100")
    lab.drop_in("next.service", "Priority=-50")
    lab.start_service("next", 100)
    lab.start("forks", f"/usr/bin/perl -e '{FORKS}' /run/oomtest/go", TasksMax="400")
    lab.start_hog("grower", rate=20, max_mb=400, wait_for="go")
    for number in range(2):
        lab.start(f"busy-{number}", BUSY_LOOP, CPUWeight="1000")
    lab.wait_planned(forks=-100, next=-50)
    run_out(lab, "forks")
    assert_prekilled(lab, "forks", "-.slice", MACHINE)
    assert lab.victims() == ["forks.service"]
    assert lab.lives("next")


@pytest.mark.both_kernels
def test_eight_allocators_at_once_with_swap(armed: Lab) -> None:
    lab = armed
    lab.use_swap()
    lab.drop_in("hogs.slice", "Priority=-100\nKillScope=subtree")
    lab.daemon_reload()
    lab.start_service("important", 100)
    for number in range(8):
        lab.start_hog(f"hog-{number}", rate=60, max_mb=400, ahead=400, slice="hogs.slice", wait_for="go")
    lab.wait_planned(important=0, **{"hogs.slice": -100})
    wait_chosen(lab, "/hogs.slice", "/")
    with nobody_else(lab):
        lab.go()
        lab.machine.wait_for(
            "all are dead", lambda: not any(populated(lab, f"hog-{n}", "hogs.slice") for n in range(8)), 180, 0.5
        )
    decision = assert_prekilled(lab, "hogs.slice", "-.slice", MACHINE)
    assert (decision["kill_scope"], decision["processes"]) == ("subtree", 8)
    assert lab.victims() == ["hogs.slice"]
    assert lab.lives("important")


PULSE = "/run/oomslice/bpf/shared/map-pulse"
BEAT = slice(8, 16)
"""Where beat_nsec is, see core/pulse.h."""


def answer_forever(lab: Lab) -> None:
    """The pulse of a core that answers every question and does nothing: as one that is too slow would be seen."""
    value = json.loads(lab.machine.check(f"bpftool --json map lookup pinned {PULSE} key 0 0 0 0"))["value"]
    data = bytearray(int(byte, 16) for byte in value)
    data[BEAT] = (1 << 62).to_bytes(8, "little")
    lab.machine.check(f"bpftool map update pinned {PULSE} key 0 0 0 0 value {' '.join(map(str, data))}")


@pytest.mark.both_kernels
@pytest.mark.parametrize(
    ("hogs", "beside"), [(1, "nothing"), (8, "nothing"), (8, "swap"), (8, "zram"), (1, "page cache")]
)
def test_last_moment_comes_before_the_kernels_killer_though_the_core_answers(
    armed: Lab, hogs: int, beside: str
) -> None:
    lab = armed
    match beside:
        case "swap":
            lab.use_swap()
        case "zram":
            lab.use_zram(400)
        case "page cache":
            lab.machine.check(BUSY[beside])
    lab.drop_in("hogs.slice", "Priority=-100\nKillScope=subtree")
    lab.daemon_reload()
    lab.start_service("important", 100)
    for number in range(hogs):
        lab.start_hog(f"hog-{number}", rate=0, ahead=400, slice="hogs.slice", wait_for="go")
    lab.wait_planned(important=0, **{"hogs.slice": -100})
    wait_chosen(lab, "/hogs.slice", "/")
    with nobody_else(lab):
        answer_forever(lab)
        lab.go()
        names = [f"hog-{number}" for number in range(hogs)]
        lab.machine.wait_for("all are dead", lambda: not any(populated(lab, n, "hogs.slice") for n in names), 180, 0.5)
    assert_prekilled(lab, "hogs.slice", "-.slice", ("last-moment",))
    assert lab.victims() == ["hogs.slice"]
    assert lab.lives("important")


@pytest.mark.both_kernels
def test_units_younger_than_the_plan_are_known(armed: Lab) -> None:
    lab = armed
    lab.drop_in("young.slice", "Priority=-200")
    lab.drop_in("dear.service", "Priority=300")
    lab.start_service("old", 10, slice="young.slice")
    lab.start_service("dear", 150)
    lab.start_service("important", 100)
    lab.wait_planned(old=-200, dear=300, important=0)
    wait_chosen(lab, "/young.slice/old.service", "/")
    with nobody_else(lab):
        # One that is started anew has what it had, another one what its slice hands down.
        lab.machine.check("systemctl restart dear.service")
        lab.start_hog("hog", rate=60, slice="young.slice", wait_for="go")
        lab.start_hog("deep", rate=0, max_mb=20, slice="young-deep.slice")
        known = choose(lab, "/young.slice/hog.service")
        assert (known["result"], known["priority"]) == ("chosen", -200)
        known = choose(lab, "/young.slice/young-deep.slice")
        assert (known["path"], known["priority"]) == ("/young.slice/young-deep.slice/deep.service", -200)
        known = choose(lab, "/system.slice/dear.service")
        assert (known["result"], known["priority"]) == ("chosen", 300)
        lab.go()
        wait_emptied(lab, "hog", "young.slice")
    decision = assert_prekilled(lab, "hog", "-.slice", MACHINE)
    assert decision["victim_priority"] == -200
    assert lab.victims() == ["hog.service"]
    assert lab.lives("dear") and lab.lives("important") and lab.lives("old")


@pytest.mark.both_kernels
def test_largest_process_alone_where_that_is_asked_for(armed: Lab) -> None:
    lab = armed
    jail(lab, 200)
    lab.drop_in("pool.service", "KillScope=process")
    small = "/opt/vmtest/hog 0 20"
    large = "/opt/vmtest/hog -w /run/oomtest/go 60 400"
    lab.start("pool", f"/bin/sh -c '{small} & {large} & wait; sleep 1000'", slice="jail.slice")
    lab.wait_planned(pool=0)
    with nobody_else(lab):
        lab.go()
        pids = "pgrep -c -x hog"
        lab.machine.wait_for("the large one is dead", lambda: lab.machine.run(pids).out.strip() == "1", 60, 0.2)
    decision = lab.decision_about("pool")
    assert (decision["carrier"], decision["kill_scope"], decision["processes"]) == ("bpf", "process", 1)
    assert lab.kernel_killed() == 0
    assert lab.machine.active("pool")


@pytest.mark.both_kernels
def test_it_leaves_to_the_core_what_the_core_can_do(armed: Lab) -> None:
    lab = armed
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("important", 100)
    lab.start_hog("hog", rate=60, wait_for="go")
    lab.wait_planned(hog=-100, important=0)
    hits = prekill(lab)["hits"]
    lab.go()
    lab.wait_until_dead("hog")
    assert lab.assert_killed("hog")["carrier"] == "core"
    assert prekill(lab)["hits"] == hits
    assert lab.victims() == ["hog.service"]


@pytest.mark.both_kernels
def test_dry_run_and_switch_have_it_touch_nobody(armed: Lab) -> None:
    lab = armed
    jail(lab, 150)
    hits = prekill(lab)["hits"]
    lab.drop_in("dry.service", "DryRun=yes")
    lab.start_hog("dry", rate=60, max_mb=300, slice="jail.slice", wait_for="go")
    lab.wait_planned(dry=0)
    lab.machine.wait_for("the plan knows", lambda: lab.slice("dry.service").get("DryRun"), 30, 0.3)
    with nobody_else(lab):
        lab.go()
        wait_emptied(lab, "dry", "jail.slice")
    lab.machine.wait_for("both are told", lambda: len(lab.victims()) >= 2, 60, 0.5)
    assert {(one["carrier"], one["outcome"]) for one in lab.decisions()} == {
        ("bpf", "dry-run"),
        ("kernel", "killed-by-kernel"),
    }
    lab.configure("carriers:\n  prekill: no\n")
    line = carrier(lab)
    assert (line["Active"], line["Detail"]) == (False, "switched off: carriers: prekill: no")
    lab.start_hog("off", rate=60, max_mb=300, slice="jail.slice", wait_for="go-off")
    lab.wait_planned(off=0)
    lab.go("go-off")
    lab.wait_until_dead("off")
    assert lab.decision_about("off")["carrier"] == "kernel"
    assert prekill(lab)["hits"] == hits


BUSY = {
    "page cache": "truncate -s 1G /var/tmp/sparse && cat /var/tmp/sparse >/dev/null && rm /var/tmp/sparse",
    "a copy": "for i in 1 2; do dd if=/dev/zero of=/var/tmp/copy bs=1M count=150 status=none; done; rm /var/tmp/copy",
    "a compilation": 'python3 -c \'import compileall; [compileall.compile_dir("/usr/lib/python3.13/" + name,'
    ' force=True, workers=4, quiet=2) for name in ("asyncio", "email", "json")]\'; true',
    "many small files": "find / -xdev -type f -size -64k -print0 2>/dev/null | head -zn 2000 | xargs -0 cat >/dev/null",
}


def looks(lab: Lab) -> dict[str, int]:
    """How often the program has looked for somebody to kill, by what it found."""
    dumped = lab.machine.check("bpftool --json map dump pinned /run/oomslice/bpf/prekill/map-figures")
    figures: dict[str, int] = json.loads(dumped)[0]["formatted"]["value"]
    return {name: figures[name] for name in ("kills", "dry_runs", "nobody", "unsure")}


def charged(lab: Lab, unit: str) -> int:
    """MiB that a service has in memory and in swap."""
    files = (f"/sys/fs/cgroup/system.slice/{unit_name(unit)}/memory.{which}current" for which in ("", "swap."))
    return sum(int(line) for line in lab.machine.check(f"cat {' '.join(files)}").split()) >> 20


@pytest.mark.both_kernels
def test_it_never_acts_on_a_machine_that_is_only_busy(armed: Lab) -> None:
    """All that reclaims memory in normal life, while nobody else could be blamed for what is killed."""
    lab = armed
    lab.use_swap()
    lab.write("/etc/systemd/system/tight.slice", "[Slice]\nMemoryMax=60M\nMemorySwapMax=0\n")
    lab.daemon_reload()
    reads = "truncate -s 300M /var/tmp/mine; while :; do cat /var/tmp/mine >/dev/null; done"
    writes = "while :; do dd if=/dev/zero of=/var/tmp/written bs=1M count=80 status=none; done"
    lab.start_hog("balloon", rate=0, max_mb=4000, ahead=200, wait_for="never")
    lab.start_hog("second", rate=60, max_mb=250, wait_for="go-second")
    lab.start("reader", f"/bin/sh -c '{reads}'", slice="tight.slice")
    lab.start("writer", f"/bin/sh -c '{writes}'", slice="tight.slice")
    # Who is not in the plan could not be killed, and nothing would be shown.
    lab.wait_planned(balloon=0, second=0, reader=0, writer=0)
    for domain in ("/", "/tight.slice"):
        might = json.loads(lab.machine.check(f"{OOMSLICE_BPF} --json choose {domain}"))
        assert (might["result"], might["dry_run"]) == ("chosen", False), might
    before_looks = looks(lab)
    scanned = "awk '/^pgscan_(kswapd|direct) /{sum += $2} END {print sum}' /proc/vmstat"
    before = int(lab.machine.check(scanned))
    with nobody_else(lab):
        for what, command in BUSY.items():
            lab.machine.check(command, timeout=300)
            assert looks(lab) == before_looks, what
        lab.go("go-second")
        lab.machine.wait_for("it has grown", lambda: charged(lab, "second") >= 250, 120, 0.5)
        assert looks(lab) == before_looks, "growth that stops short"
        # What is swapped out has to come back, while others go on reclaiming.
        assert int(lab.machine.check("awk '/^SwapTotal/{t = $2} /^SwapFree/{print t - $2}' /proc/meminfo")) > 60 << 10
        lab.machine.check("systemctl --no-block kill -s KILL second.service", timeout=60)
        wait_emptied(lab, "second")
        lab.machine.check("swapoff /dev/vdc", timeout=300)
        assert looks(lab) == before_looks, "swapoff"
        lab.machine.check("swapon /dev/vdc")
        assert lab.machine.active("balloon")
        limit = int(lab.machine.check("awk '/^max /{print $2}' /sys/fs/cgroup/tight.slice/memory.events"))
    assert limit > 20, "the slice was never at its limit"
    assert int(lab.machine.check(scanned)) - before > 50_000, "too little was reclaimed for this to say anything"
    assert looks(lab) == before_looks
    assert (lab.victims(), lab.kernel_killed()) == ([], 0)
    with contextlib.suppress(CommandError):
        lab.machine.check("rm -f /var/tmp/mine /var/tmp/written")


@pytest.mark.both_kernels
@pytest.mark.skipif(not STORMS, reason="OOMSLICE_PREKILL_STORMS= says how many shortages in a row")
def test_share_of_storms(armed: Lab) -> None:
    """Of so many shortages of all kinds, by turns with a core that says nothing and one that answers and does nothing:
    in how many the kernel's killer never ran, and nobody but the plan's choice died."""
    lab = armed
    kernel = wrong = 0
    lab.start_service("important", 100)
    for number in range(STORMS):
        name = f"storm-{number}"
        lab.drop_in(f"{name}.service", "Priority=-100")
        lab.start_hog(name, rate=(60, 200, 800)[number % 3], children=(0, 8, 80)[number // 3 % 3], wait_for=name)
        lab.wait_planned(**{name.replace("-", "_"): -100})
        kills = lab.kernel_killed()
        with nobody_else(lab):
            if number % 2:
                answer_forever(lab)
            lab.go(name)
            wait_emptied(lab, name)
        lab.machine.wait_for("it is told", lambda told=f"{name}.service": told in lab.victims(), 60, 0.5)
        lab.machine.check(f"systemctl reset-failed {name}.service 2>/dev/null; true")
        kernel += lab.kernel_killed() > kills
        # The kernel's kill is a decision of its own.
        wrong += set(lab.victims()) != {f"storm-{n}.service" for n in range(number + 1)}
    print(f"{STORMS} shortages: the kernel's killer ran in {kernel}, somebody else died in {wrong}")
    assert lab.lives("important")
    assert wrong == 0
