# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can go wrong between a caller and the daemon, and which D-Bus error name stands for which exception."""

from __future__ import annotations

from oomslice.errors import BusError, OomsliceError


class BusUnreachableError(BusError):
    """There is no message bus, or it does not answer."""

    bus_name = "org.freedesktop.DBus.Error.NoServer"


class NotRunningError(BusError):
    """Nobody owns the daemon's name."""

    bus_name = "org.freedesktop.DBus.Error.ServiceUnknown"


class AccessDeniedError(BusError):
    """The caller may not do that."""

    bus_name = "org.freedesktop.DBus.Error.AccessDenied"


class InteractionRequiredError(BusError):
    """The caller may do that after a password, and did not say that he may be asked for one."""

    bus_name = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"


class NoReplyError(BusError):
    """No answer in time."""

    bus_name = "org.freedesktop.DBus.Error.NoReply"


class InvalidArgumentsError(BusError):
    """The arguments of a call have wrong types."""

    bus_name = "org.freedesktop.DBus.Error.InvalidArgs"


class UnknownMethodError(BusError):
    """No such method: the daemon is of another version."""

    bus_name = "org.freedesktop.DBus.Error.UnknownMethod"


class UnknownObjectError(BusError):
    """No object at this path."""

    bus_name = "org.freedesktop.DBus.Error.UnknownObject"


class UnknownInterfaceError(BusError):
    """No such interface at this object."""

    bus_name = "org.freedesktop.DBus.Error.UnknownInterface"


class UnknownPropertyError(BusError):
    """No such property: the daemon is of another version."""

    bus_name = "org.freedesktop.DBus.Error.UnknownProperty"


class PropertyReadOnlyError(BusError):
    """All properties here are."""

    bus_name = "org.freedesktop.DBus.Error.PropertyReadOnly"


class LimitsExceededError(BusError):
    """Too much at once, or too large."""

    bus_name = "org.freedesktop.DBus.Error.LimitsExceeded"


ALIASES = {
    "org.freedesktop.DBus.Error.NameHasNoOwner": NotRunningError,
    "org.freedesktop.DBus.Error.Timeout": NoReplyError,
    "org.freedesktop.DBus.Error.TimedOut": NoReplyError,
    "org.freedesktop.DBus.Error.Disconnected": BusUnreachableError,
}
"""Further names for the same thing, from the bus or from other implementations of it."""


def error_of(name: str, message: str) -> OomsliceError:
    """The exception that stands for a D-Bus error: of our own tree if the name is ours, else a BusError."""
    kind = ALIASES.get(name) or _by_name(OomsliceError, name)
    if kind is not None:
        return kind(message)
    return BusError(f"{name}: {message}" if message else name)


def _by_name(kind: type[OomsliceError], name: str) -> type[OomsliceError] | None:
    if kind.__dict__.get("bus_name") == name:
        return kind
    for child in kind.__subclasses__():
        if found := _by_name(child, name):
            return found
    return None
