# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can be measured on the machine itself, without a memory controller: the real core kills real processes in real
cgroups, but the shortage is written into a meminfo file of ours. So these are the times of the kill path alone. And how
soon oomslicectl is there, as a multiple of what Python takes to do nothing. The kill path once more while users call a
bus with the real service on it as often as that lets them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from oomslice.bus.service import BusService
from tests.bench.figures import Figure, say
from tests.bus.rig import FixedBackend, PrivateBus
from tests.bus.test_flood import counted, flood
from tests.core.bpf_rig import Kernel, UnavailableError, build_programs, open_kernel
from tests.core.rig import Core, Scene, Tree, build, cgroup2_mount

UNITS = (10, 100, 1000)
FLOODERS = 4
"""Processes that call, with four connections each."""

VERBS = (
    *("--help", "status", "explain", "show", "top --once", "monitor", "metrics", "doctor"),
    *("verify /dev/null", "verify", "simulate"),
)

HOLD = """
import mmap, time
memory = mmap.mmap(-1, {size} << 20)
memory.write(b"x" * ({size} << 20))
print(flush=True)
time.sleep(1e6)
"""


def kills(runs: int, *, processes: int, hold_mb: int = 0, during: str = "") -> list[Figure]:
    """From trigger to signal and to the end of a unit of `processes`, one of which holds `hold_mb` MiB. `during` says
    what else goes on."""
    mount = cgroup2_mount()
    if mount is None:
        return []
    signal: list[float] = []
    death: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        program = build("static", Path(directory))
        for run in range(runs):
            inner = Path(directory) / str(run)
            inner.mkdir()
            core, tree = Core(program, inner, mount), Tree(mount)
            try:
                core.start()
                scene = Scene(core, tree)
                cgroup = scene.add("hog.service", -1, processes=processes)
                if hold_mb:
                    _hold(tree, cgroup, hold_mb)
                records = scene.hand_over()
                scene.shortage()
                record = records.wait(30)
                signal.append((record.signal_us - record.trigger_us) / 1000)
                death.append((record.death_us - record.trigger_us) / 1000)
            finally:
                tree.close()
                core.close()
    what = f"{processes} process{'es' if processes > 1 else ''}" + (f", {hold_mb} MiB" if hold_mb else "") + during
    return [
        Figure(f"trigger to signal, {what}", "ms", tuple(signal)),
        Figure(f"trigger to death, {what}", "ms", tuple(death)),
    ]


def _hold(tree: Tree, cgroup: Path, size: int) -> None:
    script = 'echo $$ >"$0/cgroup.procs"; exec python3 -c "$1"'
    child = subprocess.Popen(["sh", "-c", script, cgroup, HOLD.format(size=size)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    tree.children.append(child)


def made_in(counts: Path) -> int:
    """Calls that a process has made."""
    return counted(counts)[0]


def flooded(runs: int) -> Iterator[Figure]:
    """The same while FLOODERS processes of another user call the service without end, and how many calls that makes."""
    if shutil.which("dbus-daemon") is None or os.geteuid() != 0:
        say("a flood of calls is not measured: it needs dbus-daemon, and root to become another user")
        return
    say(f"calls of {FLOODERS} processes")

    async def measured() -> list[Figure]:
        async with contextlib.AsyncExitStack() as open_:
            directory = Path(open_.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
            bus = PrivateBus(directory)
            open_.callback(bus.stop)
            service = BusService(FixedBackend(), address=bus.address)
            assert await service.start()
            open_.push_async_callback(service.stop)
            floods = []
            for number in range(FLOODERS):
                (directory / f"flood{number}").mkdir()
                floods.append(await open_.enter_async_context(flood(bus, directory / f"flood{number}")))
            while min(made_in(counts) for counts in floods) < 1000:
                await asyncio.sleep(0.1)
            before, began = sum(made_in(counts) for counts in floods), time.monotonic()
            taken = await asyncio.to_thread(kills, runs, processes=1, during=", during a flood of calls")
            made = sum(made_in(counts) for counts in floods) - before
            return [*taken, Figure("calls in a second", "1/s", (made / (time.monotonic() - began),), "10000")]

    yield from asyncio.run(measured())


def starts(runs: int) -> Iterator[Figure]:
    """Calls of oomslicectl until it would ask the daemon; there is no bus, so it ends with a sentence instead."""
    with tempfile.TemporaryDirectory() as compiled:
        environment = os.environ | {
            "PYTHONPYCACHEPREFIX": compiled,
            "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def took(*words: str) -> float:
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], env=environment, capture_output=True, check=False)
            return time.perf_counter() - began

        for verb in VERBS:
            call = ("-c", "from oomslice.cli.main import main; raise SystemExit(main())", *verb.split())
            took(*call)  # compiles it, as a package is when it is installed
            times = tuple(took(*call) / took("-c", "pass") for _ in range(max(runs, 5)))
            goal = "at most 5"
            yield Figure(f"oomslicectl {verb} in times of python3 -c pass", "", times, goal)


def choices(runs: int) -> Iterator[Figure]:
    """How long the choice inside the kernel takes, by the kernel's own count; none where it takes no such program."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            program = build_programs(Path(directory) / "build") / "oomslice-bpf"
            for units in UNITS:
                inner = Path(directory) / str(units)
                inner.mkdir()
                with open_kernel(program, inner) as kernel:
                    yield from _choices(kernel, units, runs)
        except UnavailableError as error:
            say(f"the choice inside the kernel is not measured: {error}")


def _choices(kernel: Kernel, units: int, runs: int) -> Iterator[Figure]:
    planned = [kernel.unit(f"u{index}.service", index % 7) for index in range(units)]
    kernel.follow(planned, 1)
    root = kernel.tree.root
    samples = []
    for _ in range(runs):
        answer = kernel.choose(root, "--runs=1000")
        assert answer["eligible"] == units, answer
        samples.append(answer["nsec_per_run"])
    yield Figure(f"choice inside the kernel, {units} units", "us", tuple(nsec / 1000 for nsec in samples))
    each = tuple(nsec / units for nsec in samples)
    yield Figure(f"choice inside the kernel, each of {units} units", "ns", each, "500 at most")


def figures(runs: int) -> Iterator[Figure]:
    """All of them, as they are taken; of kills none on a machine without cgroup v2."""
    yield from starts(runs)
    yield from kills(runs, processes=1)
    yield from kills(runs, processes=80)
    yield from kills(runs, processes=1, hold_mb=1024)
    yield from flooded(runs)
    yield from choices(runs)
