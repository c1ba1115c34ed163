# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cgroup tree read from trees of files that look like real ones (tests/fixtures/cgroups)."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from oomslice.cgroups import tree as tree_module
from oomslice.cgroups.model import MemoryInfo, unit_name
from oomslice.cgroups.tree import CgroupTree
from oomslice.errors import CgroupError

FIXTURES = Path(__file__).parents[1] / "fixtures/cgroups"
DESKTOP = FIXTURES / "desktop"
USER = "/user.slice/user-1000.slice/user@1000.service"
MIB = 1 << 20


def no_attributes(path: str) -> list[str]:
    return []


@pytest.fixture
def desktop() -> CgroupTree:
    return CgroupTree(DESKTOP, FIXTURES / "desktop.proc", listxattr=no_attributes)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(DESKTOP, tmp_path / "cgroup")
    return tmp_path / "cgroup"


def test_cgroup_v2_with_memory_is_fine(desktop: CgroupTree) -> None:
    desktop.check()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hybrid", ["hybrid of cgroup v1 and v2", "systemd.unified_cgroup_hierarchy=1"]),
        ("v1", ["is cgroup v1", "systemd.unified_cgroup_hierarchy=1"]),
        ("no-memory", ["memory controller is not available", "cpuset cpu io pids", "cgroup_disable=memory"]),
        ("nothing", ["no cgroup v2 is mounted"]),
    ],
)
def test_anything_else_is_refused_with_what_is_needed(name: str, words: list[str]) -> None:
    with pytest.raises(CgroupError) as caught:
        CgroupTree(FIXTURES / name).check()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_cgroup_has_identity_owner_and_state(desktop: CgroupTree) -> None:
    status = (DESKTOP / "system.slice/ssh.service").stat()
    cgroup = desktop.read("/system.slice/ssh.service")
    assert (cgroup.path, cgroup.id, cgroup.owner) == ("/system.slice/ssh.service", status.st_ino, status.st_uid)
    assert cgroup.populated and cgroup.preference == "none"
    assert not desktop.read(f"{USER}/background.slice").populated
    assert desktop.read("/").populated and desktop.read("/").path == "/"


@pytest.mark.parametrize("path", ["/gone.service", "relative", "/system.slice/../../etc", "/a\0b", ""])
def test_cgroup_that_is_none_is_an_error(desktop: CgroupTree, path: str) -> None:
    for call in (desktop.read, desktop.usage, desktop.open):
        with pytest.raises(CgroupError):
            call(path)


@pytest.mark.parametrize(
    ("attributes", "preference"),
    [
        ({"user.oomd_avoid": b"1"}, "avoid"),
        ({"user.oomd_omit": b"1"}, "omit"),
        ({"user.oomd_avoid": b"1", "user.oomd_omit": b"1"}, "omit"),
        ({"user.oomd_avoid": b"yes\n"}, "avoid"),
        ({"user.oomd_avoid": b"0", "user.oomd_omit": b"no"}, "none"),
        ({"user.oomd_omit": b"\xff\xfe"}, "none"),
        ({}, "none"),
    ],
)
def test_preference_is_that_of_the_attributes_and_omit_beats_avoid(
    attributes: dict[str, bytes], preference: str
) -> None:
    def getxattr(path: str, name: str) -> bytes:
        assert path == str(DESKTOP / "init.scope")
        return attributes[name]

    tree = CgroupTree(DESKTOP, getxattr=getxattr, listxattr=lambda path: [*attributes, "user.delegate"])
    assert tree.read("/init.scope").preference == preference


def test_attributes_that_cannot_be_read_or_vanish_are_none() -> None:
    def refuse(*arguments: object) -> Any:
        raise OSError(errno.ENODATA, "No data available")

    assert CgroupTree(DESKTOP, listxattr=refuse).read("/init.scope").preference == "none"
    tree = CgroupTree(DESKTOP, getxattr=refuse, listxattr=lambda path: ["user.oomd_omit"])
    assert tree.read("/init.scope").preference == "none"


