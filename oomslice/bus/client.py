# SPDX-License-Identifier: LGPL-2.1-or-later
"""The other side of the service: org.oomslice1.Manager as plain Python values, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from oomslice.bus.errors import AccessDeniedError, BusUnreachableError, NoReplyError, NotRunningError
from oomslice.bus.interface import BUS_NAME, MANAGER, OBJECT_PATH, PROPERTIES, Method
from oomslice.bus.transport import CALL_TIMEOUT_S, Connection, typed

MESSAGE_MAX = 32 << 20
"""What the bus lets through: a list of all decisions is long."""


ACT_TIMEOUT_S = 240.0
"""What acts may have to wait for somebody who types a password, and for systemd to read all its units."""


class ManagerClient:
    """A connection to the running daemon, to be used in `async with`.

    `address` is a D-Bus address, by default the system bus. `start_service` has systemd start the daemon if it does
    not run. Raises BusUnreachableError, NotRunningError, AccessDeniedError, NoReplyError (all BusErrors) with a
    sentence for people; and what the daemon answered, as the exception of oomslice.errors: NoSuchDecisionError, ...
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        timeout: float = CALL_TIMEOUT_S,
        act_timeout: float = ACT_TIMEOUT_S,
        start_service: bool = False,
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._act_timeout = act_timeout
        self._start_service = start_service
        self._connection: Connection | None = None

    async def __aenter__(self) -> ManagerClient:
        self._connection = await Connection.open(
            self._address, timeout=min(self._timeout, 10.0), maximum_message=MESSAGE_MAX
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def call(self, name: str, *arguments: Any) -> Any:
        """Calls a method of the manager; returns what it returns: None if that is nothing, a list if it is more than
        one thing. Variants are plain values.

        Raises ValueError for a name that the interface does not have, or arguments of other types than it takes.
        """
        method = MANAGER.method(name)
        if method is None:
            raise ValueError(f"{MANAGER.name} has no method {name}")
        answer = await self._call(MANAGER.name, name, method.in_signature, typed_arguments(method, arguments), method)
        if len(method.outputs) > 1:
            return answer
        return answer[0] if answer else None

    async def get(self, name: str) -> Any:
        """One property."""
        return (await self._call(PROPERTIES.name, "Get", "ss", (MANAGER.name, name)))[0]

    async def get_all(self) -> dict[str, Any]:
        """All properties that can be read."""
        values: dict[str, Any] = (await self._call(PROPERTIES.name, "GetAll", "s", (MANAGER.name,)))[0]
        return values

    async def _call(
        self, interface: str, name: str, signature: str, arguments: Sequence[Any], method: Method | None = None
    ) -> list[Any]:
        acts = method is not None and bool(method.action)
        timeout = self._act_timeout if acts else self._timeout
        if self._connection is None:
            raise BusUnreachableError("not connected")
        try:
            return await self._connection.call(
                BUS_NAME,
                OBJECT_PATH,
                interface,
                name,
                signature,
                arguments,
                timeout=timeout,
                interactive=acts,
                start_service=self._start_service,
            )
        except NotRunningError:
            raise NotRunningError("oomsliced is not running; start it: systemctl start oomsliced") from None
        except AccessDeniedError as error:
            raise AccessDeniedError(f"{name} is not permitted: {error}") from None
        except NoReplyError:
            raise NoReplyError(
                f"oomsliced did not answer {name} within {timeout:g} s; see: systemctl status oomsliced"
            ) from None


def typed_arguments(method: Method, arguments: Sequence[Any]) -> list[Any]:
    """Arguments for a method; texts in a dictionary of variants are given their type. Raises ValueError."""
    if len(arguments) != len(method.inputs):
        return list(arguments)  # refused with the types that were expected
    return [
        {key: typed("s", item) if isinstance(item, str) else item for key, item in value.items()}
        if argument.signature == "a{sv}" and isinstance(value, Mapping)
        else value
        for argument, value in zip(method.inputs, arguments, strict=True)
    ]
