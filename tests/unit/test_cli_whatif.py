# SPDX-License-Identifier: LGPL-2.1-or-later
"""simulate, record and replay as commands: what they print, their JSON and their exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from oomslice.cgroups.tree import CgroupTree
from oomslice.cli import changed, record, systemd
from oomslice.cli.failure import Exit
from oomslice.cli.main import main
from oomslice.units.model import UnitSnapshot
from oomslice.whatif import present
from oomslice.whatif.state import Frame
from oomslice.whatif.trace import read
from tests.unit.test_trace import write
from tests.unit.test_whatif import falling
from tests.unit.whatif import GIB, figures, state


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed, "present", lambda: (state(), figures()))


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: Exit = Exit.OK) -> str:
    assert main(list(arguments)) == code
    return capsys.readouterr().out


def test_simulate_shows_who_would_go_until_there_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "simulate", "--until", "7G")
    lines = text.splitlines()
    assert [line.split()[1] for line in lines[1:3]] == ["db.service", "web.service"]
    assert lines[-1] == "With the first 2 of 3, 7 GiB would be available instead of 3 GiB."
    assert "job.service" in said(capsys, "simulate", "--until", "7G", "--all")
    assert "With the first one, 6 GiB" in said(capsys, "simulate", "--until", "50%")
    assert "All 3 together do not make 8 GiB" in said(capsys, "simulate", "--until", "100%")


def test_simulate_shows_the_place_now_beside_that_of_other_settings(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("simulate", "--set", "batch.slice:Priority=-200", "--until", "8G")
    lines = said(capsys, *arguments).splitlines()
    assert lines[0].split()[:3] == ["#", "NOW", "UNIT"]
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["1", "3", "job.service"],
        ["2", "1", "db.service"],
        ["3", "2", "web.service"],
    ]
    data = json.loads(said(capsys, *arguments, "--json"))
    assert [(place["name"], place["place_now"]) for place in data["order"]] == [
        ("job.service", 3),
        ("db.service", 1),
        ("web.service", 2),
    ]
    assert (data["memory_available"], data["target"], data["enough"]) == (3 * GIB, 8 * GIB, 3)


def test_simulate_takes_files_that_are_not_installed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "batch.slice.d").mkdir()
    drop_in = tmp_path / "batch.slice.d/50.conf"
    drop_in.write_text("[X-OOMSlice]\nPriority=-7\n")
    yaml = tmp_path / "site.yaml"
    yaml.write_text("rules:\n  - match: db.service\n    protect: yes\n")
    data = json.loads(said(capsys, "simulate", "--with", str(drop_in), "--with", str(yaml), "--json"))
    assert [place["name"] for place in data["order"]] == ["job.service", "web.service"]


def test_errors_in_changes_are_told_and_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--set", "batch.slice:Priority=high"]) == Exit.FAILED
    captured = capsys.readouterr()
    assert captured.err.startswith("--set batch.slice:Priority=high:2: Priority=high: ")
    assert "db.service" in captured.out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--set", "batch.slice"], Exit.USAGE, "UNIT:KEY=VALUE"),
        (["--set", "nosuch.slice:Priority=1"], Exit.FAILED, "nosuch.slice does not run"),
        (["--with", "/nosuch/a.slice"], Exit.FAILED, "No such file"),
        (["--domain", "nosuch.slice"], Exit.FAILED, "no domain"),
        (["--until", "much"], Exit.USAGE, "--until much"),
        (["--storm", "quick"], Exit.USAGE, "no storm"),
        (["--storm", "fast:a.service@nosuch.slice"], Exit.FAILED, "nosuch.slice does not run"),
        (["--at", "5"], Exit.USAGE, "--trace"),
        (["--trace", "/nosuch"], Exit.FAILED, "No such file"),
    ],
)
def test_what_cannot_be_simulated_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: Exit, says: str
) -> None:
    assert main(["simulate", *arguments]) == code
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""


def test_a_storm_says_who_pays(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("simulate", "--storm", "fast:new.service@batch.slice", "--set", "batch.slice:Priority=-1")
    text = said(capsys, *arguments)
    # The job that runs is smaller than the new one by then.
    assert "new.service" in text.splitlines()[1]
    assert "new.service grows by 2 GiB a second: 1 decision, nobody else paid for it." in text
    data = json.loads(said(capsys, *arguments, "--json"))
    assert data["storm"] == ["new.service"]
    assert data["decisions"][0]["trigger"] == "memory-available"
    text = said(capsys, "simulate", "--storm", "fast:new.service", "--set", "new.service:Protect=yes")
    assert "3 other units paid for it" in text


def test_a_moment_of_a_trace_is_the_worst_one_or_the_one_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(write(tmp_path / "t.gz", falling()))
    data = json.loads(said(capsys, "simulate", "--trace", path, "--json"))
    assert data["memory_available"] == falling()[-1].figures.available
    assert data["order"][0]["name"] == "job.service"
    data = json.loads(said(capsys, "simulate", "--trace", path, "--at", "2.5", "--json"))
    assert data["memory_available"] == falling()[2].figures.available


def test_replay_says_what_would_have_been_decided(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(write(tmp_path / "t.gz", falling()))
    text = said(capsys, "replay", path)
    assert text.splitlines()[1].split()[:5] == ["+10.00", "s", "-.slice", "memory-available", "72"]
    assert "11 moments in 10.0 s" in text and ": 1 decision." in text
    data = json.loads(said(capsys, "replay", path, "--set", "machine:available-min=10%", "--json"))
    assert [(one["victim"], one["moment_usec"]) for one in data["decisions"]] == [("job.service", 8_000_000)]
    assert (data["frames"], data["duration_usec"], data["trace"]["version"]) == (11, 10_000_000, "0.1.0")
    assert ": no decision." in said(capsys, "replay", path, "--set", "machine:available-min=0.5%")
    assert main(["replay", path, "--set", "nosuch.slice:Priority=1"]) == Exit.FAILED
    assert "not in this trace" in capsys.readouterr().err


def test_record_writes_until_its_time_is_over(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [Frame(state(), figures(moment)) for moment in range(1000)]
    monkeypatch.setattr(CgroupTree, "check", lambda self: None)
    left = iter(frames)
    monkeypatch.setattr(record.Looks, "next", lambda self: next(left))
    path = tmp_path / "t.gz"
    assert main(["record", str(path), "--interval", "0.05", "--duration", "0.2"]) == Exit.OK
    assert "t.gz: " in capsys.readouterr().err
    header, written = read(str(path))
    assert header.interval_usec == 50_000
    assert list(written)[:2] == frames[:2]
    assert main(["record", "/nosuch/t", "--duration", "0.1"]) == Exit.FAILED
    assert "No such file" in capsys.readouterr().err


def test_record_asks_systemd_again_only_when_cgroups_change(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    names = {1: "a.service", 2: "not-a-unit"}

    def snapshot() -> UnitSnapshot:
        asked.append(1)
        return UnitSnapshot(())

    monkeypatch.setattr(CgroupTree, "names", lambda self: dict(names))
    monkeypatch.setattr(systemd, "snapshot", snapshot)
    monkeypatch.setattr(present, "read_state", lambda units, tree: state())
    monkeypatch.setattr(present, "read_figures", lambda cgroups, tree: figures())
    looks = record.Looks(CgroupTree())
    first = looks.next()
    names[3] = "another-one"
    assert looks.next().state is first.state
    names[4] = "b.service"
    assert looks.next().state is not first.state
    assert len(asked) == 2


@pytest.mark.parametrize("arguments", [["--interval", "0"], ["--duration", "x"], ["-", "--json"]])
def test_what_cannot_be_recorded_is_refused(arguments: list[str]) -> None:
    try:
        code = main(["record", *arguments, *([] if "-" in arguments else ["x"])])
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        code = ended.code
    assert code == Exit.USAGE


def test_a_policy_of_others_is_not_asked_and_that_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yaml = tmp_path / "p.yaml"
    yaml.write_text("policy: mine\n")
    assert main(["simulate", "--with", str(yaml)]) == Exit.OK
    assert "p.yaml:1: notice: policy=mine: is not asked here" in capsys.readouterr().err
    before = state()
    monkeypatch.setattr(
        changed, "present", lambda: (replace(before, configuration=(("/etc/o.yaml", "policy: mine\n"),)), figures())
    )
    assert main(["simulate"]) == Exit.OK
    assert "/etc/o.yaml:1: notice: policy=mine" in capsys.readouterr().err
