# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl top in a terminal: what stands there at several sizes, keys, resizes, a daemon that goes and comes."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from oomslice.bus.backend import ExplainedDomain, SliceRow
from oomslice.bus.service import BusService
from oomslice.cli.failure import Exit
from tests.bus.rig import PrivateBus
from tests.bus.test_cli import ROOT, DaemonLikeBackend, oomslicectl
from tests.bus.tmux import Terminal

COUNT = 40
Story = Callable[[Terminal, BusService], Awaitable[None]]


class CrowdedBackend(DaemonLikeBackend):
    """More units than a small terminal has lines, of two domains."""

    def slices(self) -> Sequence[SliceRow]:
        return [
            SliceRow(
                name=f"unit{number:02}.service",
                cgroup=f"/system.slice/unit{number:02}.service",
                priority=number - 20,
                protected=False,
                candidate=True,
                priority_origin="own",
                actions="freeze@5s kill@10s",
            )
            for number in range(COUNT)
        ]

    def explain(self) -> Sequence[ExplainedDomain]:
        return [self._domain("-.slice", COUNT), self._domain("batch.slice", 3)]

    def _domain(self, name: str, count: int) -> ExplainedDomain:
        return {
            "domain": name,
            "candidates": [
                {
                    "name": f"unit{number:02}.service",
                    "priority": number - 20,
                    "metric": (number + 1) << 20,
                    "verdict": "chosen" if number == 0 else "protected" if number == 2 else "eligible",
                    "priority_origin": "own",
                    "reason": f"smallest priority: {number - 20}, of the domain {name}",
                }
                for number in range(count)
            ],
        }


@asynccontextmanager
async def served(bus: PrivateBus) -> AsyncIterator[BusService]:
    service = BusService(CrowdedBackend(), address=bus.address)
    assert await service.start()
    try:
        yield service
    finally:
        await service.stop()


