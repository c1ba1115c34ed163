# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kill by pidfds, for kernels that have no cgroup.kill."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.rig import CORE, SANITIZERS, Tree, wait_until

LATE: list[str | Path] = [Path(__file__).with_name("late.c")]
LATE += [f"-Wl,--wrap=oomslice_{name}" for name in ("pidfd_send_signal", "processes_list")]


def build(path: Path, *more: str | Path) -> Path:
    """tests/core/kill_each.c on the core's files."""
    sources = [source for source in sorted(CORE.glob("*.c")) if source.name != "main.c"]
    source = Path(__file__).with_name("kill_each.c")
    command = ["gcc", "-std=c11", "-O1", "-g", "-pthread", *SANITIZERS, f"-I{CORE}", source, *more, *sources]
    subprocess.run([*command, "-o", path], check=True)
    return path


@pytest.fixture(scope="module")
def program(mount: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("kill") / "kill_each")


@pytest.fixture
def tree(mount: Path) -> Iterator[Tree]:
    made = Tree(mount)
    yield made
    made.close()


def run(program: Path, directory: Path, what: str = "stay") -> list[str]:
    return subprocess.run([program, directory, what], capture_output=True, text=True, check=True).stdout.splitlines()


def test_each_process_of_a_unit_and_of_the_cgroups_below_is_killed(program: Path, tree: Tree) -> None:
    unit, inner, other = tree.make("unit"), tree.make("unit/a/b"), tree.make("other")
    tree.populate(unit, 80)
    tree.populate(inner, 5)
    tree.populate(other, 2)
    assert run(program, unit) == ["check 0 processes 80", "kill 0 processes 85"]
    wait_until(lambda: not tree.pids(unit) and not tree.pids(inner))
    assert len(tree.pids(other)) == 2


def test_more_processes_than_fit_into_one_list_are_killed(program: Path, tree: Tree) -> None:
    unit = tree.make("unit")
    tree.populate(unit, 600)
    run(program, unit)
    wait_until(lambda: not tree.pids(unit))


def test_those_behind_are_killed_though_those_in_front_die_while_they_are_counted(tmp_path: Path, tree: Tree) -> None:
    unit = tree.make("unit")
    tree.populate(unit, 600)
    assert run(build(tmp_path / "late", *LATE), unit)[1] == "kill 0 processes 600"
    wait_until(lambda: not tree.pids(unit), 10)


def test_unit_that_keeps_forking_is_killed(program: Path, tree: Tree) -> None:
    unit = tree.make("unit")
    script = 'echo 0 >"$0/cgroup.procs"; while :; do sleep 1000 & sleep 0.001; done'
    with subprocess.Popen(["sh", "-c", script, unit]):
        wait_until(lambda: len(tree.pids(unit)) > 30)
        run(program, unit)
        wait_until(lambda: not tree.pids(unit))


def test_all_processes_of_a_large_unit_are_told_once_each(program: Path, tree: Tree) -> None:
    unit = tree.make("unit")
    tree.populate(unit, 600)
    # Nobody dies of that, so who is told twice is counted twice.
    assert run(program, unit, "go on") == ["told 600"]
    assert run(program, unit, "end") == ["told 600"]
    wait_until(lambda: not tree.pids(unit))


def test_empty_and_removed_units_are_gone(program: Path, tree: Tree) -> None:
    assert run(program, tree.make("empty"))[1].startswith("kill 1 ")


def test_cgroup_with_the_program_in_it_is_not_touched(program: Path, tree: Tree) -> None:
    unit = tree.make("unit")
    tree.populate(unit, 3)
    assert run(program, unit, "join") == ["check 2 processes 4", "kill -1 processes 4"]
    assert len(tree.pids(unit)) == 3
