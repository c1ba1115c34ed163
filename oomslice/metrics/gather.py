# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured: every metric, its name and where it is from. Names follow https://prometheus.io/docs/practices/naming/."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from oomslice.errors import OomsliceError
from oomslice.metrics.exposition import Family, Point

PRESSURE = Path("/proc/pressure/memory")
LATENCIES = {
    "trigger_to_signal": "Time from the trigger of a decision to the signal that killed.",
    "signal_to_death": "Time from the signal to the death of the last process of the victim.",
    "trigger_to_memory_back": "Time from the trigger of a decision until the memory of the victim was back.",
}
FLAGS = {
    "Armed": ("oomslice_armed", "Whether oomslice-core has a plan and acts on it."),
    "Watching": ("oomslice_watching", "Whether memory is short enough for oomslice-core to watch it by timer."),
}
COUNTS = {
    "Units": ("oomslice_units", "Slices, services and scopes in the plan."),
    "Candidates": ("oomslice_candidates", "Units of the plan that may be chosen."),
    "CoreLockedBytes": ("oomslice_core_locked_bytes", "Memory that oomslice-core has locked."),
    "ReserveBytes": ("oomslice_reserve_bytes", "Memory held in reserve for a decision."),
}
TOTALS = {
    "CoreWakeups": ("oomslice_core_wakeups_total", "How often oomslice-core woke up."),
    "CoreDecisionsDropped": ("oomslice_core_decisions_dropped_total", "Decisions whose record was lost."),
    "SignalsDropped": ("oomslice_bus_signals_dropped_total", "Signals that the bus did not take."),
    "RepliesDropped": ("oomslice_bus_replies_dropped_total", "Answers that the bus did not take."),
    "JournalEntriesDropped": ("oomslice_journal_entries_dropped_total", "Entries that the journal did not take."),
}
MEMORY = {
    "MemoryTotal": ("oomslice_memory_total_bytes", "MemTotal of the machine."),
    "MemoryAvailable": ("oomslice_memory_available_bytes", "MemAvailable of the machine."),
    "MemoryAvailableLimit": ("oomslice_memory_available_limit_bytes", "MemAvailable at which memory counts as short."),
    "SwapTotal": ("oomslice_swap_total_bytes", "Swap of the machine."),
    "SwapFree": ("oomslice_swap_free_bytes", "Free swap of the machine."),
    "SwapFreeLimit": ("oomslice_swap_free_limit_bytes", "Free swap at which swap counts as short."),
}
"""Key on the bus -> metric."""


class Manager(Protocol):
    """As bus.client.ManagerClient."""

    async def call(self, name: str, *arguments: Any) -> Any:
        """A method of the manager."""

    async def get(self, name: str) -> Any:
        """A property of the manager."""


async def gather(manager: Manager | None, pressure: Path = PRESSURE) -> list[Family]:
    """All there is to tell now. Without a daemon that answers, that there is none, and the pressure. `manager` None:
    it could not even be reached. Raises nothing."""
    families: list[Family] = []
    up = False
    if manager is not None:
        try:
            families = await _of_daemon(manager)
            up = True
        except OomsliceError:
            families = []
    first = Family("oomslice_up", "gauge", "Whether oomsliced answered.", [Point(int(up))])
    return [first, *pressure_families(pressure), *families]


async def _of_daemon(manager: Manager) -> list[Family]:
    state: Mapping[str, Any] = await manager.get("State")
    carriers: Sequence[Mapping[str, Any]] = await manager.get("Carriers")
    errors = await manager.get("ConfigurationErrors")
    decisions, latencies, figures = await manager.call("GetStatistics")
    families = [
        Family("oomslice_info", "gauge", "Version of oomsliced.", [Point(1, {"version": await manager.get("Version")})])
    ]
    for keys, values, kind in (
        (FLAGS, state, "gauge"),
        (COUNTS, state, "gauge"),
        (TOTALS, state, "counter"),
        (MEMORY, figures, "gauge"),
    ):
        families += [
            Family(name, kind, about, [Point(float(values[key]))] if key in values else [])
            for key, (name, about) in keys.items()
        ]
    if "MemoryAvailable" in figures and "MemoryAvailableLimit" in figures:
        headroom = figures["MemoryAvailable"] - figures["MemoryAvailableLimit"]
        about = "MemAvailable above the limit at which memory counts as short; below it, negative."
        families.append(Family("oomslice_memory_headroom_bytes", "gauge", about, [Point(headroom)]))
    about = "What is wrong in unit files and YAML, by its number."
    families.append(Family("oomslice_configuration_errors", "gauge", about, [Point(len(errors))]))
    families += _carriers(carriers)
    families.append(_decisions(decisions))
    families += [_histogram(*latency) for latency in latencies]
    return families


def _carriers(carriers: Sequence[Mapping[str, Any]]) -> list[Family]:
    return [
        Family(
            name,
            kind,
            about,
            [Point(float(carrier[key]), {"carrier": str(carrier["Name"])}) for carrier in carriers if key in carrier],
        )
        for key, name, kind, about in (
            ("Active", "oomslice_carrier_active", "gauge", "Whether a carrier can act on the plan now."),
            ("Hits", "oomslice_carrier_hits_total", "counter", "How often a carrier acted, or saw who did."),
            ("Missed", "oomslice_carrier_missed_total", "counter", "How often a carrier should have and could not."),
        )
    ]


def _decisions(rows: Sequence[Sequence[Any]]) -> Family:
    about = "Decisions by unit, last step, carrier and outcome."
    points = [
        Point(count, {"unit": unit, "step": step, "carrier": carrier, "outcome": outcome})
        for unit, step, carrier, outcome, count in rows
    ]
    return Family("oomslice_decisions_total", "counter", about, points)


def _histogram(name: str, buckets: Sequence[Sequence[float]], count: int, total: float) -> Family:
    points = [Point(value, {"le": f"{bound:g}"}, "_bucket") for bound, value in buckets]
    points += [Point(count, {"le": "+Inf"}, "_bucket"), Point(total, suffix="_sum"), Point(count, suffix="_count")]
    return Family(f"oomslice_{name}_seconds", "histogram", LATENCIES.get(name, name), points)


def pressure_families(path: Path = PRESSURE) -> list[Family]:
    """Pressure of the machine, none if the kernel does not tell. Source: Documentation/accounting/psi.rst."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return []
    found = re.findall(r"^(some|full) avg10=([0-9.]+) .* total=([0-9]+)$", text, re.MULTILINE)
    return [
        Family(
            "oomslice_pressure_stall_seconds_total",
            "counter",
            "Time in which some or all tasks waited for memory.",
            [Point(int(total) / 1_000_000, {"kind": kind}) for kind, _, total in found],
        ),
        Family(
            "oomslice_pressure_avg10_ratio",
            "gauge",
            "Share of the last ten seconds in which some or all tasks waited for memory.",
            [Point(float(average) / 100, {"kind": kind}) for kind, average, _ in found],
        ),
    ]
