# SPDX-License-Identifier: LGPL-2.1-or-later
"""The plan in the kernel's own killer. No released kernel has the interface, so these need one that does:
OOMSLICE_TEST_KERNEL=FILE, see bpf/README.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .image import Image
from .lab import Lab
from .machine import Machine
from .test_bpf import by_kernel, carriers, core_stopped, jail, status

KERNEL = os.environ.get("OOMSLICE_TEST_KERNEL", "")

pytestmark = pytest.mark.skipif(
    not KERNEL, reason="no released kernel has struct bpf_oom_ops; OOMSLICE_TEST_KERNEL=FILE names one that does"
)


@pytest.fixture(scope="module")
def machine(base: Image, disk: Path) -> Iterator[Machine]:
    """A machine with that kernel."""
    with Machine(base, os.path.abspath(KERNEL), disk=disk) as machine:
        yield machine


@pytest.fixture
def quiet(lab: Lab) -> Lab:
    """Without the scores, by which the kernel would choose as planned in any case."""
    lab.configure("carriers:\n  score-adj: no\n")
    return lab


def test_it_is_loaded_and_attached(lab: Lab) -> None:
    assert (status(lab)["oom_ops"]["active"], status(lab)["oom_ops"]["why"]) == (True, "")
    lab.drop_in("jail.slice", "Priority=-10")
    jail(lab)
    lab.start_service("inmate", 10, slice="jail.slice")
    lab.wait_planned(inmate=-10)
    lab.machine.wait_for(
        "the slice has the program", lambda: "beside the root" in carriers(lab)["bpf-oom_ops"]["Detail"], 30
    )
    assert carriers(lab)["bpf-oom_ops"]["LastError"] == ""


def test_a_limit_takes_the_plans_choice_and_not_the_largest(quiet: Lab) -> None:
    lab = quiet
    jail(lab)
    lab.drop_in("dear.service", "Priority=300")
    lab.drop_in("cheap.service", "Priority=-300")
    hits = status(lab)["oom_ops"]["hits"]
    lab.start_service("cheap", 40, slice="jail.slice")
    lab.start_hog("dear", rate=60, max_mb=180, slice="jail.slice", wait_for="go")
    lab.wait_planned(dear=300, cheap=-300)
    lab.go()
    lab.wait_until_dead("cheap")
    assert by_kernel(lab, "cheap")["agreement"] == "as-planned"
    assert lab.machine.active("dear.service")
    assert lab.victims() == ["cheap.service"]
    assert status(lab)["oom_ops"]["hits"] == hits + 1
    assert "Chosen by oomslice" in lab.machine.check("journalctl -k -b --no-pager | grep 'Chosen by'")


def test_the_whole_unit_dies_for_the_machine_while_the_core_stands_still(quiet: Lab) -> None:
    lab = quiet
    lab.drop_in("many.service", "Priority=-300")
    lab.start_service("important", 100)
    lab.start_hog("many", rate=200, children=12, wait_for="go")
    lab.wait_planned(many=-300, important=0)
    with core_stopped(lab):
        lab.machine.check("systemctl kill -s STOP oomsliced.service")
        lab.go()
        lab.wait_until_dead("many")
        lab.machine.check("systemctl kill -s CONT oomsliced.service")
        assert by_kernel(lab, "many")["agreement"] == "as-planned"
    assert lab.victims() == ["many.service"]
    assert lab.lives("important")


def test_where_nobody_may_be_chosen_the_kernel_chooses(quiet: Lab) -> None:
    lab = quiet
    jail(lab)
    lab.drop_in("safe.service", "Protect=yes")
    hits = status(lab)["oom_ops"]["hits"]
    lab.start_hog("safe", rate=60, max_mb=400, slice="jail.slice", wait_for="go")
    lab.wait_planned(safe=0)
    lab.go()
    lab.wait_until_dead("safe")
    by_kernel(lab, "safe")
    assert status(lab)["oom_ops"]["hits"] == hits
