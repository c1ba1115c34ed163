# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl as an administrator uses it on a machine: before, during and after a shortage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .lab import Lab

SEEN = Path(__file__).resolve().parents[2] / ".cache" / "vm" / "top.typescript"
"""What top wrote to a terminal of 110 x 30 during a shortage: tools/screenshot makes a picture of it."""

LATE = """
mkfifo /run/oomtest/never; exec 3<>/run/oomtest/never
available() { while read -r name kib _; do [ $name = MemAvailable: ] && break; done </proc/meminfo; }
: >/run/oomtest/go
until available; [ $kib -lt $(($2 + 61440)) ]; do read -t 0.02 -u 3; done; kill -STOP $1
until available; [ $kib -lt $(($2 - 4096)) ]; do read -t 0.02 -u 3; done; read -t 1 -u 3; kill -CONT $1
"""
"""Lets a hog go and has a core stand still while memory gets short, and for some looks of a recorder: a kill is over
within one. Begins no process meanwhile, which would take as long."""


def checks(lab: Lab) -> dict[str, dict[str, Any]]:
    """What doctor finds, by name."""
    return {check["name"]: check for check in json.loads(lab.machine.run("oomslicectl doctor --json").out)["checks"]}


def test_doctor_finds_nothing_to_mend_and_then_what_was_broken(lab: Lab) -> None:
    found = checks(lab)
    problems = {name: check for name, check in found.items() if check["verdict"] == "problem"}
    assert problems == {}, problems
    assert found["swap"]["verdict"] == "note"
    assert found["protected memory"]["found"] == "80 MiB for oomslice.slice"
    assert found["sandbox of oomslice-core.service"]["verdict"] == "ok"
    lab.machine.check("oomslicectl doctor")
    try:
        lab.machine.check("sysctl -q vm.oom_kill_allocating_task=1; systemctl start systemd-oomd.service", timeout=120)
        lab.machine.check("systemctl set-property --runtime oomsliced.service MemoryMax=500M")
        found = checks(lab)
        assert found["vm.oom_kill_allocating_task"]["verdict"] == "problem"
        assert found["MemoryMax= of oomsliced.service"]["verdict"] == "problem"
        assert found["systemd-oomd"]["verdict"] == "note"
        assert lab.machine.run("oomslicectl doctor").rc == 1
        lab.machine.check("systemctl stop oomsliced.service")
        found = checks(lab)
        assert found["oomsliced.service"]["verdict"] == found["oomsliced"]["verdict"] == "problem"
    finally:
        lab.machine.check(
            "sysctl -q vm.oom_kill_allocating_task=0; systemctl stop systemd-oomd.service systemd-oomd.socket;"
            "systemctl revert oomsliced.service; systemctl start oomsliced.service"
        )


def test_top_and_monitor_go_on_through_a_shortage_and_a_restart(lab: Lab) -> None:
    lab.drop_in("hog.service", "Priority=-200\nActions=warn freeze@1min kill@2min")
    lab.drop_in("database.service", "Priority=300")
    lab.start_service("database", 120)
    lab.start_service("web", 60)
    lab.start_hog("hog", rate=40, wait_for="go")
    lab.wait_planned(hog=-200, database=300, web=0)
    looks = "stty rows 30 cols 110; exec oomslicectl top --interval 0.5"
    lab.start(
        "looks",
        f"script -qefc '{looks}' /run/oomtest/top",
        Environment="TERM=xterm-256color LC_ALL=C.UTF-8",
        StandardInput="null",
    )
    lab.hear()
    lab.machine.wait_for("top draws", lambda: lab.machine.run("grep -c hog.service /run/oomtest/top").rc == 0, 30)
    lab.machine.check("systemctl restart oomsliced.service", timeout=120)
    lab.machine.wait_for("oomslice is armed", lab.armed, timeout=60, interval=0.5)
    lab.go()
    lab.wait_until_dead("hog")
    decision = lab.decision_about("hog")
    lab.machine.check("sleep 1")
    assert [event["event"] for event in lab.heard("DaemonStopped", "DaemonStarted")] == [
        "DaemonStopped",
        "DaemonStarted",
    ]
    made = lab.heard("DecisionMade")
    assert [(event["id"], event["victim"]) for event in made] == [(decision["id"], "hog.service")]
    assert lab.machine.active("looks")
    used = lab.machine.properties("looks", "CPUUsageNSec", "MemoryCurrent")
    print(f"top and script: {used}")
    SEEN.write_text(lab.machine.check("cat /run/oomtest/top"))
    lab.machine.check("systemctl stop looks hears")
    listed = lab.machine.check("oomslicectl top --no-legend").splitlines()
    assert "database.service" in [line.split()[1] for line in listed]
    data = json.loads(lab.machine.check("oomslicectl top --json"))
    units = {unit["name"]: unit for unit in data["units"]}
    assert units["database.service"]["current"] > 120 << 20
    assert units["web.service"]["place"] < units["database.service"]["place"]
    assert data["memory_available_limit"] < data["memory_available"] < data["memory_total"]
    assert data["pressure"] is not None


