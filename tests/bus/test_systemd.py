# SPDX-License-Identifier: LGPL-2.1-or-later
"""What oomslicectl asks systemd by itself, as the daemon's worker does: of a PID 1 that is quick, slow or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from oomslice.cli import systemd
from oomslice.errors import UnitsError
from oomslice.units.model import UnitSnapshot
from tests.unit.fake_systemd import FakeSystemd, FakeUnit, needs_dbus_daemon, private_bus, systemd_on_bus

pytestmark = [pytest.mark.bus, needs_dbus_daemon]
FRAGMENT = "/usr/lib/systemd/system/ssh.service"


def usual_units() -> list[FakeUnit]:
    return [
        FakeUnit("-.slice", ""),
        FakeUnit("system.slice", "/system.slice"),
        FakeUnit(
            "ssh.service",
            "/system.slice/ssh.service",
            properties={"FragmentPath": FRAGMENT, "MemoryLow": 4096, "ManagedOOMPreference": "avoid"},
        ),
        FakeUnit("old.service", "", active_state="inactive", sub_state="dead"),
    ]


def asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    units: list[FakeUnit],
    change: Callable[[FakeSystemd], None] = lambda fake: None,
) -> UnitSnapshot:
    """What is said of these units."""
    cgroups, root = tmp_path / "cgroup", tmp_path / "root"
    cgroups.mkdir()
    for unit in units:
        (cgroups / unit.control_group.lstrip("/")).mkdir(parents=True, exist_ok=True)
    fragment = root / FRAGMENT.lstrip("/")
    fragment.parent.mkdir(parents=True)
    fragment.write_text("[Service]\nMemoryLow=4096\nManagedOOMPreference=avoid\n", encoding="utf-8")

    async def main() -> UnitSnapshot:
        async with private_bus(tmp_path) as address, systemd_on_bus(address, units) as fake:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
            change(fake)
            return await asyncio.to_thread(systemd.snapshot, cgroups, root)

    return asyncio.run(main())


def test_units_with_a_cgroup_and_what_their_files_mention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {unit.name: unit for unit in asked(tmp_path, monkeypatch, usual_units()).units}
    assert set(found) == {"-.slice", "system.slice", "ssh.service"}
    ssh = found["ssh.service"]
    assert (ssh.control_group, ssh.fragment_path) == ("/system.slice/ssh.service", FRAGMENT)
    assert (ssh.memory_low, ssh.memory_max, ssh.managed_oom_preference) == (4096, None, "avoid")


def test_what_a_systemd_does_not_know_is_left_at_its_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(tmp_path, monkeypatch, usual_units(), lambda fake: fake.unknown.add("ManagedOOMPreference"))
    assert {unit.name: unit.managed_oom_preference for unit in found.units}["ssh.service"] == "none"


def test_a_unit_that_ends_meanwhile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units = usual_units()
    units[2].properties["gone"] = True
    assert [unit.name for unit in asked(tmp_path, monkeypatch, units).units] == ["-.slice", "system.slice"]


def test_a_systemd_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "TIMEOUT_SEC", 0.1)

    def fall_silent(fake: FakeSystemd) -> None:
        fake.silent = True

    with pytest.raises(UnitsError, match="systemd did not answer Get 3 times"):
        asked(tmp_path, monkeypatch, usual_units(), fall_silent)


def test_without_a_systemd_or_a_bus_it_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with private_bus(tmp_path) as address:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
            await asyncio.to_thread(systemd.snapshot)

    with pytest.raises(UnitsError, match="systemd cannot be asked"):
        asyncio.run(main())
    with pytest.raises(UnitsError, match=r"systemd cannot be asked: the message bus .* cannot be reached"):
        systemd.snapshot()
