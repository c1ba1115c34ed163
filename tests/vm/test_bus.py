# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bus with real clients, a real polkit and a real systemd: objects, settings that are set, and who may set them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from .lab import AHEAD_MB, HOG, OOM_KILLED, Lab, plain

RULE = "/etc/polkit-1/rules.d/10-oomslice-test.rules"
ALLOW = (
    'polkit.addRule(function(action, subject) {{ if (action.id == "org.oomslice1.{}" && subject.user == "tester")'
    " return polkit.Result.YES; }});\n"
)
UNLUCKY = ("hog-a", "hog-b", "hog-c")
SETTER = "busctl --system call org.oomslice1 /org/oomslice1 org.oomslice1.Manager SetPriority sib"


def property_of(lab: Lab, path: str, interface: str, name: str) -> object:
    """A property of an object, by busctl."""
    text = lab.machine.check(
        f"busctl --system --json=short get-property org.oomslice1 {path} org.oomslice1.{interface} {name}"
    )
    return plain(json.loads(text)["data"])


def allow(lab: Lab, action: str) -> None:
    """Have polkit let the user "tester" do that, and nothing else."""
    lab.write(RULE, ALLOW.format(action))
    lab.machine.check("systemctl restart polkit.service")


def ranked(answer: list[Any]) -> dict[str, list[tuple[str, int, str]]]:
    """Domain -> its candidates with priority and verdict. Inside a priority places change with what each one has."""
    return {
        domain: sorted([(name, priority, verdict) for name, priority, _, verdict, _, _ in candidates])
        for domain, candidates in answer
    }


def test_priorities_are_set_by_root_and_by_whom_polkit_lets_and_survive_as_files(lab: Lab) -> None:
    machine = lab.machine
    lab.start_service("setme", 20)
    lab.start_service("beside", 20)
    lab.wait_planned(setme=0, beside=0)
    file = "/etc/systemd/system/setme.service.d/50-oomslice-set.conf"
    runtime = "/run/systemd/system/setme.service.d/51-oomslice-set.conf"
    lab._files += [file, runtime]
    said = machine.check("oomslicectl set setme.service Priority=-321 Actions='warn kill@3s'")
    assert said.splitlines() == [
        f"{file} is written.",
        "Priority=-321 is in force.",
        "Actions=warn kill@3s is in force.",
    ]
    # In force when it returns, not some time later: plan, object and systemd's own list of files.
    assert lab.planned()["setme.service"] == -321
    path = "/org/oomslice1/slice/setme_2eservice"
    assert property_of(lab, path, "Slice", "Priority") == -321
    assert property_of(lab, path, "Slice", "Actions") == "warn kill@3s"
    assert file in machine.check("systemctl show -p DropInPaths setme.service")
    assert machine.check(f"stat -c '%a %U' {file}").strip() == "644 root"
    memory = property_of(lab, path, "Slice", "MemoryCurrent")
    assert isinstance(memory, int) and memory > 20 << 20
    assert path in machine.check("busctl --system tree --list org.oomslice1")

    # What is in force, asked for as if it were not: nothing is another. What is not in force: it alone.
    explained = ranked(lab.busctl("Explain"))
    assert ("setme.service", -321, "chosen") in explained["-.slice"]
    same = ("1", "setme.service", "2", "Priority", "i", "-321", "Actions", "s", "warn kill@3s")
    assert ranked(lab.busctl("Simulate", "a{sa{sv}}", *same)) == explained
    assert ranked(lab.busctl("Simulate", "a{sa{sv}}", "0")) == explained
    other = ranked(lab.busctl("Simulate", "a{sa{sv}}", "1", "setme.service", "1", "Priority", "i", "900"))
    assert {("setme.service", 900, "eligible"), ("beside.service", 0, "chosen")} <= set(other["-.slice"])
    assert ranked(lab.busctl("Explain")) == explained and lab.planned()["setme.service"] == -321

    refused = machine.run(f"runuser -u tester -- {SETTER} setme.service 7 false")
    assert refused.rc != 0 and lab.planned()["setme.service"] == -321
    allow(lab, "set")
    said = machine.check("runuser -u tester -- oomslicectl set setme.service Priority=7 --runtime")
    assert "Priority=7 is in force." in said
    assert lab.planned()["setme.service"] == 7
    not_reload = machine.run("runuser -u tester -- oomslicectl reload")
    assert not_reload.rc == 4 and "org.oomslice1.reload" in not_reload.out
    wrong = machine.run("oomslicectl set setme.service Priority=high")
    assert wrong.rc == 1 and "Priority=high" in wrong.out
    machine.check("oomslicectl set setme.service --revert")
    assert lab.planned()["setme.service"] == 0
    assert machine.run(f"ls {file} {runtime}").rc != 0


