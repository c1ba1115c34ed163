# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures of the tests that run the core. They need root and a cgroup v2 mount with cgroup.kill."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.core.rig", "tests.core.client", "tests.core.scores_rig")

from tests.core import rig, scores_rig  # noqa: E402
from tests.core.bpf_rig import Kernel, UnavailableError, build_programs, open_kernel  # noqa: E402

TIMEOUT = 600
"""Seconds: the first test that needs a build has its compilation in its own time, beside all the other tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT))


def builds(build: Callable[[str, Path], Path], directory: Path) -> Callable[[str], Path]:
    """Builds of a program by kind, each made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if shutil.which("gcc") is None:
            pytest.skip("gcc is not installed")
        if kind not in made:
            made[kind] = build(kind, directory)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds of the core by kind, each made once."""
    return builds(rig.build, tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def mount() -> Path:
    """The cgroup v2 mount, or a skip."""
    found = rig.cgroup2_mount()
    if os.geteuid() != 0:
        pytest.skip("needs root: makes cgroups and processes in them")
    if found is None or not os.access(found, os.W_OK):
        pytest.skip("needs a writable cgroup v2 mount")
    probe = found / f"oomslice-probe-{os.getpid()}"
    probe.mkdir()
    has_kill = (probe / "cgroup.kill").exists()
    probe.rmdir()
    if not has_kill:
        pytest.skip("needs a kernel with cgroup.kill (5.14)")
    return found


@pytest.fixture
def core(programs: Callable[[str], Path], mount: Path, tmp_path: Path) -> rig.Core:
    """A core that was built with sanitizers, not yet started."""
    return rig.Core(programs("sanitized"), tmp_path, mount)


@pytest.fixture
def scene(core: rig.Core, mount: Path) -> Iterator[rig.Scene]:
    """A running core with nothing planned yet."""
    yield from rig.scenes(core, mount)


@pytest.fixture(scope="session")
def scores_program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds of oomslice-scores by kind, each made once."""
    return builds(scores_rig.build, tmp_path_factory.mktemp("scores"))


@pytest.fixture
def tree(mount: Path) -> Iterator[rig.Tree]:
    """Cgroups of the test's own."""
    made = rig.Tree(mount)
    yield made
    made.close()


@pytest.fixture
def scores(
    scores_program: Callable[[str], Path], mount: Path, tmp_path: Path, tree: rig.Tree
) -> Iterator[scores_rig.ScoresProcess]:
    """A running oomslice-scores that was built with sanitizers."""
    process = scores_rig.ScoresProcess(scores_program("sanitized"), tmp_path, mount)
    process.start()
    yield process
    said = process.stop() if process.process is not None else (0, "")
    assert said[0] == 0 and "ERROR" not in said[1] and "runtime error" not in said[1], said


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a build with the BPF programs."""
    try:
        return build_programs(tmp_path_factory.mktemp("bpf"))
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def kernel(build: Path, tmp_path: Path) -> Iterator[Kernel]:
    """This machine's, with a cgroup tree of the test's own."""
    with contextlib.ExitStack() as stack:
        try:
            kernel = stack.enter_context(open_kernel(build / "oomslice-bpf", tmp_path))
        except UnavailableError as error:
            pytest.skip(str(error))
        yield kernel
