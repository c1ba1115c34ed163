# SPDX-License-Identifier: LGPL-2.1-or-later
"""A headless Chromium, as a reader has it: opens a page, and says what it shows, loads and complains of.

It is driven over a pair of pipes by the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/), so
nothing but the browser itself is needed.

`python -m tests.unit.chromium PAGE.html PICTURE.png [HEIGHT]` makes a picture of the top of a page, as docs/report.png.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

PROGRAMS = ("chromium-headless-shell", "chromium")
NAVIGATION_MAX = 2000
"""Messages until a page is loaded; more means that something is wrong."""


class Browser:
    """One browser with one tab. Use in `with`."""

    def __init__(self, directory: Path) -> None:
        program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
        if program is None:
            pytest.skip("no Chromium: apt install chromium-headless-shell")
        self._directory = directory
        self._program = program
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._session = ""
        self.events: list[dict[str, Any]] = []
        """what it told of by itself since the last `open`"""

    def __enter__(self) -> Browser:
        requests, self._send = _pipe()
        self._receive, answers = _pipe()
        # The protocol has fixed numbers: 3 is read, 4 is written.
        self._process = subprocess.Popen(
            [
                "bash", "-c", f'exec "$@" 3<&{requests} 4>&{answers}', "bash", self._program,
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
                f"--user-data-dir={self._directory}", "--no-first-run", "--hide-scrollbars",
            ],
            pass_fds=(requests, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(requests)
        os.close(answers)
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.command(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session = ""
        with contextlib.suppress(AssertionError, OSError):
            self.command("Browser.close")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._send)
        os.close(self._receive)

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Carries out a command of the protocol and returns its answer."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._send, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            read = os.read(self._receive, 1 << 16)
            assert read, "the browser ended"
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def open(self, path: Path, *, width: int = 1100, scheme: str = "light", media: str = "screen") -> None:
        """Shows a file in a window of that width, as readers with that colour scheme see it, or as printed."""
        self.events.clear()
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        self.command(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        self.command("Page.navigate", url=path.as_uri())
        for _ in range(NAVIGATION_MAX):
            if any(event.get("method") == "Page.loadEventFired" for event in self.events):
                return
            self.events.append(self._next())
        raise AssertionError("the page does not come to an end")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, as the browser's own tools would have it: no script of the page."""
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    @property
    def requested(self) -> list[str]:
        """Addresses that were asked for since the page was opened, its own included."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    @property
    def complaints(self) -> list[str]:
        """What stands in the console, and exceptions."""
        methods = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in methods]

    def by_role(self, role: str) -> list[dict[str, str]]:
        """What a screen reader finds of that role: name and description of each."""
        nodes = self.command("Accessibility.getFullAXTree")["nodes"]
        return [
            {key: str(node.get(key, {}).get("value", "")) for key in ("name", "description")}
            for node in nodes
            if not node.get("ignored") and node.get("role", {}).get("value") == role
        ]

    def screenshot(self, path: Path, height: int = 0) -> None:
        """The page as PNG; with `height`, so much of its top."""
        clip = {"x": 0, "y": 0, "width": self.evaluate("innerWidth"), "height": height, "scale": 1} if height else None
        answer = self.command("Page.captureScreenshot", captureBeyondViewport=True, **({"clip": clip} if clip else {}))
        path.write_bytes(base64.b64decode(answer["data"]))


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are not in the way of numbers 3 and 4."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    return ends[0], ends[1]


def main() -> None:
    """Makes one picture."""
    page, picture, *height = sys.argv[1:]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, Browser(Path(directory)) as browser:
        browser.open(Path(page).resolve(), width=900)
        browser.screenshot(Path(picture), int(height[0]) if height else 0)


if __name__ == "__main__":
    main()
