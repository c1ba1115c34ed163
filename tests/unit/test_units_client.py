# SPDX-License-Identifier: LGPL-2.1-or-later
"""The worker process against a fake PID 1 on a bus of its own, and the client against workers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oomslice.errors import UnitsError
from oomslice.units.client import UnitsClient, worker_command
from tests.unit.fake_systemd import FakeSystemd, FakeUnit, needs_dbus_daemon, private_bus, systemd_on_bus

bus = pytest.mark.bus
pytest.importorskip("pystemd", reason="pystemd is not installed (Debian package python3-pystemd)")


def usual_units() -> list[FakeUnit]:
    return [
        FakeUnit("-.slice", ""),
        FakeUnit("system.slice", "/system.slice"),
        FakeUnit(
            "ssh.service",
            "/system.slice/ssh.service",
            properties={
                "FragmentPath": "/usr/lib/systemd/system/ssh.service",
                "DropInPaths": ["/etc/systemd/system/service.d/a.conf", "/etc/systemd/system/ssh.service.d/b.conf"],
                "NeedDaemonReload": True,
                "Delegate": True,
                "ManagedOOMPreference": "avoid",
                "ManagedOOMMemoryPressure": "kill",
                "OOMScoreAdjust": -900,
                "MemoryLow": 4096,
                "MemoryMax": 1 << 40,
            },
        ),
        FakeUnit(
            "session-1.scope",
            "/user.slice/user-0.slice/session-1.scope",
            properties={"Transient": True, "FragmentPath": "/run/systemd/transient/session-1.scope"},
        ),
        FakeUnit("old.service", "", active_state="inactive", sub_state="dead"),
        FakeUnit("done.service", "", sub_state="exited"),
        FakeUnit("dev-sda.device", "", sub_state="plugged"),
        FakeUnit("syslog.socket", "/system.slice/syslog.socket", sub_state="listening"),
    ]


class Bed:
    """Fake, client and cgroup tree of one test."""

    def __init__(self, fake: FakeSystemd, client: UnitsClient, cgroups: Path, root: Path) -> None:
        self.fake = fake
        self.client = client
        self.cgroups = cgroups
        self.root = root

    def make_files(self) -> None:
        """The cgroups and unit files of the fake's units; those hold the properties that the unit has."""
        for unit in self.fake.units:
            if unit.control_group:
                (self.cgroups / unit.control_group.lstrip("/")).mkdir(parents=True, exist_ok=True)
            for path in (unit.properties.get("FragmentPath"), *unit.properties.get("DropInPaths", ())):
                if path:
                    file = self.root / path.lstrip("/")
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text("".join(f"{name}={value}\n" for name, value in unit.properties.items()))


@contextlib.asynccontextmanager
async def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, units: list[FakeUnit]) -> AsyncIterator[Bed]:
    async with private_bus(tmp_path) as address, systemd_on_bus(address, units) as fake:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        cgroups = tmp_path / "cgroup"
        cgroups.mkdir()
        root = tmp_path / "root"
        command = [*worker_command(), f"--cgroup-root={cgroups}", f"--root={root}"]
        client = UnitsClient(timeout=20, command=command)
        try:
            made = Bed(fake, client, cgroups, root)
            made.make_files()
            yield made
        finally:
            await client.close()