def test_real_attributes_are_read(copy: Path) -> None:
    try:
        os.setxattr(copy / "init.scope", "user.oomd_omit", b"1")
    except OSError as error:
        pytest.skip(f"this file system takes no user attributes: {error}")
    assert CgroupTree(copy).read("/init.scope").preference == "omit"


def test_user_units_are_listed_parents_first_and_services_stay_whole(desktop: CgroupTree) -> None:
    paths = [cgroup.path.removeprefix(USER) for cgroup in desktop.walk_user_units(USER)]
    assert paths == [
        "/app.slice",
        "/app.slice/_memory.service",
        "/app.slice/app-gnome-firefox-1234.scope",
        "/app.slice/app-org.gnome.Terminal.slice",
        "/app.slice/app-org.gnome.Terminal.slice/vte-spawn-6f1c.scope",
        "/app.slice/podman-77.scope",
        "/background.slice",
        "/init.scope",
        "/session.slice",
        "/session.slice/org.gnome.Shell@wayland.service",
    ]


def test_user_manager_that_is_gone_has_no_units(desktop: CgroupTree) -> None:
    assert desktop.walk_user_units("/user.slice/user-1.slice/user@1.service") == []


def made(root: Path, path: str) -> Path:
    directory = root / path.lstrip("/")
    directory.mkdir(parents=True)
    (directory / "memory.current").write_text("1\n")
    (directory / "cgroup.events").write_text("populated 1\n")
    return directory


def below(copy: Path) -> set[str]:
    tree = CgroupTree(copy, listxattr=no_attributes)
    return {cgroup.path.removeprefix(USER) for cgroup in tree.walk_user_units(USER)}


def test_cgroups_that_are_no_units_are_listed_too_so_that_nothing_hides_in_them(copy: Path) -> None:
    made(copy, f"{USER}/lxc.payload.one")
    made(copy, f"{USER}/app.slice/hidden hog")
    assert {"/lxc.payload.one", "/app.slice/hidden hog"} <= below(copy)


@pytest.mark.parametrize(
    "name", [b"evil\n.scope", b"evil\x1b[2J.scope", b"evil\xff.scope", "evil\u202e.scope".encode()]
)
def test_slice_with_a_name_that_cannot_be_shown_stays_whole(copy: Path, name: bytes) -> None:
    os.mkdir(os.fsencode(copy / USER.lstrip("/") / "app.slice") + b"/" + name)
    assert {path for path in below(copy) if path.startswith("/app.slice")} == {"/app.slice"}
    assert "/session.slice/org.gnome.Shell@wayland.service" in below(copy)


def test_slice_whose_children_have_no_figures_stays_whole(copy: Path) -> None:
    for figures in (copy / USER.lstrip("/") / "app.slice").glob("*/memory.current"):
        figures.unlink()
    assert {path for path in below(copy) if path.startswith("/app.slice")} == {"/app.slice"}


def test_depth_is_bounded(copy: Path) -> None:
    path = USER
    for _ in range(tree_module.USER_DEPTH_MAX + 5):
        path += "/s.slice"
        made(copy, path)
    depths = [path.count("/") for path in below(copy) if path.startswith("/s.slice")]
    assert max(depths) == tree_module.USER_DEPTH_MAX


def test_amount_is_bounded_and_what_is_too_large_stays_whole(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "USER_UNITS_MAX", 20)
    for number in range(15):
        made(copy, f"{USER}/app.slice/x{number}.scope")
    found = below(copy)
    assert len(found) <= 20
    assert "/app.slice" in found and "/app.slice/x1.scope" not in found
    assert "/session.slice/org.gnome.Shell@wayland.service" in found
    for number in range(30):
        made(copy, f"{USER}/y{number}.scope")
    assert below(copy) == set()


