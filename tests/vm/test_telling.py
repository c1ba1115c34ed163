# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where people look afterwards: the journal of the unit, its explanations, and the report."""

from __future__ import annotations

from .lab import HOG, Lab
from .test_ladder import grow, jail, the_decision


def test_what_was_done_to_a_unit_is_in_its_journal_and_in_the_report(lab: Lab) -> None:
    jail(lab, "freeze kill@120s")
    grow(lab)
    decision = the_decision(lab, "relieved")
    journal = f"journalctl --no-pager --since=@{lab.started_usec // 10**6} -u jailed.service"

    def undone() -> str | None:
        said = lab.machine.check(f"{journal} -x")
        return said if "]: jailed.service is thawed" in said else None

    # The line that comes last.
    said = lab.machine.wait_for("its journal says that it is thawed", undone, 90, 1)
    assert isinstance(said, str)
    lines = said.splitlines()
    for line, subject in (
        ("jailed.service: freeze done", "Subject: A step was taken against jailed.service because memory was short"),
        (
            "oomslice did not have to kill jailed.service",
            "Subject: Memory was short in jail.slice, and nobody had to die",
        ),
        ("jailed.service is thawed after", "Subject: jailed.service is as it was before the shortage"),
    ):
        number = next(number for number, text in enumerate(lines) if f"]: {line}" in text)
        assert "oomslice[" in lines[number]
        assert subject in lines[number + 1]
    assert f"oomslicectl show {decision['id']}" in said
    # Catalog and entries belong together: nothing is left to be filled in.
    assert "@OOMSLICE" not in said

    entries = lab.machine.check(
        f"journalctl --no-pager -b OOMSLICE_DECISION={decision['id']} -o cat --output-fields=MESSAGE"
    )
    assert entries.count("jailed.service: freeze done") == 2, "once by oomsliced, once for the unit"

    said = lab.machine.check(f"oomslicectl report -o /run/oomtest/report.html {decision['id']}")
    assert said.strip() == "/run/oomtest/report.html: 1 decision"
    page = lab.machine.check("cat /run/oomtest/report.html")
    assert "Memory was short, and jailed.service did not have to die" in page
    assert "/etc/systemd/system/jail.slice.d/50-oomslice.conf:" in page
    assert "What was done when" in page


def test_a_core_that_goes_and_comes_is_in_the_journal(lab: Lab) -> None:
    lab.machine.check("systemctl restart oomslice-core.service")
    lab.machine.wait_for("oomslice is armed", lab.armed, timeout=60, interval=0.5)

    def entries() -> list[str] | None:
        said = lab.machine.check(
            f"journalctl --no-pager --since=@{lab.started_usec // 10**6} -o cat -u oomsliced.service"
            " MESSAGE_ID=885d8d2a26f0477a95288aa360347144 OOMSLICE_CARRIER=core"
        ).splitlines()
        return said if said and "can act" in said[-1] else None

    said = lab.machine.wait_for("the journal has it", entries, 30, 1)
    assert isinstance(said, list)
    assert any("Carrier core cannot act" in line for line in said)


def test_the_owner_of_a_unit_is_told_on_his_terminal(lab: Lab) -> None:
    lab.configure("rules:\n- {match: 'app-*', manager: user, on-decision: oomslice-tell-owner@.service}\n")
    lab.start_user_manager()
    # A terminal as a login has it, of which all is written down that comes to it.
    lab.machine.check("chmod 777 /run/oomtest")
    shell = "chmod g+w /dev/stdin; tty >/run/oomtest/tty; sleep 600"
    lab.start("terminal", f"script --quiet --flush --command '{shell}' /run/oomtest/screen", User="tester")
    lab.machine.wait_for("the terminal is there", lambda: lab.machine.run("test -s /run/oomtest/tty").rc == 0, 60, 0.5)
    lab.as_user(f"systemd-run --user --quiet --unit=app-editor.service --slice=app.slice {HOG} 60 4000")
    decision = lab.machine.wait_for("the editor is killed", lambda: next(iter(lab.decisions()), None), 120, 0.5)
    assert isinstance(decision, dict)
    assert decision["victim"] == "app-editor.service"
    assert lab.busctl("GetDecision", "s", decision["id"])["extra"]["owner"] == 1000

    def screen() -> str | None:
        said = lab.machine.check("cat /run/oomtest/screen")
        return said if "editor was ended" in said else None

    said = lab.machine.wait_for("its owner is told", screen, 90, 1)
    assert "This machine ran out of memory" in str(said)
    unit = f"oomslice-tell-owner@{decision['id']}.service"
    lab.machine.wait_for(
        "the journal has it",
        lambda: "user 1000 was told on 1 terminals" in lab.machine.check(f"journalctl --no-pager -u {unit}"),
        60,
        1,
    )


SCRAPE = (
    "import urllib.request;print(urllib.request.urlopen('http://127.0.0.1:9847/metrics', timeout=60).read().decode())"
)


def test_metrics_are_there_for_who_switches_them_on(lab: Lab) -> None:
    machine = lab.machine
    assert machine.run("systemctl is-enabled oomslice-metrics.socket").out.strip() == "disabled"
    assert machine.run("systemctl is-active oomslice-metrics.socket oomslice-metrics-textfile.timer").rc != 0
    machine.check("systemctl start oomslice-metrics.socket")
    try:
        text = machine.check(f'python3 -c "{SCRAPE}"', timeout=120)
        assert "oomslice_up 1\n" in text
        assert "oomslice_armed 1\n" in text
        assert 'oomslice_carrier_active{carrier="core"} 1\n' in text
        assert "oomslice_memory_headroom_bytes " in text
        # The user of an exporter is nobody's, and it ran in its sandbox without a complaint.
        user = machine.check("ps -o user= -p $(systemctl show -P MainPID oomslice-metrics.service)").strip()
        assert user not in ("root", "oomslice")
    finally:
        machine.check("systemctl stop oomslice-metrics.socket oomslice-metrics.service")
    folder = "/var/lib/prometheus/node-exporter"
    machine.check(f"mkdir -p {folder} && systemctl start oomslice-metrics-textfile.service", timeout=120)
    try:
        assert "oomslice_up 1" in machine.check(f"cat {folder}/oomslice.prom")
        assert machine.check(f"ls -A {folder}; stat -c %a {folder}/oomslice.prom").split() == ["oomslice.prom", "644"]
    finally:
        machine.check("rm -r /var/lib/prometheus")
