# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make bench-peers`: the kernel alone, the other daemons and oomslice on the same storms; prints tables.

Every run is kept below .cache/bench-peers when it is done. A call that was killed is simply repeated: what is there is
not measured again, unless what it depends on (identity.py) is another now. With --publish what is there joins
docs/benchmarks.json, and docs/benchmarks.md and its picture are written from that: what was measured before stays.
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
from tests.vm.image import Image, image
from tests.vm.machine import PROCESSOR, PROGRAMS, CommandError, MachineError, MachineSilent
from tests.vm.package import package as built_package

from . import trace
from .candidates import CANDIDATES
from .columns import outcome
from .disk import oomslice_disk, peers_disk, versions
from .identity import Circumstances, content, programs, release
from .picture import picture
from .stage import DoesNotStart, Stage
from .storms import STORMS, SWAPS, Storm
from .summary import merged
from .table import into, page, tables
from .trace import RunId

REPOSITORY = Path(__file__).resolve().parents[3]
STATE = REPOSITORY / ".cache" / "bench-peers"
DOCUMENTS = REPOSITORY / "docs"
BOOT_SECONDS = 120.0
"""What a boot, the database and a look at the daemon at rest take; for the forecast only."""
BETWEEN_BOOTS = 2.0
"""Seconds in which another who waits for the emulator (machine.py) gets it."""
TRIES = 3
"""How often a machine that fails by itself is booted anew before the call gives up."""


class Bench:
    """The matrix: what is to be done, what is there, how long it will take."""

    def __init__(self, kernel: str, base: Image, disks: dict[bool, Path], circumstances: Circumstances) -> None:
        self.kernel = kernel
        self.base = base
        self.disks = disks
        self.circumstances = circumstances
        self.todo: list[RunId] = []
        self.done = 0

    def key(self, run: RunId) -> str:
        """What a run depends on."""
        return self.circumstances.key(CANDIDATES[run.candidate], STORMS[run.storm], run.swap)

    def version(self, name: str) -> str:
        """Of a candidate."""
        return self.circumstances.version(CANDIDATES[name])

    def measure(self, runs: Iterable[RunId]) -> None:
        """All runs that are not there yet, candidate by candidate."""
        wanted = list(runs)
        self.todo = [run for run in wanted if not trace.counts(run.path(STATE), self.key(run))]
        say(f"{len(wanted)} runs, of which {len(wanted) - len(self.todo)} are there")
        failures = 0
        while self.todo:
            first = self.todo[0]
            before = len(self.todo)
            if self.done:
                time.sleep(BETWEEN_BOOTS)
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
                while self.todo and self.todo[0].candidate == name:
                    if self.todo[0].swap != stage.swap:
                        stage.change_swap(self.todo[0].swap)
                    if not self._run(stage, self.todo[0]):
                        return
        except DoesNotStart as error:
            say(f"{name} does not start: {error}")
            said = str(error).splitlines()[-1][:160] if str(error) else "it says nothing"
            _keep(STATE / f"about-{name}.json", {"version": self.version(name), "failure": said})
            self.todo = [run for run in self.todo if run.candidate != name]

    def _about(self, stage: Stage) -> None:
        name = stage.candidate.name
        path = STATE / f"about-{name}.json"
        about = json.loads(path.read_text()) if path.exists() else _known(name)
        if about.get("version") != self.version(name) or "at_rest" not in about:
            about = {"version": self.version(name), "systemd": stage.systemd(), "at_rest": stage.at_rest()}
        _keep(path, about)

    def _run(self, stage: Stage, run: RunId) -> bool:
        """Whether the machine can be used for another one."""
        storm = STORMS[run.storm]
        say(f"{run.candidate}, {run.storm}, swap: {run.swap}, run {run.number}{self._forecast()}")
        lines: list[str] = []
        started = time.monotonic()
        header: dict[str, Any] = {**asdict(run), "key": self.key(run), "kernel": self.circumstances.kernel}
        header |= {"version": self.version(run.candidate), "victim": storm.right(run.swap), "began": _now()}
        facts: dict[str, Any] = {}
        usable = True
        try:
            facts = stage.run(storm, lines)
        except (MachineSilent, CommandError):
            usable = False
        header |= {"seconds": time.monotonic() - started}
        trace.write(run.path(STATE), header, lines, facts)
        del self.todo[0]
        self.done += 1
        say(_sentence(run, storm))
        if not usable:
            say("the machine hangs: counted, and booted anew")
        elif self.todo and self.todo[0].candidate == run.candidate:
            usable = stage.clean_up()
            if not usable:
                say("the machine is not as it was: booting anew")
        return usable

    def _forecast(self) -> str:
        seconds, last = 0.0, None
        for run in self.todo:
            known = [_seconds(other) for other in STATE.glob(f"{run.swap}/*/{run.storm}-*.jsonl.gz")]
            seconds += 15 + (sum(known) / len(known) if known else STORMS[run.storm].seconds + 20)
            seconds += BOOT_SECONDS if run.candidate != last else 0
            last = run.candidate
        return f"; {len(self.todo)} runs left, about {seconds / 60:.0f} min"


