# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslice-scores with real processes in real cgroups, under the sanitizers.

Without CAP_SYS_RESOURCE, which a container seldom has, no value can be lowered below what the process began with: where
a test lowers one, the process was raised before.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from oomslice.carriers.score_adj import table
from oomslice.policy.scores import Scores, SliceScore, UnitScore
from tests.core.rig import Tree, wait_until
from tests.core.scores_rig import SCORES, ScoresProcess, adj_of, line, set_adj, unit, values

pytestmark = pytest.mark.core
UNIT = SCORES.parent / "units" / "oomslice-scores.service"


def test_every_process_below_a_unit_gets_its_value_and_has_its_own_back_at_the_end(
    scores: ScoresProcess, tree: Tree, mount: Path
) -> None:
    batch, pids = unit(tree, "batch.service", 20)
    inner, inner_pids = unit(tree, "batch.service/inner")
    _other, others = unit(tree, "other.service")
    answer = scores.table(line(mount, batch, 700))
    assert (answer["units"], answer["hits"], answer["missed"], answer["error"]) == ("1", "23", "0", "")
    assert values([*pids, *inner_pids]) == {700} and values(others) == {0}
    assert inner.exists()
    assert scores.stop() == (0, "")
    assert values([*pids, *inner_pids]) == {0}
    assert not scores.state.exists()


