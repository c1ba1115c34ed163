# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the carriers say of themselves."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from oomslice._core import lib
from oomslice.carriers.bpf import BpfCarrier, ReportedPolicy, read_report, reported_policy
from oomslice.carriers.core import CoreCarrier
from oomslice.carriers.kernel import KernelCarrier
from oomslice.carriers.model import Carrier, CarrierState
from oomslice.carriers.prekill import PREKILL, PrekillCarrier
from oomslice.carriers.reportwatch import ReportWatch
from oomslice.decisions.bpfkills import BpfKills
from oomslice.decisions.kernel import KernelKills
from oomslice.decisions.store import DecisionStore
from oomslice.plan.channel import CoreState
from tests.unit.policies import policy


def core_state(generation: int) -> CoreState:
    return CoreState(generation, (), 5, 1, False, 9, decisions=4, dropped=2, locked_bytes=0, reserve_bytes=0)


@pytest.mark.parametrize(
    ("core", "active", "detail"),
    [
        (None, False, "oomslice-core is not running"),
        (core_state(0), False, "oomslice-core has no plan"),
        (core_state(7), True, "armed"),
    ],
)
def test_the_core_is_a_carrier_once_it_has_a_plan(core: CoreState | None, active: bool, detail: str) -> None:
    carrier: Carrier = CoreCarrier(lambda: core, lambda: "no room")
    said = carrier.state()
    assert (said.name, said.active, said.acts, said.detail) == ("core", active, True, detail)
    assert (said.hits, said.missed) == ((4, 2) if core else (0, 0))
    assert said.last_error == "no room"


def test_bpf_programs_are_carriers_as_oomslice_bpf_reports_them(tmp_path: Path) -> None:
    report = tmp_path / "bpf.status"
    carrier = BpfCarrier("observe", "sees", acts=False, problem=lambda: "oh", report=report, pins=tmp_path / "bpf")

    def said() -> tuple[bool, str]:
        carrier.follow(policy(), ())
        state = carrier.state()
        assert (state.name, state.acts, state.last_error) == ("bpf-observe", False, "oh")
        return state.active, state.detail

    assert said() == (False, "oomslice-bpf.service is not running")
    report.write_text("other\tactive\t\nobserve\tinactive\tthis kernel has no function f\n")
    assert said() == (False, "this kernel has no function f")
    report.write_text("observe\tactive\t\n")
    assert said() == (True, "sees")
    # It is known before there is a plan.
    early = BpfCarrier("observe", "sees", acts=False, report=report, pins=tmp_path / "bpf").state()
    assert (early.active, early.detail) == (True, "sees")
    report.write_text("other\tactive\t\nrubbish\n")
    assert said() == (False, "this version of oomslice-bpf has no program observe")


def test_carriers_say_which_policy_they_have_or_why_it_is_not_in_force(tmp_path: Path) -> None:
    report = tmp_path / "bpf.status"
    choice = BpfCarrier("choice", "answers", acts=False, chooses=True, report=report, pins=tmp_path / "bpf")
    signs = BpfCarrier("signs", "wakes", acts=False, report=report, pins=tmp_path / "bpf")

    def said(policy_line: str) -> list[tuple[str, str]]:
        report.write_text(f"signs\tactive\t\nchoice\tactive\t\n{policy_line}\n")
        states = []
        for carrier in (choice, signs):
            carrier.look()
            states.append((carrier.state().detail, carrier.state().last_error))
        return states

    assert said("") == [("answers", ""), ("wakes", "")]
    assert said("policy\tactive\t\tmine.o\t1790000000000000\tchoice prekill") == [
        ("answers; it asks the policy mine.o", ""),
        ("wakes", ""),
    ]
    assert reported_policy(read_report(report)[0]) == ReportedPolicy(
        "mine.o", "", 1790000000000000, ("choice", "prekill")
    )
    assert said("policy\tinactive\tthe verifier says: no\tmine.o\t7\t") == [
        ("answers", "the policy mine.o is not in force: the verifier says: no"),
        ("wakes", ""),
    ]
    assert said("policy\tactive\t")[0] == ("answers", "")
    report.unlink()
    assert reported_policy(read_report(report)[0]) is None