def _known(name: str) -> dict[str, Any]:
    """What the tree says of a candidate at rest, on this processor."""
    before = kept()
    about: dict[str, Any] = before["candidates"].get(name, {})
    return about if before["machine"].get("processor") == PROCESSOR else {}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _seconds(path: Path) -> float:
    return float(trace.read(path).header.get("seconds", 0.0))


def _keep(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def _sentence(run: RunId, storm: Storm) -> str:
    found = outcome(trace.read(run.path(STATE)), storm.right(run.swap))
    if found.hung:
        return "hung"
    return (
        f"{'right' if found.right else 'WRONG'}: exhausted {found.exhausted_s:.2f} s, longest stall "
        f"{found.longest_stall_ms:.0f} ms, collateral {found.collateral}, kernel kills {found.kernel_kills}, "
        f"unused {'-' if found.unused_share is None else f'{found.unused_share * 100:.1f} %'}"
    )


def summarise(bench: Bench) -> dict[str, Any]:
    """The summary of all runs that are here and would be measured like that now."""
    kernel = bench.circumstances.kernel
    machine = {"kernel": kernel, "emulator": _emulator(), "systemd": "", "processor": PROCESSOR}
    cells: list[dict[str, Any]] = []
    candidates: dict[str, Any] = {}
    for name in CANDIDATES:
        path = STATE / f"about-{name}.json"
        about = json.loads(path.read_text()) if path.exists() else {}
        if about and about["version"] == bench.version(name):
            machine["systemd"] = about.get("systemd") or machine["systemd"]
            candidates[name] = {key: about[key] for key in ("version", "at_rest", "failure") if key in about}
    for swap in SWAPS:
        for name in candidates:
            for storm in STORMS.values():
                paths = sorted((STATE / swap / name).glob(f"{storm.name}-*.jsonl.gz"))
                key = bench.key(RunId(swap, name, storm.name, 0))
                runs = [trace.read(path) for path in paths if trace.counts(path, key)]
                if runs:
                    began = [run.header["began"] for run in runs]
                    cells.append(
                        {
                            "swap": swap,
                            "candidate": name,
                            "storm": storm.name,
                            "measured": [min(began)[:10], max(began)[:10]],
                            "version": bench.version(name),
                            "kernel": bench.circumstances.kernel,
                            "key": key,
                            "runs": began,
                            "outcomes": [outcome(run, storm.right(swap)).plain() for run in runs],
                        }
                    )
    return {"machine": machine, "candidates": candidates, "cells": cells}


def _emulator() -> str:
    said = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True).stdout
    match = re.search(r"version ([\d.]+)", said)
    return f"QEMU {match[1]}" if match else "QEMU"


def kept() -> dict[str, Any]:
    """The summary in the tree."""
    found: dict[str, Any] = json.loads((DOCUMENTS / "benchmarks.json").read_text())
    return found


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
    parser.add_argument("--publish", action="store_true", help="write docs/benchmarks.*")
    options = parser.parse_args(arguments)
    names = _names(options.peers, list(CANDIDATES))
    storms = _names(options.storms, list(STORMS))
    swaps = _names(options.swap, list(SWAPS))
    base = image(say)
    kernel = options.kernel or base.kernels[0]
    below = peers_disk(base, say)
    disks, found = {False: below}, versions(below)
    if any(CANDIDATES[name].is_ours for name in names):
        deb = options.package or built_package()
        disks[True] = oomslice_disk(base, below, deb, say)
        found |= {"oomslice": f"{versions(disks[True])['oomslice']}, build {content(deb)[:7]}"}
    circumstances = Circumstances(release(base.kernel(kernel)[0]), programs(PROGRAMS), found)
    bench = Bench(kernel, base, disks, circumstances)
    runs = [
        RunId(swap, name, storm, number)
        for name in names
        for swap in swaps
        for storm in storms
        for number in range(1, options.runs + 1)
    ]
    bench.measure(runs)
    summary = merged(kept(), summarise(bench), list(CANDIDATES))
    print(tables(summary))
    if options.publish:
        publish(summary)
        say("written: docs/benchmarks.md, docs/benchmarks.svg, docs/benchmarks.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
