# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bus of our own with an org.freedesktop.systemd1 that says what a test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dbus_next import Message, MessageType, Variant
from dbus_next.aio import MessageBus

CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""

needs_dbus_daemon = pytest.mark.skipif(
    shutil.which("dbus-daemon") is None, reason="dbus-daemon is not installed (Debian package dbus-daemon)"
)

INFINITY = 2**64 - 1
SIGNATURES = {
    "ControlGroup": "s", "FragmentPath": "s", "DropInPaths": "as", "NeedDaemonReload": "b", "Transient": "b",
    "Delegate": "b", "ManagedOOMSwap": "s", "ManagedOOMMemoryPressure": "s", "ManagedOOMPreference": "s",
    "OOMScoreAdjust": "i", "MemoryMin": "t", "MemoryLow": "t", "MemoryHigh": "t", "MemoryMax": "t",
    "UnitsLoadTimestamp": "t", "UnitPath": "as",
}  # fmt: skip
COMMON = {"FragmentPath": "", "DropInPaths": [], "NeedDaemonReload": False, "Transient": False}
RESOURCES = {
    "Delegate": False, "ManagedOOMSwap": "auto", "ManagedOOMMemoryPressure": "auto", "ManagedOOMPreference": "none",
    "MemoryMin": 0, "MemoryLow": 0, "MemoryHigh": INFINITY, "MemoryMax": INFINITY,
}  # fmt: skip


@dataclass
class FakeUnit:
    """A unit as systemd has it; `properties` of both of its interfaces."""

    name: str
    control_group: str
    active_state: str = "active"
    sub_state: str = "running"
    load_state: str = "loaded"
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        escaped = "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):02x}" for c in self.name)
        return f"/org/freedesktop/systemd1/unit/{escaped}"

    def get(self, interface: str, name: str) -> Any:
        """Raises KeyError where systemd would not know the property."""
        unit_type = self.name.rpartition(".")[2]
        if interface == "org.freedesktop.systemd1.Unit":
            return {**COMMON, **self.properties}[name] if name in COMMON else {}[name]
        if interface != f"org.freedesktop.systemd1.{unit_type.capitalize()}":
            raise KeyError(interface)
        known = {**RESOURCES, "ControlGroup": self.control_group}
        if unit_type == "service":
            known["OOMScoreAdjust"] = 0
        return {**known, **self.properties}[name] if name in known else {}[name]


class FakeSystemd:
    """Answers ListUnits and Properties.Get; counts both in `asked`."""

    def __init__(self, units: list[FakeUnit]) -> None:
        self.units = units
        self.loaded_usec: int | None = 1_000_000
        """long ago: every file is newer, so that NeedDaemonReload is asked for"""
        self.asked: Counter[str] = Counter()
        self.silent = False
        self.unknown: set[str] = set()

    def answer(self, message: Message) -> Message | bool:
        """A message handler of dbus-next."""
        if message.message_type is not MessageType.METHOD_CALL or not message.path.startswith("/org/freedesktop/sys"):
            return False
        if self.silent:
            return True
        if message.member == "ListUnits":
            self.asked["ListUnits"] += 1
            return Message.new_method_return(message, "a(ssssssouso)", [[self._listed(unit) for unit in self.units]])
        interface, name = message.body
        self.asked[name] += 1
        try:
            if name in self.unknown:
                raise KeyError(name)
            return Message.new_method_return(message, "v", [Variant(SIGNATURES[name], self._get(message, interface))])
        except KeyError:
            return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownProperty", f"no {name}")
        except LookupError:
            return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownObject", f"no {message.path}")

    def _get(self, message: Message, interface: str) -> Any:
        name = message.body[1]
        if interface == "org.freedesktop.systemd1.Manager":
            if name == "UnitPath":
                return ["/etc/systemd/system", "/run/systemd/transient", "/usr/lib/systemd/system"]
            if self.loaded_usec is None:
                raise KeyError(name)
            return self.loaded_usec
        for unit in self.units:
            if unit.path == message.path:
                if unit.properties.get("gone"):
                    raise LookupError
                return unit.get(interface, name)
        raise LookupError

    def _listed(self, unit: FakeUnit) -> list[Any]:
        return [
            unit.name, f"The {unit.name}", unit.load_state, unit.active_state, unit.sub_state, "", unit.path, 0, "", "/"
        ]  # fmt: skip


@contextlib.asynccontextmanager
async def private_bus(directory: Path) -> AsyncIterator[str]:
    """A dbus-daemon that ends with the block. Gives its address."""
    socket = directory / "bus"
    configuration = directory / "bus.conf"
    configuration.write_text(CONFIGURATION.format(socket=socket))
    daemon = await asyncio.create_subprocess_exec(
        "dbus-daemon", f"--config-file={configuration}", "--nofork", "--print-address", stdout=asyncio.subprocess.PIPE
    )
    assert daemon.stdout is not None
    try:
        address = (await asyncio.wait_for(daemon.stdout.readline(), 60)).decode().strip()
        yield address
    finally:
        daemon.terminate()
        await daemon.wait()


@contextlib.asynccontextmanager
async def systemd_on_bus(address: str, units: list[FakeUnit]) -> AsyncIterator[FakeSystemd]:
    """A fake PID 1 on that bus."""
    fake = FakeSystemd(units)
    bus = await MessageBus(bus_address=address).connect()
    bus.add_message_handler(fake.answer)
    await bus.request_name("org.freedesktop.systemd1")
    try:
        yield fake
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()
