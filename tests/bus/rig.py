# SPDX-License-Identifier: LGPL-2.1-or-later
"""A private dbus-daemon under the bus policy that is installed, a backend with fixed answers, and busctl."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oomslice.bus.backend import ExplainedDomain, SliceRow
from oomslice.bus.members import SLICE, SLICE_FIGURES
from oomslice.carriers.model import CarrierState
from oomslice.daemon.commands import asked_step, check
from oomslice.decisions.history import History, MachineSample, UnitSample
from oomslice.decisions.record import Candidate, Decision, StepTaken
from oomslice.decisions.statistics import LATENCIES, Histogram, Key, Statistics
from oomslice.errors import NoSuchDecisionError, NoSuchUnitError, SettingsError
from oomslice.settings.model import Problem, Source

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "units" / "org.oomslice1.conf"
MANAGER = ("org.oomslice1", "/org/oomslice1", "org.oomslice1.Manager")

CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <include>{policy}</include>
  {more}
</busconfig>
"""


class PrivateBus:
    """A dbus-daemon as the system bus is set up: all is denied that a policy file does not allow."""

    def __init__(self, directory: Path, more: str = "") -> None:
        self.socket = directory / "bus"
        self.address = f"unix:path={self.socket}"
        self._configuration = directory / "bus.conf"
        self._configuration.write_text(CONFIGURATION.format(socket=self.socket, policy=POLICY, more=more))
        directory.chmod(0o755)
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Starts it and waits until it takes connections."""
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={self._configuration}", "--nofork", "--nopidfile", "--nosyslog"],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while not self._takes_connections():
            assert time.monotonic() < deadline and self.process.poll() is None, "dbus-daemon did not start"
            time.sleep(0.02)

    def _takes_connections(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(self.socket))
            return True
        return False

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        # Stopping is not instant.
        while Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends it at once, frozen or not."""
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Known:
    """A unit with its properties of org.oomslice1.Slice."""

    properties: Mapping[str, Any]


class FixedBackend:
    """A daemon with two units, whose answers a test may change."""

    version = "1.2.3"

    def __init__(self) -> None:
        self.stored = [decision(1), decision(2)]
        self.problems: list[Problem] = [
            Problem(Source("/etc/batch.conf", 3), "X-OOMSlice", "Priority", "high", "no number")
        ]
        self.fail: dict[str, Exception] = {}
        self.carrier_states = [
            CarrierState("core", True, True, "armed", hits=3),
            CarrierState("bpf", False, True, "not built", missed=2, last_error="no BTF"),
        ]
        self.reloads = 0
        self.asked: list[tuple[Any, ...]] = []
        self.known: Mapping[str, Known] = {name: unit(name) for name in ("-.slice", "batch.slice")}

    def _check(self, name: str) -> None:
        if name in self.fail:
            raise self.fail[name]

    def state(self) -> Mapping[str, Any]:
        self._check("state")
        return {
            "core_running": True,
            "plan_generation": 7,
            "plan_made_usec": 1_700_000_000_000_000,
            "machine": "-.slice",
            "load": 0.5,
            "others": ["systemd-oomd.service"],
            "nothing": None,
        }

    def carriers(self) -> Sequence[Mapping[str, Any]]:
        self._check("carriers")
        return [state.to_bus() for state in self.carrier_states]

    def configuration_errors(self) -> Sequence[Problem]:
        self._check("configuration_errors")
        return self.problems

    def slices(self) -> Sequence[SliceRow]:
        self._check("slices")
        return [
            SliceRow(
                name="-.slice",
                cgroup="/",
                priority=0,
                protected=False,
                candidate=False,
                priority_origin="default",
                actions="kill",
            ),
            SliceRow(
                name="batch.slice",
                cgroup="/batch.slice",
                priority=-200,
                protected=True,
                candidate=True,
                priority_origin="own",
                actions="warn kill@2s",
            ),
        ]

    def slice(self, name: str) -> Mapping[str, Any]:
        self._check("slice")
        if name != "batch.slice":
            raise NoSuchUnitError(f"no unit {name!r} is known")
        return {"priority": -200, "protect": True, "cgroup_id": 1234, "actions": ["warn", "kill@15s"]}

    def units(self) -> Mapping[str, object]:
        self._check("units")
        return self.known

    def described(self, unit: object) -> Mapping[str, Any]:
        self._check("described")
        assert isinstance(unit, Known)
        return unit.properties

    def figures(self, unit: object) -> Mapping[str, int]:
        self._check("figures")
        return {"MemoryCurrent": 4096, "MemoryReclaimable": 2048, "SwapCurrent": 0, "Refaults": 7}

    def decisions(self, since_usec: int, limit: int) -> Sequence[Decision]:
        self._check("decisions")
        return [item for item in reversed(self.stored) if item.realtime_usec >= since_usec][:limit]

    def decision(self, id: str) -> Decision:
        self._check("decision")
        for item in self.stored:
            if item.id == id:
                return item
        raise NoSuchDecisionError(f"there is no decision {id!r}")

    def history(self, id: str) -> History:
        self._check("history")
        self.decision(id)
        return History(
            (MachineSample(10, 2**40, 0, 30, 20), MachineSample(11, 4096, 0, 0, 0)), (UnitSample(10, "a.service", 5),)
        )

    def statistics(self) -> Statistics:
        self._check("statistics")
        decisions = {
            Key("hog.service", "kill", "core", "freed"): 3,
            Key('odd"\\\n.service', "freeze", "core", "held"): 1,
        }
        return Statistics(decisions, {name: Histogram().with_value(0.004).with_value(70) for name in LATENCIES})

    def memory(self) -> Mapping[str, int]:
        self._check("memory")
        return {
            "MemoryTotal": 2**34,
            "MemoryAvailable": 2**33,
            "MemoryAvailableLimit": 2**30,
            "SwapTotal": 0,
            "SwapFree": 0,
            "SwapFreeLimit": 0,
        }

    def explain(self) -> Sequence[ExplainedDomain]:
        self._check("explain")
        return [
            {
                "domain": "-.slice",
                "candidates": [
                    {
                        "name": "batch.slice",
                        "priority": -200,
                        "metric": 4096,
                        "verdict": "eligible",
                        "priority_origin": "own",
                        "reason": "smallest priority",
                    }
                ],
            }
        ]

    def simulate(self, settings: Mapping[str, Mapping[str, str]]) -> Sequence[ExplainedDomain]:
        self._check("simulate")
        self.asked.append(("simulate", {unit: dict(values) for unit, values in settings.items()}))
        return self.explain()

    def check_settings(self, unit: str, assignments: Mapping[str, str]) -> None:
        check(unit, assignments)

    async def set_settings(self, unit: str, assignments: Mapping[str, str], runtime: bool, uid: int) -> str:
        self.asked.append((unit, dict(assignments), runtime, uid))
        return f"/etc/systemd/system/{unit}.d/50-oomslice-set.conf"

    def check_step(self, unit: str, step: str) -> None:
        asked_step(step)

    async def act(self, unit: str, step: str, uid: int) -> str:
        self._check("act")
        self.asked.append((unit, step, uid))
        return "00000000000000aa-2"

    async def release(self, unit: str, uid: int) -> None:
        self._check("release")
        self.asked.append((unit, uid))

    async def reload(self) -> None:
        await asyncio.sleep(0)
        self._check("reload")
        self.reloads += 1