def in_terminal(bus: PrivateBus, tmp_path: Path, width: int, height: int, story: Story, *options: str) -> None:
    """Plays a story with top in a terminal."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is missing: apt install tmux")

    async def main() -> None:
        async with served(bus) as service:
            command = [sys.executable, "-m", "oomslice.cli.main", "top", "--interval", "0.5", *options]
            environment = {"DBUS_SYSTEM_BUS_ADDRESS": bus.address, "PYTHONPATH": str(ROOT)}
            async with Terminal(tmp_path, command, width, height, environment) as terminal:
                await terminal.shows("quit")
                await story(terminal, service)

    asyncio.run(main())


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60)])
def test_it_fills_the_screen_and_leaves_it_as_it_was(bus: PrivateBus, tmp_path: Path, width: int, height: int) -> None:
    async def story(terminal: Terminal, service: BusService) -> None:
        lines = await terminal.screen()
        assert await terminal.alternate()
        assert len(lines) == height
        assert "domain -.slice" in lines[0] and "every 0.5 s" in lines[0]
        first = next(number for number, line in enumerate(lines) if "UNIT" in line)
        assert lines[first + 1].split()[:2] == ["1", "unit00.service"]
        assert "MEMORY" in lines[first] and "SOME%" in lines[first]
        listed = [line for line in lines[first:] if ".service" in line]
        assert len(listed) == min(COUNT, height - first - 2)
        assert lines[-1].lstrip().startswith("q")
        assert any("Next   unit00.service" in line for line in lines)
        assert ("ACTIONS" in lines[first]) == (width == 200)
        await terminal.type("q")
        lines = await terminal.shows("ended with 0")
        assert not await terminal.alternate()
        assert not any("UNIT" in line for line in lines)

    in_terminal(bus, tmp_path, width, height, story)


def test_keys_scroll_sort_pause_help_and_change_the_domain(bus: PrivateBus, tmp_path: Path) -> None:
    async def story(terminal: Terminal, service: BusService) -> None:
        await terminal.type("End")
        await terminal.shows("unit39.service")
        await terminal.type("Home")
        await terminal.shows(lambda lines: any(line.split()[:2] == ["1", "unit00.service"] for line in lines))
        await terminal.type("S")
        await terminal.shows("sort: name")
        await terminal.type("s")
        await terminal.shows("sort: order")
        await terminal.type("p")
        await terminal.shows("PAUSED")
        await terminal.type("p")
        await terminal.shows("every 0.5 s")
        await terminal.type("?")
        lines = await terminal.shows("this help")
        assert not any("UNIT" in line for line in lines)
        await terminal.type("x")
        await terminal.shows("UNIT")
        await terminal.type("d")
        lines = await terminal.shows("domain batch.slice")
        lines = await terminal.shows(lambda lines: sum(".service" in line for line in lines[8:]) == 3)
        await terminal.type("+")
        await terminal.shows("every 1 s")

    in_terminal(bus, tmp_path, 80, 24, story)


def test_it_follows_the_size_of_the_terminal(bus: PrivateBus, tmp_path: Path) -> None:
    async def story(terminal: Terminal, service: BusService) -> None:
        await terminal.resize(132, 40)
        await terminal.shows(lambda lines: len(lines) == 40 and lines[-1].lstrip().startswith("q"))
        await terminal.resize(40, 10)
        await terminal.shows(lambda lines: len(lines) == 10 and lines[-1].lstrip().startswith("q"))
        await terminal.resize(5, 2)
        await terminal.resize(80, 24)
        lines = await terminal.shows(lambda lines: len(lines) == 24 and lines[-1].lstrip().startswith("q"))
        assert any("UNIT" in line for line in lines)

    in_terminal(bus, tmp_path, 80, 24, story)


def test_a_daemon_that_goes_is_said_and_one_that_comes_is_asked_again(bus: PrivateBus, tmp_path: Path) -> None:
    async def story(terminal: Terminal, service: BusService) -> None:
        await service.stop()
        lines = await terminal.shows("The order is an old one")
        assert any("unit00.service" in line for line in lines)
        async with served(bus):
            await terminal.shows(lambda lines: not any("old one" in line for line in lines))

    in_terminal(bus, tmp_path, 80, 24, story)


@pytest.mark.parametrize("term", ["vt100", "vt220", "linux", "xterm-256color"])
def test_it_draws_on_other_terminals(bus: PrivateBus, tmp_path: Path, term: str) -> None:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is missing: apt install tmux")

    async def main() -> None:
        async with served(bus):
            command = ["env", f"TERM={term}", sys.executable, "-m", "oomslice.cli.main", "top"]
            environment = {"DBUS_SYSTEM_BUS_ADDRESS": bus.address, "PYTHONPATH": str(ROOT)}
            async with Terminal(tmp_path, command, 80, 24, environment) as terminal:
                lines = await terminal.shows("quit")
                assert any("unit00.service" in line for line in lines)
                assert any("[#" in line for line in lines) == term.startswith("vt")
                await terminal.type("C-c")
                await terminal.shows("ended with 0")

    asyncio.run(main())


def test_a_dumb_terminal_and_a_pipe_get_a_table(bus: PrivateBus, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(bus):
            code, output, errors = await oomslicectl(bus.address, "top")
            assert (code, errors) == (Exit.OK, "")
            assert sum(".service" in line for line in output.splitlines() if line.lstrip()[:1].isdigit()) == COUNT - 1
            assert "\033" not in output
            code, output, errors = await oomslicectl(bus.address, "top", "--json")
            data = json.loads(output)
            assert data["units"][0]["name"] == "unit00.service"
            assert [unit["place"] for unit in data["units"][:4]] == [1, 2, 0, 3]
            assert data["memory_total"] > data["memory_available"] > data["memory_available_limit"] > 0
            code, output, errors = await oomslicectl(bus.address, "top", "--domain", "nosuch.slice")
            assert (code, output) == (Exit.FAILED, "")
            assert "Domains are: -.slice, batch.slice." in errors

    asyncio.run(main())


def test_the_screenshot_is_of_the_moment_with_the_least_memory(tmp_path: Path) -> None:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is missing: apt install tmux")
    frames = (
        "\033[?1049h\033[H\033[2Jtitle\033[2;1H 30 MiB available\033[3;1H\033[1mNext\033[0m \033[31ma <b> hog\033[39m",
        "\033[1;8Hx\033[2;1H 20 MiB",
        "\033[1;8Hy\033[2;1H 40 MiB",
        "\033[1;8Hz",
    )
    (tmp_path / "typescript").write_text("Script started\n" + "".join(frames))
    command = [ROOT / "tools/screenshot", tmp_path / "typescript", tmp_path / "picture.svg"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "20 MiB available" in said
    picture = ElementTree.parse(tmp_path / "picture.svg").getroot()
    pieces = {element.text: element.attrib for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert pieces["a\u00a0<b>\u00a0hog"]["fill"] == "#f07178"
    assert pieces["Next"]["font-weight"] == "bold"