def said_of(lab: Lab, unit: str) -> list[str]:
    """Lines of oomsliced's own about a unit."""
    since = f"--since=@{lab.started_usec // 10**6}"
    said = lab.machine.check(f"journalctl --sync; journalctl --no-pager -o cat {since} -u oomsliced.service")
    return [line for line in said.splitlines() if unit in line]


def test_a_step_that_is_asked_for_holds_until_it_is_released(lab: Lab) -> None:
    machine = lab.machine
    lab.use_swap()
    lab.drop_in("kept.service", "Protect=yes")
    lab.start_service("asked", 60)
    lab.start_service("kept", 10)
    machine.check("mkfifo /run/oomtest/pressure")
    lab.start(
        "ends",
        "/bin/sh -c 'exec 3<>/run/oomtest/pressure; head -c 1 <&3 >/run/oomtest/warned; exec sleep 1000'",
        Environment="MEMORY_PRESSURE_WATCH=/run/oomtest/pressure",
        MemoryPressureWatch="skip",
    )
    lab.wait_planned(asked=0, kept=0, ends=0)
    group = f"/sys/fs/cgroup{lab.slice('asked.service')['ControlGroup']}"
    assert "freeze of asked.service: done" in machine.check("oomslicectl act asked.service freeze")
    assert machine.check(f"grep frozen {group}/cgroup.events").split() == ["frozen", "1"]
    assert "reclaim:16M of asked.service: done" in machine.check("oomslicectl act asked.service reclaim:16M")
    assert int(machine.check(f"cat {group}/memory.swap.current")) > 4 << 20
    assert "throttle:50 of asked.service: done" in machine.check("oomslicectl act asked.service throttle:50")
    assert int(machine.check(f"cat {group}/memory.high")) < 60 << 20
    decision = lab.decisions()[0]
    assert (decision["trigger"], decision["outcome"], decision["step"]) == ("asked", "done", "freeze")
    assert decision["extra"]["asked_uid"] == 0 and decision["victim"] == "asked.service"
    path = "/org/oomslice1/decision/_" + f"{ord(decision['id'][0]):02x}" + decision["id"][1:].replace("-", "_2d")
    if not decision["id"][0].isdigit():
        path = "/org/oomslice1/decision/" + decision["id"].replace("-", "_2d")
    assert property_of(lab, path, "Decision", "Trigger") == "asked"
    assert "goes on" in machine.check("oomslicectl release asked.service")
    assert machine.check(f"grep frozen {group}/cgroup.events").split() == ["frozen", "0"]
    assert machine.check(f"cat {group}/memory.high").strip() == "max"
    assert lab.lives("asked")
    again = machine.run("oomslicectl release asked.service")
    assert again.rc == 1 and "nothing that oomslice did" in again.out

    assert "warn of ends.service: done" in machine.check("oomslicectl act ends.service warn")
    machine.wait_for("it was warned", lambda: machine.check("cat /run/oomtest/warned") != "", 30, 0.2)
    said = machine.check("oomslicectl act ends.service terminate")
    assert re.match(r"terminate of ends\.service: (done|freed)\.", said), said
    taken = [step for one in lab.decisions() for step in one["steps"]]
    assert [(step["step"], step["result"]) for step in taken] == [
        (step, "done") for step in ("freeze", "reclaim", "throttle", "warn", "terminate")
    ]
    assert taken[1]["amount"] == 16 << 20
    lab.wait_until_dead("ends", timeout=30)
    assert machine.properties("ends", "Result")["Result"] == "success", "SIGTERM is how systemd stops it, too"

    for unit in ("kept.service", "systemd-journald.service", "oomslice-core.service", "init.scope"):
        refused = machine.run(f"oomslicectl act {unit} kill")
        assert refused.rc == 1 and "protected" in refused.out, refused.out
    refused = machine.run("oomslicectl act system.slice kill")
    assert refused.rc == 1 and "holds other units" in refused.out
    assert machine.run("runuser -u tester -- oomslicectl act asked.service kill").rc == 4
    assert lab.lives("asked") and lab.lives("kept")
    assert "kill of asked.service: freed" in machine.check("oomslicectl act asked.service kill")
    # Somebody wanted it: it is no lack of memory to systemd.
    assert machine.check("systemctl show -p Result --value asked.service").strip() == "signal"


