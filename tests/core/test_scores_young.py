# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslice-scores and units that are younger than its table: nobody sends another one, as if oomsliced stood still."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.core.rig import Tree, wait_until
from tests.core.scores_rig import ScoresProcess, adj_of, keep, line, unit, values

pytestmark = pytest.mark.core
SOON = 8
"""Seconds; it is some milliseconds, and a tenth of a second where a machine is busy."""
LOOKS = 1.5
"""How long a unit is looked at, and some time more."""


def wait_for_values(pids: list[int], *wanted: int) -> None:
    wait_until(lambda: values(pids) == set(wanted), SOON)


def fork(tree: Tree, directory: Path, adj: int | None = None, *, starting: float = 0) -> int:
    """A process in a cgroup, with a value of its own. `starting`: so long it is a child of systemd still."""
    pid = os.fork()
    if pid == 0:
        try:
            if starting:
                Path("/proc/self/comm").write_text("(program)", encoding="ascii")
            elif adj is not None:
                Path("/proc/self/oom_score_adj").write_text(str(adj), encoding="ascii")
            (directory / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
            if starting:
                time.sleep(starting)
                Path("/proc/self/oom_score_adj").write_text(str(adj), encoding="ascii")
                Path("/proc/self/comm").write_text("program", encoding="ascii")
            time.sleep(1000)
        finally:
            os._exit(1)
    wait_until(lambda: pid in tree.pids(directory))
    return pid


@pytest.fixture
def batch(tree: Tree) -> Path:
    return tree.make("batch.slice")


def test_a_unit_younger_than_the_table_has_its_slices_value(
    scores: ScoresProcess, tree: Tree, mount: Path, batch: Path
) -> None:
    assert scores.table(line(mount, batch, 700, kind="slice"))["hits"] == "0"
    _, pids = unit(tree, "batch.slice/young.service", 5)
    wait_for_values(pids, 700)
    assert int(scores.answer()["hits"]) > 0
    _, others = unit(tree, "other.service")
    time.sleep(LOOKS)
    assert values(others) == {0}
    assert scores.stop() == (0, "") and values(pids) == {0}


def test_a_unit_that_came_between_plan_and_table_has_it_too(
    scores: ScoresProcess, tree: Tree, mount: Path, batch: Path
) -> None:
    _, pids = unit(tree, "batch.slice/young.service")
    scores.table(line(mount, batch, 700, kind="slice"))
    assert values(pids) == {700}


def test_slices_in_slices_hand_it_on(scores: ScoresProcess, tree: Tree, mount: Path, batch: Path) -> None:
    scores.table(line(mount, batch, 700, kind="slice"))
    names = [f"batch{''.join(f'-{inner}' for inner in range(depth))}.slice" for depth in range(1, 6)]
    for depth in range(6):
        _, pids = unit(tree, "/".join(["batch.slice", *names[:depth], "young.service"]))
        if depth < 5:
            wait_for_values(pids, 700)
    time.sleep(LOOKS)
    assert values(pids) == {0}, "a slice as deep as that waits for the table"


def test_what_is_inside_a_unit_is_none(scores: ScoresProcess, tree: Tree, mount: Path, batch: Path) -> None:
    plain = tree.make("batch.slice/plain.service")
    scores.table(line(mount, batch, 700, kind="slice"), line(mount, plain, None))
    before = scores.watches()
    _, pids = unit(tree, "batch.slice/plain.service/inner.slice/young.service")
    time.sleep(LOOKS)
    assert values(pids) == {0} and scores.watches() == before
    _, inside = unit(tree, "batch.slice/young.service/inner.scope")
    wait_for_values(inside, 700)
    # One watch for all that is in it.
    assert scores.watches() == before + 1


@pytest.mark.parametrize("name", ["init.scope", "data.mount", "a.socket", ".hidden"])
def test_what_is_no_unit_gets_nothing(scores: ScoresProcess, tree: Tree, mount: Path, batch: Path, name: str) -> None:
    scores.table(line(mount, batch, 700, kind="slice"))
    before = scores.watches()
    _, pids = unit(tree, f"batch.slice/{name}")
    time.sleep(LOOKS)
    assert values(pids) == {0} and scores.watches() == before


@pytest.mark.parametrize("own", [300, 700, 900])
def test_a_young_unit_with_a_value_of_its_own_keeps_it(
    scores: ScoresProcess, tree: Tree, mount: Path, batch: Path, own: int
) -> None:
    scores.table(line(mount, batch, 700, kind="slice"))
    young = tree.make("batch.slice/young.service")
    pid = fork(tree, young, own)
    time.sleep(LOOKS)
    assert adj_of(pid) == own
    scores.stop()
    assert adj_of(pid) == own


def test_one_that_systemd_is_about_to_give_its_own_value_is_waited_for(
    scores: ScoresProcess, tree: Tree, mount: Path, batch: Path
) -> None:
    scores.table(line(mount, batch, 700, kind="slice"))
    # The very value that it would get, so that who takes it for given takes it back.
    own = fork(tree, tree.make("batch.slice/own.service"), 700, starting=0.1)
    none = fork(tree, tree.make("batch.slice/none.service"), 0, starting=0.1)
    wait_for_values([none], 700)
    time.sleep(LOOKS)
    scores.stop()
    assert (adj_of(own), adj_of(none)) == (700, 0)


def test_nobody_is_out_of_reach_by_a_name_in_brackets(
    scores: ScoresProcess, tree: Tree, mount: Path, batch: Path
) -> None:
    scores.table(line(mount, batch, 700, kind="slice"))
    pid = fork(tree, tree.make("batch.slice/young.service"), 0, starting=1000)
    wait_for_values([pid], 700)


def test_a_unit_that_is_started_anew_has_what_the_table_has_for_its_name(
    scores: ScoresProcess, tree: Tree, mount: Path, batch: Path
) -> None:
    names = {"good": 400, "plain": None}
    units = {name: unit(tree, f"batch.slice/{name}.service")[0] for name in (*names, "own")}
    lines = [line(mount, units[name], adj) for name, adj in names.items()]
    scores.table(line(mount, batch, 700, kind="slice"), keep(mount, units["own"]), *lines)
    before = scores.watches()
    found = {}
    for name, directory in units.items():
        tree.remove_processes(directory)
        tree.remove(directory)
        found[name] = unit(tree, f"batch.slice/{name}.service")[1]
    _, young = unit(tree, "batch.slice/young.service")
    wait_for_values(young, 700)
    wait_for_values(found["good"], 400)
    time.sleep(LOOKS)
    assert {name: values(pids) for name, pids in found.items()} == {"good": {400}, "plain": {0}, "own": {0}}
    assert scores.watches() == before + 1


def test_a_slice_that_hands_nothing_down_still_knows_names(
    scores: ScoresProcess, tree: Tree, mount: Path, batch: Path
) -> None:
    good, _ = unit(tree, "batch.slice/good.service")
    scores.table(line(mount, batch, None, kind="slice"), line(mount, good, 400))
    tree.remove_processes(good)
    tree.remove(good)
    _, pids = unit(tree, "batch.slice/good.service")
    _, others = unit(tree, "batch.slice/young.service")
    wait_for_values(pids, 400)
    time.sleep(LOOKS)
    assert values(others) == {0}


def test_a_slice_that_is_made_anew_has_what_the_table_has_for_its_name(
    scores: ScoresProcess, tree: Tree, mount: Path
) -> None:
    inner, calm = tree.make("batch.slice/batch-in.slice"), tree.make("batch.slice/batch-calm.slice")
    scores.table(line(mount, inner.parent, 700, kind="slice"), line(mount, inner, 300, kind="slice"), keep(mount, calm))
    before = scores.watches()
    for directory in (inner, calm):
        tree.remove(directory)
    _, pids = unit(tree, "batch.slice/batch-in.slice/young.service")
    _, others = unit(tree, "batch.slice/batch-calm.slice/young.service")
    wait_for_values(pids, 300)
    time.sleep(LOOKS)
    assert values(others) == {0} and scores.watches() == before + 1


def test_a_users_unit_counts_from_what_is_usual_there(
    scores: ScoresProcess, tree: Tree, mount: Path, batch: Path
) -> None:
    scores.table(line(mount, batch, 700, baseline=200, kind="slice"))
    young, first = tree.make("batch.slice/young.service"), tree.make("batch.slice/first.service")
    pids = [fork(tree, young, 200), fork(tree, first, 100)]
    wait_for_values(pids, 700, 100)
    scores.stop()
    assert [adj_of(pid) for pid in pids] == [200, 100]


def test_the_next_table_goes_on_where_it_knows_the_unit_and_where_it_does_not(
    scores: ScoresProcess, tree: Tree, mount: Path, batch: Path
) -> None:
    slice_line = line(mount, batch, 700, kind="slice")
    scores.table(slice_line)
    young, pids = unit(tree, "batch.slice/young.service")
    wait_for_values(pids, 700)
    watches = scores.watches()
    time.sleep(LOOKS)
    hits = scores.table(slice_line)["hits"]
    for lines in ([slice_line, line(mount, young, 700)], [slice_line]):
        assert scores.table(*lines)["hits"] == hits
        assert (values(pids), scores.watches()) == ({700}, watches)
    scores.table(line(mount, batch, 500, kind="slice"))
    assert values(pids) == {500}
    # The plan knows better: it has a value of its own, or another one.
    scores.table(slice_line, keep(mount, young))
    assert values(pids) == {0} and scores.watches() == watches - 1
    scores.table(line(mount, batch, None, kind="slice"), line(mount, young, 100))
    assert values(pids) == {100}
    scores.table()
    assert values(pids) == {0} and scores.watches() == 0


def test_who_is_removed_is_not_watched_any_more(scores: ScoresProcess, tree: Tree, mount: Path, batch: Path) -> None:
    known, _ = unit(tree, "batch.slice/known.service")
    scores.table(line(mount, batch, 700, kind="slice"), line(mount, known, 400))
    before = scores.watches()
    for name in ("young.service", "batch-in.slice/batch-in-in.slice/young.service"):
        young, pids = unit(tree, f"batch.slice/{name}")
        wait_for_values(pids, 700)
        assert scores.watches() > before
        tree.remove_processes(young)
        tree.remove(batch / Path(name).parts[0])
        wait_until(lambda: scores.watches() == before)
    tree.remove_processes(known)
    tree.remove(known)
    wait_until(lambda: scores.watches() == before - 1)


def test_watches_of_units_that_ended_go_with_the_next_table(scores: ScoresProcess, tree: Tree, mount: Path) -> None:
    first, _ = unit(tree, "first.service")
    second, _ = unit(tree, "second.service")
    scores.table(line(mount, first, 400), line(mount, second, 400))
    assert scores.watches() == 2
    tree.remove_processes(first)
    tree.remove(first)
    scores.table(line(mount, second, 400))
    assert scores.watches() == 1


def test_after_sigkill_the_service_manager_has_young_ones_restored(
    scores: ScoresProcess, tree: Tree, mount: Path, batch: Path
) -> None:
    scores.table(line(mount, batch, 700, kind="slice"))
    young, pids = unit(tree, "batch.slice/young.service")
    own = fork(tree, tree.make("batch.slice/own.service"), 700)
    wait_for_values(pids, 700)
    time.sleep(LOOKS)
    scores.stop(signal.SIGKILL)
    assert values(pids) == {700}
    scores.restore()
    assert values(pids) == {0} and adj_of(own) == 700 and young.exists()


def test_a_process_that_is_moved_in_is_seen_in_the_units_first_second(
    scores: ScoresProcess, tree: Tree, mount: Path, batch: Path
) -> None:
    known = tree.make("batch.slice/known.service")
    lines = [line(mount, batch, 700, kind="slice"), line(mount, known, 400)]
    scores.table(*lines)
    for directory, adj in ((known, 400), (tree.make("batch.slice/young.service"), 700)):
        pids = [fork(tree, directory), fork(tree, directory)]
        wait_for_values(pids, adj)
    time.sleep(LOOKS)
    late = fork(tree, known)
    time.sleep(LOOKS)
    assert adj_of(late) == 0, "the kernel tells nobody of that"
    scores.table(lines[0], line(mount, known, 500))
    assert adj_of(late) == 500


def test_how_many_there_may_be_is_bounded_and_less_for_users(
    scores: ScoresProcess, tree: Tree, mount: Path, batch: Path
) -> None:
    app = tree.make("app.slice")
    scores.table(line(mount, batch, 700, kind="slice"), line(mount, app, 700, baseline=200, kind="slice"))
    before = scores.watches()
    for number in range(600):
        (app / f"{number}.scope").mkdir()
    wait_until(lambda: scores.watches() == before + 512)
    assert "Argument list too long" in scores.answer()["error"]
    _, pids = unit(tree, "batch.slice/young.service")
    wait_for_values(pids, 700)
    tree.remove(app)
    wait_until(lambda: scores.watches() == before + 1)


def test_events_that_were_lost_are_made_up_for(scores: ScoresProcess, tree: Tree, mount: Path, batch: Path) -> None:
    scores.table(line(mount, batch, 700, kind="slice"))
    before = scores.watches()
    gone, _ = unit(tree, "batch.slice/gone.service")
    wait_until(lambda: scores.watches() == before + 1)
    assert scores.process is not None
    scores.process.send_signal(signal.SIGSTOP)
    many = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii")) // 2 + 10
    for _ in range(many):
        (batch / "brief.service").mkdir()
        (batch / "brief.service").rmdir()
    tree.remove_processes(gone)
    tree.remove(gone)
    _, pids = unit(tree, "batch.slice/young.service")
    scores.process.send_signal(signal.SIGCONT)
    wait_until(lambda: values(pids) == {700})
    wait_until(lambda: scores.watches() == before + 1)
