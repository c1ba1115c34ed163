# SPDX-License-Identifier: LGPL-2.1-or-later
"""The other side of the service: org.oomslice1.Manager as plain Python values, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from oomslice.bus.asking import (
    ACT_TIMEOUT_S,
    CALL_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    MESSAGE_MAX,
    Question,
    all_properties,
    explained,
    method,
    one_property,
)
from oomslice.bus.errors import BusUnreachableError
from oomslice.bus.interface import BUS_NAME, OBJECT_PATH, Method
from oomslice.bus.message import typed
from oomslice.bus.transport import Connection


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
            self._address, timeout=min(self._timeout, CONNECT_TIMEOUT_S), maximum_message=MESSAGE_MAX
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
        question = method(name, arguments)
        assert question.method is not None
        return await self._call(question._replace(arguments=typed_arguments(question.method, arguments)))

    async def get(self, name: str) -> Any:
        """One property."""
        return await self._call(one_property(name))

    async def get_all(self) -> dict[str, Any]:
        """All properties that can be read."""
        values: dict[str, Any] = await self._call(all_properties())
        return values

    async def _call(self, question: Question) -> Any:
        timeout = self._act_timeout if question.acts else self._timeout
        if self._connection is None:
            raise BusUnreachableError("not connected")
        with explained(question.member, timeout):
            answer = await self._connection.call(
                BUS_NAME,
                OBJECT_PATH,
                question.interface,
                question.member,
                question.signature,
                question.arguments,
                timeout=timeout,
                interactive=question.acts,
                start_service=self._start_service,
            )
        return question.answer(answer)


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
