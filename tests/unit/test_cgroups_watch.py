# SPDX-License-Identifier: LGPL-2.1-or-later
"""The watch on directories that stand for cgroups: inotify is the same for both."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

import pytest

from oomslice.cgroups.tree import CgroupTree
from oomslice.cgroups.watch import CgroupWatch


class Bed:
    """A tree, its watch, and how often that has called."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls = 0
        self.called = asyncio.Event()
        for path in ("a.slice/x.service", "b.slice"):
            (root / path).mkdir(parents=True)
        self.watch = CgroupWatch(CgroupTree(root), self.changed)

    def changed(self) -> None:
        self.calls += 1
        self.called.set()

    async def is_called(self) -> bool:
        try:
            await asyncio.wait_for(self.called.wait(), 0.3)
        except TimeoutError:
            return False
        self.called.clear()
        return True


def with_bed(tmp_path: Path, test: Callable[[Bed], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        bed = Bed(tmp_path)
        try:
            await test(bed)
        finally:
            bed.watch.close()
            bed.watch.close()

    asyncio.run(run())


def test_made_and_removed_cgroups_are_told_once_per_burst(tmp_path: Path) -> None:
    async def test(bed: Bed) -> None:
        assert bed.watch.watch(["/", "/a.slice"]) == frozenset()
        (bed.root / "a.slice/y.service").mkdir()
        assert await bed.is_called()
        (bed.root / "a.slice/y.service").rmdir()
        assert await bed.is_called()
        bed.calls = 0
        for number in range(20):
            (bed.root / f"new{number}.service").mkdir()
        assert await bed.is_called()
        assert bed.calls == 1

    with_bed(tmp_path, test)


def test_files_and_unwatched_directories_are_not_told(tmp_path: Path) -> None:
    async def test(bed: Bed) -> None:
        bed.watch.watch(["/", "/a.slice"])
        (bed.root / "a.slice/memory.current").write_text("1")
        (bed.root / "a.slice/x.service/z").mkdir()
        (bed.root / "b.slice/y.service").mkdir()
        assert not await bed.is_called()

    with_bed(tmp_path, test)


def test_watching_others_ends_the_watch_of_those_left_out(tmp_path: Path) -> None:
    async def test(bed: Bed) -> None:
        bed.watch.watch(["/a.slice"])
        bed.watch.watch(["/b.slice"])
        assert bed.watch.paths == {"/b.slice"}
        (bed.root / "a.slice/y.service").mkdir()
        assert not await bed.is_called()
        (bed.root / "b.slice/y.service").mkdir()
        assert await bed.is_called()

    with_bed(tmp_path, test)


def test_cgroup_made_anew_under_the_same_path_is_watched_again(tmp_path: Path) -> None:
    async def test(bed: Bed) -> None:
        bed.watch.watch(["/", "/b.slice"])
        (bed.root / "b.slice").rmdir()
        assert await bed.is_called()
        assert bed.watch.paths == {"/"}
        (bed.root / "b.slice").mkdir()
        assert await bed.is_called()
        bed.watch.watch(["/", "/b.slice"])
        (bed.root / "b.slice/y.service").mkdir()
        assert await bed.is_called()

    with_bed(tmp_path, test)


def test_cgroup_that_is_gone_is_said_to_be_unwatched(tmp_path: Path) -> None:
    async def test(bed: Bed) -> None:
        assert bed.watch.watch(["/a.slice", "/gone.slice"]) == {"/gone.slice"}
        assert bed.watch.paths == {"/a.slice"}

    with_bed(tmp_path, test)


@dataclass
class FakeUnit:
    name: str
    path: str


@dataclass
class FakePolicy:
    units: list[FakeUnit]


def test_slices_and_user_managers_of_a_policy_are_followed(tmp_path: Path) -> None:
    async def test(bed: Bed) -> None:
        (bed.root / "user@0.service").mkdir()
        names = {
            "-.slice": "/",
            "a.slice": "/a.slice",
            "x.service": "/a.slice/x.service",
            "user@0.service": "/user@0.service",
        }
        bed.watch.follow(FakePolicy([FakeUnit(name, path) for name, path in names.items()]))
        assert bed.watch.paths == {"/", "/a.slice", "/user@0.service"}

    with_bed(tmp_path, test)


def test_real_cgroups_are_told_as_well(tmp_path: Path) -> None:
    candidates = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
    root = next((path for path in candidates if (path / "cgroup.procs").exists() and os.access(path, os.W_OK)), None)
    if root is None:
        pytest.skip("no cgroup v2 directory here that may be written to")
    name = f"oomslice-test-{os.getpid()}.slice"

    async def run() -> None:
        called = asyncio.Event()
        watch = CgroupWatch(CgroupTree(root), called.set)
        assert watch.watch(["/"]) == frozenset()
        try:
            (root / name).mkdir()
        except OSError as error:
            watch.close()
            pytest.skip(f"no cgroup can be made here: {error}")
        try:
            await asyncio.wait_for(called.wait(), 5)
            called.clear()
        finally:
            (root / name).rmdir()
        await asyncio.wait_for(called.wait(), 5)
        watch.close()

    asyncio.run(run())
