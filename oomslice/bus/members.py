# SPDX-License-Identifier: LGPL-2.1-or-later
"""The interfaces of the objects below the manager: one for each unit of the plan, one for each recent decision. Pure.

Their properties have the names of what GetSlice() answers, and those of a decision's record in the bus's spelling.
"""

from __future__ import annotations

from oomslice.bus.interface import DECISION_SIGNATURES, OBJECT_PATH, Interface, Property

SLICES_PATH = f"{OBJECT_PATH}/slice"
DECISIONS_PATH = f"{OBJECT_PATH}/decision"
DECISIONS_RECENT = 100
"""Decisions that have an object; all that are stored can be asked for by GetDecision()."""

SLICE = Interface(
    "org.oomslice1.Slice",
    properties=(
        # Two unit managers may each have a unit of this name: the path tells them apart.
        Property("Name", "s", "const"),
        Property("ControlGroup", "s"),
        Property("CgroupId", "t"),
        Property("Candidate", "b"),
        Property("Priority", "i"),
        Property("PriorityOrigin", "s"),
        Property("Protect", "b"),
        Property("ProtectOrigin", "s"),
        Property("LeftToSystemdOomd", "b"),
        Property("DryRun", "b"),
        Property("NeedDaemonReload", "b"),
        Property("Actions", "s"),
        Property("ActionsOrigin", "s"),
        Property("KillScope", "s"),
        Property("KillScopeOrigin", "s"),
        Property("TakenWith", "s"),
        Property("RankBy", "s"),
        Property("PressureTrigger", "s"),
        Property("PressureVictims", "s"),
        Property("CooldownSec", "s"),
        Property("Tier", "s"),
        Property("OnDecision", "s"),
        Property("Sources", "a{ss}"),
        # These change all the time: who wants them asks.
        Property("MemoryCurrent", "t", "false"),
        Property("MemoryReclaimable", "t", "false"),
        Property("SwapCurrent", "t", "false"),
        Property("Refaults", "t", "false"),
    ),
)
SLICE_FIGURES = tuple(item.name for item in SLICE.properties if item.emits_changed == "false")


LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
DIGITS = b"0123456789"


def property_name(field: str) -> str:
    """A field of a record as a property is written: "trigger_usec" -> "TriggerUsec"."""
    return "".join(word.capitalize() for word in field.split("_"))


DECISION_PROPERTIES = {property_name(field): field for field in DECISION_SIGNATURES}
"""Property -> field of Decision."""
DECISION = Interface(
    "org.oomslice1.Decision",
    properties=tuple(
        # What its steps froze or slowed down is undone when it is calm; all else is history.
        Property(name, DECISION_SIGNATURES[field], "true" if field == "steps" else "const")
        for name, field in DECISION_PROPERTIES.items()
    ),
)


def escaped(text: str) -> str:
    """One part of an object path for any text, as systemd escapes unit names (sd_bus_path_encode(3))."""
    if not text:
        return "_"
    return "".join(
        chr(byte) if byte in LETTERS or (byte in DIGITS and position) else f"_{byte:02x}"
        for position, byte in enumerate(text.encode("utf-8", "surrogateescape"))
    )


def slice_path(unit: str) -> str:
    """The object of a unit."""
    return f"{SLICES_PATH}/{escaped(unit)}"


def decision_path(id: str) -> str:
    """The object of a decision."""
    return f"{DECISIONS_PATH}/{escaped(id)}"
