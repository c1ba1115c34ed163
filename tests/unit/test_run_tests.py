# SPDX-License-Identifier: LGPL-2.1-or-later
"""tools/run-tests: which scenarios that failed are run once more."""

from __future__ import annotations

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
    import sys

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
        ("forks.service is the victim of 2 decisions: [...]", True),
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
