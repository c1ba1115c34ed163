# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a message bus is. Imports nothing, for whoever starts quickly."""

from __future__ import annotations

DEFAULT_ADDRESS = "unix:path=/run/dbus/system_bus_socket"


def socket_paths(address: str) -> list[bytes]:
    """The Unix sockets of a D-Bus address, abstract ones with a leading NUL. Source: D-Bus specification."""
    paths = []
    for entry in address.split(";"):
        transport, _, pairs = entry.partition(":")
        if transport != "unix":
            continue
        for pair in pairs.split(","):
            key, _, value = pair.partition("=")
            if key == "path":
                paths.append(_unquoted(value))
            elif key == "abstract":
                paths.append(b"\0" + _unquoted(value))
    return paths


def _unquoted(value: str) -> bytes:
    if "%" not in value:
        return value.encode("utf-8", "surrogateescape")
    from urllib.parse import unquote_to_bytes  # seldom needed

    return unquote_to_bytes(value)
