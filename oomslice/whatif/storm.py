# SPDX-License-Identifier: LGPL-2.1-or-later
"""A storm that has not come: a unit that grows on a machine that is well, as frames for `replay`. Pure.

    fast:UNIT        2 GiB a second, what one processor can fill
    slow:UNIT        50 MiB a second
    RATE:UNIT        that much a second: 200M:job.service
    many:UNIT        twenty units of that name, each a twentieth of fast: no one is large
    ...@SLICE        for a unit that does not run: the slice it would be in (default: system.slice)

Memory is taken from what is available until little of that is left, then from swap, if there is some, then the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from oomslice.cgroups.model import Cgroup, Usage
from oomslice.errors import SettingsError
from oomslice.settings.unitname import CGROUP_TYPES
from oomslice.settings.values import BadValueError, parse_size
from oomslice.units.model import Unit
from oomslice.whatif.state import Figures, Frame, Stall, State

FAST, SLOW = 2 << 30, 50 << 20
MANY = 20
SWAPS_FROM_PERMYRIAD = 600
"""The kernel swaps out when less than so much is available: an assumption, about what is seen."""
TIRED_PERMYRIAD = 1200
"""From here on somebody waits for memory."""
STEPS = 400
"""Frames in which all of memory and swap would be filled."""
NEW_ID = 1 << 62
"""Ids of cgroups that do not exist: they would be the youngest."""


@dataclass(frozen=True, slots=True)
class Storm:
    """What grows, and how fast (bytes a second, all units together)."""

    units: tuple[str, ...]
    rate: int
    slice: str


def parse_storm(text: str) -> Storm:
    """One --storm. Raises SettingsError."""
    kind, colon, rest = text.partition(":")
    unit, _, slice = rest.partition("@") if "@" in rest and rest.endswith(".slice") else (rest, "", "")
    if not colon or unit.rpartition(".")[2] not in CGROUP_TYPES or not unit.rpartition(".")[0]:
        raise SettingsError(f"{text!r} is no storm; write fast:UNIT, slow:UNIT, many:UNIT or RATE:UNIT")
    slice = slice or "system.slice"
    if kind in ("fast", "many"):
        stem, _, suffix = unit.rpartition(".")
        units = tuple(f"{stem}-{number}.{suffix}" for number in range(1, MANY + 1)) if kind == "many" else (unit,)
        return Storm(units, FAST, slice)
    if kind == "slow":
        return Storm((unit,), SLOW, slice)
    try:
        rate = parse_size(kind)
    except BadValueError as error:
        raise SettingsError(f"{text!r}: {kind!r} {error}; or write fast, slow or many") from None
    if rate <= 0:
        raise SettingsError(f"{text!r}: nothing grows by nothing a second")
    return Storm((unit,), rate, slice)


def with_units(state: State, figures: Figures, storm: Storm) -> tuple[State, Figures, list[int]]:
    """The machine with the storm's units, and their cgroup ids. Raises SettingsError if there is no such slice."""
    paths = {unit.name: unit.control_group for unit in state.snapshot.units}
    by_path = {cgroup.path: cgroup for cgroup in state.cgroups}
    units, cgroups, usage, ids = list(state.snapshot.units), list(state.cgroups), dict(figures.usage), []
    for number, name in enumerate(storm.units):
        if name in paths and paths[name] in by_path:
            ids.append(by_path[paths[name]].id)
        else:
            if storm.slice not in paths:
                raise SettingsError(
                    f"{storm.slice} does not run, so {name} cannot be in it; name another: {name}@SLICE"
                )
            path = f"{paths[storm.slice].rstrip('/')}/{name}"
            units.append(Unit(name, path))
            cgroups.append(Cgroup(path, NEW_ID + number, 0, populated=True))
            ids.append(NEW_ID + number)
        usage.setdefault(ids[-1], Usage(processes=1, populated=True))
        usage[ids[-1]] = replace(usage[ids[-1]], populated=True, processes=max(1, usage[ids[-1]].processes))
    snapshot = replace(state.snapshot, units=tuple(units))
    return replace(state, snapshot=snapshot, cgroups=tuple(cgroups)), replace(figures, usage=usage), ids


def frames(state: State, figures: Figures, storm: Storm) -> Iterator[Frame]:
    """The storm, from this moment on, until it would have filled all that there is. Raises SettingsError.

    Available memory goes below zero: what those who die give back is added by who replays it.
    """
    state, figures, ids = with_units(state, figures, storm)
    whole = state.memory_total + state.swap_total
    step_usec = max(1000, whole * 1_000_000 // storm.rate // STEPS)
    floor = state.memory_total * SWAPS_FROM_PERMYRIAD // 10_000
    tired = state.memory_total * TIRED_PERMYRIAD // 10_000
    stall = figures.stall
    for number in range(STEPS + 1):
        grown = min(whole, storm.rate * step_usec * number // 1_000_000)
        from_memory = min(grown, max(0, figures.available - floor))
        swapped = min(grown - from_memory, figures.swap_free)
        from_memory = grown - swapped
        usage = dict(figures.usage)
        for place, id in enumerate(ids):
            share, swap_share = _share(from_memory, len(ids), place), _share(swapped, len(ids), place)
            was = usage[id]
            usage[id] = replace(
                was,
                memory=was.memory + share + swap_share,
                current=was.current + share,
                swap=was.swap + swap_share,
            )
        available = figures.available - from_memory
        if available < tired:
            stall = Stall(stall.some + step_usec // 20, stall.full)
        yield Frame(
            state,
            replace(
                figures,
                moment_usec=figures.moment_usec + step_usec * number,
                available=available,
                swap_free=figures.swap_free - swapped,
                stall=stall,
                usage=usage,
            ),
        )


def _share(whole: int, count: int, place: int) -> int:
    """What one of `count` has of `whole`; the first ones have what is left over."""
    return whole // count + (place < whole % count)
