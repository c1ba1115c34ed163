# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every verb of oomslicectl as a new user runs it: in a terminal, into a pipe, and as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from oomslice.cli.failure import Exit
from oomslice.cli.main import VERBS
from tests.bus.rig import ROOT, PrivateBus
from tests.bus.test_cli import DaemonLikeBackend, oomslicectl
from tests.bus.test_monitor import decision
from tests.bus.tmux import Terminal
from tests.unit.test_trace import write
from tests.unit.test_whatif import falling

pytestmark = [pytest.mark.bus, pytest.mark.skipif(os.geteuid() != 0, reason="only root may act, and that is tried too")]
ID = "00000000000000aa-1"


class Call(NamedTuple):
    """How a verb is called, and how that ends."""

    arguments: str
    says: str
    """part of what is printed, on either output"""
    code: Exit = Exit.OK
    json: bool = True
    """--json prints JSON also here"""


CALLS: Mapping[str, tuple[Call, ...]] = {
    "status": (Call("", "oomslice 1.2.3: armed"),),
    "slices": (Call("", "batch.slice"), Call("batch.slice", "Priority: -200")),
    "top": (Call("--once", "batch.slice"),),
    "decisions": (Call("", "hog1.service"),),
    "show": (Call("", "hog2.service"), Call("nosuch-1", "nosuch-1", Exit.FAILED, json=False)),
    "report": (Call("-o {directory}/report.html", "report.html: 1 decision"),),
    "metrics": (Call("", "oomslice_up"),),
    "explain": (Call("", "smallest priority"), Call("batch.slice", "would be chosen")),
    "simulate": (Call("--trace {directory}/trace.gz", "job.service"),),
    "replay": (Call("{directory}/trace.gz", "1 decision"),),
    "record": (Call("{directory}/nosuch/trace.gz", "oomslicectl: ", Exit.FAILED, json=False),),
    "monitor": (Call("--count 1", "hog9.service"),),
    # What it finds is a matter of the machine.
    "doctor": (Call("", "kernel"),),
    "verify": (
        Call("{directory}/right.conf", "no problems"),
        Call("{directory}/wrong.conf", "Priority=high", Exit.FAILED),
    ),
    "set": (
        Call("batch.slice Priority=-5", "NOT in force", Exit.FAILED),
        Call("batch.slice", "name what is to be set", Exit.USAGE, json=False),
    ),
    "act": (Call("batch.slice freeze", "It is decision 00000000000000aa-2"),),
    "release": (Call("batch.slice", "goes on"),),
    "reload": (Call("", "1 problem", Exit.FAILED),),
    "restore": (Call(ID, ID, Exit.FAILED, json=False),),
}
EITHER = frozenset({"doctor", "record"})
"""Verbs that look at the machine itself, which may be any."""


def test_no_verb_is_left_out() -> None:
    assert set(CALLS) == set(VERBS)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write(tmp_path / "trace.gz", falling())
    (tmp_path / "right.conf").write_text("[X-OOMSlice]\nPriority=-200\n")
    (tmp_path / "wrong.conf").write_text("[X-OOMSlice]\nPriority=high\n")
    return tmp_path


async def service(bus: PrivateBus, verb: str) -> asyncio.Task[None]:
    """The daemon, until it is cancelled; for `monitor`, something happens in it again and again."""
    from oomslice.bus.service import BusService

    served = BusService(DaemonLikeBackend(), address=bus.address)
    assert await served.start()

    async def stay() -> None:
        try:
            while True:
                await asyncio.sleep(0.3)
                if verb == "monitor":
                    await served.decision_made(decision(9))
        finally:
            await served.stop()

    return asyncio.create_task(stay())


@pytest.mark.parametrize(
    ("verb", "number"), [(verb, number) for verb, calls in CALLS.items() for number in range(len(calls))]
)
def test_a_verb_in_a_pipe_and_as_json(bus: PrivateBus, directory: Path, verb: str, number: int) -> None:
    call = CALLS[verb][number]
    words = [verb, *call.arguments.format(directory=directory).split()]

    async def main() -> None:
        serving = await service(bus, verb)
        try:
            code, output, errors = await oomslicectl(bus.address, *words)
            assert call.says in output + errors, output + errors
            assert code == call.code or verb in EITHER
            assert "\033" not in output + errors, "colours in a pipe"
            assert "Traceback" not in errors
            code, output, errors = await oomslicectl(bus.address, *words, "--json")
            assert code == call.code or verb in EITHER
            assert "Traceback" not in errors
            if call.json and (verb not in EITHER or output):
                json.loads(output)
            else:
                assert output == "" and errors
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(main())


@pytest.mark.parametrize("verb", sorted(CALLS))
def test_a_verb_in_a_terminal(bus: PrivateBus, directory: Path, verb: str) -> None:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is missing: apt install tmux")
    call = CALLS[verb][0]
    words = [sys.executable, "-m", "oomslice.cli.main", verb, *call.arguments.format(directory=directory).split()]

    async def main() -> None:
        serving = await service(bus, verb)
        try:
            environment = {"DBUS_SYSTEM_BUS_ADDRESS": bus.address, "PYTHONPATH": str(ROOT), "PAGER": "cat"}
            async with Terminal(directory, words, 80, 24, environment) as terminal:
                lines = await terminal.shows("ended with")
                if verb not in EITHER:
                    assert f"ended with {call.code.value}" in lines
                if verb not in ("doctor", "metrics"):  # longer than the screen
                    assert call.says in "".join(lines), lines  # a path may make a line too long
                assert not any("Traceback" in line for line in lines)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(main())
