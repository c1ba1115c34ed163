# SPDX-License-Identifier: LGPL-2.1-or-later
"""A user who calls as often as the bus lets him, over many connections: others are answered, and nothing grows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oomslice.bus.errors import LimitsExceededError
from oomslice.bus.quota import CALLER_CALLS_MAX, CALLS_MAX, CALLS_PER_S, FEW, Quota
from oomslice.bus.service import BusService
from oomslice.bus.transport import Connection
from tests.bus import rig
from tests.bus.rig import ROOT, FixedBackend, PrivateBus
from tests.bus.test_hard_times import resident_bytes

pytestmark = pytest.mark.bus
NOBODY = 65534
PROGRAM = ROOT / "tests/vm/programs/flood.py"
CALLS = 60_000


@contextlib.asynccontextmanager
async def flood(bus: PrivateBus, directory: Path) -> AsyncIterator[Path]:
    """Somebody else calls without end; yields where the counts are."""
    # He may not read this tree, if it is below somebody's home.
    for part in ("__init__.py", "errors.py", "bus"):
        source, target = ROOT / "oomslice" / part, directory / "oomslice" / part
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    shutil.copy(PROGRAM, directory / "flood.py")
    counts = directory / "counts"
    counts.mkdir()
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755)
    counts.chmod(0o777)
    process = await asyncio.create_subprocess_exec(
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
        *(os.path.realpath(sys.executable), "flood.py", f"{counts}/of", bus.address),
        cwd=directory,
        env={"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]},
    )
    try:
        yield counts
        assert process.returncode is None, "it ended by itself"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def counted(counts: Path) -> list[int]:
    """Calls made, answers, refusals, over all connections."""
    rows = [[int(word) for word in path.read_text().split()] for path in counts.glob("of.?")]
    return [sum(column) for column in zip(*rows, strict=True)] or [0, 0, 0]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_others_are_answered_and_nothing_grows_while_a_user_floods(
    bus: PrivateBus, backend: FixedBackend, bus_directory: Path
) -> None:
    async def main() -> None:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        client = await Connection.open(bus.address)
        began = resident_bytes()
        answered = 0
        async with flood(bus, bus_directory / "flood") as counts:
            while not counted(counts)[0]:
                await asyncio.sleep(0.01)
            first, started = counted(counts)[0], time.monotonic()
            deadline = time.monotonic() + 100
            while counted(counts)[0] < CALLS:
                assert time.monotonic() < deadline, counted(counts)
                # Never refused: what a user does is counted against him alone.
                assert (await client.call(*rig.MANAGER, "ListSlices", timeout=60))[0]
                answered += 1
            made, good, refused = counted(counts)
            rate = (made - first) / (time.monotonic() - started)
        print(f"{made} calls, {rate:.0f} a second; {good} answered, {refused} refused; another user made {answered}")
        assert refused > good and rate > CALLS_PER_S, "a flood is more than one user may have"
        assert resident_bytes() - began < 32 << 20
        assert backend.asked == [] and backend.reloads == 0
        assert (await client.call(*rig.MANAGER, "ListSlices"))[0]
        client.close()
        await service.stop()

    (bus_directory / "flood").mkdir()
    asyncio.run(main())


def test_a_call_that_wants_no_answer_is_not_carried_out_if_it_only_reads(
    bus: PrivateBus, backend: FixedBackend
) -> None:
    from oomslice.bus.question import _encoded

    async def main() -> None:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        client = await Connection.open(bus.address)
        for member, signature, arguments in (
            ("Simulate", "a{sa{sv}}", [{}]),
            ("Release", "s", ["batch.slice"]),
        ):
            client._write(_encoded((*rig.MANAGER, member), signature, arguments, 1, 900))
        deadline = time.monotonic() + 30
        while not backend.asked:
            assert time.monotonic() < deadline
            await client.call(*rig.MANAGER, "ListSlices")
        assert backend.asked == [("batch.slice", 0)]
        client.close()
        await service.stop()

    if os.geteuid() != 0:
        pytest.skip("only root may act")
    asyncio.run(main())


def quota_of(**users: int) -> Quota:
    """One that knows whose connections these are."""
    quota = Quota()
    quota._users.update(users)
    return quota


def test_connections_of_a_user_share_and_those_of_root_do_not() -> None:
    quota = quota_of(a=1000, b=1000, c=0, d=0)
    assert [quota.account(name) for name in "abcd"] == ["user 1000", "user 1000", "c", "d"]
    assert quota.account("unknown") == "unknown"


def test_who_has_few_calls_under_way_is_not_kept_out_by_those_who_have_many() -> None:
    quota = quota_of()
    for user in range(CALLS_MAX // CALLER_CALLS_MAX):
        for _ in range(CALLER_CALLS_MAX):
            assert quota.refusal(f"user {user}") == ""
            quota.begin(f"user {user}")
        assert "at once" in quota.refusal(f"user {user}")
    for _ in range(FEW):
        assert quota.refusal("somebody") == ""
        quota.begin("somebody")
    assert "at once" in quota.refusal("somebody")
    quota.end("somebody")
    assert quota.refusal("somebody") == ""


def test_in_a_second_each_has_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5.0
    monkeypatch.setattr("oomslice.bus.quota.time.monotonic", lambda: now)
    quota = quota_of()
    answers = [quota.refusal("user 5") for _ in range(CALLS_PER_S + 1)]
    assert answers[:CALLS_PER_S] == [""] * CALLS_PER_S and "in one second" in answers[-1]
    assert quota.refusal("user 6") == ""
    now = 6.0
    assert quota.refusal("user 5") == ""


def test_users_are_asked_of_the_bus_once_and_not_of_another_one(bus: PrivateBus) -> None:
    async def main() -> None:
        connection = await Connection.open(bus.address)
        quota = Quota()
        quota.attach(connection)
        assert quota.account(connection.unique_name) == connection.unique_name
        assert quota.account(":1.9999") == ":1.9999"
        while quota._asking:
            await asyncio.sleep(0.01)
        assert quota._users == {connection.unique_name: os.getuid()}
        quota.attach(connection)
        assert quota._users == {}
        connection.close()

    asyncio.run(main())


def test_refusals_are_told_to_who_wants_an_answer(bus: PrivateBus, backend: FixedBackend) -> None:
    async def main() -> None:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        client = await Connection.open(bus.address)
        answers = await asyncio.gather(
            *(client.call(*rig.MANAGER, "ListSlices") for _ in range(CALLER_CALLS_MAX * 4)), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, LimitsExceededError)]
        assert refused and "too many calls at once" in str(refused[0])
        client.close()
        await service.stop()

    asyncio.run(main())
