# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make bench-peers`: the kernel alone, the other daemons and oomslice on the same storms; prints tables.

Every run is kept below .cache/bench-peers when it is done. A call that was killed is simply repeated: what is there is
not measured again, unless the storm, the candidate's settings, the kernel or the package are others now. With --publish
docs/benchmarks.md, its picture and its summary are written from all that is kept.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.figures import say
from tests.vm.conftest import package as built_package
from tests.vm.image import Image, image
from tests.vm.machine import CommandError, MachineError, MachineSilent, programs_disk

from . import trace
from .candidates import CANDIDATES, files_of
from .columns import Cell, outcome
from .disk import oomslice_disk, peers_disk
from .picture import picture
from .stage import DoesNotStart, Stage
from .storms import DATABASE_MB, MEMORY_MB, STORMS, SWAPS, Storm
from .table import into, page, tables
from .trace import RunId

REPOSITORY = Path(__file__).resolve().parents[3]
STATE = REPOSITORY / ".cache" / "bench-peers"
DOCUMENTS = REPOSITORY / "docs"
BOOT_SECONDS = 120.0
"""What a boot, the database and a look at the daemon at rest take; for the forecast only."""
TRIES = 3
"""How often a machine that fails by itself is booted anew before the call gives up."""


class Bench:
    """The matrix: what is to be done, what is there, how long it will take."""

    def __init__(self, kernel: str, base: Image, disks: dict[bool, Path], package: str) -> None:
        self.kernel = kernel
        self.base = base
        self.disks = disks
        self.package = package
        self.todo: list[RunId] = []
        self.done = 0

    def key(self, run: RunId) -> str:
        """What a run depends on."""
        candidate, storm = CANDIDATES[run.candidate], STORMS[run.storm]
        return trace.digest(
            programs_disk().name,
            self.disks[False].name,
            self.kernel,
            MEMORY_MB,
            DATABASE_MB,
            asdict(storm),
            files_of(candidate, swap=run.swap != "none"),
            candidate.command,
            self.package if candidate.is_ours else "",
        )

    def measure(self, runs: Iterable[RunId]) -> None:
        """All runs that are not there yet, candidate by candidate."""
        wanted = list(runs)
        self.todo = [run for run in wanted if not trace.counts(run.path(STATE), self.key(run))]
        say(f"{len(wanted)} runs, of which {len(wanted) - len(self.todo)} are there")
        failures = 0
        while self.todo:
            first = self.todo[0]
            before = len(self.todo)
            try:
                self._boot(first.candidate, first.swap)
            except MachineError as error:
                failures += 1
                say(f"the machine failed: {str(error).splitlines()[0]}")
                if failures >= TRIES:
                    raise
            if len(self.todo) < before:
                failures = 0

    def _boot(self, name: str, swap: str) -> None:
        candidate = CANDIDATES[name]
        say(f"booting for {name}, {SWAPS[swap]}{self._forecast()}")
        try:
            with Stage(self.base, self.disks[candidate.is_ours], self.kernel, candidate, swap) as stage:
                self._about(stage)
                while self.todo and (self.todo[0].candidate, self.todo[0].swap) == (name, swap):
                    if not self._run(stage, self.todo[0]):
                        return
        except DoesNotStart as error:
            say(f"{name} does not start: {error}")
            said = str(error).splitlines()[-1][:160] if str(error) else "it says nothing"
            about = {"version": error.versions.pop("candidate"), "machine": error.versions, "failure": said}
            _keep(STATE / f"about-{name}.json", about)
            self.todo = [run for run in self.todo if run.candidate != name]

    def _about(self, stage: Stage) -> None:
        path = STATE / f"about-{stage.candidate.name}.json"
        versions = stage.versions()
        if path.exists() and json.loads(path.read_text()).get("package") == self.package:
            return
        about = {"version": versions.pop("candidate"), "machine": versions, "at_rest": stage.at_rest()}
        _keep(path, {**about, "package": self.package})

    def _run(self, stage: Stage, run: RunId) -> bool:
        """Whether the machine can be used for another one."""
        storm = STORMS[run.storm]
        say(f"{run.candidate}, {run.storm}, swap: {run.swap}, run {run.number}{self._forecast()}")
        lines: list[str] = []
        started = time.monotonic()
        header: dict[str, Any] = {**asdict(run), "key": self.key(run), "kernel": self.kernel, "victim": storm.victim}
        facts: dict[str, Any] = {}
        usable = True
        try:
            facts = stage.run(storm, lines)
        except (MachineSilent, CommandError):
            usable = False
        header |= {"measured": time.strftime("%Y-%m-%d", time.gmtime()), "seconds": time.monotonic() - started}
        trace.write(run.path(STATE), header, lines, facts)
        del self.todo[0]
        self.done += 1
        say(_sentence(run, storm))
        if not usable:
            say("the machine hangs: counted, and booted anew")
        elif self.todo and (self.todo[0].candidate, self.todo[0].swap) == (run.candidate, run.swap):
            usable = stage.clean_up()
            if not usable:
                say("the machine is not as it was: booting anew")
        return usable

    def _forecast(self) -> str:
        seconds, last = 0.0, None
        for run in self.todo:
            known = [_seconds(other) for other in STATE.glob(f"{run.swap}/*/{run.storm}-*.jsonl.gz")]
            seconds += 15 + (sum(known) / len(known) if known else STORMS[run.storm].seconds + 20)
            seconds += BOOT_SECONDS if (run.swap, run.candidate) != last else 0
            last = (run.swap, run.candidate)
        return f"; {len(self.todo)} runs left, about {seconds / 60:.0f} min"


