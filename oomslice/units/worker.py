# SPDX-License-Identifier: LGPL-2.1-or-later
"""The process that talks to systemd: `python3 -m oomslice.units.worker`. The only importer of pystemd.

It answers requests from standard input on standard output (see wire.py), one after the other, until end of file. Any
trouble with the bus ends it: the client starts a new one, with a new connection. The connection is never closed by
hand, because closing one twice aborts the interpreter. `--once` prints one snapshot for people to read.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

# Read by libsystemd when the first call is made: seconds that one call may take.
os.environ.setdefault("SYSTEMD_BUS_TIMEOUT", "2")

from pystemd import dbusexc
from pystemd.dbuslib import DBus

from oomslice.errors import UnitsError
from oomslice.units import wire
from oomslice.units.reader import MANAGER, NoSuchObjectError, NoSuchPropertyError, Reader

ATTEMPTS = 3
"""How often a call that timed out is made: PID 1 does not answer while it reloads."""

PROGRESS_SEC = 0.5
FAILURES_MAX = 1000
"""Failed calls after which the process gives way to a new one: each leaks about 1 kB in pystemd."""

_DESTINATION = b"org.freedesktop.systemd1"
_PROPERTIES = b"org.freedesktop.DBus.Properties"

Result = TypeVar("Result")


class SystemBus:
    """One connection to the system bus, and on it to PID 1. Raises UnitsError if there is none."""

    def __init__(self) -> None:
        self.failures = 0
        self._bus = DBus()
        try:
            self._bus.open()
        except dbusexc.DBusBaseError as error:
            raise UnitsError(f"the system bus cannot be reached: {_text(error)}") from error

    def list_units(self) -> list[tuple[Any, ...]]:
        """The body of Manager.ListUnits()."""
        path, interface = MANAGER
        body = self._call(
            lambda: self._bus.call_method(_DESTINATION, path.encode(), interface.encode(), b"ListUnits", []).body
        )
        return [tuple(_decoded(value) for value in listed) for listed in body or []]

    def get(self, path: str, interface: str, name: str, signature: str) -> Any:
        """One property of an object of PID 1."""
        value = self._call(
            lambda: self._bus.get_property(
                _DESTINATION, path.encode(), interface.encode(), name.encode(), signature.encode()
            )
        )
        return _decoded(value)

    def _call(self, function: Callable[[], Result]) -> Result:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return function()
            except (dbusexc.DBusUnknownPropertyError, dbusexc.DBusUnknownInterfaceError) as error:
                self.failures += 1
                raise NoSuchPropertyError from error
            except (dbusexc.DBusUnknownObjectError, dbusexc.DBusNoSuchUnitError) as error:
                self.failures += 1
                raise NoSuchObjectError from error
            except dbusexc.DBusBaseError as error:
                self.failures += 1
                if abs(error.errno) != errno.ETIMEDOUT:
                    raise UnitsError(f"systemd cannot be asked: {_text(error)}") from error
                if attempt == ATTEMPTS:
                    raise UnitsError(f"systemd did not answer {ATTEMPTS} times: {_text(error)}") from error
        raise AssertionError("unreachable")


def _decoded(value: Any) -> Any:
    """pystemd gives strings as bytes. Names are UTF-8 on the bus; paths may be anything."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return [_decoded(element) for element in value]
    return value


def _text(error: Any) -> str:
    text = error.err_message
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return text or os.strerror(abs(error.errno))


def serve(input_: Any, output: Any, connect: Callable[[], SystemBus], cgroup_root: Path, root: Path) -> int:
    """Answers requests until end of file (0) or trouble (1)."""
    bus: SystemBus | None = None
    reader: Reader | None = None
    number = 0
    said_at = time.monotonic()

    def say(line: bytes) -> None:
        nonlocal said_at
        output.write(line)
        output.flush()
        said_at = time.monotonic()

    def progress(done: int) -> None:
        if time.monotonic() - said_at >= PROGRESS_SEC:
            say(wire.progress_line(number, done))

    while line := input_.readline(wire.LINE_MAX):
        try:
            number, full = wire.parse_request(line)
            said_at = time.monotonic()
            if bus is None or reader is None:
                bus = connect()
                reader = Reader(bus, cgroup_root, root, progress)
            say(wire.snapshot_line(number, reader.snapshot(full=full)))
        except UnitsError as error:
            say(wire.error_line(number, str(error)))
            return 1
        if bus.failures > FAILURES_MAX:
            return 0
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's main function. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="oomslice-units-worker", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--once", action="store_true", help="print one snapshot as JSON and end")
    parser.add_argument("--cgroup-root", type=Path, default=Path("/sys/fs/cgroup"), metavar="DIR")
    parser.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="where unit files are looked at")
    options = parser.parse_args(arguments)
    try:
        if options.once:
            print(wire.snapshot_text(Reader(SystemBus(), options.cgroup_root, options.root).snapshot(full=True)))
            return 0
        return serve(sys.stdin.buffer, sys.stdout.buffer, SystemBus, options.cgroup_root, options.root)
    except UnitsError as error:
        print(f"oomslice-units-worker: {error}", file=sys.stderr)
        return 1
    except (BrokenPipeError, KeyboardInterrupt):
        return 1


if __name__ == "__main__":
    sys.exit(main())