@bus
@needs_dbus_daemon
def test_snapshot_has_what_systemd_says_of_units_with_a_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            snapshot = await it.client.snapshot()
            units = {unit.name: unit for unit in snapshot.units}
            assert set(units) == {"-.slice", "system.slice", "ssh.service", "session-1.scope"}
            assert not snapshot.oomd_active
            assert units["-.slice"].control_group == "/"
            ssh = units["ssh.service"]
            assert ssh.control_group == "/system.slice/ssh.service"
            assert ssh.fragment_path == "/usr/lib/systemd/system/ssh.service"
            assert ssh.drop_in_paths == (
                "/etc/systemd/system/service.d/a.conf",
                "/etc/systemd/system/ssh.service.d/b.conf",
            )
            assert ssh.need_daemon_reload and ssh.delegate and not ssh.transient
            assert ssh.active_state == "active"
            assert (ssh.managed_oom_swap, ssh.managed_oom_memory_pressure) == ("auto", "kill")
            assert ssh.managed_oom_preference == "avoid"
            assert ssh.oom_score_adjust == -900
            assert (ssh.memory_min, ssh.memory_low, ssh.memory_high, ssh.memory_max) == (0, 4096, None, 1 << 40)
            assert units["session-1.scope"].transient
            assert units["session-1.scope"].oom_score_adjust is None

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_second_snapshot_asks_only_for_the_list_and_for_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            first = await it.client.snapshot(full=True)
            it.fake.asked.clear()
            second = await it.client.snapshot()
            assert second == first
            assert it.fake.asked == {"ListUnits": 1, "UnitsLoadTimestamp": 1}
            it.fake.units.append(FakeUnit("new.service", "/system.slice/new.service"))
            it.fake.units[4].active_state = "active"
            it.fake.units[4].sub_state = "running"
            it.fake.units[4].control_group = "/system.slice/old.service"
            it.make_files()
            names = {unit.name for unit in (await it.client.snapshot()).units}
            assert {"new.service", "old.service"} <= names
            assert it.fake.asked["FragmentPath"] == 2
            it.fake.units.pop()
            assert "new.service" not in {unit.name for unit in (await it.client.snapshot()).units}

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_unit_whose_cgroup_was_made_anew_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            await it.client.snapshot()
            it.fake.units[2].control_group = "/other.slice/ssh.service"
            (it.cgroups / "system.slice/ssh.service").rmdir()
            it.make_files()
            units = {unit.name: unit for unit in (await it.client.snapshot()).units}
            assert units["ssh.service"].control_group == "/other.slice/ssh.service"

    asyncio.run(run())


