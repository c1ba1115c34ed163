# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can be measured on the machine itself, without a memory controller: the real core kills real processes in real
cgroups, but the shortage is written into a meminfo file of ours. So these are the times of the kill path alone. And how
soon oomslicectl is there, as a multiple of what Python takes to do nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Figure, say
from tests.core.bpf_rig import Kernel, UnavailableError, build_programs, open_kernel
from tests.core.rig import Core, Scene, Tree, build, cgroup2_mount

UNITS = (10, 100, 1000)

HOLD = """
import mmap, time
memory = mmap.mmap(-1, {size} << 20)
memory.write(b"x" * ({size} << 20))
print(flush=True)
time.sleep(1e6)
"""


def kills(runs: int, *, processes: int, hold_mb: int = 0) -> list[Figure]:
    """From trigger to signal and to the end of a unit of `processes`, one of which holds `hold_mb` MiB."""
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
    what = f"{processes} process{'es' if processes > 1 else ''}" + (f", {hold_mb} MiB" if hold_mb else "")
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

        for verb in ("--help", "status", "explain", "show", "doctor", "verify"):
            call = ("-m", "oomslice.cli.main", verb)
            took(*call)  # compiles it, as a package is when it is installed
            times = tuple(took(*call) / took("-c", "pass") for _ in range(max(runs, 5)))
            goal = "at most 5" if verb not in ("doctor", "verify") else ""
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
    yield from choices(runs)
