# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a call of oomslicectl imports before its first output, with a daemon and a systemd that answer: that is what its
start takes. No clock is looked at; `docs/benchmarks.md` has figures."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from oomslice.bus.service import BusService
from tests.bus.rig import ROOT, PrivateBus, decision
from tests.bus.test_cli import DaemonLikeBackend
from tests.unit.fake_systemd import FakeSystemd, FakeUnit, needs_dbus_daemon, private_bus, systemd_on_bus
from tests.unit.test_cli_main import FOR_A_QUESTION, HEAVY

pytestmark = pytest.mark.bus

FOR_SETTINGS = frozenset({"dataclasses", "inspect", "yaml", "oomslice.settings", "oomslice.units"})
"""What reading unit files and YAML needs."""
FOR_THE_CHOICE = FOR_SETTINGS | {"oomslice._core"}
FOR_A_RECORD = frozenset({"dataclasses", "inspect"})
FOR_SYSTEMCTL = frozenset({"subprocess", "oomslice._core"})
SPY = """
import sys
class Spy:
    def __init__(self, stream): self.stream = stream
    def write(self, text):
        if not seen: seen.append(set({heavy!r}) & set(sys.modules))
        return self.stream.write(text)
    def __getattr__(self, name): return getattr(self.stream, name)
seen = []
out, sys.stdout = sys.stdout, Spy(sys.stdout)
{before}
from oomslice.cli.main import main
try: main({arguments!r})
except SystemExit: pass
out.flush()
print("heavy:", *sorted(seen[0]) if seen else ["nothing was printed"], file=sys.stderr)
"""


async def imported(address: str, *arguments: str, before: str = "") -> set[str]:
    """Which of the heavy modules a call had imported when it printed its first character."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SPY.format(heavy=list(HEAVY), arguments=list(arguments), before=before)),
        cwd=ROOT,
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    said = errors.decode().splitlines()[-1]
    assert said.startswith("heavy:"), errors.decode()
    return set(said.split()[1:])


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        *((call, frozenset[str]()) for call in ("status", "slices", "decisions", "explain", "metrics", "top --once")),
        ("show", FOR_A_RECORD),
        ("doctor", FOR_SYSTEMCTL),
    ],
)
def test_with_a_daemon_a_verb_imports_what_it_needs(bus: PrivateBus, call: str, allowed: frozenset[str]) -> None:
    async def main() -> set[str]:
        service = BusService(DaemonLikeBackend(), address=bus.address)
        assert await service.start()
        try:
            return await imported(bus.address, *call.split())
        finally:
            await service.stop()

    assert asyncio.run(main()) <= FOR_A_QUESTION | allowed


def test_monitor_is_there_before_anything_heavy_is(bus: PrivateBus) -> None:
    async def main() -> set[str]:
        service = BusService(DaemonLikeBackend(), address=bus.address)
        assert await service.start()
        try:
            call = asyncio.create_task(imported(bus.address, "monitor", "--json", "--count", "1"))
            while not call.done():  # it hears only what comes after it has come
                await service.decision_made(decision(1))
                await asyncio.sleep(0.2)
            return await call
        finally:
            await service.stop()

    assert asyncio.run(main()) <= FOR_A_QUESTION


@needs_dbus_daemon
@pytest.mark.parametrize(("call", "allowed"), [("verify", FOR_SETTINGS), ("simulate", FOR_THE_CHOICE)])
def test_without_a_daemon_a_verb_imports_what_it_needs(tmp_path: Path, call: str, allowed: frozenset[str]) -> None:
    # Where there is no cgroup v2: a tree that looks like one.
    tree = f"""
import functools, oomslice.cgroups
import oomslice.cgroups.tree as tree
from pathlib import Path
tree.CgroupTree = functools.partial(tree.CgroupTree, Path({str(ROOT / "tests/fixtures/cgroups/desktop")!r}))
"""

    async def main() -> tuple[set[str], FakeSystemd]:
        units = [FakeUnit("-.slice", ""), FakeUnit("system.slice", "/system.slice")]
        async with private_bus(tmp_path) as address, systemd_on_bus(address, units) as fake:
            return await imported(address, call, before=tree if call == "simulate" else ""), fake

    loaded, fake = asyncio.run(main())
    assert fake.asked["ListUnits"] == 1
    assert loaded <= FOR_A_QUESTION | allowed
