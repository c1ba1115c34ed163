# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is on the bus, as data: names, argument names, types and change signals of org.oomslice1.

The service answers from it, the client takes its types from it, the introspection XML is made of it. Types are D-Bus
signatures. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

BUS_NAME = "org.oomslice1"
OBJECT_PATH = "/org/oomslice1"

DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
CAPITAL = re.compile(r"(?<=[a-z0-9])([A-Z])")
EMITS_CHANGED = "org.freedesktop.DBus.Property.EmitsChangedSignal"


class Argument(NamedTuple):
    """One argument of a method or signal."""

    name: str
    signature: str


class Method(NamedTuple):
    """A method. `action` is what a caller must be permitted to do, empty if everybody may call it."""

    name: str
    inputs: tuple[Argument, ...] = ()
    outputs: tuple[Argument, ...] = ()
    action: str = ""

    @property
    def in_signature(self) -> str:
        return "".join(argument.signature for argument in self.inputs)

    @property
    def out_signature(self) -> str:
        return "".join(argument.signature for argument in self.outputs)


class Signal(NamedTuple):
    """A signal."""

    name: str
    arguments: tuple[Argument, ...] = ()

    @property
    def signature(self) -> str:
        return "".join(argument.signature for argument in self.arguments)


class Property(NamedTuple):
    """A property. `emits_changed` is "true", "invalidates", "const" or "false", as in the specification; `writable` by
    root."""

    name: str
    signature: str
    emits_changed: str = "true"
    writable: bool = False


class Interface(NamedTuple):
    """One interface."""

    name: str
    methods: tuple[Method, ...] = ()
    signals: tuple[Signal, ...] = ()
    properties: tuple[Property, ...] = ()

    def method(self, name: str) -> Method | None:
        return next((method for method in self.methods if method.name == name), None)

    def signal(self, name: str) -> Signal:
        """Raises KeyError."""
        return {signal.name: signal for signal in self.signals}[name]

    def property(self, name: str) -> Property | None:
        return next((item for item in self.properties if item.name == name), None)


PEER = Interface(
    "org.freedesktop.DBus.Peer",
    methods=(Method("Ping"), Method("GetMachineId", outputs=(Argument("machine_uuid", "s"),))),
)
INTROSPECTABLE = Interface(
    "org.freedesktop.DBus.Introspectable",
    methods=(Method("Introspect", outputs=(Argument("xml_data", "s"),)),),
)
PROPERTIES = Interface(
    "org.freedesktop.DBus.Properties",
    methods=(
        Method("Get", (Argument("interface_name", "s"), Argument("property_name", "s")), (Argument("value", "v"),)),
        Method("GetAll", (Argument("interface_name", "s"),), (Argument("props", "a{sv}"),)),
        Method("Set", (Argument("interface_name", "s"), Argument("property_name", "s"), Argument("value", "v"))),
    ),
    signals=(
        Signal(
            "PropertiesChanged",
            (
                Argument("interface_name", "s"),
                Argument("changed_properties", "a{sv}"),
                Argument("invalidated_properties", "as"),
            ),
        ),
    ),
)
STANDARD_INTERFACES = (PEER, INTROSPECTABLE, PROPERTIES)
OBJECT_MANAGER = Interface(
    "org.freedesktop.DBus.ObjectManager",
    methods=(Method("GetManagedObjects", outputs=(Argument("objects", "a{oa{sa{sv}}}"),)),),
    signals=(
        Signal("InterfacesAdded", (Argument("object_path", "o"), Argument("interfaces_and_properties", "a{sa{sv}}"))),
        Signal("InterfacesRemoved", (Argument("object_path", "o"), Argument("interfaces", "as"))),
    ),
)

MANAGER = Interface(
    "org.oomslice1.Manager",
    methods=(
        Method("ListSlices", outputs=(Argument("slices", "a(ssibbss)"),)),
        Method("GetSlice", (Argument("name", "s"),), (Argument("settings", "a{sv}"),)),
        Method(
            "ListDecisions",
            (Argument("since_usec", "t"), Argument("limit", "u")),
            (Argument("decisions", "a(stssss)"),),
        ),
        Method("GetDecision", (Argument("id", "s"),), (Argument("decision", "a{sv}"),)),
        Method(
            "GetHistory",
            (Argument("id", "s"),),
            (Argument("samples", "a(ttttt)"), Argument("units", "a(tst)")),
        ),
        Method(
            "GetStatistics",
            outputs=(
                Argument("decisions", "a(sssst)"),
                Argument("latencies", "a(sa(dt)td)"),
                Argument("figures", "a{sv}"),
            ),
        ),
        Method("Explain", outputs=(Argument("domains", "a(sa(sitsss))"),)),
        Method(
            "Simulate",
            (Argument("settings", "a{sa{sv}}"),),
            (Argument("domains", "a(sa(sitsss))"),),
        ),
        Method(
            "SetPriority",
            (Argument("name", "s"), Argument("priority", "i"), Argument("runtime", "b")),
            (Argument("file", "s"),),
            action="set",
        ),
        Method(
            "SetProperties",
            (Argument("name", "s"), Argument("properties", "a{sv}"), Argument("runtime", "b")),
            (Argument("file", "s"),),
            action="set",
        ),
        Method("Act", (Argument("name", "s"), Argument("step", "s")), (Argument("decision", "s"),), action="act"),
        Method("Release", (Argument("name", "s"),), action="release"),
        Method("Reload", action="reload"),
    ),
    signals=(
        Signal(
            "DecisionMade",
            (Argument("id", "s"), Argument("domain", "s"), Argument("victim", "s"), Argument("outcome", "s")),
        ),
        Signal(
            "Warning",
            (
                Argument("decision", "s"),
                Argument("unit", "s"),
                Argument("domain", "s"),
                Argument("deadline_usec", "t"),
            ),
        ),
        Signal(
            "StepTaken",
            (Argument("decision", "s"), Argument("unit", "s"), Argument("step", "s"), Argument("result", "s")),
        ),
        Signal("PressureBegan", (Argument("domain", "s"),)),
        Signal("PressureEnded", (Argument("domain", "s"),)),
        Signal("CarrierChanged", (Argument("name", "s"), Argument("active", "b"), Argument("detail", "s"))),
    ),
    properties=(
        Property("Version", "s", "const"),
        Property("State", "a{sv}", "invalidates"),
        Property("Carriers", "aa{sv}"),
        Property("ConfigurationErrors", "a(susss)"),
    ),
)

