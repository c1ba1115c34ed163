# SPDX-License-Identifier: LGPL-2.1-or-later
"""warn: who is told over the memory pressure protocol, and what a process cannot have written to."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oomslice.actions.warn import warn

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process with $MEMORY_PRESSURE_WATCH; it holds `opened` open, and says what it reads from it."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(watch: str | None, opened: str = "", mode: str = "rb") -> subprocess.Popen[bytes]:
        code = (
            "import os, sys\n"
            "file = os.open(sys.argv[1], os.O_RDWR if sys.argv[2] == 'rw' else os.O_RDONLY) if sys.argv[1] else 0\n"
            "os.write(1, b'ready')\n"
            "os.write(1, os.read(file, 10))\n"
            "os.read(0, 1)\n"
        )
        environment = {"PATH": "/usr/bin:/bin"} | ({"MEMORY_PRESSURE_WATCH": watch} if watch is not None else {})
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", code, opened, mode],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        running.append(process)
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 5) == b"ready"
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_who_reads_a_fifo_is_told(tmp_path: Path, start: Start) -> None:
    fifo = tmp_path / "pressure"
    os.mkfifo(fifo)
    process = start(str(fifo), str(fifo), "rw")
    assert warn(process.pid) == ("done", 0, "it was told over its FIFO")
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 10) == b"1"


def test_a_full_fifo_is_not_waited_for(tmp_path: Path, start: Start) -> None:
    fifo = tmp_path / "pressure"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    assert warn(start(str(fifo)).pid)[:2] == ("needless", 0)
    os.close(reader)
    os.close(writer)


def test_a_fifo_without_a_reader_tells_nobody(tmp_path: Path, start: Start) -> None:
    fifo = tmp_path / "pressure"
    os.mkfifo(fifo)
    assert warn(start(str(fifo)).pid)[:2] == ("unavailable", errno.ENXIO)


def test_who_waits_on_a_file_of_the_kernel_is_told_by_the_kernel(tmp_path: Path, start: Start) -> None:
    file = tmp_path / "memory.pressure"
    file.write_text("some avg10=0.00\n")
    assert warn(start(str(file), str(file)).pid)[0] == "needless"
    assert warn(start(str(file)).pid)[:2] == ("unavailable", 0)
    assert file.read_text() == "some avg10=0.00\n"


@pytest.mark.parametrize("watch", [None, "", "/dev/null"])
def test_who_does_not_ask_is_not_told(start: Start, watch: str | None) -> None:
    assert warn(start(watch).pid)[:2] == ("unavailable", 0)


@pytest.mark.parametrize("watch", ["relative", "/nonexistent/x", "/tmp/../etc/passwd"])
def test_paths_that_lead_nowhere(start: Start, watch: str) -> None:
    result, error, _ = warn(start(watch).pid)
    assert result == "unavailable"
    assert error in (errno.EINVAL, errno.ENOENT)


def test_links_and_fifos_of_others_are_not_written_to(tmp_path: Path, start: Start) -> None:
    fifo = tmp_path / "pressure"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    (tmp_path / "link").symlink_to(fifo)
    assert warn(start(str(tmp_path / "link")).pid)[:2] == ("unavailable", errno.ELOOP)
    (tmp_path / "way").symlink_to(tmp_path)
    assert warn(start(str(tmp_path / "way/pressure")).pid)[0] == "unavailable"
    if os.geteuid() == 0:
        os.chown(fifo, 12345, -1)
        assert warn(start(str(fifo)).pid)[:2] == ("unavailable", errno.EPERM)
    with pytest.raises(BlockingIOError):
        writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.read(reader, 1)
        finally:
            os.close(writer)
            os.close(reader)


def test_a_process_of_another_unit_is_not_told(tmp_path: Path, start: Start) -> None:
    fifo = tmp_path / "pressure"
    os.mkfifo(fifo)
    process = start(str(fifo), str(fifo), "rw")
    assert warn(process.pid, "/user.slice/other.service")[:2] == ("unavailable", errno.ESRCH)
    own = next(
        line[3:] for line in Path(f"/proc/{process.pid}/cgroup").read_text().splitlines() if line.startswith("0::")
    )
    assert warn(process.pid, own)[0] == "done"


def test_a_unit_without_a_main_process_is_no_error() -> None:
    assert warn(0)[:2] == ("unavailable", errno.ESRCH)
    assert warn(1 << 22)[:2] == ("unavailable", errno.ENOENT)
