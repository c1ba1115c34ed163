# SPDX-License-Identifier: LGPL-2.1-or-later
"""What both clients of org.oomslice1.Manager share: how a question is called on the bus, and errors that say what to
do. Sends nothing itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from oomslice.bus.errors import AccessDeniedError, NoReplyError, NotRunningError
from oomslice.bus.interface import MANAGER, PROPERTIES, Method

MESSAGE_MAX = 32 << 20
"""What the bus lets through: a list of all decisions is long."""
CALL_TIMEOUT_S = 25.0
ACT_TIMEOUT_S = 240.0
"""What acts may have to wait for somebody who types a password, and for systemd to read all its units."""
CONNECT_TIMEOUT_S = 10.0


class Question(NamedTuple):
    """A call of the manager's object."""

    interface: str
    member: str
    signature: str
    arguments: Sequence[Any]
    method: Method | None = None
    """None for a property"""

    @property
    def acts(self) -> bool:
        """Whether somebody may have to be asked for permission."""
        return self.method is not None and bool(self.method.action)

    def answer(self, values: Sequence[Any]) -> Any:
        """What came back as what was asked for: nothing, one thing, or a list if the method returns more."""
        if self.method is not None and len(self.method.outputs) > 1:
            return values
        return values[0] if values else None


def method(name: str, arguments: Sequence[Any]) -> Question:
    """A method of the manager. Raises ValueError for a name that the interface does not have."""
    found = MANAGER.method(name)
    if found is None:
        raise ValueError(f"{MANAGER.name} has no method {name}")
    return Question(MANAGER.name, name, found.in_signature, arguments, found)


def one_property(name: str) -> Question:
    """One property of the manager."""
    return Question(PROPERTIES.name, "Get", "ss", (MANAGER.name, name))


def all_properties() -> Question:
    """All properties that can be read."""
    return Question(PROPERTIES.name, "GetAll", "s", (MANAGER.name,))


@contextmanager
def explained(member: str, timeout: float) -> Iterator[None]:
    """Errors of a call that leave here are sentences for people."""
    try:
        yield
    except NotRunningError:
        raise NotRunningError("oomsliced is not running; start it: systemctl start oomsliced") from None
    except AccessDeniedError as error:
        raise AccessDeniedError(f"{member} is not permitted: {error}") from None
    except NoReplyError:
        raise NoReplyError(
            f"oomsliced did not answer {member} within {timeout:g} s; see: systemctl status oomsliced"
        ) from None