def decision(number: int) -> Decision:
    """A made-up decision; each number another."""
    return Decision(
        id=f"00000000000000aa-{number}",
        boot_id="b" * 32,
        carrier="core",
        trigger="memory-available",
        domain="-.slice",
        outcome="freed",
        realtime_usec=1_000_000 * number,
        trigger_usec=10,
        steps=(StepTaken("freeze", "done", "", 0, 0, 11, 12, 1 << 40, 5, undone_usec=99), StepTaken("kill", "done")),
        flags=("restarting",),
        victim=f"hog{number}.service",
        victim_priority=-200,
        victim_memory_before=1 << 40,
        pids=(11, 12),
        pressure_some_avg10=1.5,
        candidates=(
            Candidate("hog.service", 99, -200, 1 << 33, "chosen"),
            Candidate("web.service", 7, 5, 1, "eligible"),
        ),
        candidates_total=2,
        extra={"victim_metric": 5, "note": "x", "list": [1, 2]},
    )


def unit(name: str, **changes: Any) -> Known:
    """A made-up unit."""
    samples: Mapping[str, Any] = {"s": "", "b": False, "i": 0, "t": 0, "a{ss}": {}}
    values = {item.name: samples[item.signature] for item in SLICE.properties if item.name not in SLICE_FIGURES}
    return Known({**values, "Name": name, "CgroupId": 1234, "Priority": -200, **changes})


def bad_reload() -> SettingsError:
    return SettingsError("/etc/oomslice/oomslice.yaml:3: no such tier")


async def ran(*command: str) -> tuple[int, str, str]:
    """Runs a program while the loop goes on: exit status, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def busctl(address: str, *arguments: str, uid: int | None = None, timeout: float = 60) -> tuple[int, str, str]:
    """Runs busctl while the loop goes on: exit status, output, errors."""
    prefix = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid is not None else []
    return await ran(*prefix, "busctl", f"--address={address}", "--no-pager", f"--timeout={timeout:g}", *arguments)


async def call(address: str, method: str, *arguments: str, uid: int | None = None) -> Any:
    """The data of a successful call of the manager, as busctl's JSON gives it."""
    code, output, errors = await busctl(address, "--json=short", "call", *MANAGER, method, *arguments, uid=uid)
    assert code == 0, errors
    return json.loads(output)["data"] if output.strip() else None


async def get(address: str, name: str) -> Any:
    """A property with its type, as busctl's JSON gives it."""
    code, output, errors = await busctl(address, "--json=short", "get-property", *MANAGER, name)
    assert code == 0, errors
    return json.loads(output)
