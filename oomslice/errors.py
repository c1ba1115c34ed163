# SPDX-License-Identifier: LGPL-2.1-or-later
"""The one tree of exceptions. Everything that oomslice raises on purpose is an OomsliceError.

`bus_name` is the D-Bus error name that a caller of org.oomslice1 sees; it is inherited down the tree.
"""

from __future__ import annotations


class OomsliceError(Exception):
    """Root of all errors of this package."""

    bus_name = "org.oomslice1.Error.Failed"


class SettingsError(OomsliceError):
    """Configuration that cannot be used at all (single bad values are `Problem`s, not errors)."""

    bus_name = "org.oomslice1.Error.InvalidConfiguration"


class UnitsError(OomsliceError):
    """systemd could not be asked, or did not answer in time."""

    bus_name = "org.oomslice1.Error.NoSystemd"


class CgroupError(OomsliceError):
    """cgroup v2 is missing or cannot be read."""

    bus_name = "org.oomslice1.Error.NoCgroup"


class PlanError(OomsliceError):
    """A plan could not be encoded, or the core refused it.

    `result` is the `enum oomslice_plan_result` value (negative: -errno), `detail` the index it names.
    """

    bus_name = "org.oomslice1.Error.PlanRefused"

    def __init__(self, message: str, result: int = 0, detail: int = 0) -> None:
        super().__init__(message)
        self.result = result
        self.detail = detail


class ChannelError(OomsliceError):
    """The core cannot be reached or broke the protocol."""

    bus_name = "org.oomslice1.Error.NoCore"


class KernelError(OomsliceError, OSError):
    """A kernel interface that the library exposes failed; `errno` is set."""

    bus_name = "org.oomslice1.Error.Kernel"


class RefusedError(OomsliceError):
    """The core does not do what it was asked to; the text says why."""

    bus_name = "org.oomslice1.Error.Refused"


class StoreError(OomsliceError):
    """The decision store cannot be read or written."""

    bus_name = "org.oomslice1.Error.Store"


class NoSuchDecisionError(OomsliceError):
    """No decision has this id."""

    bus_name = "org.oomslice1.Error.NoSuchDecision"


class InvalidSettingError(OomsliceError):
    """A key or value that was to be set is none. The text names both, and what would be right."""

    bus_name = "org.oomslice1.Error.InvalidSetting"


class NoSuchUnitError(OomsliceError):
    """No unit of this name is known."""

    bus_name = "org.oomslice1.Error.NoSuchUnit"


class BusError(OomsliceError):
    """The bus or the daemon behind it does not answer."""

    bus_name = "org.oomslice1.Error.Bus"
