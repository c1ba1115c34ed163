# SPDX-License-Identifier: LGPL-2.1-or-later
"""A sealed plan cannot change any more, and only a sealed one is read."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice._core import lib
from oomslice.errors import PlanError
from oomslice.plan.encode import encode, plan_names, read_plan, seal
from tests.unit.policies import GIB, policy, unit

PLAN = encode(
    policy(unit("hog.service", 11)),
    generation=1,
    made_realtime_usec=1,
    usage={},
    memory_total=GIB,
    swap_total=0,
)
ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@pytest.fixture
def sealed() -> Iterator[int]:
    fd = seal(PLAN)
    yield fd
    os.close(fd)


@pytest.fixture
def unsealed() -> Iterator[int]:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(fd, PLAN)
    yield fd
    os.close(fd)


def refusal(fd: int) -> int:
    with pytest.raises(PlanError) as caught:
        read_plan(fd)
    return caught.value.result


def test_a_sealed_plan_is_read_as_it_was_written(sealed: int) -> None:
    assert read_plan(sealed) == PLAN
    assert plan_names(read_plan(sealed)) == {1: "-.slice", 11: "hog.service"}
    assert not os.get_inheritable(sealed)


def test_a_sealed_plan_cannot_change(sealed: int) -> None:
    with pytest.raises(PermissionError):
        os.pwrite(sealed, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(sealed, 0)
    with pytest.raises(PermissionError):
        os.ftruncate(sealed, len(PLAN) + 1)
    with pytest.raises(PermissionError):
        mmap.mmap(sealed, len(PLAN), prot=mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(PermissionError):
        fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_an_unsealed_plan_is_refused(unsealed: int) -> None:
    assert refusal(unsealed) == lib.OOMSLICE_PLAN_E_SEALS


@pytest.mark.parametrize("missing", [fcntl.F_SEAL_SEAL, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_WRITE])
def test_a_plan_that_lacks_one_seal_is_refused(unsealed: int, missing: int) -> None:
    fcntl.fcntl(unsealed, fcntl.F_ADD_SEALS, ALL_SEALS & ~missing)
    assert refusal(unsealed) == lib.OOMSLICE_PLAN_E_SEALS


@pytest.mark.parametrize("size", [0, 135, lib.OOMSLICE_PLAN_SIZE_MAX + 1])
def test_a_sealed_file_of_another_size_is_refused(unsealed: int, size: int) -> None:
    os.ftruncate(unsealed, size)
    fcntl.fcntl(unsealed, fcntl.F_ADD_SEALS, ALL_SEALS)
    assert refusal(unsealed) == lib.OOMSLICE_PLAN_E_SIZE


def test_what_is_no_plan_is_not_sealed() -> None:
    with pytest.raises(PlanError) as caught:
        seal(b"short")
    assert caught.value.result == lib.OOMSLICE_PLAN_E_SIZE


def test_a_file_or_pipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan").write_bytes(PLAN)
    with open(tmp_path / "plan", "rb") as file:
        assert refusal(file.fileno()) == lib.OOMSLICE_PLAN_E_SEALS
    reader, writer = os.pipe()
    try:
        assert refusal(reader) == lib.OOMSLICE_PLAN_E_SEALS
    finally:
        os.close(reader)
        os.close(writer)


def test_a_descriptor_that_is_closed_is_the_callers_mistake() -> None:
    fd = os.memfd_create("test")
    os.close(fd)
    assert refusal(fd) == -errno.EBADF


def test_no_descriptor_is_left_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        os.close(seal(PLAN))
        with pytest.raises(PlanError):
            seal(b"short")
    assert len(os.listdir("/proc/self/fd")) == before