def test_who_may_act_release_and_reload_is_polkits_and_how_much_is_logged_roots(lab: Lab) -> None:
    machine = lab.machine
    lab.start_service("asked", 10)
    lab.wait_planned(asked=0)
    group = f"/sys/fs/cgroup{lab.slice('asked.service')['ControlGroup']}"
    calls = {
        "act": "oomslicectl act asked.service freeze",
        "release": "oomslicectl release asked.service",
        "reload": "oomslicectl reload",
    }

    def refused(*actions: str) -> None:
        for action in actions:
            answer = machine.run(f"runuser -u tester -- {calls[action]}")
            assert answer.rc == 4 and f"org.oomslice1.{action}" in answer.out, answer

    def frozen() -> str:
        return machine.check(f"grep frozen {group}/cgroup.events").split()[1]

    level = "systemctl service-log-level oomsliced.service"
    assert machine.check(level).strip() == "info"
    refused("act", "release", "reload")
    assert frozen() == "0" and lab.decisions() == []
    allow(lab, "act")
    assert "done" in machine.check(f"runuser -u tester -- {calls['act']}")
    assert frozen() == "1" and lab.decisions()[0]["extra"]["asked_uid"] == 1000
    assert [line for line in said_of(lab, "asked.service") if "user 1000 asked for freeze" in line]
    refused("release")
    assert frozen() == "1"
    allow(lab, "release")
    try:
        machine.check(f"{level} err")
        assert machine.check(level).strip() == "err"
        assert machine.run(f"runuser -u tester -- {level} debug").rc != 0
        assert machine.check(level).strip() == "err"
        assert "goes on" in machine.check(f"runuser -u tester -- {calls['release']}")
        assert frozen() == "0" and lab.lives("asked")
        assert not [line for line in said_of(lab, "asked.service") if "user 1000 released" in line], "at the level err"
        machine.check(f"{level} debug")
        assert machine.check(level).strip() == "debug"
    finally:
        machine.check(f"{level} info")
    refused("reload")
    allow(lab, "reload")
    machine.check(f"runuser -u tester -- {calls['reload']}", timeout=120)
    refused("act")
    # What root does next is said again.
    machine.check(f"{calls['act']} && {calls['release']}")
    assert [line for line in said_of(lab, "asked.service") if "user 0 released" in line]


class Killed(NamedTuple):
    """A service of Lab.start_again() that oomslice killed, and what systemd says of it while it is dead."""

    unit: str
    status: str
    managed_kills: str
    fate: dict[str, str]


def killed_and_marked(lab: Lab) -> Killed:
    """A unit that was killed after systemd was told: a kill waits a few milliseconds for that, and an emulated machine
    may take longer; then the decision says so, and the next unit is killed."""
    machine = lab.machine
    for unit in UNLUCKY:
        lab.start_again(unit, f"{HOG} -c 3 -a {AHEAD_MB} 60 4000")
        lab.wait_until_dead(unit)
        said = machine.run(f"systemctl status {unit}; echo; systemctl show -p ManagedOOMKills --value {unit}").out
        status, _, kills = said.rpartition("\n\n")
        fate = lab.fate(unit)
        decision = lab.decision_about(unit)
        assert (decision["carrier"], decision["outcome"]) == ("core", "freed"), decision
        assert lab.kernel_killed() == 0
        if decision["flags"] == []:
            return Killed(f"{unit}.service", status, kills.strip(), fate)
        assert decision["flags"] == ["unmarked"]
    raise AssertionError(f"none of {UNLUCKY} was marked in time")


