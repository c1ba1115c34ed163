# SPDX-License-Identifier: LGPL-2.1-or-later
"""Asking oomsliced, and saying what to do when it does not answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.errors import BusError, NoSuchDecisionError, NoSuchUnitError, OomsliceError

if TYPE_CHECKING:
    from oomslice.bus.asking import Question
    from oomslice.bus.client import ManagerClient
    from oomslice.bus.question import Questioner

T = TypeVar("T")

DAEMON = "usr/lib/oomslice/oomsliced"
CONTROLLERS = "sys/fs/cgroup/cgroup.controllers"
"""A file that only cgroup v2 has there (cgroup-v2.rst)."""

PACKAGES = {
    "dbus_next": "python3-dbus-next",
    "yaml": "python3-yaml",
    "pystemd": "python3-pystemd",
    "_cffi_backend": "python3-cffi-backend",
    "cffi": "python3-cffi-backend",
}
"""Module -> Debian package."""


class Manager(Protocol):
    """The questions that verbs ask; a test gives its own answers."""

    async def rows(self, member: str, *arguments: Any) -> list[Any]:
        """A method that returns an array."""

    async def values(self, member: str, *arguments: Any) -> dict[str, Any]:
        """A method that returns a dictionary."""

    async def slice(self, name: str) -> dict[str, Any]:
        """GetSlice(). Raises NoSuchUnitError."""

    async def get(self, name: str) -> Any:
        """A property."""

    async def do(self, member: str, *arguments: Any) -> Any:
        """A method that acts; somebody may have to type a password first."""


class BusManager:
    """org.oomslice1.Manager on the system bus."""

    def __init__(self, client: ManagerClient) -> None:
        self._client = client

    async def rows(self, member: str, *arguments: Any) -> list[Any]:
        """A method that returns an array."""
        return list(await self._client.call(member, *arguments))

    async def values(self, member: str, *arguments: Any) -> dict[str, Any]:
        """A method that returns a dictionary."""
        return dict(await self._client.call(member, *arguments))

    async def slice(self, name: str) -> dict[str, Any]:
        """GetSlice(). Raises NoSuchUnitError."""
        return await self.values("GetSlice", name)

    async def get(self, name: str) -> Any:
        """A property."""
        return await self._client.get(name)

    async def do(self, member: str, *arguments: Any) -> Any:
        """A method that acts."""
        return await self._client.call(member, *arguments)


class QuickManager:
    """The same for a call that asks and ends: it is there before asyncio would be imported. Its answers need no
    waiting for others, so `answered` can run what awaits them."""

    def __init__(self, questioner: Questioner, timeout: float | None = None) -> None:
        """`timeout` in seconds, for what does not act; by default as long as the other client waits."""
        self._questioner = questioner
        self._timeout = timeout

    async def rows(self, member: str, *arguments: Any) -> list[Any]:
        """A method that returns an array."""
        return list(await self.do(member, *arguments))

    async def values(self, member: str, *arguments: Any) -> dict[str, Any]:
        """A method that returns a dictionary."""
        return dict(await self.do(member, *arguments))

    async def slice(self, name: str) -> dict[str, Any]:
        """GetSlice(). Raises NoSuchUnitError."""
        return await self.values("GetSlice", name)

    async def get(self, name: str) -> Any:
        """A property."""
        from oomslice.bus.asking import one_property

        return self._call(one_property(name))

    async def do(self, member: str, *arguments: Any) -> Any:
        """A method that acts."""
        return await self.call(member, *arguments)

    async def call(self, member: str, *arguments: Any) -> Any:
        """Any method, as ManagerClient has it."""
        from oomslice.bus.asking import method

        return self._call(method(member, arguments))

    def _call(self, question: Question) -> Any:
        from oomslice.bus.asking import ACT_TIMEOUT_S, CALL_TIMEOUT_S, explained
        from oomslice.bus.interface import BUS_NAME, OBJECT_PATH

        timeout = ACT_TIMEOUT_S if question.acts else self._timeout or CALL_TIMEOUT_S
        with explained(question.member, timeout):
            answer = self._questioner.call(
                BUS_NAME,
                OBJECT_PATH,
                question.interface,
                question.member,
                question.signature,
                question.arguments,
                timeout=timeout,
                interactive=question.acts,
            )
        return question.answer(answer)


def answered(question: Awaitable[T]) -> T:
    """The result of what awaits nothing but answers of a QuickManager, and so never has to wait for a loop."""
    steps = question.__await__()
    try:
        next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("a question has to wait for something else than its answers")


def ask(question: Callable[[Manager], Awaitable[T]]) -> T:
    """The answer to `question`. Raises CommandFailure, which says what to do."""
    try:
        from oomslice.bus.asking import MESSAGE_MAX
        from oomslice.bus.question import Questioner
    except ModuleNotFoundError as error:
        raise missing_module(error) from error

    try:
        with Questioner(maximum_message=MESSAGE_MAX) as questioner:
            return answered(question(QuickManager(questioner)))
    except BusError as error:
        raise unanswered(error) from error
    except NoSuchDecisionError as error:
        raise CommandFailure(str(error), Exit.FAILED, "oomslicectl decisions lists those that are kept.") from error
    except NoSuchUnitError as error:
        raise CommandFailure(str(error), Exit.FAILED, "oomslicectl slices lists the units oomslice knows.") from error
    except CommandFailure:
        raise
    except OomsliceError as error:
        raise CommandFailure(str(error), Exit.FAILED) from error


def missing_module(error: ModuleNotFoundError) -> CommandFailure:
    """A Python package that is not there, by the name it has in Debian."""
    module = (error.name or "").partition(".")[0]
    package = PACKAGES.get(module)
    if package is None:
        return CommandFailure(
            f"this installation of oomslice is incomplete: {error}", Exit.NOT_INSTALLED, "Install it again."
        )
    return CommandFailure(
        f"the Python module {module} is missing", Exit.NOT_INSTALLED, f"Install it with: apt install {package}"
    )


def unanswered(error: BusError, root: Path = Path("/")) -> CommandFailure:
    """Why nobody answered, the most basic reason first. `root` is where the file system begins."""
    from oomslice.bus.errors import AccessDeniedError, BusUnreachableError, NotRunningError

    if isinstance(error, AccessDeniedError):
        return CommandFailure(str(error), Exit.NO_PERMISSION, "Try again as root.")
    if isinstance(error, (NotRunningError, BusUnreachableError)):
        if (root / "sys/fs/cgroup").is_dir() and not (root / CONTROLLERS).exists():
            return CommandFailure(
                "this machine has no cgroup v2 at /sys/fs/cgroup, and oomslice needs it",
                Exit.NOT_INSTALLED,
                "Boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line.",
            )
        if not (root / DAEMON).exists():
            return CommandFailure(
                "only the Python library of oomslice is installed: no daemon looks after this machine",
                Exit.NOT_INSTALLED,
                "pip cannot install the system parts. Install the package: apt install ./oomslice_VERSION_amd64.deb\n"
                "oomslicectl verify FILE works without them.",
            )
    text = str(error)
    return CommandFailure(
        text if "oomsliced" in text else f"oomsliced cannot be asked: {text}",
        Exit.NOT_RUNNING,
        "Why it does not answer: systemctl status oomsliced.service; journalctl -b -u oomsliced.service\n"
        "oomslice-core goes on with its last plan meanwhile: systemctl status oomslice-core.service",
    )


def print_json(data: Any) -> None:
    """Exact values for programs."""
    print(json.dumps(data, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)