def test_links_are_not_followed(copy: Path) -> None:
    (copy / USER.lstrip("/") / "app.slice/link.scope").symlink_to(copy / "system.slice")
    assert "/app.slice/link.scope" not in below(copy)


def test_usage_is_what_a_kill_gives_back(desktop: CgroupTree) -> None:
    usage = desktop.usage("/system.slice/postgresql.service")
    assert usage.current == 100 * MIB
    assert usage.swap == 8 * MIB
    assert usage.memory == (100 - 32 + 8) * MIB
    assert usage.refaults == 417
    assert usage.processes == 4
    assert usage.populated


def test_usage_counts_processes_of_the_whole_subtree(desktop: CgroupTree) -> None:
    assert desktop.usage(f"{USER}/app.slice/podman-77.scope").processes == 2
    assert desktop.usage(USER).processes == 10


def test_usage_without_swap_or_with_more_file_pages_than_memory_is_not_negative(copy: Path) -> None:
    unit = copy / "system.slice/ssh.service"
    (unit / "memory.swap.current").unlink()
    (unit / "memory.current").write_text("4096\n")
    usage = CgroupTree(copy).usage("/system.slice/ssh.service")
    assert (usage.memory, usage.swap, usage.current) == (0, 0, 4096)


def test_usage_of_an_empty_unit_and_of_the_root(desktop: CgroupTree) -> None:
    empty = desktop.usage(f"{USER}/background.slice")
    assert not empty.populated and empty.processes == 0
    root = desktop.usage("/")
    assert root.populated and root.current == 0 and root.refaults == 4242


def test_memory_of_the_machine_in_bytes(desktop: CgroupTree) -> None:
    assert desktop.memory() == MemoryInfo(4005332 << 10, 1604116 << 10, 1048572 << 10, 1040380 << 10)


@pytest.mark.parametrize(
    ("text", "words"), [(None, "cannot be read"), ("MemTotal: 1 kB\n", "no line 'MemAvailable'"), ("", "MemTotal")]
)
def test_memory_that_cannot_be_read_is_an_error(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "meminfo").write_text(text)
    with pytest.raises(CgroupError, match=words):
        CgroupTree(proc=tmp_path).memory()


def test_open_gives_a_directory_descriptor_that_files_can_be_opened_through(desktop: CgroupTree) -> None:
    descriptor = desktop.open("/system.slice/ssh.service")
    try:
        assert stat.S_ISDIR(os.fstat(descriptor).st_mode)
        assert os.fstat(descriptor).st_ino == desktop.read("/system.slice/ssh.service").id
        assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_PATH
        file = os.open("memory.current", os.O_RDONLY, dir_fd=descriptor)
        assert os.read(file, 100) == b"6291456\n"
        os.close(file)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "-.slice"),
        ("/system.slice/ssh.service", "ssh.service"),
        ("/a/_memory.service", "memory.service"),
        ("/a/__x.service", "_x.service"),
        ("/a/_", "_"),
    ],
)
def test_unit_name_of_a_path(path: str, name: str) -> None:
    assert unit_name(path) == name


def test_names_by_id_cover_the_whole_tree(tmp_path: Path) -> None:
    (tmp_path / "a.slice" / "b.service" / "inner").mkdir(parents=True)
    (tmp_path / "cgroup.procs").touch()
    names = CgroupTree(tmp_path).names()
    assert names == {
        path.stat().st_ino: path.name
        for path in (tmp_path / "a.slice", tmp_path / "a.slice/b.service", tmp_path / "a.slice/b.service/inner")
    }


def test_names_that_users_chose_are_made_fit_to_be_shown(copy: Path) -> None:
    for name in (b"evil\x1b[2J\n.scope", b"bytes\xff.scope"):
        os.mkdir(os.fsencode(copy / "system.slice") + b"/" + name)
    shown = set(CgroupTree(copy).names().values())
    assert {"evil\\x1b[2J\\n.scope", "bytes\\udcff.scope", "ssh.service"} <= shown
