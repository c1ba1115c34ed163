# SPDX-License-Identifier: LGPL-2.1-or-later
"""The comparison with other daemons: from the trace of a run to its figures, tables and picture."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.bench.peers import __main__ as peers
from tests.bench.peers import trace
from tests.bench.peers.candidates import CANDIDATES, files_of
from tests.bench.peers.columns import Cell, Outcome, outcome, percentile
from tests.bench.peers.goals import OURS, goals
from tests.bench.peers.identity import Circumstances, content, programs, release
from tests.bench.peers.picture import RIGHT, WRONG, picture, place
from tests.bench.peers.stage import Stage
from tests.bench.peers.storms import STORMS
from tests.bench.peers.summary import dates, merged
from tests.bench.peers.table import HEAD, into, not_measured, page, row, tables
from tests.bench.peers.trace import RunId
from tests.vm.machine import PROCESSOR, Machine, MachineSilent, Result

TOP = Path(__file__).resolve().parents[2]
TOTAL = 1_000_000
GO = 1_000_000


def lines(
    available: Callable[[int], float],
    *,
    hog: Callable[[int], int] = lambda ms: 1 if ms < 500 else 0,
    database: Callable[[int], int] = lambda ms: 1,
    kills: Callable[[int], int] = lambda ms: 0,
    rounds: list[tuple[int, int]] | None = None,
    lost: tuple[str, ...] = (),
    end_ms: int = 1000,
    swap_kb: int = 0,
) -> list[str]:
    """A trace of a second from `go` on; functions of milliseconds since then, memory as a share."""
    made: list[Any] = [
        {"header": {"key": "k"}},
        {"total_kb": TOTAL, "swap_total_kb": swap_kb},
        ["h", GO, TOTAL // 2, 0, 0, 0, 1, 0, 1, 0],
        {"go_us": GO, "end_us": GO + end_ms * 1000},
    ]
    for ms in range(-100, end_ms + 1, 10):
        memory = int(available(ms) * TOTAL)
        made.append(["s", GO + ms * 1000, memory, memory, swap_kb // 4, kills(ms), hog(ms), 0, database(ms), 0])
    if rounds is None:
        rounds = [(ms, 1) for ms in range(0, end_ms, 5)]
    made += [["r", GO + due * 1000, late * 1000] for due, late in rounds]
    made += [{"complete": True}, {"facts": {"lost": list(lost)}}]
    return [json.dumps(line) for line in made]


def dip(ms: int) -> float:
    """Memory falls to 2 % at 300 ms, is back at 600."""
    return 0.5 if ms < 200 else 0.04 if ms < 300 else 0.02 if ms < 500 else 0.06 if ms < 600 else 0.5


def seen(victim: str = "hog", **how: Any) -> Outcome:
    return outcome(trace.parse(lines(how.pop("available", dip), **how)), victim)


def test_a_killed_hog_is_right_and_its_times_are_counted() -> None:
    found = seen()
    assert found.right
    assert found.collateral == 0
    assert found.exhausted_s == pytest.approx(0.2)
    assert found.recovery_s == pytest.approx(0.4)  # from 200 ms, below 5 %, to 600 ms, at 10 % for good
    assert found.recovered
    assert found.unused_share == pytest.approx(0.02)
    assert found.first_death_s == pytest.approx(0.5)
    assert found.swap_free_share is None
    assert found.blind_ms == pytest.approx(10)


def test_memory_that_is_back_before_the_dead_are_reaped_was_not_unused() -> None:
    found = seen(hog=lambda ms: 1 if ms < 900 else 0)
    assert found.first_death_s == pytest.approx(0.9)
    assert found.unused_share == pytest.approx(0.02)


def test_a_witness_that_is_late_loses_no_exhausted_time() -> None:
    late = [
        line for line in lines(dip) if not (line.startswith('["s"') and 1_310_000 <= json.loads(line)[1] < 1_490_000)
    ]
    found = outcome(trace.parse(late), "hog")
    assert found.exhausted_s == pytest.approx(0.2)
    assert found.blind_ms == pytest.approx(190)


def test_a_dead_database_is_wrong_even_if_the_hog_died_as_well() -> None:
    found = seen(database=lambda ms: 1 if ms < 700 else 0, lost=("database.service",))
    assert not found.right
    assert found.collateral == 1


def test_any_other_service_that_died_is_collateral() -> None:
    found = seen(lost=("ssh.service", "dbus.service"))
    assert not found.right
    assert found.collateral == 2


def test_one_process_of_many_is_a_death_of_the_hog() -> None:
    assert seen(hog=lambda ms: 81 if ms < 500 else 80).right


def test_processes_that_are_still_being_started_are_no_death() -> None:
    growing = seen(hog=lambda ms: 1 if ms < 50 else 9)
    assert growing.first_death_s is None
    assert growing.unused_share is None


@pytest.mark.parametrize(("victim", "right"), [("hog", False), ("none", True), ("hog or none", True)])
def test_whether_nobody_should_have_died_depends_on_the_storm(victim: str, right: bool) -> None:
    assert seen(victim, hog=lambda ms: 1).right is right


@pytest.mark.parametrize(("victim", "right"), [("hog", True), ("none", False), ("hog or none", True)])
def test_whether_the_hog_should_have_died_depends_on_the_storm(victim: str, right: bool) -> None:
    assert seen(victim).right is right


def test_memory_that_never_comes_back_is_no_recovery() -> None:
    found = seen(available=lambda ms: 0.5 if ms < 200 else 0.04)
    assert found.recovery_s is None
    assert not found.recovered


def test_memory_that_was_never_short_needs_no_recovery() -> None:
    found = seen(available=lambda ms: 0.12)
    assert found.recovery_s == 0
    assert found.exhausted_s == 0


def test_kernel_kills_are_those_of_this_run() -> None:
    assert seen(kills=lambda ms: 3 if ms < 400 else 5).kernel_kills == 2


def test_free_swap_at_the_kill_is_told_where_there_is_swap() -> None:
    assert seen(swap_kb=400).swap_free_share == pytest.approx(0.25)


def test_stalls_are_the_late_requests_since_the_storm_began() -> None:
    rounds = [(-50, 40), *[(ms, 1) for ms in range(0, 500, 5)], (505, 200), *[(ms, 1) for ms in range(710, 1000, 5)]]
    found = seen(rounds=rounds)
    assert found.longest_stall_ms == pytest.approx(200)
    assert found.p99_ms == pytest.approx(1)
    assert found.stalled_share == pytest.approx(0.2)


def test_a_database_that_lives_and_is_silent_at_the_end_stalls() -> None:
    assert seen(rounds=[(0, 1), (5, 1)]).longest_stall_ms == pytest.approx(994)
    dead = seen(rounds=[(0, 1), (5, 1)], database=lambda ms: 1 if ms < 10 else 0)
    assert dead.longest_stall_ms == pytest.approx(1)


def test_a_run_that_was_not_heard_to_its_end_is_hung_whatever_it_said_before() -> None:
    cut = lines(dip)[:-2]
    found = outcome(trace.parse([*cut, '["s",12']), "hog")
    assert found.hung
    assert not found.right
    assert found.longest_stall_ms is None
    json.dumps(found.plain(), allow_nan=False)


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([float(value) for value in range(1, 101)], 0.99) == 100
    assert percentile([5.0], 0.99) == 5
    assert percentile([], 0.99) == 0


def test_a_run_counts_only_with_its_key_and_as_a_whole(tmp_path: Path) -> None:
    path = RunId("none", "kernel", "fast", 1).path(tmp_path)
    assert not trace.counts(path, "k")
    trace.write(path, {"key": "k"}, lines(dip)[1:-1], {"lost": []})
    assert not trace.counts(path, "k")  # nobody could tell it from another of the same
    trace.write(path, {"key": "k", "began": "2026-01-02T03:04:05Z"}, lines(dip)[1:-1], {"lost": ["a.service"]})
    assert trace.counts(path, "k")
    assert not trace.counts(path, "other")
    again = trace.read(path)
    assert again.complete
    assert again.facts["lost"] == ["a.service"]
    assert outcome(again, "hog").collateral == 1
    path.write_bytes(path.read_bytes()[:20])
    assert not trace.counts(path, "k")


def test_what_a_run_depends_on_changes_its_key() -> None:
    assert trace.digest("programs-1", {"a": 1}) != trace.digest("programs-2", {"a": 1})
    assert trace.digest({"a": 1, "b": 2}) == trace.digest({"b": 2, "a": 1})


def test_a_kernel_tells_its_release_before_it_is_booted(tmp_path: Path) -> None:
    image = bytearray(1 << 12)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x500).to_bytes(2, "little")
    image[0x700:0x720] = b"6.12.1-cloud (built by) #1\0".ljust(0x20, b"x")
    (tmp_path / "vmlinuz").write_bytes(image)
    assert release(tmp_path / "vmlinuz") == "6.12.1-cloud"
    (tmp_path / "other").write_bytes(b"\0" * 4096)
    with pytest.raises(ValueError, match="other is no kernel image"):
        release(tmp_path / "other")


def deb(directory: Path, name: str, *, program: str, manual: str, time: int) -> Path:
    root = directory / name
    for path, text in (
        ("usr/bin/oomslice", program),
        ("usr/share/man/man1/oomslice.1", manual),
        ("DEBIAN/control", "Package: oomslice\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n"),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
        os.utime(root / path, (time, time))
    command: list[str | Path] = ["dpkg-deb", "--build", "--root-owner-group", root, directory / f"{name}.deb"]
    subprocess.run(command, check=True, capture_output=True)
    return directory / f"{name}.deb"


def test_a_package_is_another_only_if_something_in_it_that_runs_is(tmp_path: Path) -> None:
    first = deb(tmp_path, "first", program="a", manual="a", time=1_000_000)
    again = deb(tmp_path, "again", program="a", manual="b", time=2_000_000)
    other = deb(tmp_path, "other", program="b", manual="a", time=1_000_000)
    assert first.read_bytes() != again.read_bytes()
    assert content(first) == content(again)
    assert content(first) != content(other)


def test_a_key_depends_on_the_programs_of_a_run_and_on_no_others(tmp_path: Path) -> None:
    shutil.copytree(TOP / "tests/vm/programs", tmp_path / "programs")
    before = programs(tmp_path / "programs")
    (tmp_path / "programs" / "trial.c").write_text("int main(void) { return 1; }\n")
    (tmp_path / "programs" / "new.c").write_text("")
    assert programs(tmp_path / "programs") == before
    for name in ("storm.c", "database.c", "witness.c", "rounds.h"):
        text = (tmp_path / "programs" / name).read_text()
        (tmp_path / "programs" / name).write_text(text + "\n")
        assert programs(tmp_path / "programs") != before, name
        (tmp_path / "programs" / name).write_text(text)


def test_a_key_depends_on_kernel_and_settings_and_on_the_package_of_the_candidate_alone() -> None:
    now = Circumstances("6.12", "p", {"earlyoom": "1", "oomd": "1"})
    earlyoom, tuned, storm = CANDIDATES["earlyoom"], CANDIDATES["earlyoom-tuned"], STORMS["fast"]
    key = now.key(earlyoom, storm, "none")
    assert replace(now, versions={"earlyoom": "1", "oomd": "2"}).key(earlyoom, storm, "none") == key
    assert now.key(earlyoom, replace(storm, what="in other words"), "none") == key
    others = [
        replace(now, kernel="6.13").key(earlyoom, storm, "none"),
        replace(now, programs="q").key(earlyoom, storm, "none"),
        replace(now, versions={"earlyoom": "2"}).key(earlyoom, storm, "none"),
        now.key(tuned, storm, "none"),
        now.key(replace(earlyoom, hog={"OOMPolicy": "kill"}), storm, "none"),
        now.key(earlyoom, STORMS["tree"], "none"),
        now.key(earlyoom, replace(storm, seconds=61), "none"),
    ]
    assert len({key, *others}) == len(others) + 1
    oomd = CANDIDATES["oomd-tuned"]  # has other rules without swap
    assert now.key(oomd, storm, "none") != now.key(oomd, storm, "disk")
    assert now.version(CANDIDATES["kernel"]) == "6.12"
    assert now.version(CANDIDATES["nohang"]) == ""


def test_what_was_measured_before_stays_with_its_own_date_until_it_is_measured_anew() -> None:
    before = summary()
    fresh = summary()
    fresh["machine"] = {"kernel": "6.13", "systemd": "", "emulator": "QEMU 11"}
    fresh["candidates"] = {"kernel": {"version": "6.13"}}
    fresh["cells"] = [
        {
            **fresh["cells"][0],
            "measured": ["2026-02-01", "2026-02-01"],
            "kernel": "6.13",
            "version": "6.13",
            "key": "new",
        }
    ]
    fresh["cells"] += [{**fresh["cells"][0], "storm": "tree"}]
    found = merged(before, fresh, list(CANDIDATES))
    assert [(cell["storm"], cell["candidate"], cell["measured"][0]) for cell in found["cells"]] == [
        ("fast", "kernel", "2026-02-01"),
        ("fast", "oomslice", "2026-01-02"),
        ("tree", "kernel", "2026-02-01"),
    ]
    assert found["machine"] == {"kernel": "6.13", "systemd": "257", "emulator": "QEMU 11"}
    assert list(found["candidates"]) == ["kernel", "oomd", "oomslice"]
    assert dates(found) == ("2026-01-02", "2026-02-01")
    assert merged(found, fresh, list(CANDIDATES)) == found
    text = tables(found)
    assert re.search(r"fast +\| oomslice .*\| 2026-01-02 to 2026-01-03, Linux 6.12 ", text)
    assert re.search(r"fast +\| kernel .*\| 2026-02-01 +\|", text)


def test_runs_of_the_same_add_up_and_each_counts_once() -> None:
    before, fresh = summary(), summary()
    cell = fresh["cells"][0]
    fresh["cells"] = [
        {
            **cell,
            "measured": ["2026-02-01", "2026-02-01"],
            "runs": ["2026-02-01T10:00:00Z"],
            "outcomes": [seen().plain()],
        }
    ]
    found = merged(before, fresh, list(CANDIDATES))
    first = found["cells"][0]
    assert first["outcomes"] == [*before["cells"][0]["outcomes"], seen().plain()]
    assert first["runs"] == ["2026-01-02 1", "2026-01-02 2", "2026-02-01T10:00:00Z"]
    assert first["measured"] == ["2026-01-02", "2026-02-01"]
    assert found["cells"][1]["outcomes"] == before["cells"][1]["outcomes"]
    assert merged(found, fresh, list(CANDIDATES)) == found
    assert merged(found, before, list(CANDIDATES)) == found
    fresh["cells"][0]["runs"] = ["2026-02-01T11:00:00Z"]  # of a machine that knows of this run only
    assert len(merged(found, fresh, list(CANDIDATES))["cells"][0]["outcomes"]) == 4


def test_runs_under_other_circumstances_take_the_place_of_those_before() -> None:
    before, fresh = summary(), summary()
    fresh["cells"] = [{**fresh["cells"][0], "key": "another", "outcomes": fresh["cells"][0]["outcomes"][:1]}]
    assert len(merged(before, fresh, list(CANDIDATES))["cells"][0]["outcomes"]) == 1


def test_what_was_measured_on_another_processor_goes() -> None:
    before, fresh = summary(), summary()
    fresh["machine"]["processor"] = "max,-erms"
    fresh["cells"] = [{**fresh["cells"][0], "storm": "tree", "key": "another"}]
    found = merged(before, fresh, list(CANDIDATES))
    assert [cell["storm"] for cell in found["cells"]] == ["tree"]
    assert found["candidates"] == before["candidates"]
    again = {**fresh, "cells": [{**fresh["cells"][0], "storm": "many"}]}
    assert [cell["storm"] for cell in merged(found, again, list(CANDIDATES))["cells"]] == ["many", "tree"]


def test_a_daemon_at_rest_is_not_measured_again_where_the_tree_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "DOCUMENTS", tmp_path)
    for processor, expected in ((PROCESSOR, summary()["candidates"]["oomslice"]), ("max", {})):
        before = summary()
        before["machine"]["processor"] = processor
        (tmp_path / "benchmarks.json").write_text(json.dumps(before))
        assert peers._known("oomslice") == expected
        assert peers._known("earlyoom") == {}


def summary() -> dict[str, Any]:
    good, bad = seen(), seen(database=lambda ms: 1 if ms < 700 else 0, lost=("database.service",))
    hung = outcome(trace.parse(lines(dip)[:3]), "hog")
    return {
        "machine": {"kernel": "6.12", "systemd": "257", "emulator": "QEMU 10"},
        "candidates": {
            "kernel": {"version": "6.12"},
            "oomd": {"version": "0.5", "failure": "no <such> cgroup"},
            "oomslice": {"version": "1", "at_rest": {"memory_mb": 40.0, "cpu": 0.001}},
        },
        "cells": [
            {
                "swap": "none",
                "candidate": name,
                "storm": "fast",
                "measured": ["2026-01-02", "2026-01-03"],
                "version": version,
                "kernel": "6.12",
                "key": "old",
                "runs": ["2026-01-02 1", "2026-01-02 2"],
                "outcomes": [found.plain() for found in outcomes],
            }
            for name, version, outcomes in (("kernel", "6.12", [bad, hung]), ("oomslice", "1", [good, good]))
        ],
    }


def test_a_line_of_the_table_has_median_and_worst_and_counts_hung_runs() -> None:
    good = seen()
    worse = replace(good, exhausted_s=4.0, recovery_s=None, recovered=False)
    hung = outcome(trace.parse(lines(dip)[:3]), "hog")
    line = dict(zip(HEAD, row(Cell("none", "kernel", "fast", (good, worse, hung)), "2026-01-02"), strict=True))
    assert line["right victim"] == "2 of 3"
    assert line["exhausted, s"] == "2.10 (4.00)"
    assert line["recovery, s"] == "0.40, never in 1"
    assert line["unused, %"] == "2.0"
    assert line["hung"] == "1"


def test_tables_have_a_line_for_each_cell_and_say_who_does_not_start() -> None:
    text = tables(summary())
    assert re.search(r"\| fast +\| kernel +\| 0 of 2 ", text)
    assert text.index("| fast  | kernel") < text.index("| fast  | oomslice")
    assert "does not start as packaged: no <such> cgroup" in text
    assert "### No swap" in text
    assert "zram" not in text


def test_what_is_missing_of_the_matrix_is_named() -> None:
    text = not_measured(summary(), ["kernel", "oomd", "oomslice", "earlyoom"])
    assert "- No swap, fast: earlyoom.\n" in text
    assert "- No swap, slow, many, tree, file, tmpfs, static: all.\n" in text
    assert "- Zram of half of the memory, fast, slow, many, tree, file, tmpfs, static: all.\n" in text
    assert "oomd" not in text  # it does not start


def cell(candidate: str, *found: Outcome, swap: str = "none", storm: str = "fast") -> Cell:
    return Cell(swap, candidate, storm, found)


def reached(*cells: Cell) -> dict[str, bool | None]:
    return {goal.text: goal.met for goal in goals(cells)}


def test_goals_that_were_not_measured_are_neither_met_nor_missed() -> None:
    assert set(reached().values()) == {None}
    only_dry = reached(cell(OURS, seen()))
    assert only_dry["with swap: longest stall at most 50 ms"] is None
    assert only_dry["a hog that stops with half of the swap free is not killed"] is None


def test_the_worst_run_decides_about_a_goal() -> None:
    good, slow = seen(), replace(seen(), longest_stall_ms=21.0, kernel_kills=1, unused_share=0.031)
    fine = reached(cell(OURS, good), cell(OURS, good, swap="disk"))
    assert fine["right victim in every run"] is True
    assert fine["no kernel kill"] is True
    assert fine["without swap, where a kill frees memory: exhausted at most 0.3 s"] is True
    assert fine["without swap: longest stall at most 20 ms"] is True
    assert fine["at most 3 % of memory unused when the kill comes"] is True
    missed = reached(cell(OURS, good, slow), cell(OURS, good, slow, swap="disk"))
    assert missed["no kernel kill"] is False
    assert missed["without swap: longest stall at most 20 ms"] is False
    assert missed["with swap: longest stall at most 50 ms"] is True
    assert missed["at most 3 % of memory unused when the kill comes"] is False


def test_what_no_kill_frees_does_not_count_as_exhausted_by_us() -> None:
    text = "without swap, where a kill frees memory: exhausted at most 0.3 s"
    long = replace(seen(), exhausted_s=5.0)
    assert reached(cell(OURS, seen()), cell(OURS, long, storm="tmpfs"))[text] is True
    assert reached(cell(OURS, seen()), cell(OURS, long, storm="tree"))[text] is False


def test_exhaustion_is_compared_with_the_best_other_that_was_right() -> None:
    text = "without swap, fast: exhausted at most a tenth of the best other that was right"
    ours = cell(OURS, replace(seen(), exhausted_s=0.1))
    right, wrong = replace(seen(), exhausted_s=1.5), replace(seen(), exhausted_s=0.5, right=False)
    assert reached(ours, cell("kernel", right), cell("earlyoom", wrong))[text] is True
    assert reached(ours, cell("kernel", right), cell("earlyoom", replace(wrong, right=True)))[text] is False
    assert reached(ours, cell("kernel", right, swap="disk"), cell("oomslice", right))[text] is None


def test_a_static_hog_that_is_killed_misses_its_goal() -> None:
    text = "a hog that stops with half of the swap free is not killed"
    assert reached(cell(OURS, seen("none"), swap="disk", storm="static"))[text] is False
    assert reached(cell(OURS, seen("none", hog=lambda ms: 1), swap="disk", storm="static"))[text] is True


def test_a_document_is_changed_between_its_marks_only() -> None:
    text = page(summary(), list(CANDIDATES))
    document = "before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n"
    changed = into(document, text)
    assert changed.startswith("before\n<!--")
    assert changed.endswith("-->\nafter\n")
    assert "old" not in changed
    assert into(changed, text) == changed
    with pytest.raises(ValueError):
        into("no marks", text)


def test_a_picture_has_a_mark_for_each_run_in_each_panel() -> None:
    tree = ElementTree.fromstring(picture(summary()))
    space = "{http://www.w3.org/2000/svg}"
    circles = tree.findall(f"{space}circle")
    marks = [circle for circle in circles if float(circle.get("cy", "0")) > 30]
    assert sum(circle.get("fill") == RIGHT for circle in marks) == 4
    assert sum(circle.get("stroke") == WRONG for circle in marks) == 2
    assert [text.text for text in tree.findall(f"{space}text")].count("x") == 2


def test_a_scale_begins_at_its_left_edge_and_ends_at_its_right() -> None:
    assert [place(value, 0.01, 100) for value in (0, 0.01, 1, 100, 1e6)] == pytest.approx([0, 0, 0.5, 1, 1])


def test_the_documentation_shows_the_committed_summary() -> None:
    committed = json.loads((TOP / "docs/benchmarks.json").read_text())
    document = (TOP / "docs/benchmarks.md").read_text()
    assert into(document, page(committed, list(CANDIDATES))) == document
    assert (TOP / "docs/benchmarks.svg").read_text() == picture(committed)


def test_the_database_is_protected_for_all_and_ours_has_little_more_than_priorities() -> None:
    for candidate in CANDIDATES.values():
        assert "MemoryMin=128M" in files_of(candidate, swap=True)["/etc/systemd/system/benchsvc.slice"]
        assert "Memory" not in files_of(candidate, swap=True)["/etc/systemd/system/benchhog.slice"]
    stalls = "(Actions=throttle:90 kill@5s|PressureTrigger=.*\nPressureVictims=lower-priority)\n"
    for swap, more in ((False, ""), (True, stalls)):
        files = files_of(CANDIDATES["oomslice-tuned"], swap=swap)
        ours = [text for path, text in files.items() if path.endswith("50-oomslice.conf")]
        assert len(ours) == 2
        assert ("swap-free-ladder: 100%" in files["/etc/oomslice/oomslice.yaml.d/50-bench.yaml"]) is swap
        assert all(re.fullmatch(rf"\[X-OOMSlice\]\nPriority=-?\d+\n{more}", text) for text in ours)
    assert not CANDIDATES["oomslice"].files


def test_settings_of_the_others_can_be_read_as_they_read_them() -> None:
    for swap in (True, False):
        rules = json.loads(files_of(CANDIDATES["oomd-tuned"], swap=swap)["/etc/oomd/oomd.json"])["rulesets"]
        assert ("no swap" in [rule["name"] for rule in rules]) is not swap
    text = CANDIDATES["earlyoom-tuned"].files["/etc/default/earlyoom"]
    name, value = shlex.split(text)[0].split("=", 1)
    assert name == "EARLYOOM_ARGS"
    assert shlex.split(value)[-4:] == ["--prefer", "^(hog|stress-ng.*)$", "--avoid", "^(database|sshd|systemd.*)$"]


def test_every_storm_is_one_that_the_program_knows() -> None:
    source = (TOP / "tests/vm/programs/storm.c").read_text()
    modes = {
        (mode, int(count)) for count, mode in re.findall(r'count == (\d) && strcmp\(arguments\[0\], "(\w+)"\)', source)
    }
    for storm in STORMS.values():
        mode, *rest = storm.command.split()
        assert (mode, len(rest) + 1) in modes


def test_make_hands_over_what_is_chosen() -> None:
    chosen = ["PEERS=kernel earlyoom", "STORMS=fast many", "SWAP=none", "RUNS=3", "PUBLISH=yes"]
    command = ["make", "-n", "bench-peers", *chosen]
    said = subprocess.run(command, cwd=TOP, check=True, capture_output=True, text=True).stdout
    said = said.replace("\\\n", " ")
    line = next(line for line in said.splitlines() if "tests.bench.peers" in line)
    assert shlex.split(line)[shlex.split(line).index("tests.bench.peers") + 1 :] == [
        *("--peers", "kernel earlyoom", "--storms", "fast many", "--swap", "none", "--runs", "3", "--publish"),
    ]


def agent(answers: list[bytes]) -> Machine:
    """A machine whose agent gives these answers to one request."""
    near, far = socket.socketpair()
    machine = Machine.__new__(Machine)
    machine._agent, machine._buffer, machine._process = near, b"", None
    machine._alive = lambda: None  # type: ignore[method-assign]
    machine.console_tail = lambda lines=40: ""  # type: ignore[method-assign]

    def answer() -> None:
        far.recv(1000)
        for part in answers:
            far.sendall(part)

    machine._far = far  # type: ignore[attr-defined]
    threading.Thread(target=answer, daemon=True).start()
    return machine


def test_lines_of_a_talking_command_are_handed_over_whole() -> None:
    heard: list[str] = []
    machine = agent([b"o 5\none\nt", b"o 6\nwo\nend", b"e 3\n"])
    assert machine.follow("x", heard.append, timeout=5, silence=5) == 3
    assert heard == ["one", "two", "end"]


def test_a_machine_that_says_nothing_any_more_is_silent() -> None:
    heard: list[str] = []
    with pytest.raises(MachineSilent):
        agent([b"o 4\none\n"]).follow("x", heard.append, timeout=60, silence=0.2)
    assert heard == ["one"]


class Told:
    """A machine that notes what it is told, and is always as one would have it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def check(self, command: str, timeout: float = 60.0) -> str:
        self.said.append(command)
        return ""

    def run(self, command: str, timeout: float = 60.0) -> Result:
        return Result(0, self.check(command))

    def put(self, path: str, text: str) -> None:
        self.said.append(f"put {path}")

    def start_service(self, unit: str, command: str, **properties: str) -> None:
        self.said.append(f"start {unit}")

    def available_mb(self) -> int:
        return 800

    def wait_for(
        self, what: str, condition: Callable[[], object], timeout: float = 30.0, interval: float = 0.1
    ) -> None:
        self.said.append(f"wait until {what}")
        if what.startswith("zram"):
            assert condition()

    def first(self, part: str) -> int:
        return next(index for index, command in enumerate(self.said) if part in command)