@bus
@needs_dbus_daemon
@pytest.mark.parametrize("how", ["full", "reload"])
def test_full_snapshot_or_a_daemon_reload_reads_all_anew(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            await it.client.snapshot()
            it.fake.units[2].properties["NeedDaemonReload"] = False
            it.fake.units[2].properties["DropInPaths"] = []
            stale = {unit.name: unit for unit in (await it.client.snapshot()).units}["ssh.service"]
            assert stale.need_daemon_reload and len(stale.drop_in_paths) == 2
            if how == "reload":
                it.fake.loaded_usec = 2_000_000
            fresh = {unit.name: unit for unit in (await it.client.snapshot(full=how == "full")).units}["ssh.service"]
            assert not fresh.need_daemon_reload and fresh.drop_in_paths == ()

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_systemd_that_lacks_properties_gets_the_defaults_and_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            it.fake.unknown = {"ManagedOOMPreference", "UnitsLoadTimestamp"}
            for _ in range(3):
                units = {unit.name: unit for unit in (await it.client.snapshot(full=True)).units}
            assert units["ssh.service"].managed_oom_preference == "none"
            assert it.fake.asked["UnitsLoadTimestamp"] == 1
            assert it.fake.asked["ManagedOOMPreference"] == 1

    asyncio.run(run())


HOUR_USEC = 3_600_000_000


@bus
@needs_dbus_daemon
def test_only_what_files_mention_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        units = [
            FakeUnit("-.slice", "/"),
            FakeUnit("a.slice", "/a.slice"),
            FakeUnit("plain.service", "/a.slice/plain.service", properties={"FragmentPath": "/etc/plain.service"}),
            FakeUnit(
                "limited.service",
                "/a.slice/limited.service",
                properties={"FragmentPath": "/etc/limited.service", "MemoryMax": 9, "OOMScoreAdjust": -5},
            ),
        ]
        async with bed(tmp_path, monkeypatch, units) as it:
            it.fake.loaded_usec = time.time_ns() // 1000 + HOUR_USEC
            snapshot = await it.client.snapshot(full=True)
            limited = snapshot.units[-1]
            assert (limited.memory_max, limited.oom_score_adjust) == (9, -5)
            assert it.fake.asked == {
                "UnitsLoadTimestamp": 1,
                "UnitPath": 1,
                "ListUnits": 1,
                "ControlGroup": 1,
                "FragmentPath": 4,
                "DropInPaths": 4,
                "MemoryMax": 1,
                "OOMScoreAdjust": 1,
            }
            # What cannot be read may say anything.
            (it.root / "etc/plain.service").unlink()
            it.fake.asked.clear()
            await it.client.snapshot(full=True)
            assert it.fake.asked["MemoryMax"] == 2 and it.fake.asked["ManagedOOMSwap"] == 1

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_need_of_a_reload_is_asked_for_where_something_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            system = it.root / "usr/lib/systemd/system"
            time.sleep(0.05)
            it.fake.loaded_usec = time.time_ns() // 1000
            await it.client.snapshot(full=True)
            assert it.fake.asked["NeedDaemonReload"] == 0
            time.sleep(0.05)
            with (system / "ssh.service").open("a") as file:
                file.write("# edited in place\n")
            await it.client.snapshot(full=True)
            assert it.fake.asked["NeedDaemonReload"] == 1
            it.fake.loaded_usec = time.time_ns() // 1000 + 100_000
            await it.client.snapshot()
            assert it.fake.asked["NeedDaemonReload"] == 1
            time.sleep(0.2)
            (system / "other.service.d").mkdir()
            units = (await it.client.snapshot(full=True)).units
            assert it.fake.asked["NeedDaemonReload"] == 1 + len(units)

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_of_two_directories_with_a_units_name_systemd_says_which_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            (it.cgroups / "left.slice/ssh.service").mkdir(parents=True)
            (it.cgroups / "system.slice/other.service/ssh.service").mkdir(parents=True)
            for full in (True, False):
                units = {unit.name: unit for unit in (await it.client.snapshot(full=full)).units}
                assert units["ssh.service"].control_group == "/system.slice/ssh.service"

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_escaped_cgroup_names_and_a_root_that_is_not_the_top_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        top = "/machine.slice/one.scope"
        units = [FakeUnit("-.slice", top), FakeUnit("memory.service", f"{top}/a.slice/_memory.service")]
        async with bed(tmp_path, monkeypatch, units) as it:
            found = {unit.name: unit.control_group for unit in (await it.client.snapshot()).units}
            assert found == {"-.slice": top, "memory.service": f"{top}/a.slice/_memory.service"}

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_unit_that_ended_while_it_was_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            it.fake.units[2].properties["gone"] = True
            names = {unit.name for unit in (await it.client.snapshot()).units}
            assert names == {"-.slice", "system.slice", "session-1.scope"}

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_oomd_is_active_when_its_service_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        units = [*usual_units(), FakeUnit("systemd-oomd.service", "/system.slice/systemd-oomd.service")]
        async with bed(tmp_path, monkeypatch, units) as it:
            assert (await it.client.snapshot()).oomd_active
            units[-1].active_state = "inactive"
            it.fake.units = units
            assert not (await it.client.snapshot()).oomd_active

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_systemd_that_does_not_answer_is_an_error_within_seconds_and_forgiven_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            it.fake.silent = True
            with pytest.raises(UnitsError, match="did not answer"):
                await it.client.snapshot()
            it.fake.silent = False
            assert (await it.client.snapshot()).units

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_systemd_that_falls_silent_once_while_it_reloads_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            await it.client.snapshot()
            it.fake.silent = True
            question = asyncio.create_task(it.client.snapshot())
            await asyncio.sleep(1)
            it.fake.silent = False
            assert (await question).units

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_worker_killed_between_two_questions_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            first = await it.client.snapshot()
            pid = it.client.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert await it.client.snapshot() == first
            assert it.client.pid not in (None, pid)

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_stopped_worker_is_killed_and_the_next_question_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            first = await it.client.snapshot()
            it.client._timeout = 1
            pid = it.client.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(UnitsError, match="said nothing for 1 s"):
                await it.client.snapshot()
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            it.client._timeout = 20
            assert await it.client.snapshot() == first

    asyncio.run(run())


@bus
@needs_dbus_daemon
def test_once_prints_the_snapshot_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with bed(tmp_path, monkeypatch, usual_units()) as it:
            process = await asyncio.create_subprocess_exec(
                *worker_command(),
                "--once",
                f"--cgroup-root={it.cgroups}",
                f"--root={it.root}",
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.getcwd()},
            )
            output, _ = await process.communicate()
            assert process.returncode == 0
            printed = json.loads(output)
            assert printed["oomd_active"] is False
            assert [unit["name"] for unit in printed["units"]][:3] == ["-.slice", "system.slice", "ssh.service"]
            assert printed["units"][2]["memory_high"] is None

    asyncio.run(run())


