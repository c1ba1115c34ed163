# SPDX-License-Identifier: LGPL-2.1-or-later
"""Completion in a real bash and a real zsh, and the pager, each in a terminal, as somebody who types sees them."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from oomslice.bus.service import BusService
from tests.bus.rig import ROOT, PrivateBus, decision
from tests.bus.test_cli import DaemonLikeBackend
from tests.bus.test_top import COUNT, served
from tests.bus.tmux import Terminal

UNITS = ("batch.slice", "user@1000.service", "web.service", "dev:odd.service", "-.slice")
ID, OTHER = "00000000000000aa-2", "f0000000000000aa-7"
COMPLETED = [
    ("oomslicectl moni", "oomslicectl monitor"),
    ("oomslicectl doctor --q", "oomslicectl doctor --quiet"),
    ("oomslicectl slices bat", "oomslicectl slices batch.slice"),
    ("oomslicectl slices user@10", "oomslicectl slices user@1000.service"),
    ("oomslicectl slices dev:o", "oomslicectl slices dev:odd.service"),
    ("oomslicectl explain we", "oomslicectl explain web.service"),
    ("oomslicectl simulate --set bat", "oomslicectl simulate --set batch.slice:"),
    ("oomslicectl simulate --set batch.slice:Prio", "oomslicectl simulate --set batch.slice:Priority="),
    ("oomslicectl simulate --domain batch", "oomslicectl simulate --domain batch.slice"),
    ("oomslicectl replay nig", "oomslicectl replay night.jsonl.gz"),
    ("oomslicectl simulate --trace nig", "oomslicectl simulate --trace night.jsonl.gz"),
    ("oomslicectl set bat", "oomslicectl set batch.slice"),
    ("oomslicectl set --runtime bat", "oomslicectl set --runtime batch.slice"),
    ("oomslicectl set batch.slice Prio", "oomslicectl set batch.slice Priority="),
    ("oomslicectl set user@1000.service Priority=5 Prot", "oomslicectl set user@1000.service Priority=5 Protect="),
    ("oomslicectl act user@10", "oomslicectl act user@1000.service"),
    ("oomslicectl act user@1000.service fr", "oomslicectl act user@1000.service freeze"),
    ("oomslicectl act --json batch.slice ter", "oomslicectl act --json batch.slice terminate"),
    ("oomslicectl act batch.slice pur", "oomslicectl act batch.slice purge:"),
    ("oomslicectl release dev:o", "oomslicectl release dev:odd.service"),
    ("oomslicectl verify bat", "oomslicectl verify batch.slice"),
    ("oomslicectl verify user@10", "oomslicectl verify user@1000.service"),
    ("oomslicectl verify nig", "oomslicectl verify night.jsonl.gz"),
    ("oomslicectl show 00", f"oomslicectl show {ID}"),
    ("oomslicectl report 00", f"oomslicectl report {ID}"),
    ("oomslicectl restore f", f"oomslicectl restore {OTHER}"),
]
"""What is typed, and what stands there after the Tab key."""
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], f"source {ROOT}/completions/oomslicectl.bash"),
    "zsh": (
        ["zsh", "-f", "-i"],
        f"fpath=({ROOT}/completions $fpath); autoload -U compinit; compinit -u -D; LISTMAX=0",
    ),
}


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt install {program}")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A directory with an oomslicectl of this tree, and a systemctl that knows some units."""
    directory = tmp_path / "bin"
    directory.mkdir()
    listed = "\n".join(f"{unit} loaded active running Something" for unit in UNITS)
    for name, script in (
        ("systemctl", f"cat <<'E'\n{listed}\nE\n"),
        ("oomslicectl", f'PYTHONPATH={ROOT} exec {sys.executable} -m oomslice.cli.main "$@"\n'),
    ):
        (directory / name).write_text(f"#!/bin/sh\n{script}")
        (directory / name).chmod(0o755)
    return directory


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_typed_is_completed(shell: str, bus: PrivateBus, tools: Path, tmp_path: Path) -> None:
    need("tmux", shell)
    command, setup = SHELLS[shell]
    backend = DaemonLikeBackend()
    backend.stored = [decision(2), replace(decision(1), id=OTHER)]

    (tmp_path / "night.jsonl.gz").touch()

    async def main() -> None:
        service = BusService(backend, address=bus.address)
        assert await service.start()
        environment = {
            "DBUS_SYSTEM_BUS_ADDRESS": bus.address,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PS1": "> ",
            "HOME": str(tmp_path),
            "ZDOTDIR": str(tmp_path),
        }
        async with Terminal(tmp_path, command, 120, 30, environment) as terminal:
            await terminal.type(f"cd {tmp_path}; PS1='> '; {setup}; clear; echo ready", "Enter")
            await terminal.shows(lambda lines: "ready" in lines)
            for typed, completed in COMPLETED:
                await terminal.tmux("send-keys", "-l", typed)
                await terminal.shows(lambda lines, typed=typed: f"> {typed}" in lines)  # type: ignore[misc]
                await terminal.type("Tab")
                await terminal.shows(lambda lines, completed=completed: f"> {completed}" in lines)  # type: ignore[misc]
                await terminal.type("C-u")
                await terminal.shows(lambda lines: ">" in lines)
        await service.stop()

    asyncio.run(main())


