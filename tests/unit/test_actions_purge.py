# SPDX-License-Identifier: LGPL-2.1-or-later
"""purge:PATH on a real tmpfs: what goes, in which order, and what no trick makes it touch."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice.actions import purge as module
from oomslice.actions.checks import CheckError, check_purge_path, open_purgeable
from oomslice.actions.purge import Purged, purge

MEBIBYTE = 1 << 20


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of its own."""
    mount = tmp_path / "cache"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "oomslice", mount], check=False).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted: needs root")
    yield mount
    subprocess.run(["umount", "-R", mount], check=True)


def fill(path: Path, mebibytes: int = 1, age: int = 0) -> Path:
    """A file that was changed `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * mebibytes * MEBIBYTE)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def purged(path: Path, amount: int = 0, seconds: float = 30) -> Purged:
    directory = open_purgeable(str(path))
    try:
        return purge(directory, amount, time.monotonic() + seconds)
    finally:
        os.close(directory)


def free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bfree * status.f_frsize


def test_all_files_go_and_the_memory_is_free(tmpfs: Path) -> None:
    before = free(tmpfs)
    fill(tmpfs / "a")
    fill(tmpfs / "below/deeper/b", 3)
    done = purged(tmpfs)
    assert (done.files, done.freed, done.in_use, done.complete) == (2, 4 * MEBIBYTE, 0, True)
    assert free(tmpfs) == before
    assert (tmpfs / "below/deeper").is_dir()


def test_the_oldest_go_first_and_no_more_than_is_asked_for(tmpfs: Path) -> None:
    fill(tmpfs / "new", age=1)
    fill(tmpfs / "below/oldest", age=300)
    fill(tmpfs / "old", age=200)
    done = purged(tmpfs, amount=2 * MEBIBYTE)
    assert done.freed == 2 * MEBIBYTE
    assert sorted(path.name for path in tmpfs.rglob("*") if path.is_file()) == ["new"]


def test_more_files_than_are_sorted_at_once_go_in_order_too(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    for number in range(10):
        fill(tmpfs / f"{number}", age=1000 - number)
    assert purged(tmpfs, amount=7 * MEBIBYTE).files == 7
    assert sorted(path.name for path in tmpfs.iterdir()) == ["7", "8", "9"]


def test_what_is_open_or_mapped_stays_and_is_counted(tmpfs: Path) -> None:
    fill(tmpfs / "gone")
    with (
        open(fill(tmpfs / "read"), "rb"),
        open(fill(tmpfs / "written"), "r+b"),
        open(fill(tmpfs / "mapped"), "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ),
    ):
        file.close()
        done = purged(tmpfs)
    assert (done.files, done.in_use) == (1, 3)
    assert sorted(path.name for path in tmpfs.iterdir()) == ["mapped", "read", "written"]


def test_symbolic_links_are_neither_followed_nor_removed(tmpfs: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    fill(outside / "kept")
    (tmpfs / "directory").symlink_to(outside)
    (tmpfs / "file").symlink_to(outside / "kept")
    (tmpfs / "dangling").symlink_to("nowhere")
    assert purged(tmpfs) == Purged(0, 0, 0, True, 0)
    assert (outside / "kept").stat().st_size == MEBIBYTE
    assert len(list(tmpfs.iterdir())) == 3


def test_other_mounts_below_are_left_alone_also_those_of_the_same_tmpfs(tmpfs: Path, tmp_path: Path) -> None:
    fill(tmpfs / "inside/cache/gone")
    fill(tmpfs / "outside/kept")
    for name in ("other", "bound"):
        (tmpfs / "inside" / name).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "oomslice", tmpfs / "inside/other"], check=True)
    subprocess.run(["mount", "--bind", tmpfs / "outside", tmpfs / "inside/bound"], check=True)
    fill(tmpfs / "inside/other/kept")
    assert purged(tmpfs / "inside").files == 1
    assert (tmpfs / "inside/other/kept").exists()
    assert (tmpfs / "outside/kept").exists()


def test_only_regular_files_go(tmpfs: Path) -> None:
    os.mkfifo(tmpfs / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmpfs / "socket"))
        assert purged(tmpfs).files == 0
    assert {path.name for path in tmpfs.iterdir()} == {"fifo", "socket"}


def test_a_file_with_another_name_frees_nothing_before_that_goes_too(tmpfs: Path) -> None:
    fill(tmpfs / "inside/first")
    os.link(tmpfs / "inside/first", tmpfs / "elsewhere")
    assert purged(tmpfs / "inside") == Purged(1, 0, 0, True, 0)
    fill(tmpfs / "inside/second")
    os.link(tmpfs / "inside/second", tmpfs / "inside/third")
    assert purged(tmpfs / "inside") == Purged(2, MEBIBYTE, 0, True, 0)


def test_names_that_are_no_text_and_empty_files_go(tmpfs: Path) -> None:
    with open(os.fsencode(tmpfs) + b"/\xff\n", "wb"):
        pass
    assert purged(tmpfs).files == 1
    assert os.listdir(tmpfs) == []


def test_a_passed_deadline_removes_nothing_and_says_so(tmpfs: Path) -> None:
    fill(tmpfs / "kept")
    done = purged(tmpfs, seconds=-1)
    assert (done.files, done.complete) == (0, False)
    assert (tmpfs / "kept").exists()


def test_a_directory_that_was_one_when_it_was_seen_is_not_entered_as_a_link(tmpfs: Path) -> None:
    fill(tmpfs / "outside/kept")
    (tmpfs / "inside").mkdir()
    (tmpfs / "inside/was-a-directory").symlink_to(tmpfs / "outside")
    directory = open_purgeable(str(tmpfs / "inside"))
    # As if it had been found below a directory, a moment before.
    work = module._Purge(directory, 0, time.monotonic() + 30)
    work._remove(("was-a-directory", "kept"))
    assert list(work._walk(directory, ())) == []
    os.close(directory)
    assert (tmpfs / "outside/kept").exists() and work.files == 0


def test_a_directory_that_becomes_a_link_under_its_hands_leads_nowhere(tmpfs: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for number in range(50):
        fill(outside / "deep" / f"{number}", 0)
    ready = threading.Event()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for number in range(50):
                with contextlib.suppress(FileNotFoundError):  # removed while it was made
                    fill(tmpfs / "inside/deep" / f"{number}", 0)
            os.rename(tmpfs / "inside", tmpfs / "away")
            (tmpfs / "inside").symlink_to(outside)
            ready.set()
            (tmpfs / "inside").unlink()
            os.rename(tmpfs / "away", tmpfs / "inside")

    attacker = threading.Thread(target=swap)
    attacker.start()
    ready.wait()
    removed = 0
    # Until it was at work often enough for the two to have met; each round is another chance of the attacker's.
    for _ in range(100):
        removed += purged(tmpfs).files
    stop.set()
    attacker.join()
    assert removed > 0
    assert len(list((outside / "deep").iterdir())) == 50


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("relative", errno.EINVAL),
        ("/run/../etc", errno.EINVAL),
        ("/", errno.EPERM),
        ("/run", errno.EPERM),
        ("/run/", errno.EPERM),
        ("/run/systemd/units", errno.EPERM),
        ("/dev", errno.EPERM),
        ("/nonexistent", errno.ENOENT),
        ("/etc/passwd", errno.ENOTDIR),
    ],
)
def test_paths_that_are_refused(path: str, error: int) -> None:
    with pytest.raises(CheckError) as refused:
        check_purge_path(path)
    assert refused.value.error == error


def test_a_directory_on_a_disk_and_one_behind_a_link_are_refused(tmpfs: Path, tmp_path: Path) -> None:
    disk = Path(__file__).parent
    with pytest.raises(CheckError, match="is not on a tmpfs"):
        check_purge_path(str(disk))
    (tmp_path / "link").symlink_to(tmpfs)
    with pytest.raises(CheckError, match='symbolic link "link"'):
        check_purge_path(str(tmp_path / "link"))
    check_purge_path(str(tmpfs))