DECISION_SIGNATURES: Mapping[str, str] = MappingProxyType(
    {
        "id": "s",
        "boot_id": "s",
        "carrier": "s",
        "trigger": "s",
        "domain": "s",
        "outcome": "s",
        "realtime_usec": "t",
        "trigger_usec": "t",
        "decision_usec": "t",
        "signal_usec": "t",
        "death_usec": "t",
        "memory_back_usec": "t",
        "step": "s",
        "steps": "aa{sv}",
        "kill_scope": "s",
        "flags": "as",
        "rank_by": "s",
        "victim": "s",
        "victim_cgroup_id": "t",
        "victim_priority": "i",
        "agreement": "s",
        "planned_victim": "s",
        "victim_memory_before": "t",
        "victim_memory_after": "t",
        "bytes_freed": "t",
        "processes": "u",
        "pids": "ai",
        "reaped": "u",
        "error": "i",
        "memory_total": "t",
        "memory_available": "t",
        "memory_available_limit": "t",
        "memory_available_after": "t",
        "swap_total": "t",
        "swap_free": "t",
        "swap_free_limit": "t",
        "pressure": "s",
        "pressure_some_avg10": "d",
        "pressure_full_avg10": "d",
        "plan_generation": "t",
        "candidates": "a(stits)",
        "candidates_total": "u",
        "extra": "a{sv}",
    }
)
"""GetDecision: the fields of Decision and their types."""

KEY_SIGNATURES: Mapping[str, str] = MappingProxyType(
    {
        "cgroup_id": "t",
        "priority": "i",
        "owner": "u",
        "pid": "u",
        "core_pid": "u",
        "line": "u",
        "memory": "t",
        "current": "t",
        "swap": "t",
        "metric": "t",
        "plan_generation": "t",
        "units": "u",
        "domains": "u",
        "candidates": "u",
        "processes": "u",
        "problems": "u",
        "amount": "t",
        "error": "i",
        "undo_error": "i",
        "memory_before": "t",
        "memory_after": "t",
        "core_wakeups": "t",
        "core_decisions": "t",
        "oomscore_adjust": "i",
        "hits": "t",
        "missed": "t",
    }
)
"""Whole numbers by key in State, Carriers, GetSlice, and a decision's `steps` and `extra`; others: `key_signature`."""


def key_signature(key: str) -> str:
    """The D-Bus type of a whole number under this key: the same whatever its value is. Sizes and times are unsigned.

    Keys may be written CgroupId or cgroup_id.
    """
    key = CAPITAL.sub(r"_\1", key).lower()
    if key in KEY_SIGNATURES:
        return KEY_SIGNATURES[key]
    if key.endswith(("_usec", "_bytes", "_id", "_total", "_dropped", "_generation")):
        return "t"
    return "x"


def quoteattr(text: str) -> str:
    """As an attribute's value. xml.sax.saxutils has it too, and imports urllib, http and ssl with it."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return f'"{escaped}"'


def introspection(interfaces: tuple[Interface, ...], children: tuple[str, ...] = ()) -> str:
    """The introspection XML of an object with these interfaces and child nodes."""
    lines = [DOCTYPE + "<node>"]
    for interface in interfaces:
        lines.append(f" <interface name={quoteattr(interface.name)}>")
        for method in interface.methods:
            lines.append(f"  <method name={quoteattr(method.name)}>")
            for argument in method.inputs:
                lines.append(_argument(argument, ' direction="in"'))
            for argument in method.outputs:
                lines.append(_argument(argument, ' direction="out"'))
            lines.append("  </method>")
        for signal in interface.signals:
            lines.append(f"  <signal name={quoteattr(signal.name)}>")
            for argument in signal.arguments:
                lines.append(_argument(argument, ""))
            lines.append("  </signal>")
        for item in interface.properties:
            lines.append(
                f"  <property name={quoteattr(item.name)} type={quoteattr(item.signature)}"
                f' access="{"readwrite" if item.writable else "read"}">\n'
                f"   <annotation name={quoteattr(EMITS_CHANGED)} value={quoteattr(item.emits_changed)}/>\n"
                "  </property>"
            )
        lines.append(" </interface>")
    for child in children:
        lines.append(f" <node name={quoteattr(child)}/>")
    lines.append("</node>\n")
    return "\n".join(lines)


def _argument(argument: Argument, direction: str) -> str:
    return f"   <arg name={quoteattr(argument.name)} type={quoteattr(argument.signature)}{direction}/>"