def test_no_bus_at_all_is_an_error_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
        client = UnitsClient(timeout=20)
        with pytest.raises(UnitsError, match="system bus cannot be reached"):
            await client.snapshot()
        assert client.pid is None

    asyncio.run(run())


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_worker_that_sleeps_is_killed_after_the_timeout() -> None:
    async def run() -> None:
        client = UnitsClient(timeout=0.5, command=python("import time; time.sleep(60)"))
        with pytest.raises(UnitsError, match="said nothing"):
            await client.snapshot()
        assert client.pid is None

    asyncio.run(run())


def test_worker_that_only_shows_signs_of_life_is_killed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its signs come twenty times as often as they must: a busy machine is no silence.
    monkeypatch.setattr("oomslice.units.client.TOTAL_FACTOR", 2)
    text = 'import time\nwhile True:\n print(\'{"id": 1, "progress": 1}\', flush=True)\n time.sleep(0.05)'

    async def run() -> None:
        client = UnitsClient(timeout=1, command=python(text))
        began = time.monotonic()
        with pytest.raises(UnitsError, match="took more than 2 s"):
            await client.snapshot()
        assert time.monotonic() - began >= 2

    asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input(); print('nonsense', flush=True); input()", "not JSON"),
        ("input(); print('[]', flush=True); input()", "not a JSON object"),
        ('input(); print(\'{"id": 1, "units": [[1]], "oomd_active": false}\', flush=True); input()', "no snapshot"),
        ("input(); raise SystemExit(7)", "status 7"),
        ("import os; input(); os.abort()", "signal 6"),
        ("raise SystemExit(3)", "status 3"),
    ],
)
def test_worker_that_talks_nonsense_or_dies_is_an_error_and_not_left_behind(text: str, message: str) -> None:
    async def run() -> None:
        client = UnitsClient(timeout=60, command=python(text))
        with pytest.raises(UnitsError, match=message):
            await client.snapshot()
        assert client.pid is None
        await client.close()

    asyncio.run(run())


def test_answer_to_a_question_that_nobody_waits_for_is_not_taken_for_the_next() -> None:
    text = (
        "import json, sys, time\n"
        "for line in sys.stdin:\n"
        "    number = json.loads(line)['id']\n"
        "    time.sleep(1 if number == 1 else 0)\n"
        "    print(json.dumps({'id': number, 'units': [], 'oomd_active': number == 2}), flush=True)\n"
    )

    async def run() -> None:
        client = UnitsClient(timeout=60, command=python(text))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.snapshot(), 0.5)
        assert (await client.snapshot()).oomd_active
        await client.close()

    asyncio.run(run())


def test_worker_that_cannot_be_started_is_an_error() -> None:
    async def run() -> None:
        with pytest.raises(UnitsError, match="cannot be started"):
            await UnitsClient(command=["/nonexistent/worker"]).snapshot()

    asyncio.run(run())
