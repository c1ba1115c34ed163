# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file of one run: lines of JSON, compressed. Owns its name, its format and what makes it count.

The first line is the header, with the run's `key`: a digest of all that it depends on. After it come the lines of
programs/witness.c as they are, and last what was found in the machine afterwards. A file with another key is from
another storm, another machine or another package, and is measured anew.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass(frozen=True, slots=True, order=True)
class RunId:
    """Which run of the matrix."""

    swap: str
    candidate: str
    storm: str
    number: int

    def path(self, state: Path) -> Path:
        """The run's file."""
        return state / self.swap / self.candidate / f"{self.storm}-{self.number}.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look of the witness. Memory in KiB; `processes` and `used_kb` of the hog and of the database."""

    at: float
    available_kb: int
    free_kb: int
    swap_free_kb: int
    kernel_kills: int
    processes: tuple[int, ...]
    used_kb: tuple[int, ...]


@dataclass(slots=True)
class Trace:
    """One run, as it is read back. Times in seconds of the machine's monotonic clock."""

    header: dict[str, Any]
    total_kb: int = 0
    swap_total_kb: int = 0
    go: float = 0.0
    end: float = 0.0
    complete: bool = False
    samples: list[Sample] = field(default_factory=list)
    heartbeats: list[Sample] = field(default_factory=list)
    rounds: list[tuple[float, float]] = field(default_factory=list)
    """The database's requests: when due, and how long they took."""
    facts: dict[str, Any] = field(default_factory=dict)


def digest(*parts: object) -> str:
    """A key of what a run depends on."""
    return hashlib.sha256(json.dumps([FORMAT, *parts], sort_keys=True, default=str).encode()).hexdigest()[:16]


def parse(lines: Iterable[str]) -> Trace:
    """A trace from its lines. Lines that were cut off when the machine hung are passed over."""
    trace = Trace({})
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            _take_object(trace, row)
        elif row and row[0] in ("s", "h"):
            available, free, swap_free, kills = row[2:6]
            sample = Sample(row[1] / 1e6, available, free, swap_free, kills, tuple(row[6::2]), tuple(row[7::2]))
            (trace.samples if row[0] == "s" else trace.heartbeats).append(sample)
        elif row and row[0] == "r":
            trace.rounds.append((row[1] / 1e6, row[2] / 1e6))
    return trace


def _take_object(trace: Trace, row: dict[str, Any]) -> None:
    if "header" in row:
        trace.header = row["header"]
    elif "total_kb" in row:
        trace.total_kb, trace.swap_total_kb = row["total_kb"], row["swap_total_kb"]
    elif "go_us" in row:
        trace.go, trace.end = row["go_us"] / 1e6, row["end_us"] / 1e6
    elif "facts" in row:
        trace.facts = row["facts"]
    elif row.get("complete"):
        trace.complete = True


def write(path: Path, header: dict[str, Any], lines: Iterable[str], facts: dict[str, Any]) -> None:
    """Keep a run. The file is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with gzip.open(partial, "wt") as file:
        file.write(json.dumps({"header": header}) + "\n")
        file.writelines(line + "\n" for line in lines if line)
        file.write(json.dumps({"facts": facts}) + "\n")
    os.replace(partial, path)


def read(path: Path) -> Trace:
    """A run from its file."""
    with gzip.open(path, "rt") as file:
        return parse(file)


def counts(path: Path, key: str) -> bool:
    """Whether the run is there, and of what would be measured now."""
    try:
        with gzip.open(path, "rt") as file:
            header = json.loads(file.readline())["header"]
            return bool(header["key"] == key and header["began"])
    except (OSError, EOFError, ValueError, KeyError):
        return False
