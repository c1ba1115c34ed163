# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemctl says of units, for verbs that work without the daemon."""

from __future__ import annotations

from collections.abc import Sequence


def show(
    units: Sequence[str], properties: Sequence[str], timeout_sec: float, command: Sequence[str] = ("systemctl",)
) -> list[dict[str, str]]:
    """The properties of each unit, as text. Raises OSError, saying why systemd did not answer, and
    subprocess.TimeoutExpired."""
    import subprocess

    answer = subprocess.run(
        [*command, "show", f"--property={','.join(properties)}", "--", *units],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_sec,
        check=False,
    )
    if answer.returncode:
        raise OSError((answer.stderr.strip().splitlines() or [f"systemctl ended with {answer.returncode}"])[0])
    blocks = answer.stdout.split("\n\n")
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]
