# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is said to somebody who knows nothing of oomslice and has just lost a program. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from oomslice.decisions.record import Decision
from oomslice.decisions.sentence import size

_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_APPLICATION = re.compile(r"app-(?:[a-z]+-)?(?P<name>.+?)(?:@[^.]*|-[0-9a-f]+)?\.(?:scope|service|slice)")
"""As desktops name what they start. Source: https://systemd.io/DESKTOP_ENVIRONMENTS/"""


class Message(NamedTuple):
    """A heading and what it means."""

    summary: str
    body: str


def message(decision: Decision) -> Message | None:
    """None if nothing was done that its owner would notice."""
    program = application(decision.victim)
    memory = f" It was using {size(decision.victim_memory_before)}." if decision.victim_memory_before else ""
    more = f" What was decided: oomslicectl show {decision.id}"
    if decision.outcome in ("freed", "kept", "deadline", "killed-by-oomd"):
        if decision.step == "checkpoint":
            body = (
                f"This machine ran out of memory.{memory} It was written to disk; your administrator can bring it back."
            )
            return Message(f"{program} was put aside", body + more)
        body = f"This machine ran out of memory, and something had to go.{memory} What was not saved in it is lost."
        return Message(f"{program} was ended", body + more)
    if decision.outcome == "held":
        body = f"This machine is short of memory.{memory} It goes on by itself when there is enough again."
        return Message(f"{program} was stopped", body + more)
    return None


def application(unit: str) -> str:
    """The name of a program as its user may know it: "app-gnome-firefox-1234.scope" -> "firefox"."""
    found = _APPLICATION.fullmatch(unit)
    name = found["name"] if found else re.sub(r"\.(?:scope|service|slice)$", "", unit)
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), name) or unit


def printable(text: str, most: int = 400) -> str:
    """One line that no terminal takes for more than text."""
    return "".join(c if c.isprintable() else "?" for c in text)[:most]
