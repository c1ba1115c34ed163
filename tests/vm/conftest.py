# SPDX-License-Identifier: LGPL-2.1-or-later
"""One booted machine for each kernel, shared by all scenarios."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from .image import Image, image
from .lab import Lab
from .machine import Machine, installed_disk, making, programs_disk, turn
from .package import package

SCENARIO_TIMEOUT = 3600
"""Seconds: a backstop. One scenario may have to wait for the image, the package, its turn and the boot."""

SWAP_MB = 1024
"""Swap that a scenario may turn on."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    scenarios = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in scenarios:
        item.add_marker(pytest.mark.vm)
        item.add_marker(pytest.mark.timeout(SCENARIO_TIMEOUT))
    # Half an hour is what all tests may take. Every scenario runs on trixie's kernel; on the newest one those do in
    # which the kernel has a say, by its pressure figures, its reclaim or its interfaces.
    if not os.environ.get("OOMSLICE_VM_ALL"):
        left_out = [
            item for item in scenarios if "newest-kernel" in item.name and not item.get_closest_marker("both_kernels")
        ]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def base() -> Image:
    """The image of the machine, without oomslice."""
    with making():
        return image(print)


@pytest.fixture(scope="session")
def disk(base: Image) -> Iterator[Path]:
    """The disk on which apt has installed the package."""
    with turn():
        with making():
            programs_disk()
            made = installed_disk(base, package(), print)
        yield made


@pytest.fixture(scope="session", params=["stable-kernel", "newest-kernel"])
def kernel(request: pytest.FixtureRequest, base: Image) -> str:
    """trixie's own kernel (6.12) and the newest of trixie-backports."""
    return base.kernels[0 if request.param == "stable-kernel" else -1]


@pytest.fixture(scope="session")
def machine(base: Image, disk: Path, kernel: str) -> Iterator[Machine]:
    """The booted machine."""
    with Machine(base, kernel, disk=disk, swap_mb=SWAP_MB) as machine:
        print(f"booted Linux {kernel} in {machine.boot_seconds:.0f} s")
        yield machine


@pytest.fixture
def lab(machine: Machine) -> Iterator[Lab]:
    """What one scenario uses of the machine; all it leaves behind is cleaned up."""
    lab = Lab(machine)
    lab.settle()
    try:
        yield lab
    finally:
        lab.clean_up()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure comes with what the machine has to say."""
    report = yield
    machine = getattr(item, "funcargs", {}).get("machine")
    if report.failed and isinstance(machine, Machine):
        report.sections.append(("the machine", machine.diagnosis()))
    return report
