# SPDX-License-Identifier: LGPL-2.1-or-later
"""tools/run-tests: which tests that failed are run once more, and how runs share them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
JUNIT = """<testsuites><testsuite>
<testcase classname="tests.vm.test_a" name="test_good[stable-kernel]" time="1"/>
<testcase classname="tests.vm.test_a" name="test_late[stable-kernel]" time="1">
<failure message="AssertionError: it did not happen">def test_late():
    lab.victims()
&gt;       assert False
E       AssertionError: it did not happen</failure></testcase>
<testcase classname="tests.vm.test_b" name="test_wrong" time="1">
<failure message="AssertionError: assert ['dear.service'] == ['hog.service']">
&gt;       assert lab.victims() == ["hog.service"]
E       AssertionError</failure></testcase>
</testsuite></testsuites>"""


@pytest.fixture(scope="module")
def runner() -> Any:
    loader = SourceFileLoader("run_tests", str(ROOT / "tools/run-tests"))
    spec = spec_from_loader("run_tests", loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules["run_tests"] = module  # dataclasses look it up there
    loader.exec_module(module)
    return module


def test_who_was_late_is_tried_again_and_a_wrong_victim_is_not(runner: Any, tmp_path: Path) -> None:
    path = tmp_path / "vm.xml"
    path.write_text(JUNIT)
    outcomes = runner.outcomes(path)
    assert outcomes.pop("tests/vm/test_a.py::test_good[stable-kernel]") == ""
    failed = outcomes
    assert list(failed) == ["tests/vm/test_a.py::test_late[stable-kernel]", "tests/vm/test_b.py::test_wrong"]
    assert runner.worth_another_try(failed) == ["tests/vm/test_a.py::test_late[stable-kernel]"]


@pytest.mark.parametrize(
    ("said", "again"),
    [
        ("CommandError: did not happen within 60 s: hog is dead", True),
        ("assert 'deadline' == 'freed'", True),
        ('forks.service is the victim of 2 decisions: [{"victim": "forks.service"}]', True),
        ("AssertionError: {'victim': 'hog.service', 'outcome': 'kept'}", True),
        ("> assert lab.lives('important')", False),
        ("> assert lab.machine.active('dear')", False),
        ("+ where [] = victims()", False),
    ],
)
def test_there_is_no_second_try_for_who_died(runner: Any, said: str, again: bool) -> None:
    assert runner.worth_another_try({"tests/vm/test_a.py::test_a": said}) == (["tests/vm/test_a.py::test_a"] * again)


def test_many_failures_are_no_accident(runner: Any) -> None:
    late = {f"tests/vm/test_a.py::test_{number}": "late" for number in range(runner.AGAIN_MAX + 1)}
    assert runner.worth_another_try(late) == []
    late.popitem()
    assert len(runner.worth_another_try(late)) == runner.AGAIN_MAX


MACHINES = """
import pytest

@pytest.fixture(scope="session", params=["stable-kernel", "newest-kernel"])
def kernel(request):
    yield request.param

@pytest.fixture(scope="session")
def machine(kernel):
    with open("{log}", "a") as log:
        print("boot", kernel, file=log)
    yield kernel
    with open("{log}", "a") as log:
        print("end", kernel, file=log)
"""
SCENARIOS = """
import time
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_some(machine, number):
    time.sleep(0.1)

def test_own():
    pass
"""


def test_runs_that_share_the_scenarios_run_each_once(tmp_path: Path) -> None:
    log = tmp_path / "machines"
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "conftest.py").write_text(MACHINES.format(log=log))
    for name in "abcdef":
        (tmp_path / f"test_{name}.py").write_text(SCENARIOS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.vm.share",
        f"--share={shared}",
        f"--rootdir={tmp_path}",
    ]
    runs = [
        subprocess.Popen([*command, *end, f"--junit-xml={tmp_path}/{number}.xml", tmp_path], cwd=ROOT)
        for number, end in enumerate(([], ["--share-from-end"]))
    ]
    assert [run.wait(60) for run in runs] == [0, 0]
    names = [
        f"{case.get('classname')}::{case.get('name')}"
        for number in range(2)
        for case in ElementTree.parse(tmp_path / f"{number}.xml").iter("testcase")
    ]
    assert len(names) == len(set(names)) == 6 * 5
    # Each begins at its own end, and a machine is booted anew for another kernel only.
    booted = [line for line in log.read_text().splitlines() if line.startswith("boot")]
    assert sorted(booted[:2]) == ["boot newest-kernel", "boot stable-kernel"]
    assert len(booted) <= 3
    assert len([line for line in log.read_text().splitlines() if line.startswith("end")]) == len(booted)


@pytest.mark.parametrize(("seconds_left", "passed", "skipped"), [(60, 5, 0), (-1, 0, 5)])
def test_what_there_is_no_time_for_is_skipped_and_says_so(
    runner: Any, tmp_path: Path, seconds_left: int, passed: int, skipped: int
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "conftest.py").write_text(MACHINES.format(log=tmp_path / "machines"))
    (tmp_path / "test_a.py").write_text(SCENARIOS)
    options = ["-q", "-p", "tests.vm.share", f"--share={shared}", f"--rootdir={tmp_path}"]
    until = {"OOMSLICE_TESTS_UNTIL": str(int(time.time()) + seconds_left)}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--junit-xml={tmp_path}/a.xml", tmp_path],
        cwd=ROOT,
        env={**os.environ, **until},
        check=False,
    )
    assert run.returncode == 0
    result = runner.read_results(tmp_path / "a.xml")
    assert (result.passed, result.failed) == (passed, 0)
    assert sum(result.skipped.values()) == skipped
    assert all("OOMSLICE_TESTS_UNTIL" in reason for reason in result.skipped)
    assert (tmp_path / "machines").exists() == bool(passed)


LATE = """
from pathlib import Path

def test_late():
    seen = Path(__file__).with_name("seen")
    was = seen.exists()
    seen.touch()
    assert was

def test_wrong():
    assert False

def test_good():
    pass
"""


def test_any_tier_has_a_second_try_and_what_fails_twice_has_failed(
    runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for tier in ("core", "bus"):
        (tmp_path / "tests" / tier).mkdir(parents=True)
        (tmp_path / "tests" / tier / "test_a.py").write_text("def test_fine():\n    pass\n")
    (tmp_path / "tests" / "core" / "test_a.py").write_text(LATE)
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    monkeypatch.setattr(runner, "HALVED", ())

    def run_python(arguments: list[str], log: Path | None = None) -> int:
        options = ["--rootdir=.", "--import-mode=importlib", "-p", "no:cacheprovider"]
        run = subprocess.run([sys.executable, *arguments, *options], cwd=tmp_path, capture_output=True, check=False)
        if log is not None:
            log.write_bytes(run.stdout)
        return run.returncode

    monkeypatch.setattr(runner, "run_python", run_python)
    core, bus = runner.run_side_by_side(["core", "bus"], [], prepare=False)
    assert (core.passed, core.failed, bus.passed, bus.failed) == (2, 1, 1, 0)
    said = capsys.readouterr().out
    assert "== core: passed only when run once more: tests/core/test_a.py::test_late\n" in said
    assert "bus: once more" not in said
