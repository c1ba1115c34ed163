# SPDX-License-Identifier: LGPL-2.1-or-later
"""`import oomslice` as programs use it, and the page that tells them how."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import oomslice
from oomslice.errors import CgroupError, NoSuchUnitError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/library.md").read_text(encoding="utf-8")
DESKTOP = ROOT / "tests/fixtures/cgroups/desktop"


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import oomslice; print(*sorted(set(sys.modules) - before))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.split() == ["__future__", "oomslice"]


def test_every_name_is_there_and_on_the_page() -> None:
    assert set(oomslice.__all__) == set(oomslice._MODULES) | {"__version__"}
    for name in oomslice.__all__:
        assert getattr(oomslice, name) is not None
        assert name == "__version__" or f"`{name}" in PAGE, name
    assert set(oomslice.__all__) <= set(dir(oomslice))
    with pytest.raises(AttributeError, match="nosuch"):
        _ = oomslice.nosuch  # type: ignore[attr-defined]


def test_types_are_seen_by_those_who_import_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    names = ", ".join(name for name in oomslice.__all__ if name != "__version__")
    program.write_text(
        f"from oomslice import {names}\n"
        "async def main() -> None:\n"
        "    async with Client() as client:\n"
        "        reveal_type(await client.decision('x'))\n"
        "        reveal_type(rank(Snapshot.of({}), {'x': Settings()}))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if "No module named mypy" in ended.stderr:
        pytest.skip("mypy is missing: run `make setup`")
    assert ended.returncode == 0, ended.stdout
    assert "oomslice.decisions.record.Decision" in ended.stdout
    assert "tuple[oomslice.policy.model.RankedUnit, ...]" in ended.stdout


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    ranking, client, kernel, policy = blocks()
    exec(compile(ranking, "library.md", "exec"), {"__name__": "page"})
    expected = [line[2:] for line in ranking.splitlines() if line.startswith("# ")]
    assert capsys.readouterr().out.splitlines() == expected
    compile(client, "library.md", "exec")  # tests/bus runs it, where there is somebody to ask
    if Path("/proc/pressure/memory").exists():
        exec(compile(kernel, "library.md", "exec"), {"__name__": "page"})
    names: dict[str, object] = {}
    exec(compile(policy, "library.md", "exec"), names)
    snapshot = oomslice.Snapshot.of({"/scratch-1.service": 1, "/web.service": 2})
    assert names["rank"](oomslice.rank(snapshot)) == {"/scratch-1.service": -500}  # type: ignore[operator]


def test_a_snapshot_of_paths_has_the_slices_above_them() -> None:
    snapshot = oomslice.Snapshot.of({"/a.slice/a-b.slice/job.service": 5})
    assert list(snapshot.cgroups) == ["/", "/a.slice", "/a.slice/a-b.slice", "/a.slice/a-b.slice/job.service"]
    ranking = oomslice.rank(snapshot)
    assert next((unit.name, unit.verdict, unit.memory) for unit in ranking) == ("job.service", "chosen", 5)
    for path in ("job.service", "/a/../b", "/a//b", ""):
        with pytest.raises(ValueError, match="no path of a cgroup"):
            oomslice.Snapshot.of({path: 1})


def test_a_domain_is_ranked_by_its_own_settings() -> None:
    snapshot = oomslice.Snapshot.of({"/a.slice/small.service": 1, "/a.slice/big.service": 9, "/huge.service": 99})
    settings, problems = oomslice.parse_settings("[X-OOMSlice]\nPressureTrigger=some 100ms/1s\n")
    assert problems == ()
    ranking = oomslice.rank(snapshot, {"a.slice": settings}, domain="a.slice")
    assert [unit.name for unit in ranking if unit.verdict in ("chosen", "eligible")] == ["big.service", "small.service"]
    with pytest.raises(NoSuchUnitError, match=r"huge\.service is no domain"):
        oomslice.rank(snapshot, domain="huge.service")


def test_a_snapshot_of_a_machine_has_its_units_and_those_of_users() -> None:
    snapshot = oomslice.Snapshot.read(DESKTOP)
    ranking = oomslice.rank(snapshot)
    named = {unit.name: unit for unit in ranking}
    assert named["postgresql.service"].memory == 79_691_776
    assert named["app-gnome-firefox-1234.scope"].memory == 387_973_120
    assert named["init.scope"].verdict == "self"
    assert ranking[0].verdict == "chosen"


def test_a_machine_without_cgroup_v2_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(CgroupError, match="no cgroup v2"):
        oomslice.Snapshot.read(tmp_path)
