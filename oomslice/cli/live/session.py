# SPDX-License-Identifier: LGPL-2.1-or-later
"""A connection to oomsliced that is kept, and made anew when it is lost."""

from __future__ import annotations

from types import TracebackType

from oomslice.bus.client import ManagerClient
from oomslice.bus.errors import BusUnreachableError
from oomslice.cli.ask import BusManager
from oomslice.cli.live.figures import Order, ask_order

ANSWER_S = 5.0


class Session:
    """For `async with`. The first question connects."""

    def __init__(self) -> None:
        self._client: ManagerClient | None = None

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave()

    async def order(self, domain: str) -> Order:
        """Who would be chosen in that domain now. Raises OomsliceError."""
        if self._client is None:
            client = ManagerClient(timeout=ANSWER_S)
            await client.__aenter__()
            self._client = client
        try:
            return await ask_order(BusManager(self._client), domain)
        except BusUnreachableError:
            await self._leave()
            raise

    async def _leave(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.__aexit__(None, None, None)
