# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bus with real clients, a real polkit and a real systemd: objects, settings that are set, and who may set them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .lab import Lab, plain

RULE = "/etc/polkit-1/rules.d/10-oomslice-test.rules"
ALLOW = (
    'polkit.addRule(function(action, subject) { if (action.id == "org.oomslice1.set") return polkit.Result.YES; });\n'
)
UNLUCKY = ("hog-a", "hog-b", "hog-c")
SETTER = "busctl --system call org.oomslice1 /org/oomslice1 org.oomslice1.Manager SetPriority sib"


def property_of(lab: Lab, path: str, interface: str, name: str) -> object:
    """A property of an object, by busctl."""
    text = lab.machine.check(
        f"busctl --system --json=short get-property org.oomslice1 {path} org.oomslice1.{interface} {name}"
    )
    return plain(json.loads(text)["data"])


def test_priorities_are_set_by_root_and_by_whom_polkit_lets_and_survive_as_files(lab: Lab) -> None:
    machine = lab.machine
    lab.start_service("setme", 20)
    lab.wait_planned(setme=0)
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

    refused = machine.run(f"runuser -u tester -- {SETTER} setme.service 7 false")
    assert refused.rc != 0 and lab.planned()["setme.service"] == -321
    lab.write(RULE, ALLOW)
    machine.check("systemctl restart polkit.service")
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


def test_a_step_that_is_asked_for_holds_until_it_is_released(lab: Lab) -> None:
    machine = lab.machine
    lab.drop_in("kept.service", "Protect=yes")
    lab.start_service("asked", 60)
    lab.start_service("kept", 10)
    lab.wait_planned(asked=0, kept=0)
    group = f"/sys/fs/cgroup{lab.slice('asked.service')['ControlGroup']}"
    assert "freeze of asked.service: done" in machine.check("oomslicectl act asked.service freeze")
    assert machine.check(f"grep frozen {group}/cgroup.events").split() == ["frozen", "1"]
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


def killed_and_marked(lab: Lab) -> str:
    """A unit that was killed after systemd was told: a kill waits a few milliseconds for that, and an emulated machine
    may take longer; then the decision says so, and the next unit is killed."""
    for unit in UNLUCKY:
        lab.start_hog(unit, rate=60, children=3, OnFailure="told.service", OOMPolicy="stop")
        lab.wait_until_dead(unit)
        decision = lab.assert_killed(unit)
        if decision["flags"] == []:
            return f"{unit}.service"
        assert decision["flags"] == ["unmarked"]
    raise AssertionError(f"none of {UNLUCKY} was marked in time")


def test_systemd_takes_a_kill_for_what_it_is(lab: Lab) -> None:
    machine = lab.machine
    for unit in UNLUCKY:
        lab.drop_in(f"{unit}.service", "Priority=-100")
    lab.write("/etc/systemd/system/told.service", "[Service]\nType=oneshot\nExecStart=touch /run/oomtest/told\n")
    lab.daemon_reload()
    unit = killed_and_marked(lab)
    assert machine.check(f"systemctl show -p Result --value {unit}").strip() == "oom-kill"
    said = machine.check(f"systemctl status {unit} 2>&1; true")
    assert "oom-kill" in said, said
    machine.wait_for("OnFailure= is started", lambda: machine.run("ls /run/oomtest/told").rc == 0, 30, 0.5)
    journal = machine.check(f"journalctl -u {unit} -o json --no-pager")
    entries = [json.loads(line) for line in journal.splitlines()]
    (told,) = [entry for entry in entries if entry.get("MESSAGE_ID") == "d989611b15e44c9dbf31e3c81256e4ed"]
    assert told["UNIT"] == unit and int(told.get("N_PROCESSES", "1")) >= 1
    kills = machine.check(f"systemctl show -p ManagedOOMKills --value {unit}").strip()
    # Since systemd 259.
    assert kills in ("1", "")


FLOOD = Path(__file__).with_name("programs") / "flood.py"


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

    def counted() -> list[int]:
        rows = machine.check("cat /run/oomtest/flood/of.? 2>/dev/null || true").split()
        return [sum(int(word) for word in rows[column::3]) for column in range(3)]

    def uptime() -> float:
        return float(machine.check("cut -d' ' -f1 /proc/uptime"))

    machine.wait_for("calls are made", lambda: counted()[0] > 2000, 120, 0.5)
    # A listener that takes nothing any more, as one in a stopped terminal.
    machine.check("systemctl kill -s STOP frozen.service")
    before, began = counted(), uptime()
    lab.start_hog("hog", rate=60, children=3)
    lab.wait_until_dead("hog")
    after, ended = counted(), uptime()
    # Somebody else is answered, and there is one plan and one daemon as before.
    assert "armed" in machine.check("oomslicectl status", timeout=120)
    assert machine.active("flood")
    machine.check("systemctl kill -s CONT frozen.service; systemctl stop flood.service frozen.service", timeout=120)
    flooded = lab.assert_killed("hog")
    assert flooded["victim"] == "hog.service" and lab.lives("kept")
    # Nobody had to stand in for the deciding thread, and it had as much memory left as without the flood.
    assert flooded["flags"] == quiet["flags"] == []
    assert flooded["memory_available_limit"] == quiet["memory_available_limit"]
    made = after[0] - before[0]
    assert after[2] > before[2], "nobody was refused"
    print(f"{made} calls in {ended - began:.1f} s; ms to decision, signal, death: {milliseconds(flooded)}")
    print(f"without: {milliseconds(quiet)}")