def test_another_kind_of_swap_begins_with_a_daemon_and_a_database_that_have_seen_no_other() -> None:
    machine = Told()
    stage = Stage.__new__(Stage)
    stage.machine, stage.candidate, stage.swap = cast(Machine, machine), CANDIDATES["oomd-tuned"], "zram"
    stage.change_swap("none")
    assert stage.swap == "none"
    order = [
        *("stop database.service", "stop oomd.service", "swapoff /dev/zram0", "zram0/reset", "put /etc/oomd/oomd.json"),
        *("daemon-reload", "systemctl start oomd.service", "start database"),
    ]
    assert [machine.first(part) for part in order] == sorted(machine.first(part) for part in order)
    machine.said.clear()
    stage.change_swap("disk")
    assert not any("swapoff" in command for command in machine.said)
    order = ["swapon /dev/vdc", "systemctl start oomd.service", "start database"]
    assert [machine.first(part) for part in order] == sorted(machine.first(part) for part in order)


def test_ours_goes_on_over_another_kind_of_swap_and_reads_its_settings_anew() -> None:
    machine = Told()
    stage = Stage.__new__(Stage)
    stage.machine, stage.candidate, stage.swap = cast(Machine, machine), CANDIDATES["oomslice-tuned"], "none"
    stage.change_swap("disk")
    order = ["50-bench.yaml", "daemon-reload", "systemctl reload oomsliced.service", "start database"]
    assert [machine.first(part) for part in order] == sorted(machine.first(part) for part in order)
    assert not any("stop oomslice" in command for command in machine.said)


