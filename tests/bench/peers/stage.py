# SPDX-License-Identifier: LGPL-2.1-or-later
"""One boot of the machine with one candidate, and the runs in it: with every kind of swap, since a boot takes longer
than a run, and others wait for the emulator.

Owns what a run leaves behind: before the next one memory is back where it was, the units are gone and every service
that ran before runs again, or the machine is booted anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.vm.image import Image
from tests.vm.lab import Lab, plain
from tests.vm.machine import CommandError, Machine, MachineError, MachineSilent

from .candidates import DATABASE, DATABASE_PRIORITY, HOG_PRIORITY, Candidate, files_of
from .storms import DATABASE_MB, FILES, HOT_MB, MEMORY_MB, STORM, SWAP_MB, Storm

RUN = "/run/bench"
DEVICES = {"disk": "/dev/vdc", "zram": "/dev/zram0"}
CGROUPS = ("/sys/fs/cgroup/benchhog.slice/hog.service", "/sys/fs/cgroup/benchsvc.slice/database.service")
GET_SLICE = "busctl --system --json=short call org.oomslice1 /org/oomslice1 org.oomslice1.Manager GetSlice s"
SILENCE = 120.0
"""Seconds without a word, after which the machine counts as hung. Emulated, it speaks every half second when well."""
AFTER = 5
"""Seconds that a run goes on after the hog or the database is gone."""
REST = 20
"""Seconds at rest over which a daemon's processor time is taken."""
CALM = 5.0
"""Percent of the last ten seconds stalled on memory, below which a machine has calmed down."""
SETTLED_MB = 96
"""By how much available memory may differ between runs."""

Progress = Callable[[str], None]


class DoesNotStart(RuntimeError):
    """The daemon does not run as it is packaged, or does not understand its settings. Says what it said."""