def _seconds(path: Path) -> float:
    return float(trace.read(path).header.get("seconds", 0.0))


def _last_package() -> str:
    """The disk with the oomslice that the kept runs are of, for a call that measures only others."""
    for path in sorted(STATE.glob("about-oomslice*.json")):
        return str(json.loads(path.read_text()).get("package", ""))
    return ""


def _keep(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def _sentence(run: RunId, storm: Storm) -> str:
    found = outcome(trace.read(run.path(STATE)), storm.victim)
    if found.hung:
        return "hung"
    return (
        f"{'right' if found.right else 'WRONG'}: exhausted {found.exhausted_s:.2f} s, longest stall "
        f"{found.longest_stall_ms:.0f} ms, collateral {found.collateral}, kernel kills {found.kernel_kills}, "
        f"unused {'-' if found.unused_share is None else f'{found.unused_share * 100:.1f} %'}"
    )


def summarise(bench: Bench) -> dict[str, Any]:
    """The summary of all runs that are kept and would be measured like that now."""
    cells, dates, machine = [], [], {"kernel": bench.kernel, "systemd": "", "emulator": _emulator()}
    candidates: dict[str, Any] = {}
    for name in CANDIDATES:
        path = STATE / f"about-{name}.json"
        if path.exists():
            about = json.loads(path.read_text())
            machine |= about.get("machine", {})
            candidates[name] = {key: about[key] for key in ("version", "at_rest", "failure") if key in about}
    for swap in SWAPS:
        for name in candidates:
            for storm in STORMS.values():
                paths = sorted((STATE / swap / name).glob(f"{storm.name}-*.jsonl.gz"))
                key = bench.key(RunId(swap, name, storm.name, 0))
                runs = [trace.read(path) for path in paths if trace.counts(path, key)]
                if runs:
                    cell = Cell(swap, name, storm.name, tuple(outcome(run, storm.victim) for run in runs))
                    dates += [run.header["measured"] for run in runs]
                    cells.append(
                        {
                            "swap": swap,
                            "candidate": name,
                            "storm": storm.name,
                            "outcomes": [found.plain() for found in cell.outcomes],
                        }
                    )
    measured = [min(dates), max(dates)] if dates else ["", ""]
    return {"measured": measured, "machine": machine, "candidates": candidates, "cells": cells}


def _emulator() -> str:
    said = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True).stdout
    match = re.search(r"version ([\d.]+)", said)
    return f"QEMU {match[1]}" if match else "QEMU"


def publish(summary: dict[str, Any]) -> None:
    """Write the summary, the picture and the tables of the documentation."""
    (DOCUMENTS / "benchmarks.json").write_text(json.dumps(summary, indent=1) + "\n")
    (DOCUMENTS / "benchmarks.svg").write_text(picture(summary))
    path = DOCUMENTS / "benchmarks.md"
    path.write_text(into(path.read_text(), page(summary, list(CANDIDATES))))


def _names(text: str, known: Sequence[str]) -> list[str]:
    names = text.replace(",", " ").split() or list(known)
    for name in names:
        if name not in known:
            raise SystemExit(f"bench-peers: there is no {name!r}; there are: {' '.join(known)}")
    return names


def main(arguments: Sequence[str]) -> int:
    """Returns 0 when all that was asked for is there."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default="", help=f"of: {' '.join(CANDIDATES)} (default: all)")
    parser.add_argument("--storms", default="", help=f"of: {' '.join(STORMS)} (default: all)")
    parser.add_argument("--swap", default="", help=f"of: {' '.join(SWAPS)} (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="in each cell (default: %(default)s)")
    parser.add_argument("--kernel", default="", help="short version (default: the oldest of the image)")
    parser.add_argument("--package", type=Path, help="oomslice's .deb (default: built from this tree)")
    parser.add_argument("--publish", action="store_true", help="write docs/benchmarks.* from all runs that are kept")
    options = parser.parse_args(arguments)
    names = _names(options.peers, list(CANDIDATES))
    storms = _names(options.storms, list(STORMS))
    swaps = _names(options.swap, list(SWAPS))
    base = image(say)
    kernel = options.kernel or base.kernels[0]
    below = peers_disk(base, say)
    disks, package = {False: below}, _last_package()
    if any(CANDIDATES[name].is_ours for name in names):
        deb = options.package or built_package()
        disks[True] = oomslice_disk(base, below, deb, say)
        package = disks[True].name
    bench = Bench(kernel, base, disks, package)
    runs = [
        RunId(swap, name, storm, number)
        for swap in swaps
        for name in names
        for storm in storms
        for number in range(1, options.runs + 1)
    ]
    bench.measure(runs)
    summary = summarise(bench)
    print(tables(summary))
    if options.publish:
        publish(summary)
        say("written: docs/benchmarks.md, docs/benchmarks.svg, docs/benchmarks.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
