# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl against the real service on a bus of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from oomslice.bus.service import BusService
from oomslice.cli.failure import Exit
from tests.bus.rig import ROOT, FixedBackend, PrivateBus
from tests.unit.test_cli_render import STATE

pytestmark = pytest.mark.bus


class DaemonLikeBackend(FixedBackend):
    """The fixed answers, with the keys that the daemon gives."""

    def state(self) -> dict[str, Any]:
        return dict(STATE)

    def slice(self, name: str) -> dict[str, Any]:
        super().slice(name)
        return {"Name": name, "Priority": -200, "RankBy": "memory", "Sources": {"Priority": "/etc/batch.conf:3"}}


async def oomslicectl(address: str, *arguments: str) -> tuple[int, str, str]:
    """Runs it while the loop goes on: exit status, output, errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "oomslice.cli.main",
        *arguments,
        cwd=ROOT,
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


def asked(bus: PrivateBus, *arguments: str) -> tuple[int, str, str]:
    """One call while the service runs."""

    async def main() -> tuple[int, str, str]:
        service = BusService(DaemonLikeBackend(), address=bus.address)
        assert await service.start()
        try:
            return await oomslicectl(bus.address, *arguments)
        finally:
            await service.stop()

    return asyncio.run(main())


def test_status(bus: PrivateBus) -> None:
    code, output, errors = asked(bus, "status")
    assert (code, errors) == (Exit.OK, "")
    assert "oomslice 1.2.3: armed" in output
    assert "/etc/batch.conf:3: Priority=high: no number" in output


def test_slices_and_the_settings_of_one(bus: PrivateBus) -> None:
    code, output, errors = asked(bus, "slices")
    assert (code, errors) == (Exit.OK, "")
    assert "batch.slice" in output
    code, output, errors = asked(bus, "slices", "batch.slice")
    assert (code, errors) == (Exit.OK, "")
    assert "Priority: -200  (/etc/batch.conf:3)" in output


def test_decisions_and_one_of_them(bus: PrivateBus) -> None:
    code, output, errors = asked(bus, "decisions", "--no-legend")
    assert (code, errors) == (Exit.OK, "")
    assert [line.split()[0] for line in output.splitlines()] == ["00000000000000aa-2", "00000000000000aa-1"]
    code, output, errors = asked(bus, "show", "--json")
    assert (code, errors) == (Exit.OK, "")
    decision = json.loads(output)
    assert decision["id"] == "00000000000000aa-2"
    assert decision["candidates"][0] == {
        "name": "hog.service",
        "cgroup_id": 99,
        "priority": -200,
        "metric": 1 << 33,
        "verdict": "chosen",
    }


def test_report(bus: PrivateBus, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    code, output, errors = asked(bus, "report", "-o", str(file), "00000000000000aa-1")
    assert (code, errors) == (Exit.OK, "")
    assert output == f"{file}: 1 decision\n"
    assert "hog1.service was killed because memory was short" in file.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.glob("*.html")] == ["report.html"]
    code, output, errors = asked(bus, "report", "--since", "@0")
    assert (code, errors) == (Exit.OK, "")
    assert output.startswith("<!DOCTYPE html>")
    assert "2 decisions since" in output
    assert "hog1.service" in output and "hog2.service" in output
    code, output, errors = asked(bus, "report", "--json", "--since", "@0", "-o", str(file))
    assert json.loads(output)["decisions"] == ["00000000000000aa-2", "00000000000000aa-1"]


def test_a_report_that_cannot_be_written_leaves_what_was_there(bus: PrivateBus, tmp_path: Path) -> None:
    code, _, errors = asked(bus, "report", "-o", str(tmp_path / "nosuch" / "report.html"))
    assert code == Exit.FAILED
    assert "No such file or directory" in errors
    code, _, errors = asked(bus, "report", "-o", "/dev/null")
    assert (code, errors) == (Exit.OK, "")
    assert Path("/dev/null").is_char_device()
    code, _, errors = asked(bus, "report", "--since", "@0", "00000000000000aa-1")
    assert code == Exit.USAGE
    file = tmp_path / "report.html"
    file.write_text("before", encoding="utf-8")
    code, _, errors = asked(bus, "report", "-o", str(file), "nosuch-1")
    assert code == Exit.FAILED
    assert file.read_text(encoding="utf-8") == "before"


def test_explain(bus: PrivateBus) -> None:
    code, output, errors = asked(bus, "explain")
    assert (code, errors) == (Exit.OK, "")
    assert "smallest priority" in output
    code, output, errors = asked(bus, "explain", "batch.slice")
    assert (code, errors) == (Exit.OK, "")
    assert "batch.slice would be chosen" in output
    code, output, errors = asked(bus, "explain", "--json", "batch.slice")
    (standing,) = json.loads(output)
    assert (standing["name"], standing["domain"], standing["place"]) == ("batch.slice", "-.slice", 1)


def test_set_fails_if_another_file_overrules_it(bus: PrivateBus) -> None:
    code, output, _ = asked(bus, "set", "batch.slice", "Priority=-5")
    assert code == Exit.FAILED
    assert "Priority=-5 is NOT in force: /etc/batch.conf:3 comes after it." in output


@pytest.mark.parametrize("arguments", [("show", "nosuch-1"), ("slices", "nosuch.service"), ("explain", "nosuch.slice")])
def test_what_is_not_there_fails_with_a_sentence(bus: PrivateBus, arguments: tuple[str, ...]) -> None:
    code, output, errors = asked(bus, *arguments)
    assert (code, output) == (Exit.FAILED, "")
    assert "nosuch" in errors.splitlines()[0]
    assert "Traceback" not in errors


def test_a_daemon_that_is_not_there(bus: PrivateBus) -> None:
    code, output, errors = asyncio.run(oomslicectl(bus.address, "status"))
    # 5 where the package is not installed either, as on most machines that run this test
    assert code in (Exit.NOT_RUNNING, Exit.NOT_INSTALLED)
    assert output == ""
    assert errors.startswith("oomslicectl: ")


def test_doctor_judges_what_the_daemon_says(bus: PrivateBus) -> None:
    code, output, errors = asked(bus, "doctor", "--json")
    assert errors == ""
    checks = {check["name"]: check for check in json.loads(output)["checks"] if check["group"] == "oomslice"}
    assert checks["core"]["verdict"] == "ok"
    assert (checks["configuration"]["verdict"], checks["configuration"]["found"]) == ("problem", "1 problem")
    assert checks["version"]["verdict"] == "note"  # the service of this test calls itself 1.2.3
    assert code == Exit.FAILED
