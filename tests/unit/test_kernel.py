# SPDX-License-Identifier: LGPL-2.1-or-later
"""The library's kernel interfaces, on the kernel that runs the tests."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice import kernel
from oomslice.errors import KernelError, OomsliceError
from oomslice.settings.model import PressureTrigger, PsiKind

CAP_SYS_RESOURCE = 24
SLEEP = [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"]
UNPRIVILEGED = PressureTrigger(PsiKind.SOME, 1_900_000, 2_000_000)

needs_psi = pytest.mark.skipif(not Path("/proc/pressure/memory").exists(), reason="this kernel has no PSI")


def cgroup2_mount() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(where)
    return None


def has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> number & 1)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of our own, removed with all below it afterwards."""
    mount = cgroup2_mount()
    if mount is None:
        pytest.skip("no cgroup2 file system is mounted")
    path = mount / f"oomslice-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a cgroup below {mount}: {error.strerror}")
    yield path
    for directory, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(FileNotFoundError):
            Path(directory, "cgroup.kill").write_text("1")
            deadline = time.monotonic() + 10
            while "populated 1" in Path(directory, "cgroup.events").read_text() and time.monotonic() < deadline:
                time.sleep(0.01)
            os.rmdir(directory)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with sleeping() as process:
        yield process


@contextlib.contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is past its start and waits."""
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def held(pid: int) -> Iterator[int]:
    fd = kernel.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def test_an_error_is_of_both_trees_and_says_what_to_do() -> None:
    with pytest.raises(KernelError, match="no such pressure file") as caught:
        kernel.psi_trigger("/proc/pressure/nonsense", UNPRIVILEGED)
    assert caught.value.errno == errno.ENOENT
    assert isinstance(caught.value, OSError) and isinstance(caught.value, OomsliceError)


@needs_psi
def test_a_trigger_that_does_not_fire_lets_the_time_pass() -> None:
    with kernel.psi_trigger("/proc/pressure/memory", PressureTrigger(PsiKind.FULL, 2_000_000, 2_000_000)) as trigger:
        start = time.monotonic()
        assert trigger.wait(timeout=0.05) is False
        assert time.monotonic() - start > 0.04
        assert trigger.wait(timeout=0) is False
        assert not os.get_inheritable(trigger.fileno())


@needs_psi
def test_a_trigger_fires_when_tasks_stall() -> None:
    # CPU is the one thing that can be made scarce without harm: more busy processes than processors.
    busy = [sys.executable, "-c", "while True: pass"]
    with (
        kernel.psi_trigger(Path("/proc/pressure/cpu"), PressureTrigger(PsiKind.SOME, 10_000, 2_000_000)) as trigger,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(len(os.sched_getaffinity(0)) + 1):
            process = stack.enter_context(subprocess.Popen(busy))
            stack.callback(process.kill)
        assert trigger.wait(timeout=30) is True


@needs_psi
def test_a_closed_trigger_cannot_be_waited_for() -> None:
    trigger = kernel.psi_trigger("/proc/pressure/memory", UNPRIVILEGED)
    fd = trigger.fileno()
    trigger.close()
    trigger.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with pytest.raises(ValueError, match="closed"):
        trigger.fileno()
    with pytest.raises(ValueError, match="closed"):
        trigger.wait(0)


@needs_psi
@pytest.mark.parametrize(
    "trigger",
    [
        PressureTrigger(PsiKind.SOME, 0, 2_000_000),
        PressureTrigger(PsiKind.SOME, 2_000_001, 2_000_000),
        PressureTrigger(PsiKind.SOME, 1, 499_999),
        PressureTrigger(PsiKind.FULL, 1, 12_000_000),
        PressureTrigger(PsiKind.FULL, 1, 1 << 32),
        PressureTrigger(PsiKind.FULL, -1, 2_000_000),
    ],
)
def test_a_trigger_that_the_kernel_would_not_take_is_an_error(trigger: PressureTrigger) -> None:
    with pytest.raises(KernelError, match="500 ms to 10 s") as caught:
        kernel.psi_trigger("/proc/pressure/memory", trigger)
    assert caught.value.errno == errno.EINVAL


@needs_psi
@pytest.mark.skipif(has_capability(CAP_SYS_RESOURCE), reason="runs with CAP_SYS_RESOURCE")
def test_a_window_that_only_the_privileged_may_have_is_an_error_that_says_so() -> None:
    with pytest.raises(KernelError, match="CAP_SYS_RESOURCE") as caught:
        kernel.psi_trigger("/proc/pressure/memory", PressureTrigger(PsiKind.SOME, 100_000, 1_000_000))
    assert caught.value.errno == errno.EINVAL


@needs_psi
def test_a_trigger_is_set_on_a_cgroup_by_descriptor_and_ends_with_it(cgroup: Path) -> None:
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        trigger = kernel.psi_trigger(fd, UNPRIVILEGED)
    finally:
        os.close(fd)
    with trigger:
        assert trigger.wait(timeout=0) is False
        cgroup.rmdir()
        with pytest.raises(KernelError, match="removed") as caught:
            trigger.wait(timeout=10)
        assert caught.value.errno == errno.ENODEV


def test_a_pidfd_is_readable_when_the_process_dies(process: subprocess.Popen[bytes]) -> None:
    with held(process.pid) as fd:
        assert not os.get_inheritable(fd)
        assert select.select([fd], [], [], 0)[0] == []
        kernel.pidfd_send_signal(fd, signal.SIGTERM)
        assert select.select([fd], [], [], 10)[0] == [fd]
        assert process.wait() == -signal.SIGTERM
        with pytest.raises(KernelError, match="died") as caught:
            kernel.pidfd_send_signal(fd)
        assert caught.value.errno == errno.ESRCH


def test_a_signal_is_sigkill_unless_another_is_named(process: subprocess.Popen[bytes]) -> None:
    with held(process.pid) as fd:
        kernel.pidfd_send_signal(fd, 0)
        assert process.poll() is None
        kernel.pidfd_send_signal(fd)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("pid", [0, -1, -(1 << 31), 1 << 31, 1 << 70])
def test_what_cannot_be_a_process_is_an_error(pid: int) -> None:
    with pytest.raises(KernelError) as caught:
        kernel.pidfd_open(pid)
    assert caught.value.errno == errno.EINVAL


def test_a_process_that_is_gone_cannot_be_held(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    with pytest.raises(KernelError, match="no such process") as caught:
        kernel.pidfd_open(process.pid)
    assert caught.value.errno == errno.ESRCH


def test_a_descriptor_that_is_no_pidfd_is_an_error(process: subprocess.Popen[bytes]) -> None:
    with open("/dev/null", "rb") as file:
        with pytest.raises(KernelError) as caught:
            kernel.pidfd_send_signal(file.fileno())
        assert caught.value.errno == errno.EBADF
        with pytest.raises(KernelError) as caught:
            kernel.process_mrelease(file.fileno())
        assert caught.value.errno == errno.EBADF
    with held(process.pid) as fd, pytest.raises(KernelError, match="no such signal"):
        kernel.pidfd_send_signal(fd, 4000)


def test_memory_is_only_released_of_the_dying(process: subprocess.Popen[bytes]) -> None:
    with held(process.pid) as fd:
        with pytest.raises(KernelError) as caught:
            kernel.process_mrelease(fd)
        if caught.value.errno == errno.ENOSYS:
            pytest.skip("this kernel has no process_mrelease (Linux 5.15)")
        assert caught.value.errno == errno.EINVAL
        process.kill()
        process.wait()
        with pytest.raises(KernelError, match="gone") as caught:
            kernel.process_mrelease(fd)
        assert caught.value.errno == errno.ESRCH


def test_memory_of_a_dying_process_is_released() -> None:
    # The process may be faster; that it always is would be a defect.
    large = [sys.executable, "-c", "import signal; x = b'x' * (64 << 20); print(flush=True); signal.pause()"]
    for _ in range(20):
        with subprocess.Popen(large, stdout=subprocess.PIPE) as process, held(process.pid) as fd:
            assert process.stdout is not None
            process.stdout.readline()
            kernel.pidfd_send_signal(fd)
            try:
                kernel.process_mrelease(fd)
            except KernelError as error:
                if error.errno == errno.ENOSYS:
                    pytest.skip("this kernel has no process_mrelease (Linux 5.15)")
                assert error.errno in (errno.ESRCH, errno.EAGAIN)
            else:
                return
    pytest.fail("20 processes of 64 MiB, and none was caught dying")


@pytest.mark.parametrize("by_descriptor", [False, True])
def test_a_cgroup_is_killed_with_all_below_it(cgroup: Path, by_descriptor: bool) -> None:
    if not (cgroup / "cgroup.kill").exists():
        pytest.skip("this kernel has no cgroup.kill (Linux 5.14)")
    below = cgroup / "below"
    below.mkdir()
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(sleeping()) for _ in range(4)]
        for process, where in zip(processes, [cgroup, below, below], strict=False):
            (where / "cgroup.procs").write_text(str(process.pid))
        if by_descriptor:
            fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, fd)
            kernel.cgroup_kill(fd)
        else:
            kernel.cgroup_kill(cgroup)
        assert [process.wait(timeout=10) for process in processes[:3]] == [-signal.SIGKILL] * 3
        assert processes[3].poll() is None, "not in the cgroup"


def test_the_root_cannot_be_killed() -> None:
    mount = cgroup2_mount()
    if mount is None:
        pytest.skip("no cgroup2 file system is mounted")
    if (mount / "cgroup.kill").exists():
        pytest.skip("the mount is not the root of the hierarchy (a cgroup namespace)")
    with pytest.raises(KernelError, match="the root has none") as caught:
        kernel.cgroup_kill(mount)
    assert caught.value.errno == errno.ENOENT


def test_a_cgroup_that_is_not_there_is_an_error() -> None:
    for function in (kernel.cgroup_kill, kernel.cgroup_id):
        with pytest.raises(KernelError, match="No such file") as caught:
            function("/sys/fs/cgroup/there is no such cgroup")
        assert caught.value.errno == errno.ENOENT


def test_a_cgroup_is_found_by_its_id_and_no_later_one_has_it(cgroup: Path) -> None:
    mount = cgroup2_mount()
    assert mount is not None
    path = cgroup / "one"
    path.mkdir()
    id = kernel.cgroup_id(path)
    assert id == path.stat().st_ino
    try:
        fd = kernel.cgroup_open(id, mount)
    except KernelError as error:
        if error.errno == errno.EPERM:
            pytest.skip("needs CAP_DAC_READ_SEARCH")
        raise
    try:
        assert kernel.cgroup_id(fd) == id
        assert os.path.samestat(os.fstat(fd), path.stat())
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)

    path.rmdir()
    path.mkdir()
    assert kernel.cgroup_id(path) != id
    for lost in (id, 0, (1 << 64) - 1, 1 << 64, -1):
        with pytest.raises(KernelError, match="cannot open cgroup") as caught:
            kernel.cgroup_open(lost, mount)
        assert caught.value.errno == errno.ESTALE


def test_a_directory_elsewhere_has_no_cgroup_id(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="cgroup v2") as caught:
        kernel.cgroup_id(tmp_path)
    assert caught.value.errno == errno.ENOTSUP


def test_what_is_opened_for_a_path_is_closed_again(cgroup: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        kernel.cgroup_id(cgroup)
        with pytest.raises(KernelError):
            kernel.cgroup_id("/proc")
    assert len(os.listdir("/proc/self/fd")) == before
