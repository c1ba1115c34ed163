# SPDX-License-Identifier: LGPL-2.1-or-later
"""How monitor writes events, those of a newer daemon and hostile ones too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import pytest

from oomslice.bus.events import Event
from oomslice.cli.monitor import render
from oomslice.cli.text import Terminal

TERMINAL = Terminal(now_usec=1_763_719_200_500_000, timezone=UTC)
FAR = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 + 3_600_000_000


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("DaemonStopped", {}, "oomslice-core goes on"),
        (
            "Warning",
            {"decision": "a-1", "unit": "x.service", "domain": "d.slice", "deadline_usec": FAR},
            "next step in",
        ),
        (
            "Warning",
            {"decision": "", "unit": "x.service", "domain": "d.slice", "deadline_usec": 1},
            "x.service is asked",
        ),
        (
            "StepTaken",
            {"decision": "a-1", "unit": "x.service", "step": "freeze", "result": "done"},
            "a-1 x.service: freeze",
        ),
        ("PressureBegan", {"domain": "batch.slice"}, "memory is short in batch.slice"),
        ("PressureEnded", {"domain": "batch.slice"}, "batch.slice is calm again"),
        ("CarrierChanged", {"name": "bpf", "active": False, "detail": "gone"}, "bpf is inactive: gone"),
        ("PropertiesChanged", {"changed_properties": {"State": 1}, "invalidated_properties": ["X"]}, "State, X"),
        ("SomethingNew", {"arg0": "a", "arg1": 7}, "arg0=a arg1=7"),
    ],
)
def test_events_are_words(name: str, arguments: Mapping[str, Any], words: str) -> None:
    line = render(Event(name, arguments), TERMINAL)
    assert line.startswith(f"10:00:00.500 {name} ")
    assert words in line


def test_an_event_is_one_line_and_sends_nothing_to_the_terminal() -> None:
    line = render(Event("New\n", {"arg0": "a\nb\033[2J"}), TERMINAL)
    assert line.isprintable()
