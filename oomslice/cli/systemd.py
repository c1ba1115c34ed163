# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd says of its units, asked over our own connection to the bus: for verbs that work without the daemon.

The daemon has a worker process for that, since pystemd holds all of Python while it waits; who has nothing else to do
needs neither the process nor pystemd, and both take longer to start than all the rest of a call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oomslice.bus.errors import (
    BusUnreachableError,
    InvalidArgumentsError,
    NoReplyError,
    UnknownInterfaceError,
    UnknownMethodError,
    UnknownObjectError,
    UnknownPropertyError,
)
from oomslice.bus.question import Questioner
from oomslice.errors import BusError, UnitsError
from oomslice.units.model import UnitSnapshot
from oomslice.units.reader import MANAGER, NoSuchObjectError, NoSuchPropertyError, Reader

SYSTEMD = "org.freedesktop.systemd1"
PROPERTIES = "org.freedesktop.DBus.Properties"
NO_SUCH_UNIT = f"{SYSTEMD}.NoSuchUnit"
MESSAGE_MAX = 64 << 20
"""A list of some hundred thousand units."""
TIMEOUT_SEC = 2.0
ATTEMPTS = 3
"""How often a question that timed out is asked: PID 1 does not answer while it reloads."""
EXPECTED = (
    *(BusUnreachableError, UnknownPropertyError, UnknownInterfaceError),
    *(UnknownObjectError, UnknownMethodError),
)
"""What has a meaning of its own here; any other error is the end of it."""


def snapshot(cgroup_root: Path = Path("/sys/fs/cgroup"), root: Path = Path("/")) -> UnitSnapshot:
    """All slices, services and scopes of PID 1 that have a cgroup. Raises UnitsError."""
    try:
        with Questioner(maximum_message=MESSAGE_MAX) as questioner:
            return Reader(_Bus(questioner), cgroup_root, root).snapshot(full=True)
    except BusUnreachableError as error:
        raise UnitsError(f"systemd cannot be asked: {error}") from error


class _Bus:
    """Implements units.reader.Bus."""

    def __init__(self, questioner: Questioner) -> None:
        self._questioner = questioner

    def list_units(self) -> list[tuple[Any, ...]]:
        """The body of Manager.ListUnits()."""
        return [tuple(listed) for listed in self._call(*MANAGER, "ListUnits")[0]]

    def get(self, path: str, interface: str, name: str, signature: str) -> Any:
        """One property."""
        try:
            (value,) = self._call(path, PROPERTIES, "Get", "ss", (interface, name))
        except (UnknownPropertyError, UnknownInterfaceError) as error:
            raise NoSuchPropertyError from error
        except (UnknownObjectError, UnknownMethodError) as error:
            raise NoSuchObjectError from error
        except ValueError as error:
            raise UnitsError(f"systemd said of {name} what cannot be read") from error
        return value

    def _call(
        self, path: str, interface: str, member: str, signature: str = "", arguments: tuple[Any, ...] = ()
    ) -> Any:
        for _ in range(ATTEMPTS):
            try:
                return self._questioner.call(
                    SYSTEMD, path, interface, member, signature, arguments, timeout=TIMEOUT_SEC
                )
            except NoReplyError:
                continue
            except EXPECTED:
                raise
            except InvalidArgumentsError as error:
                raise UnitsError(f"systemd cannot be understood: {error}") from error
            except BusError as error:
                if str(error).startswith(NO_SUCH_UNIT):
                    raise UnknownObjectError(str(error)) from error
                raise UnitsError(f"systemd cannot be asked: {error}") from error
        raise UnitsError(f"systemd did not answer {member} {ATTEMPTS} times")