def test_systemd_takes_a_kill_for_what_it_is(lab: Lab) -> None:
    machine = lab.machine
    for unit in UNLUCKY:
        lab.drop_in(f"{unit}.service", "Priority=-100")
    lab.daemon_reload()
    killed = killed_and_marked(lab)
    # As after systemd-oomd, whose kill is in test_neighbours.py: Restart= and OnFailure= take it for the same.
    assert killed.fate == OOM_KILLED
    assert "oom-kill" in killed.status, killed.status
    journal = machine.check(f"journalctl -u {killed.unit} -o json --no-pager")
    entries = [json.loads(line) for line in journal.splitlines()]
    (told,) = [entry for entry in entries if entry.get("MESSAGE_ID") == "d989611b15e44c9dbf31e3c81256e4ed"]
    assert told["UNIT"] == killed.unit and int(told.get("N_PROCESSES", "1")) >= 1
    version = int(machine.check("systemctl --version").split()[1].partition("~")[0].partition(".")[0])
    if version >= 259:
        assert killed.managed_kills == "1"
    else:
        assert killed.managed_kills == "", f"systemd {version} has no ManagedOOMKills: it came with 259"


FLOOD = Path(__file__).with_name("programs") / "flood.py"
CALLS_PER_SEC = 20
"""At least. An emulated machine took 384 to 961 a second while memory was short (docs/benchmarks.md), a busy host
fewer. They come by the thousand, with up to half a minute in between in which the bus works them off."""


def milliseconds(decision: dict[str, Any]) -> list[float]:
    """From trigger to decision, signal and death."""
    times = [decision[f"{what}_usec"] for what in ("trigger", "decision", "signal", "death")]
    return [(time - times[0]) / 1000 for time in times[1:]]


def test_a_flood_of_calls_from_a_user_changes_no_decision(lab: Lab) -> None:
    machine = lab.machine
    for unit in ("quiet", "hog"):
        lab.drop_in(f"{unit}.service", "Priority=-100")
    lab.start_service("kept", 60)
    lab.start_hog("quiet", rate=60, children=3)
    lab.wait_until_dead("quiet")
    quiet = lab.assert_killed("quiet")
    lab.write("/opt/flood.py", FLOOD.read_text())
    machine.check("install -d -m 777 /run/oomtest/flood")
    lab.start("flood", "/usr/bin/python3 /opt/flood.py /run/oomtest/flood/of", User="tester")
    lab.start("frozen", "/usr/bin/busctl --system monitor org.oomslice1", User="root", StandardOutput="null")

    def counted() -> tuple[float, list[int]]:
        """When it was, in seconds, and how many calls, answers and refusals there had been until then."""
        said = machine.check("cut -d' ' -f1 /proc/uptime; cat /run/oomtest/flood/of.? 2>/dev/null || true").split()
        return float(said[0]), [sum(int(word) for word in said[column::3]) for column in (1, 2, 3)]

    machine.wait_for("calls are made", lambda: counted()[1][0] > 2000, 120, 0.5)
    # A listener that takes nothing any more, as one in a stopped terminal.
    machine.check("systemctl kill -s STOP frozen.service")
    began, before = counted()
    lab.start_hog("hog", rate=60, children=3)
    lab.wait_until_dead("hog")
    machine.wait_for("calls are made still", lambda: counted()[1][0] > before[0] + 1000, 120, 0.5)
    ended, after = counted()
    # Somebody else is answered, and there is one plan and one daemon as before.
    assert "armed" in machine.check("oomslicectl status", timeout=120)
    assert machine.active("flood")
    machine.check("systemctl kill -s CONT frozen.service; systemctl stop flood.service frozen.service", timeout=120)
    flooded = lab.assert_killed("hog")
    assert flooded["victim"] == "hog.service" and lab.lives("kept")
    # Nobody had to stand in for the deciding thread, and it had as much memory left as without the flood.
    # (How soon systemd is told of the kill is a matter of the host's processors, flood or not.)
    assert set(flooded["flags"]) | set(quiet["flags"]) <= {"unmarked"}
    assert flooded["memory_available_limit"] == quiet["memory_available_limit"]
    made, seconds = after[0] - before[0], ended - began
    assert made > CALLS_PER_SEC * seconds, f"{made} calls in {seconds:.1f} s are no flood"
    assert after[2] > before[2], "nobody was refused"
    print(f"{made} calls in {seconds:.1f} s, {made / seconds:.0f} a second")
    print(f"ms to decision, signal, death: {milliseconds(flooded)}; without: {milliseconds(quiet)}")