def test_a_new_report_is_noticed_and_nothing_else_is(tmp_path: Path) -> None:
    report = tmp_path / "bpf.status"

    async def run() -> None:
        told = asyncio.Event()
        watch = ReportWatch(told.set, report)

        async def is_told() -> bool:
            try:
                await asyncio.wait_for(told.wait(), 0.3)
            except TimeoutError:
                return False
            told.clear()
            return True

        (tmp_path / "bpf.status.new").write_text("choice\tactive\t\n")
        (tmp_path / "core.sock").touch()
        assert not await is_told()
        (tmp_path / "bpf.status.new").rename(report)
        assert await is_told()
        report.unlink()
        assert await is_told()
        watch.close()
        watch.close()
        # There is nothing to watch: that is no failure.
        ReportWatch(told.set, tmp_path / "none" / "bpf.status").close()

    asyncio.run(run())


def test_the_kernels_own_killer_is_a_carrier_that_only_reports(tmp_path: Path) -> None:
    store = DecisionStore(tmp_path / "store", 10)
    kills = KernelKills(tmp_path, store, "b" * 32, lambda _: None, kmsg=tmp_path / "none")
    carrier: Carrier = KernelCarrier(kills)
    said = carrier.state()
    assert said == CarrierState(
        "kernel",
        True,
        False,
        "kills by the kernel are recorded from memory.events, without details",
        last_error=f"{tmp_path}/none: No such file or directory",
    )
    carrier.close()
    store.close()


def test_prekill_follows_the_switch_and_says_what_is_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, pins = tmp_path / "bpf.status", tmp_path / "bpf"
    store = DecisionStore(tmp_path / "store", 10)
    kills = BpfKills(str(tmp_path), store, "b" * 32, lambda decision: None, pins=str(pins))
    switch = {"enabled": True, "problem": ""}
    carrier = PrekillCarrier(
        kills, lambda: bool(switch["enabled"]), lambda: str(switch["problem"]), report=report, pins=pins
    )
    written: list[int] = []

    class Maps:
        """The two calls that set the switch."""

        def __getattr__(self, name: str) -> object:
            return getattr(lib, name)

        def oomslice_pinned_open(self, path: bytes) -> int:
            assert path == os.fsencode(pins / "prekill" / "map-control")
            return os.open("/dev/null", os.O_RDONLY)

        def oomslice_pinned_update(self, fd: int, key: object, value: Any) -> int:
            written.append(value.off)
            return -errno.EIO if switch["problem"] == "broken" else 0

    monkeypatch.setattr("oomslice.carriers.prekill.lib", Maps())

    async def follow() -> tuple[bool, str, str]:
        carrier.follow(policy(), ())
        state = carrier.state()
        assert (state.name, state.acts) == ("bpf-prekill", True)
        return state.active, state.detail, state.last_error

    async def run() -> None:
        assert await follow() == (False, "oomslice-bpf.service is not running", "")
        report.write_text("prekill\tinactive\tthis kernel has no function f\n")
        assert await follow() == (False, "this kernel has no function f", "")
        assert written == []
        report.write_text("prekill\tactive\t\n")
        assert await follow() == (True, PREKILL, "")
        switch["enabled"] = False
        assert await follow() == (False, "switched off: carriers: prekill: no", "")
        assert written == [0, 1]
        switch.update(enabled=True, problem="broken")
        active, detail, error = await follow()
        assert (active, detail) == (False, "broken") and "Input/output error" in error
        switch["problem"] = ""
        assert await follow() == (True, PREKILL, "")

    asyncio.run(run())
    carrier.close()
