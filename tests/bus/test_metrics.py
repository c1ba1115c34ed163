# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl metrics against the real service, and as an HTTP server on a socket that was handed over."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice.bus.service import BusService
from oomslice.cli.failure import Exit
from oomslice.metrics.server import CONNECTIONS_MAX, REQUEST_MAX, Server
from tests.bus.rig import ROOT, PrivateBus
from tests.bus.test_cli import DaemonLikeBackend, asked
from tests.unit.promtool import promtool

pytestmark = pytest.mark.bus


def test_on_the_screen_and_as_prometheus_wants_it(bus: PrivateBus) -> None:
    code, output, errors = asked(bus, "metrics")
    assert (code, errors) == (Exit.OK, "")
    assert 'oomslice_decisions_total{unit="hog.service",step="kill",carrier="core",outcome="freed"} 3' in output
    assert "oomslice_memory_headroom_bytes 7516192768" in output
    promtool("check", "metrics", text=output)


def test_as_a_file_that_is_whole(bus: PrivateBus, tmp_path: Path) -> None:
    file = tmp_path / "oomslice.prom"
    code, output, errors = asked(bus, "metrics", "-o", str(file))
    assert (code, output, errors) == (Exit.OK, "", "")
    assert file.read_text(encoding="utf-8").endswith("_count 2\n")
    assert file.stat().st_mode & 0o777 == 0o644
    # node_exporter reads every .prom in the folder: nothing half-written may be called so.
    assert [path.name for path in tmp_path.iterdir() if path.name != "bus"] == ["oomslice.prom"]


def test_without_a_daemon_it_is_down_and_that_is_no_failure(bus: PrivateBus) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "oomslice.cli.main", "metrics"],
        cwd=ROOT,
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "oomslice_up 0\n" in ended.stdout


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_a_scrape_over_a_socket_that_was_handed_over(bus: PrivateBus, listener: socket.socket) -> None:
    # As systemd does it: descriptor 3, and the number of the process that it is for.
    command = f"{sys.executable} -m oomslice.cli.main metrics --serve"
    script = f"exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec {command}"
    port = listener.getsockname()[1]

    async def main() -> bytes:
        service = BusService(DaemonLikeBackend(), address=bus.address)
        assert await service.start()
        server = subprocess.Popen(
            ["bash", "-c", script],
            cwd=ROOT,
            pass_fds=(listener.fileno(),),
            env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address},
        )
        try:
            return await asyncio.to_thread(scrape)
        finally:
            server.kill()
            server.wait()
            await service.stop()

    def scrape() -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            body: bytes = answer.read()
            return body

    body = asyncio.run(main())
    assert b"oomslice_up 1\n" in body
    promtool("check", "metrics", text=body.decode())


async def exchange(port: int, request: bytes) -> bytes:
    """What comes back until the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /metrics?x=1 HTTP/1.0\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", b"HTTP/1.1 404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 405"),
        (b"nonsense\r\n\r\n", b"HTTP/1.1 400"),
        (b"\0\xff\xff\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET /" + b"x" * 2 * REQUEST_MAX, b"HTTP/1.1 431"),
    ],
)
def test_only_metrics_are_served(listener: socket.socket, request_: bytes, expected: bytes) -> None:
    async def text() -> str:
        return "m 1\n"

    async def main() -> bytes:
        server = asyncio.ensure_future(Server(text).run(listener))
        answer = await exchange(listener.getsockname()[1], request_)
        server.cancel()
        return answer

    assert asyncio.run(main()).startswith(expected)


def test_head_has_no_body_and_a_crowd_is_turned_away(listener: socket.socket) -> None:
    async def text() -> str:
        return "m 1\n"

    async def main() -> None:
        server = asyncio.ensure_future(Server(text).run(listener))
        port = listener.getsockname()[1]
        assert (await exchange(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
        # Who connects and says nothing holds one place, and no more than there are.
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS_MAX)]
        assert await exchange(port, b"") == b""
        for _, writer in silent:
            writer.close()
        server.cancel()

    asyncio.run(main())


def test_it_ends_when_nobody_asks(listener: socket.socket) -> None:
    async def text() -> str:
        return ""

    asyncio.run(asyncio.wait_for(Server(text, idle=0.1).run(listener), 30))


def test_without_a_socket_it_says_how_to_get_one(bus: PrivateBus) -> None:
    code, _, errors = asked(bus, "metrics", "--serve")
    assert code == Exit.USAGE
    assert "systemctl enable --now oomslice-metrics.socket" in errors