def test_what_is_simulated_and_replayed_is_what_happens(lab: Lab) -> None:
    lab.drop_in("first.service", "Priority=-200")
    lab.drop_in("second.service", "Priority=-100")
    lab.start_service("first", 60)
    lab.start_service("second", 60)
    lab.start_hog("hog", rate=15, ahead=150, wait_for="go")
    lab.wait_planned(first=-200, second=-100, hog=0)
    explained = json.loads(lab.machine.check("oomslicectl explain --json -- -.slice"))[0]["candidates"]
    data = json.loads(lab.machine.check("oomslicectl simulate --all --json", timeout=120))
    order = [place["name"] for place in data["order"]]
    assert order[:2] == ["first.service", "second.service"]
    eligible = [
        one["name"] for one in explained if one["verdict"] in ("chosen", "eligible") and one["metric"] > 1 << 20
    ]
    assert [name for name in order if name in eligible] == eligible
    turned = "--set first.service:Priority=500 --set second.service:Priority=400"
    data = json.loads(lab.machine.check(f"oomslicectl simulate --all --json {turned}", timeout=120))
    assert [place["name"] for place in data["order"]][-2:] == ["second.service", "first.service"]
    storm = json.loads(lab.machine.check("oomslicectl simulate --storm 60M:hog.service --json", timeout=120))
    assert [one["victim"] for one in storm["decisions"]] == ["first.service", "second.service", "hog.service"]
    lab.start("writes", "oomslicectl record --interval 0.2 /run/oomtest/trace.gz")
    lab.machine.wait_for("the trace begins", lambda: lab.machine.run("test -s /run/oomtest/trace.gz").rc == 0, 30)
    limit = json.loads(lab.machine.check("oomslicectl top --json"))["memory_available_limit"]
    core = lab.machine.main_pid("oomslice-core.service")
    lab.machine.check(f"bash -c '{LATE}' late {core} {limit >> 10}", timeout=120)
    lab.wait_until_dead("hog")
    lab.machine.check("sleep 1; systemctl stop writes")
    decisions = lab.decisions()
    victims = [one["victim"] for one in decisions]
    assert victims == ["first.service", "second.service", "hog.service"] and lab.kernel_killed() == 0
    replayed = json.loads(lab.machine.check("oomslicectl replay --json /run/oomtest/trace.gz", timeout=120))
    print([(one["moment_usec"], one["victim"], one["outcome"], one["available"]) for one in replayed["decisions"]])
    print(lab.machine.check("ls -l /run/oomtest/trace.gz; oomslicectl replay /run/oomtest/trace.gz"))
    would_be = replayed["decisions"][0]
    assert (would_be["victim"], would_be["domain"], would_be["outcome"]) == ("first.service", "-.slice", "killed")
    assert would_be["trigger"] == decisions[0]["trigger"] == "memory-available"
    # When it would have been, had the core not stood still.
    assert replayed["trace"]["realtime_usec"] + would_be["moment_usec"] < decisions[0]["realtime_usec"]
    # As many of the others as a look fell on, in their order.
    died = iter(victims)
    assert all(one["victim"] in died for one in replayed["decisions"]), replayed["decisions"]
    earlier = json.loads(
        lab.machine.check(
            f"oomslicectl replay --json {turned} --set machine:available-min=20%"
            " --set machine:available-thrash=20% /run/oomtest/trace.gz",
            timeout=120,
        )
    )
    assert [one["victim"] for one in earlier["decisions"]][:1] == ["hog.service"]
    assert earlier["decisions"][0]["moment_usec"] < would_be["moment_usec"]