def in_terminal(
    bus: PrivateBus,
    tmp_path: Path,
    arguments: list[str],
    environment: dict[str, str],
    story: Callable[[Terminal], Awaitable[None]],
) -> None:
    """Plays a story with a verb in a terminal of ten lines."""
    need("tmux")

    async def main() -> None:
        async with served(bus):
            command = [sys.executable, "-m", "oomslice.cli.main", *arguments]
            there = {"DBUS_SYSTEM_BUS_ADDRESS": bus.address, "PYTHONPATH": str(ROOT), **environment}
            async with Terminal(tmp_path, command, 100, 10, there) as terminal:
                await story(terminal)

    asyncio.run(main())


def test_long_output_stops_at_the_first_screen_and_q_ends_it(bus: PrivateBus, tmp_path: Path) -> None:
    need("less")

    async def story(terminal: Terminal) -> None:
        lines = await terminal.shows("lines 1-9")
        assert any("unit00.service" in line for line in lines)
        await terminal.type("q")
        await terminal.shows("ended with 0")

    in_terminal(bus, tmp_path, ["slices"], {"PAGER": "less"}, story)


def test_short_output_is_only_printed(bus: PrivateBus, tmp_path: Path) -> None:
    need("less")

    async def story(terminal: Terminal) -> None:
        lines = await terminal.shows("ended with 0")
        assert any("unit02.service" in line for line in lines)

    in_terminal(bus, tmp_path, ["explain", "batch.slice"], {"PAGER": "less"}, story)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["slices", "--no-pager"], {"PAGER": "false"}),
        (["slices"], {"PAGER": ""}),
        (["slices"], {"PAGER": "cat"}),
        (["slices"], {"PAGER": "false", "SYSTEMD_PAGER": ""}),
    ],
)
def test_no_pager_is_no_pager(
    bus: PrivateBus, tmp_path: Path, arguments: list[str], environment: dict[str, str]
) -> None:
    async def story(terminal: Terminal) -> None:
        lines = await terminal.shows("ended with 0")
        assert any(f"{COUNT} units" in line for line in lines)

    in_terminal(bus, tmp_path, arguments, environment, story)


def test_a_pager_that_reads_nothing_is_no_error(bus: PrivateBus, tmp_path: Path) -> None:
    async def story(terminal: Terminal) -> None:
        lines = await terminal.shows("ended with 0")
        assert not any("Traceback" in line or "unit0" in line for line in lines)

    in_terminal(bus, tmp_path, ["slices"], {"PAGER": "true"}, story)


def test_a_failure_is_told_behind_the_pager_too(bus: PrivateBus, tmp_path: Path) -> None:
    async def story(terminal: Terminal) -> None:
        lines = await terminal.shows("ended with 1")
        assert any("no unit 'nosuch.slice' is known" in line for line in lines)

    in_terminal(bus, tmp_path, ["explain", "nosuch.slice"], {"PAGER": "less"}, story)