@pytest.mark.parametrize(("name", "hog"), [("oomslice-tuned", -200), ("oomslice", 0)])
def test_no_run_begins_before_the_plan_of_ours_has_what_everybody_is_told(name: str, hog: int) -> None:
    machine = Told()
    stage = Stage.__new__(Stage)
    stage.machine, stage.candidate, stage.swap = cast(Machine, machine), CANDIDATES[name], "zram"
    stage._last_kill = 0.0
    stage.change_swap("none")
    stage._start_hog(STORMS["fast"])
    waits = [said.removeprefix("wait until oomslice has a plan in which ") for said in machine.said if "plan" in said]
    assert waits == ["the priority of database.service is 500", f"the priority of hog.service is {hog}"]


@pytest.fixture(scope="module", name="built")
def build_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs that run inside the machine, built for this one."""
    directory = tmp_path_factory.mktemp("programs")
    for name in ("storm", "database", "witness"):
        source = TOP / "tests/vm/programs" / f"{name}.c"
        command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", directory / name, source]
        subprocess.run(command, check=True)
    return directory


def test_what_the_witness_says_is_a_trace(built: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a real-time process with locked memory needs root")
    groups = [tmp_path / "hog", tmp_path / "database"]
    for group in groups:
        group.mkdir()
        (group / "pids.current").write_text("1\n")
        (group / "memory.current").write_text("4096\n")
    database = subprocess.Popen([built / "database", "4", "1", tmp_path / "rounds"])
    storm = subprocess.Popen([built / "storm", tmp_path / "go", "grow", "1", "2"])
    try:
        wait_until(lambda: (tmp_path / "rounds").exists() and (tmp_path / "rounds").stat().st_size > 0)
        witness = subprocess.Popen(
            [built / "witness", "60", "1", tmp_path / "go", tmp_path / "rounds", *groups],
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_until((tmp_path / "go").exists)
        wait_until(lambda: "hog" in (Path(f"/proc/{storm.pid}/comm").read_text()))
        wait_until(lambda: len(Path(f"/proc/{storm.pid}/task/{storm.pid}/children").read_text().split()) == 2)
        time.sleep(0.1)
        (groups[0] / "pids.current").write_text("0\n")
        said, _ = witness.communicate(timeout=60)
    finally:
        for process in (storm, database):
            process.kill()
            process.wait()
    seen_there = trace.parse([*said.splitlines(), json.dumps({"facts": {"lost": []}})])
    assert witness.returncode == 0
    assert seen_there.complete
    assert seen_there.total_kb > 0
    assert seen_there.heartbeats
    assert seen_there.rounds
    assert seen_there.samples[0].at < seen_there.go < seen_there.samples[-1].at <= seen_there.end
    assert seen_there.samples[0].processes == (1, 1)
    assert seen_there.samples[0].used_kb == (4, 4)
    assert seen_there.samples[-1].processes == (0, 1)
    found = outcome(seen_there, "hog")
    assert found.right
    assert found.longest_stall_ms is not None
    assert found.longest_stall_ms > 0


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("did not happen within half a minute")
