# SPDX-License-Identifier: LGPL-2.1-or-later
"""Policies that others wrote: what one may change, and that no fault of one costs more than its own say."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import oomslice
from oomslice.cgroups.tree import CgroupTree
from oomslice.daemon import planner as daemon_planner
from oomslice.daemon.planner import Planner
from oomslice.plugins import wire
from oomslice.plugins.apply import with_priorities
from oomslice.plugins.client import PAUSE_FIRST_SEC, PolicyClient
from oomslice.plugins.wire import PolicyError
from oomslice.policy.effective import effective
from oomslice.policy.model import Policy, RankedUnit
from oomslice.policy.rank import rank
from oomslice.settings.configuration import parse_configuration
from oomslice.settings.model import Configuration, UnitSettings
from oomslice.units.client import UnitsClient

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/oomslice-policy-builders"
SNAPSHOT = oomslice.Snapshot.of(
    {
        "/build.slice/job-5-1.scope": 1 << 20,
        "/build.slice/job-600-2.scope": 8 << 30,
        "/db.service": 4 << 30,
        "/kept.service": 9 << 30,
    }
)


def policy() -> Policy:
    """The built-in one of SNAPSHOT, in which kept.service is protected."""
    settings = {"kept.service": UnitSettings(protect=True)}
    return effective(SNAPSHOT.units, settings, SNAPSHOT.cgroups, [], Configuration())[0]


def ranking() -> tuple[RankedUnit, ...]:
    return rank(policy(), SNAPSHOT.usage)


@pytest.fixture
def package(tmp_path: Path) -> Callable[[str], Path]:
    """Puts a policy called "test" into a folder, as pip would."""

    def made(code: str) -> Path:
        (tmp_path / "a_policy.py").write_text(code)
        metadata = tmp_path / "a_policy-1.dist-info"
        metadata.mkdir(exist_ok=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: a-policy\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text("[oomslice.policies]\ntest = a_policy:rank\n")
        return tmp_path

    return made


def asked(folder: Path, name: str = "test", **limits: Any) -> dict[str, int]:
    """The answer of the policy in that folder."""

    async def main() -> dict[str, int]:
        client = PolicyClient(name, path=[str(folder)], **limits)
        try:
            return dict(await client.priorities(ranking()))
        finally:
            await client.close()

    return asyncio.run(main())


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(body())


def test_a_policy_sees_the_ranking_and_changes_priorities(package: Callable[[str], Path]) -> None:
    folder = package("def rank(units): return {u.path: -7 for u in units if u.verdict == 'chosen'}")
    assert asked(folder) == {ranking()[0].path: -7}


def test_what_it_prints_is_no_answer(package: Callable[[str], Path]) -> None:
    assert asked(package("print('hello')\ndef rank(units):\n    print('{}')\n    return {}")) == {}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def rank(units): raise RuntimeError('no')", "it failed: RuntimeError: no"),
        ("def rank(units): return {'/': 1.5}", "which is no whole number"),
        ("def rank(units): return {'/': True}", "which is no whole number"),
        ("def rank(units): return [1]", "it failed: AttributeError"),
        ("def rank(units): return {'/': float('nan')}", "it failed: ValueError"),
        ("def rank(units): return {'/': object()}", "it failed: TypeError"),
        ("import os\ndef rank(units): os._exit(3)", "its process ended"),
        ("import os\ndef rank(units): os.kill(os.getpid(), 9)", "its process ended"),
        ("def rank(units): return len('x' * (2 << 30))", "it failed: MemoryError"),
        ("rank = 5", "a_policy:rank is no function"),
        ("import nosuchmodule", "it cannot be loaded"),
        ("raise SystemExit", "its process ended"),
    ],
)
def test_a_policy_that_fails_is_an_error(code: str, expected: str, package: Callable[[str], Path]) -> None:
    with pytest.raises(PolicyError, match=expected):
        asked(package(code))


def test_a_policy_that_is_not_installed_is_an_error_with_those_that_are(package: Callable[[str], Path]) -> None:
    with pytest.raises(PolicyError, match="no installed package has a policy of this name; installed are: test"):
        asked(package("def rank(units): return {}"), "nosuch")


@pytest.mark.parametrize(
    ("code", "limits", "expected"),
    [
        ("def rank(units):\n    while True: pass", {"answer_sec": 0.3}, "no answer within 0.3 s and was ended"),
        (
            "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ndef rank(units): time.sleep(1000)",
            {"answer_sec": 0.3},
            "no answer within 0.3 s and was ended",
        ),
        ("import time\ntime.sleep(1000)", {"start_sec": 0.5}, "not loaded within 0.5 s and was ended"),
    ],
)
def test_a_policy_that_hangs_is_ended(
    code: str, limits: dict[str, float], expected: str, package: Callable[[str], Path]
) -> None:
    async def body() -> None:
        client = PolicyClient("test", path=[str(package(code))], **limits)  # type: ignore[arg-type]
        with pytest.raises(PolicyError, match=expected):
            await client.priorities(ranking())
        assert client._process is None

    run(body)


def test_a_policy_that_failed_is_left_alone_for_a_while_and_then_asked_again(package: Callable[[str], Path]) -> None:
    folder = package("def rank(units): raise RuntimeError('no')")
    now = [0.0]

    async def body() -> None:
        client = PolicyClient("test", path=[str(folder)], clock=lambda: now[0])
        for _ in range(2):
            with pytest.raises(PolicyError, match="RuntimeError"):
                await client.priorities(ranking())
            package("def rank(units): return {}")  # mended, and not looked at yet
        now[0] = PAUSE_FIRST_SEC
        assert await client.priorities(ranking()) == {}
        package("def rank(units): raise RuntimeError('no')")  # one that runs is not loaded anew
        assert await client.priorities(ranking()) == {}
        await client.close()

    run(body)


def test_only_priorities_of_candidates_change() -> None:
    before = policy()
    paths = {unit.path for unit in before.units}
    after = with_priorities(before, {**dict.fromkeys(paths, -5), "/nosuch": 3}, "test")
    changed = {unit.name: unit.priority_origin for unit in after.units if unit.priority == -5}
    assert changed == dict.fromkeys(("job-5-1.scope", "job-600-2.scope", "db.service"), "policy test")
    assert [unit.protected for unit in after.units] == [unit.protected for unit in before.units]
    with pytest.raises(PolicyError, match="-1000 to 1000"):
        with_priorities(before, {"/db.service": 1001}, "test")


@pytest.mark.parametrize("line", [b"", b"[]\n", b"{}\n", b"nonsense\n", b"[" * 100_000, b'{"priorities": 5}\n'])
def test_an_answer_that_is_none_is_an_error(line: bytes) -> None:
    with pytest.raises(PolicyError):
        wire.parse_answer(line)


def test_the_yaml_names_it_and_a_later_file_takes_it_back() -> None:
    configuration, problems = parse_configuration([("a.yaml", "\npolicy: builders\n")])
    assert (configuration.policy, configuration.policy_source.line, problems) == ("builders", 2, ())
    configuration, problems = parse_configuration([("a.yaml", "policy: builders"), ("b.yaml", "policy:")])
    assert (configuration.policy, problems) == ("", ())
    for bad in ("[a]", "../x", "a b", "{}"):
        configuration, problems = parse_configuration([("a.yaml", "policy: builders"), ("b.yaml", f"policy: {bad}")])
        assert configuration.policy == "builders", bad
        (problem,) = problems
        assert (problem.key, str(problem.source)) == ("policy", "b.yaml:1") or problem.source.file == "b.yaml"


def planner(folder: Path, name: str) -> Planner:
    """A planner whose configuration names that policy."""
    (folder / "etc/oomslice").mkdir(parents=True, exist_ok=True)
    (folder / "etc/oomslice/oomslice.yaml").write_text(f"\npolicy: {name}\n")
    return Planner(CgroupTree(ROOT / "tests/fixtures/cgroups/desktop"), UnitsClient(), root=folder)


def test_a_policy_that_cannot_be_used_leaves_the_built_in_one_and_a_problem_on_the_bus(tmp_path: Path) -> None:
    async def body() -> None:
        made = planner(tmp_path, "nosuch")
        before = policy()
        # The first plan of all does not wait for it, and another one follows.
        assert await made._with_plugin(before) == (before, ())
        assert made.again_sec == 0
        made.policy = before
        after, problems = await made._with_plugin(before)
        assert after is before
        (problem,) = problems
        assert (problem.key, problem.value, problem.source.line) == ("policy", "nosuch", 2)
        assert problem.source.file.endswith("/etc/oomslice/oomslice.yaml")
        assert "no installed package has a policy of this name" in problem.message
        assert problem.message.endswith("The built-in ranking is used")
        assert 0 < made.again_sec <= PAUSE_FIRST_SEC
        await made.close()

    run(body)


def test_a_policy_is_in_the_plan_until_the_configuration_names_another(
    tmp_path: Path, package: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package("def rank(units): return {'/db.service': -7}")
    monkeypatch.setattr(daemon_planner, "PolicyClient", partial(PolicyClient, path=[str(folder)]))

    async def body() -> None:
        made = planner(tmp_path, "test")
        made.policy = policy()
        after, problems = await made._with_plugin(policy())
        assert (problems, made.again_sec) == ((), None)
        assert {unit.name: unit.priority_origin for unit in after.units}["db.service"] == "policy test"
        process = made._policy_client and made._policy_client._process
        assert process is not None and process.returncode is None
        (tmp_path / "etc/oomslice/oomslice.yaml").write_text("policy:\n")
        made.reload()
        before = policy()
        assert await made._with_plugin(before) == (before, ())
        assert process.returncode is not None

    run(body)


def test_the_example_is_installed_in_a_venv_and_ranks(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    source = tmp_path / "example"
    shutil.copytree(EXAMPLE, source)
    # What oomslice needs is where these tests have it; the example alone is installed.
    (site,) = venv.glob("lib/python3.*/site-packages")
    (site / "these-tests.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python", "--quiet", "--disable-pip-version-check"]
    options = ["--no-index", "--no-deps", "--no-build-isolation"]
    installed = subprocess.run(
        [*pip, "install", *options, source],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ},
    )
    assert installed.returncode == 0, installed.stderr
    answer = asked(site, "builders")
    assert answer == {"/build.slice/job-5-1.scope": -895, "/build.slice/job-600-2.scope": -300}
    named = with_priorities(policy(), answer, "builders")
    first, second, *_ = rank(named, SNAPSHOT.usage)
    assert (first.name, first.priority_origin) == ("job-5-1.scope", "policy builders")
    assert second.name == "job-600-2.scope"