class Stage:
    """A booted machine with a candidate and the database running, as a context manager."""

    def __init__(self, base: Image, disk: Path, kernel: str, candidate: Candidate, swap: str) -> None:
        self.candidate = candidate
        self.swap = swap
        self.machine = Machine(base, kernel, disk=disk, memory_mb=MEMORY_MB, swap_mb=SWAP_MB, steady=True)
        self.calm_mb = 0
        self.pids: dict[str, int] = {}
        self._last_kill = 0.0

    def __enter__(self) -> Stage:
        self.machine.__enter__()
        try:
            self._prepare()
        except CommandError as error:
            self.machine.__exit__(None, None, None)
            raise MachineError(str(error)) from error
        except BaseException:
            self.machine.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.machine.__exit__(None, None, None)

    def _prepare(self) -> None:
        machine = self.machine
        self._write_files()
        if self.candidate.command:
            done = machine.run(self.candidate.command)
            if done.rc != 0:
                raise DoesNotStart(done.out.strip())
        # The journal of a machine that is measured is kept in memory, and is small.
        machine.put("/etc/systemd/journald.conf.d/zz-bench.conf", "[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n")
        machine.check(
            f"mkdir -p {FILES} && mount -t tmpfs -o size=4G,mode=1777 files {FILES};"
            " systemctl restart systemd-journald.service; systemctl daemon-reload",
            timeout=120,
        )
        self._open()

    def change_swap(self, swap: str) -> None:
        """Another kind of swap for the runs to come. Who reads settings or swap once, at its start, is started anew."""
        machine = self.machine
        try:
            machine.check("systemctl stop database.service; systemctl reset-failed", timeout=120)
            if self.candidate.units and not self.candidate.is_ours:
                machine.check(f"systemctl stop {' '.join(self.candidate.units)}")
            if self.swap != "none":
                machine.check(f"swapoff {DEVICES[self.swap]}", timeout=300)
            if self.swap == "zram":
                # Whoever looks at new devices may still have it open (EBUSY).
                reset = "echo 1 > /sys/block/zram0/reset"
                machine.wait_for("zram is empty", lambda: machine.run(reset).rc == 0, timeout=30, interval=0.5)
            self.swap = swap
            self._write_files()
            machine.check("systemctl daemon-reload", timeout=120)
            if self.candidate.is_ours and self.candidate.command:
                machine.check(self.candidate.command, timeout=120)  # it goes on, and reads its settings anew
            self._open()
        except CommandError as error:
            raise MachineError(str(error)) from error

    def _write_files(self) -> None:
        for path, text in files_of(self.candidate, swap=self.swap != "none").items():
            self.machine.put(path, text)

    def _open(self) -> None:
        machine = self.machine
        self._swap_on()
        if self.candidate.units and not self.candidate.is_ours:
            self._start_daemon()
        self._start_database()
        if self.candidate.is_ours:
            # As packaged it goes by what the database is given for everybody.
            given = DATABASE_PRIORITY if self.candidate.tuned else -int(DATABASE["OOMScoreAdjust"])
            self._wait_planned("database.service", given)
        machine.run("sync; echo 3 > /proc/sys/vm/drop_caches; sleep 3")
        self.calm_mb = machine.available_mb()
        self.pids = self._main_pids()

    def _start_daemon(self) -> None:
        units = " ".join(self.candidate.units)
        self.machine.run(f"systemctl start {units}; sleep 4")
        proof = self.candidate.proof or "true"
        if self.machine.run(f"systemctl is-active {units} && {proof}").rc != 0:
            said = self.machine.run(f"journalctl -b -o cat _SYSTEMD_UNIT={units.split()[0]} | tail -n 5").out.strip()
            raise DoesNotStart(said)

    def _wait_planned(self, unit: str, priority: int) -> None:
        self.machine.wait_for(
            f"oomslice has a plan in which the priority of {unit} is {priority}",
            lambda: self._planned(unit) == priority,
            timeout=120,
            interval=0.5,
        )

    def _planned(self, unit: str) -> object:
        answer = self.machine.run(f"{GET_SLICE} {unit}")
        return plain(json.loads(answer.out)["data"][0]).get("Priority") if answer.rc == 0 else None

    def _swap_on(self) -> None:
        if self.swap == "disk":
            self.machine.check(f"swapon {DEVICES[self.swap]}")
        elif self.swap == "zram":
            size = MEMORY_MB // 2
            self.machine.check(
                f"modprobe zram && echo {size}M > /sys/block/zram0/disksize && mkswap -q {DEVICES[self.swap]}"
                f" && swapon -p 100 {DEVICES[self.swap]}"
            )

    def _swap_empty(self) -> None:
        # Off and on again: what a run has left in swap would be part of the next one.
        if self.swap != "none":
            device = DEVICES[self.swap]
            self.machine.check(f"swapoff {device} && swapon -p 100 {device}", timeout=300)

    def _start_database(self) -> None:
        self.machine.start_service(
            "database",
            f"/opt/vmtest/database {DATABASE_MB} {HOT_MB} {RUN}/rounds",
            slice="benchsvc.slice",
            Type="notify",
            TimeoutStartSec="300",
            **DATABASE,
        )

    def _main_pids(self) -> dict[str, int]:
        listing = self.machine.check("systemctl show -p Id,MainPID '*.service'", timeout=120)
        found: dict[str, int] = {}
        for block in listing.strip().split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if int(values.get("MainPID", "0")) and values["Id"] not in ("hog.service", "vmtest-agent.service"):
                found[values["Id"]] = int(values["MainPID"])
        return found

    def _is_done(self, unit: str) -> bool:
        """Whether it has ended by itself, as a service does that is started on demand."""
        state = self.machine.properties(unit, "ActiveState", "Result")
        return state == {"ActiveState": "inactive", "Result": "success"}

    # What does not change between runs

    def systemd(self) -> str:
        """Its version."""
        return self.machine.check("systemctl --version | awk 'NR == 1 { print $3 }' | tr -d '()'").strip()

    def at_rest(self) -> dict[str, float]:
        """Memory (PSS, MiB) and processor time (share of one) of the daemon when nothing happens."""
        if not self.candidate.units:
            return {}
        groups = " ".join(
            f"/sys/fs/cgroup{self.machine.properties(unit, 'ControlGroup')['ControlGroup']}"
            for unit in self.candidate.units
        )
        # What was started last is in the plan by then.
        self.machine.run("sleep 10")
        used = f"for g in {groups}; do awk '/^usage_usec/ {{ print $2 }}' $g/cpu.stat; done"
        before, after = (
            sum(int(word) for word in part.split())
            for part in self.machine.check(f"{used}; echo -; sleep {REST}; {used}", timeout=REST + 60).split("-")
        )
        sizes = self.machine.check(
            f"for g in {groups}; do for p in $(cat $g/cgroup.procs); do"
            " awk '/^Pss:/ { print $2 }' /proc/$p/smaps_rollup; done; done"
        )
        return {"memory_mb": sum(int(word) for word in sizes.split()) / 1024, "cpu": (after - before) / 1e6 / REST}

    # Runs

    def run(self, storm: Storm, lines: list[str]) -> dict[str, Any]:
        """One run: its lines into `lines` as they come; returns what was found then.

        MachineSilent if the machine hangs, CommandError if it can no longer be asked what is left of it.
        """
        machine = self.machine
        self._start_hog(storm)
        calm = AFTER if storm.ends_early else 0
        status = machine.follow(
            f"/opt/vmtest/witness {storm.seconds} {calm} {RUN}/go {RUN}/rounds {' '.join(CGROUPS)}",
            lines.append,
            timeout=storm.seconds + 600,
            silence=SILENCE,
        )
        if status != 0:
            raise MachineError(f"the witness ended with status {status}: {lines[-3:]}")
        self._last_kill = time.monotonic()
        now = self._main_pids()
        return {
            "lost": sorted(unit for unit, pid in self.pids.items() if now.get(unit) != pid and not self._is_done(unit)),
            "calm_mb": self.calm_mb,
            "kernel_log": machine.run("dmesg | grep -iE 'killed process|oom-kill:' | tail -n 100").out.splitlines(),
            "daemon_log": self._daemon_log(),
        }

    def _start_hog(self, storm: Storm) -> None:
        wait = self._last_kill + self.candidate.pause - time.monotonic()
        self.machine.run(f"rm -f {RUN}/go; sleep {max(wait, 0):.0f}", timeout=120)
        command = f"{STORM} {RUN}/go {storm.command}"
        try:
            self.machine.start_service(
                "hog", command, slice="benchhog.slice", User="tester", SupplementaryGroups="disk", **self.candidate.hog
            )
            if self.candidate.is_ours:
                self._wait_planned("hog.service", HOG_PRIORITY if self.candidate.tuned else 0)
        except CommandError as error:
            raise MachineError(str(error)) from error

    def _daemon_log(self) -> list[str]:
        if not self.candidate.units:
            return []
        units = " ".join(f"-u {unit}" for unit in self.candidate.units)
        return self.machine.run(f"journalctl -b -o short-monotonic {units} | tail -n 60").out.splitlines()

    def clean_up(self) -> bool:
        """Make the machine as it was. False if it could not be: then boot another."""
        try:
            return self._clean_up()
        except (CommandError, MachineSilent):
            return False

    def _clean_up(self) -> bool:
        machine = self.machine
        machine.run(f"systemctl kill -s KILL hog.service; systemctl stop hog.service; rm -f {FILES}/storm; dmesg -C")
        machine.check("systemctl reset-failed; sync; echo 3 > /proc/sys/vm/drop_caches", timeout=120)
        if not machine.active("database.service"):
            self._start_database()
        self._swap_empty()
        machine.wait_for("memory is back", lambda: machine.available_mb() >= self.calm_mb - SETTLED_MB, timeout=60)
        if self.candidate.averages:
            machine.wait_for("pressure is over", self._is_calm, timeout=120, interval=2)
        if self.candidate.between:
            machine.check(self.candidate.between, timeout=120)
            machine.wait_for("oomslice is armed", Lab(machine).armed, timeout=120, interval=0.5)
        now = self._main_pids()
        missing = {unit for unit in set(self.pids) - set(now) if not self._is_done(unit)}
        self.pids = now
        return not missing and machine.properties("hog.service", "ActiveState")["ActiveState"] == "inactive"

    def _is_calm(self) -> bool:
        text = self.machine.check("cat /proc/pressure/memory")
        return all(float(line.split("avg10=")[1].split()[0]) < CALM for line in text.splitlines())
