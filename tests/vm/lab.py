# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a scenario does with a machine: drop-ins, services and hogs, and questions about decisions.

Owns: everything a scenario leaves in the machine, and its removal. Asks oomslice the way an administrator would, over
the system bus with busctl and with oomslicectl.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from .machine import CommandError, Machine

CGROUPS = "/sys/fs/cgroup"
EVENTS = "/run/oomtest/events"
HOG = "/opt/vmtest/hog"
SERVICE = "/opt/vmtest/service"
OOMD = "systemd-oomd.service systemd-oomd.socket"
SETTLED_MB = 64
"""MemAvailable may differ from what it was by this much between scenarios."""
AHEAD_MB = 320
"""A hog grows as fast as it can until no more than this is available. That is a third more than from where on the core
watches (a quarter of the machine), so all that a scenario is about comes after it, at the hog's own rate."""
RESTART_SEC = 15
"""A service that is started anew waits so long: time to look at it while it is dead."""
OOM_KILLED = {"Result": "oom-kill", "NRestarts": "1", "ActiveState": "active", "OnFailure": "started"}
"""Lab.fate() of a service that systemd-oomd killed, and so of one that oomslice killed."""


class Lab:
    """One scenario's hold on the machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.started_usec = 0
        self.kernel_kills = 0
        self.available_mb = 0
        self._units: list[str] = []
        self._files: list[str] = []
        self._masked = False
        self._swap: list[str] = []

    # Before and after

    def settle(self) -> None:
        """Wait until oomslice is up and armed, and note where the counters stand."""
        if not self.armed():
            self.machine.check("systemctl start oomslice-core.service oomsliced.service", timeout=120)
        self.machine.wait_for("oomslice is armed", self.armed, timeout=120, interval=0.5)
        figures = self.machine.check(
            "mkdir -p /run/oomtest; date +%s%6N; grep -w oom_kill /proc/vmstat; grep MemAvailable /proc/meminfo"
        ).split()
        self.started_usec, self.kernel_kills, self.available_mb = (
            int(figures[0]),
            int(figures[2]),
            int(figures[4]) // 1024,
        )

    def clean_up(self) -> None:
        """Leave nothing of this scenario in the machine, even if it failed half-way."""
        machine = self.machine
        # The shell itself where it can: each systemctl takes up to a second here.
        commands = [
            f"while read -r pid; do kill -CONT $pid; done < {CGROUPS}/system.slice/oomsliced.service/cgroup.procs"
        ]
        if self._units:
            units = " ".join(shlex.quote(unit) for unit in reversed(self._units))
            commands.append(f"systemctl kill -s KILL {units} 2>/dev/null; systemctl stop {units}")
        if self._masked:
            commands.append(f"systemctl unmask --runtime {OOMD}")
        if self._files:
            files = " ".join(shlex.quote(path) for path in self._files)
            commands.append(f"rm -f {files}; rmdir --ignore-fail-on-non-empty $(dirname {files} | sort -u)")
        if any("/systemd/" in path for path in self._files):
            commands.append("systemctl daemon-reload")
        if any("oomslice.yaml" in path for path in self._files):
            commands.append("systemctl reload oomsliced.service")
        commands += [
            "rm -rf /home/tester/.config /run/oomtest",
            "systemctl reset-failed",
        ]
        machine.run("\n".join(commands), timeout=300)
        for device in self._swap:
            machine.check(f"swapoff {device}", timeout=300)
            if "zram" in device:
                # udev may still be looking at what is no swap any more.
                remove = f"echo {device.removeprefix('/dev/zram')} > /sys/class/zram-control/hot_remove"
                machine.check(f"until {remove}; do sleep 0.3; done", timeout=60)
        machine.wait_for(
            "memory is free again", lambda: machine.available_mb() > self.available_mb - SETTLED_MB, timeout=60
        )

    def use_swap(self) -> None:
        """Turn the machine's swap on, until the scenario ends."""
        self.machine.check("swapon /dev/vdc")
        self._swap.append("/dev/vdc")

    def use_zram(self, mb: int) -> None:
        """Swap that is compressed into memory, until the scenario ends."""
        device = self.machine.check("modprobe zram num_devices=0 && cat /sys/class/zram-control/hot_add").strip()
        name = f"/dev/zram{device}"
        self.machine.check(f"echo {mb}M > /sys/block/zram{device}/disksize && mkswap -q {name} && swapon {name}")
        self._swap.append(name)

    # Settings

    def drop_in(self, unit: str, settings: str) -> None:
        """Write [X-OOMSlice] settings for a unit, as an administrator would. apply() makes them count."""
        self.write(f"/etc/systemd/system/{unit}.d/50-oomslice.conf", f"[X-OOMSlice]\n{settings}\n")

    def configure(self, text: str) -> None:
        """Write a drop-in of oomslice.yaml and reload."""
        self.write("/etc/oomslice/oomslice.yaml.d/50-test.yaml", text)
        self.machine.check("systemctl reload oomsliced.service", timeout=120)

    def kernel_alone(self, carriers: str = "") -> None:
        """Inside the kernel nobody kills but its own killer. `carriers`: more lines below that key of oomslice.yaml."""
        self.configure(f"carriers:\n  prekill: no\n{carriers}")
        self.machine.wait_for(
            "prekill is off",
            lambda: not any(one["Name"] == "bpf-prekill" and one["Active"] for one in self.property("Carriers")),
            30,
            0.3,
        )

    def write(self, path: str, text: str) -> None:
        """Write a file that is removed after the scenario."""
        self.machine.put(path, text)
        self._files.append(path)

    def daemon_reload(self) -> None:
        """systemctl daemon-reload."""
        self.machine.check("systemctl daemon-reload", timeout=120)

    # Units

    def start(self, unit: str, command: str, *, slice: str = "system.slice", **properties: str) -> None:
        """Start a transient service that is stopped after the scenario."""
        self._units.append(unit)
        self.machine.start_service(unit, command, slice=slice, **properties)

    def start_again(self, unit: str, command: str, *, slice: str = "system.slice", **properties: str) -> None:
        """Start a service that systemd starts again if it fails: `command` is its first life, then it only waits."""
        self.write(
            "/etc/systemd/system/failed@.service",
            "[Service]\nType=oneshot\nExecStart=/usr/bin/touch /run/oomtest/failed-%i\n",
        )
        self.start(
            unit,
            f"/bin/sh -c 'mkdir /run/oomtest/lived-{unit} && exec {command}; exec sleep 1000'",
            slice=slice,
            Restart="on-failure",
            RestartSec=f"{RESTART_SEC}s",
            OnFailure=f"failed@{unit}.service",
            OOMPolicy="stop",
            **properties,
        )

    def fate(self, unit: str, timeout: float = 120.0) -> dict[str, str]:
        """What systemd made of the death of a service of start_again(): see OOM_KILLED. Waits until it is back."""

        def died() -> str:
            found = self.machine.properties(unit, "SubState", "Result")
            return found["Result"] if found["SubState"].startswith("auto-restart") else ""

        result = self.machine.wait_for(f"{unit} has failed", died, timeout, 0.2)
        self.machine.wait_for(f"{unit} is back", lambda: self.machine.active(unit), RESTART_SEC + 60, 0.5)
        told = self.machine.run(f"test -e /run/oomtest/failed-{unit}").rc == 0
        return {
            "Result": result,
            **self.machine.properties(unit, "NRestarts", "ActiveState"),
            "OnFailure": "started" if told else "not started",
        }

    def adopt(self, unit: str) -> None:
        """A unit that something else starts is stopped after the scenario, too."""
        self._units.append(unit)

    def start_service(self, unit: str, mb: int, *, slice: str = "system.slice", **properties: str) -> None:
        """Start a service that holds and uses `mb` MiB, and wait until it has them."""
        self.start(unit, f"{SERVICE} {mb} /run/oomtest/{unit}", slice=slice, Type="notify", **properties)

    def start_hog(
        self,
        unit: str,
        rate: int = 60,
        max_mb: int = 4000,
        children: int = 0,
        *,
        slice: str = "system.slice",
        wait_for: str = "",
        ahead: int | None = None,
        options: str = "",
        **properties: str,
    ) -> None:
        """Start a service that grows as fast as it can until the machine has only `ahead` MiB, then by `rate` MiB/s.

        With `wait_for` it stops in between until go(`wait_for`) is called. Without `ahead`, one that wants more than
        the machine has leaves AHEAD_MB, and any other has its `rate` from the start.
        """
        if ahead is None:
            ahead = AHEAD_MB if max_mb > self.available_mb + 100 else 0
        options += f" -c {children}" + (f" -a {ahead}" if ahead else "")
        if wait_for:
            options += f" -w /run/oomtest/{wait_for}"
        self.start(unit, f"{HOG} {options} {rate} {max_mb}", slice=slice, **properties)

    def go(self, name: str = "go") -> None:
        """Let the hogs grow that wait for the file `name`."""
        self.machine.check(f"touch /run/oomtest/{name}")

    def lives(self, unit: str) -> bool:
        """Whether the service still does its work: its count grows."""
        path = f"/run/oomtest/{unit}"
        return self.machine.active(unit) and bool(
            self.machine.check(
                f"read before < {path}; for i in $(seq 100); do read now < {path};"
                ' [ "$now" != "$before" ] && echo yes && break; sleep 0.2; done'
            )
        )

    def wait_until_dead(self, unit: str, timeout: float = 120.0) -> None:
        """Wait until the unit has no process any more, and systemd knows it."""
        # systemctl would take the machine's time from what is waited for.
        if group := self.machine.properties(unit, "ControlGroup")["ControlGroup"]:
            lives = f'read -r _ populated < {CGROUPS}{shlex.quote(group)}/cgroup.events && [ "$populated" = 1 ]'
            self.machine.wait_for(f"{unit} is dead", lambda: self.machine.run(lives).rc != 0, timeout, 0.2)
        self.machine.wait_for(f"{unit} is not active", lambda: not self.machine.active(unit), timeout, 0.2)

    # A user

    def start_user_manager(self) -> None:
        """The user manager of the user "tester", as a login would start it, on a machine without systemd-oomd.

        With it, Debian marks every user manager for systemd-oomd and starts that along: its units would be left to it.
        """
        self.machine.check(f"systemctl mask --runtime {OOMD}; systemctl stop {OOMD}")
        self._masked = True
        self._units.append("user@1000.service")
        self.machine.check("systemctl start user@1000.service", timeout=120)

    def as_user(self, command: str) -> str:
        """What a command prints that "tester" runs."""
        return self.machine.run(
            f"runuser -u tester -- env XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/tester sh -c {shlex.quote(command)}"
        ).out

    def kernel_killed(self) -> int:
        """How many processes the kernel's own killer took since the scenario began."""
        return self.machine.kernel_oom_kills() - self.kernel_kills

    # Questions to oomslice

    def busctl(self, *arguments: str) -> Any:
        """The answer of org.oomslice1.Manager as plain Python values. `arguments` are the method and what it takes."""
        words = " ".join(shlex.quote(argument) for argument in arguments)
        text = self.machine.check(
            f"busctl --system --json=short -- call org.oomslice1 /org/oomslice1 org.oomslice1.Manager {words}"
        )
        return plain(json.loads(text)["data"][0])

    def property(self, name: str) -> Any:
        """A property of org.oomslice1.Manager."""
        text = self.machine.check(
            f"busctl --system --json=short get-property org.oomslice1 /org/oomslice1 org.oomslice1.Manager {name}"
        )
        return plain(json.loads(text)["data"])

    def hear(self) -> None:
        """Have oomslicectl note what oomslice tells from now on, for heard()."""
        self.start("hears", "oomslicectl monitor --json", StandardOutput=f"file:{EVENTS}")
        pid = self.machine.main_pid("hears.service")
        self.machine.wait_for(
            "somebody hears",
            lambda: f" {pid} " in self.machine.check("busctl --system --no-legend list --unique"),
            60,
            0.5,
        )

    def heard(self, *names: str) -> list[dict[str, Any]]:
        """Events of these names since hear(), in order."""
        events = [json.loads(line) for line in self.machine.check(f"cat {EVENTS}").splitlines()]
        return [event for event in events if event["event"] in names]

    def armed(self) -> bool:
        """Whether the daemon answers and the core has its newest plan."""
        try:
            state = self.property("State")
        except CommandError:
            return False
        return bool(state["Armed"]) and not state["PlanError"]

    def slice(self, unit: str) -> dict[str, Any]:
        """What the plan says of a unit; empty if it is not in the plan."""
        try:
            settings: dict[str, Any] = self.busctl("GetSlice", "s", unit)
        except CommandError:
            return {}
        return settings

    def planned(self) -> dict[str, int]:
        """Unit -> priority, of all units in the plan."""
        return {row[0]: row[2] for row in self.busctl("ListSlices")}

    def wait_planned(self, **priorities: int) -> None:
        """Wait until the plan holds each unit with its priority. Names without suffix are services ("_" is "-")."""
        wanted = {unit_name(name): priority for name, priority in priorities.items()}
        self.machine.wait_for(
            f"the plan has {wanted}", lambda: wanted.items() <= self.planned().items(), timeout=60, interval=0.3
        )

    def decisions(self) -> list[dict[str, Any]]:
        """All decisions since the scenario began, oldest first, in full."""
        rows = self.busctl("ListDecisions", "tu", str(self.started_usec), "0")
        return [self.busctl("GetDecision", "s", row[0]) for row in reversed(rows)]

    def victims(self) -> list[str]:
        """Whom the decisions since the scenario began chose, in order."""
        return [row[4] for row in reversed(self.busctl("ListDecisions", "tu", str(self.started_usec), "1000"))]

    def decision_about(self, unit: str, timeout: float = 60.0) -> dict[str, Any]:
        """The one decision with this victim. Waits for it; fails if there is more than one."""
        name = unit_name(unit)
        found = self.machine.wait_for(
            f"a decision about {name}",
            lambda: [row for row in self.busctl("ListDecisions", "tu", str(self.started_usec), "0") if row[4] == name],
            timeout,
            0.5,
        )
        decisions: list[dict[str, Any]] = [self.busctl("GetDecision", "s", row[0]) for row in found]
        assert len(found) == 1, f"{name} is the victim of {len(found)} decisions: {json.dumps(decisions, indent=1)}"
        return decisions[0]

    def shown(self, id: str) -> dict[str, Any]:
        """What `oomslicectl show --json` says of a decision."""
        decision: dict[str, Any] = json.loads(self.machine.check(f"oomslicectl show --json {id}", timeout=120))
        return decision

    def assert_killed(
        self, unit: str, *, domain: str = "-.slice", outcomes: tuple[str, ...] = ("freed",)
    ) -> dict[str, Any]:
        """The unit was killed by oomslice, once, verifiably, and the kernel's own killer had no part in it."""
        decision = self.decision_about(unit)
        assert not self.machine.active(unit)
        assert decision["outcome"] in outcomes, decision
        # Where the program in the kernel is loaded the last moment is its own, and the core may be late here.
        assert decision["carrier"] in ("core", "bpf"), decision
        assert decision["domain"] == domain
        assert decision["step"] == "kill"
        assert decision["bytes_freed"] > 0
        steps = ("trigger", "decision", "signal", *(("death", "memory_back") if decision["outcome"] == "freed" else ()))
        times = [decision[f"{what}_usec"] for what in steps]
        assert all(times), decision
        assert times[:4] == sorted(times[:4]), decision
        # A unit that was started anew is listed twice: its old cgroup is gone.
        verdicts = [(name, verdict) for name, _, _, _, verdict in decision["candidates"]]
        assert (unit_name(unit), "chosen") in verdicts, decision["candidates"]
        assert self.kernel_killed() == 0, "the kernel's own killer acted, too"
        return decision

    def priorities(self, decision: dict[str, Any]) -> dict[str, int]:
        """Candidate -> priority, as the decision recorded them."""
        return {name: priority for name, _, priority, _, _ in decision["candidates"]}


def unit_name(name: str) -> str:
    """A unit's full name: services may be named without their suffix."""
    return name if name.endswith((".service", ".slice", ".scope")) else name.replace("_", "-") + ".service"


def plain(value: Any) -> Any:
    """busctl's JSON without the wrapping of variants."""
    if isinstance(value, dict):
        if set(value) == {"type", "data"}:
            return plain(value["data"])
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
