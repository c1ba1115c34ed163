# SPDX-License-Identifier: LGPL-2.1-or-later
"""Properties of units as text, as systemctl shows them, asked over our own connection: a process of systemctl takes as
long to start as all the rest of doctor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oomslice.bus.errors import UnknownInterfaceError, UnknownMethodError, UnknownObjectError, UnknownPropertyError
from oomslice.bus.members import escaped
from oomslice.bus.question import Questioner
from oomslice.errors import BusError

SYSTEMD = "org.freedesktop.systemd1"
UNIT_PATH = "/org/freedesktop/systemd1/unit"
PROPERTIES = "org.freedesktop.DBus.Properties"
OF_EVERY_UNIT = frozenset({"Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "NeedDaemonReload"})
INFINITE = (1 << 64) - 1
TIMEOUT_SEC = 10.0


def show(units: Sequence[str], properties: Sequence[str]) -> dict[str, dict[str, str]]:
    """Unit -> property -> value; what a unit does not have is left out. Raises OSError, saying why systemd did not
    answer."""
    try:
        with Questioner(timeout=TIMEOUT_SEC) as questioner:
            return {unit: _properties(questioner, unit, properties) for unit in units}
    except BusError as error:
        raise OSError(str(error)) from error


def _properties(questioner: Questioner, unit: str, names: Sequence[str]) -> dict[str, str]:
    kind = unit.rpartition(".")[2].capitalize()
    values: dict[str, str] = {}
    for name in names:
        interface = f"{SYSTEMD}.{'Unit' if name in OF_EVERY_UNIT else kind}"
        try:
            (value,) = questioner.call(
                SYSTEMD, object_path(unit), PROPERTIES, "Get", "ss", (interface, name), timeout=TIMEOUT_SEC
            )
        except (UnknownPropertyError, UnknownInterfaceError, UnknownObjectError, UnknownMethodError):
            continue
        values[name] = text(value)
    return values


def object_path(unit: str) -> str:
    """Where the unit is on the bus."""
    return f"{UNIT_PATH}/{escaped(unit)}"


def text(value: Any) -> str:
    """A value as systemctl writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "infinity" if value == INFINITE else str(value)