def test_a_value_that_its_owner_chose_is_kept(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    batch, (low, high, own) = unit(tree, "batch.service")
    set_adj(high, 900)
    set_adj(own, 300)
    scores.table(line(mount, batch, 500))
    # Never lowered below what it raised itself to; raised to what all have.
    assert [adj_of(pid) for pid in (low, high, own)] == [500, 900, 500]
    set_adj(low, 450)
    scores.table(line(mount, batch, 600))
    assert adj_of(low) == 600
    scores.stop()
    assert [adj_of(pid) for pid in (high, own)] == [900, 300]
    assert adj_of(low) == 450


def test_who_has_the_very_value_by_its_own_choice_keeps_it_at_the_end(
    scores: ScoresProcess, tree: Tree, mount: Path
) -> None:
    batch, (plain, own, _) = unit(tree, "batch.service")
    set_adj(own, 500)
    scores.table(line(mount, batch, 500))
    scores.table(line(mount, batch, 800))
    assert values([plain, own]) == {800}
    scores.stop()
    assert [adj_of(pid) for pid in (plain, own)] == [0, 500]


def test_a_unit_of_a_user_is_lowered_to_its_value_but_not_what_was_raised(
    scores: ScoresProcess, tree: Tree, mount: Path
) -> None:
    shell, pids = unit(tree, "shell.service")
    for pid, adj in zip(pids, (200, 100, 300), strict=True):
        set_adj(pid, adj)
    scores.table(line(mount, shell, 50, baseline=200))
    assert [adj_of(pid) for pid in pids] == [50, 50, 300]
    scores.table(line(mount, shell, None, baseline=200))
    assert [adj_of(pid) for pid in pids] == [200, 100, 300]


def test_children_inherit_and_get_the_next_value_too(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    batch = tree.make("batch.service")
    script = 'echo $$ >"$0/cgroup.procs"; echo; read x; sleep 1000 & echo; read x; exec sleep 1000'
    child = subprocess.Popen(["sh", "-c", script, batch], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    tree.children.append(child)
    assert child.stdout is not None and child.stdin is not None
    child.stdout.readline()
    scores.table(line(mount, batch, 400))
    child.stdin.write(b"\n")
    child.stdin.flush()
    child.stdout.readline()
    assert values(tree.pids(batch)) == {400} and len(tree.pids(batch)) == 2
    scores.table(line(mount, batch, 300))
    assert values(tree.pids(batch)) == {300}
    scores.table()
    assert values(tree.pids(batch)) == {0}


def test_a_cgroup_that_is_populated_anew_is_looked_at(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    batch = tree.make("batch.service")
    assert scores.table(line(mount, batch, 400))["hits"] == "0"
    pids = tree.populate(batch, 5)
    assert int(scores.answer()["hits"]) > 0
    wait_until(lambda: values(pids) == {400})


def test_a_value_that_was_once_ours_is_its_owners_when_it_is_given_back(
    scores: ScoresProcess, tree: Tree, mount: Path
) -> None:
    batch, pids = unit(tree, "batch.service")
    scores.table(line(mount, batch, 400))
    scores.table(line(mount, batch, None))
    set_adj(pids[0], 400)
    scores.table(line(mount, batch, None, group=True))
    assert [adj_of(pid) for pid in pids] == [400, 0, 0]
    scores.stop()
    assert adj_of(pids[0]) == 400


def test_a_unit_that_leaves_the_table_is_as_before(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    first, firsts = unit(tree, "first.service")
    second, seconds = unit(tree, "second.service")
    scores.table(line(mount, first, 400), line(mount, second, 600))
    assert (values(firsts), values(seconds)) == ({400}, {600})
    scores.table(line(mount, second, 600))
    assert (values(firsts), values(seconds)) == ({0}, {600})


def test_another_cgroup_of_the_same_path_is_not_touched(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    batch, pids = unit(tree, "batch.service")
    wrong = line(mount, batch, 400).replace(f" {batch.stat().st_ino} ", " 12345 ")
    assert scores.table(wrong)["hits"] == "0"
    assert values(pids) == {0}


def test_after_sigkill_the_service_manager_has_all_restored(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    batch, pids = unit(tree, "batch.service", 5)
    set_adj(pids[0], 100)
    scores.table(line(mount, batch, 300))
    scores.table(line(mount, batch, 700))
    assert scores.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    assert values(pids) == {700}
    scores.restore()
    assert [adj_of(pid) for pid in pids] == [100, 0, 0, 0, 0]
    assert not scores.state.exists()
    scores.restore()


def test_a_new_one_restores_what_the_one_before_left(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    batch, pids = unit(tree, "batch.service")
    scores.table(line(mount, batch, 700))
    scores.stop(signal.SIGKILL)
    scores.start()
    assert values(pids) == {0}


def test_a_process_that_moves_away_is_left_alone(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    batch, pids = unit(tree, "batch.service")
    session, _ = unit(tree, "session.scope", 1)
    (session / "cgroup.procs").write_text(str(pids[0]), encoding="ascii")
    scores.table(line(mount, batch, 700), line(mount, session, None))
    assert adj_of(pids[0]) == 0 and values(pids[1:]) == {700}


def test_a_fork_storm_leaves_nobody_out(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    batch = tree.make("batch.service")
    script = 'echo $$ >"$0/cgroup.procs"; echo; for i in $(seq 300); do sleep 1000 & done; echo; exec sleep 1000'
    child = subprocess.Popen(["sh", "-c", script, batch], stdout=subprocess.PIPE)
    tree.children.append(child)
    assert child.stdout is not None
    child.stdout.readline()
    scores.table(line(mount, batch, 700))
    child.stdout.readline()
    pids = tree.pids(batch)
    assert len(pids) == 301 and values(pids) == {700}


def test_what_the_daemon_writes_is_what_it_reads(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    batch, pids = unit(tree, "batch.service")
    plain, plain_pids = unit(tree, "plain.service")
    own, own_pids = unit(tree, "own.service")
    calm, calm_pids = unit(tree, "calm.slice/young.service")
    _, young_pids = unit(tree, "young.service")

    def place(path: Path) -> tuple[int, str]:
        return path.stat().st_ino, "/" + str(path.relative_to(mount))

    given = Scores(
        (
            UnitScore(*place(batch), 700, 0, True, True, ""),
            UnitScore(*place(plain), None, 0, False, True, ""),
            UnitScore(*place(own), None, 0, False, False, ""),
        ),
        (SliceScore(*place(tree.root), 500, 0, True), SliceScore(mount.stat().st_ino, "/", None, 0, False)),
        dict([place(calm.parent)]),
    )
    scores.send(table(given).decode())
    answer = scores.answer()
    assert (answer["units"], answer["hits"], answer["line"]) == ("5", "6", "0")
    assert (values(pids), values(young_pids)) == ({700}, {500})
    assert values([*plain_pids, *own_pids, *calm_pids]) == {0}


@pytest.mark.parametrize(
    "text",
    [
        "unit 5 1001 0 0 /a\n",
        "unit 5 -1000 0 0 /a\n",
        "unit 5 1 0 2 /a\n",
        "unit 5 1 0 0 a\n",
        "unit 5 1 0 0 /a/../../etc\n",
        "unit 5 1 0 0 /\n",
        "unit 5 1 0 0 //a\n",
        "unit 0 1 0 0 /a\n",
        "unit 5 1x 0 0 /a\n",
        "unit 5 1 0\n",
        "old 5 3\n",
        "something 5 3\n",
        "\n",
        "unit 5 1 0 0 /a\nunit 5 1 0 0 /b\n",
    ],
)
def test_a_table_that_is_wrong_changes_nothing(scores: ScoresProcess, tree: Tree, mount: Path, text: str) -> None:
    batch, pids = unit(tree, "batch.service")
    scores.table(line(mount, batch, 700))
    scores.send(text)
    answer = scores.answer()
    assert int(answer["line"]) in (1, 2) and answer["units"] == "1"
    assert values(pids) == {700}


def test_a_table_that_could_change_is_refused(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    batch, pids = unit(tree, "batch.service")
    scores.send(line(mount, batch, 700), seals=0)
    assert "Operation not permitted" in scores.answer()["error"] and values(pids) == {0}


def test_who_talks_nonsense_is_dropped_and_another_is_served(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    batch, pids = unit(tree, "batch.service")
    scores.send(line(mount, batch, 700), text=b"nonsense")
    assert scores.answer() == {}
    scores._connect()
    assert scores.table(line(mount, batch, 700))["hits"] == "3" and values(pids) == {700}


def test_nothing_wakes_it_between_tables(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    batch, _pids = unit(tree, "batch.service")
    scores.table(line(mount, batch, 700))
    assert scores.process is not None
    status = Path(f"/proc/{scores.process.pid}/status")

    def switches() -> list[str]:
        return re.findall(r"^voluntary_ctxt_switches:\t(\d+)", status.read_text(encoding="ascii"), re.MULTILINE)

    # The kernel tells of a cgroup's population by a worker of its own, which may be late.
    # And then it looks again for a second.
    time.sleep(2)
    before = switches()
    time.sleep(1)
    assert switches() == before


def test_the_units_filter_allows_what_it_calls_and_little_more(
    scores_program: Callable[[str], Path], mount: Path, tmp_path: Path, tree: Tree
) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    wrapper = tmp_path / "traced"
    wrapper.write_text(
        f'#!/bin/sh\nexec {strace} -D -ff -o {tmp_path}/strace {scores_program("static")} "$@"\n', "ascii"
    )
    wrapper.chmod(0o755)
    process = ScoresProcess(wrapper, tmp_path, mount)
    process.start()
    batch, pids = unit(tree, "batch.service", 3)
    set_adj(pids[0], 100)
    process.table(line(mount, batch, 300, group=True))
    process.table(line(mount, batch, 700))
    tree.remove_processes(batch)
    tree.populate(batch, 300)
    process.answer()
    process.table(line(mount, tree.root, 700, kind="slice"))
    before = process.watches()
    young, _ = unit(tree, "young.service")
    process.answer()
    tree.remove_processes(young)
    tree.remove(young)
    wait_until(lambda: process.watches() == before)
    process.stop(signal.SIGKILL)
    process.restore()
    process.start()
    process.stop()
    called: set[str] = set()
    for log in tmp_path.glob("strace.*"):
        called |= set(re.findall(r"^(\w+)\(", log.read_text(encoding="utf-8"), re.MULTILINE))
    text = UNIT.read_text(encoding="utf-8")
    allowed = set(" ".join(re.findall(r"^SystemCallFilter=(.*)$", text, re.MULTILINE)).split())
    argued = re.findall(r"^#   ([a-z0-9_, ]+): ", text, re.MULTILINE)
    explained = {word for item in argued for word in item.replace(",", " ").split()}
    assert called - allowed == {"socket", "bind", "listen"}, "systemd makes the socket, all else has to be allowed"
    assert allowed - called <= explained <= allowed, (called, allowed - called, "allowed, not used, and not explained")
