# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl set: what it asks for, and what it says is in force."""

from __future__ import annotations

import pytest

from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.set import assignments, overruled, told

FILE = "/etc/systemd/system/batch.slice.d/50-oomslice-set.conf"


def test_assignments_are_told_apart() -> None:
    assert assignments(["Priority=-5", "Actions=a=b", "Tier="]) == {"Priority": "-5", "Actions": "a=b", "Tier": ""}
    for words in (["Priority"], ["=5"], ["Priority=1", "Priority=2"]):
        with pytest.raises(CommandFailure) as failure:
            assignments(words)
        assert failure.value.code is Exit.USAGE


def test_what_another_file_overrides_is_said_not_to_be_in_force() -> None:
    settings = {"Priority": 5, "RankBy": "swap", "Sources": {"Priority": f"{FILE}:3", "RankBy": "/etc/x.conf:2"}}
    assert told("batch.slice", FILE, {"Priority": "5", "RankBy": "memory", "Tier": ""}, settings) == [
        f"{FILE} is written.",
        "Priority=5 is in force.",
        "RankBy=memory is NOT in force: /etc/x.conf:2 comes after it.",
        "Tier= is in force (default).",
    ]
    assert overruled(FILE, {"Priority": "5", "RankBy": "memory", "Tier": ""}, settings) == ["RankBy"]
    assert overruled(FILE, {"Priority": "5"}, {}) == []
    assert "is not running" in told("batch.slice", FILE, {"Priority": "5"}, {})[1]
    assert told("batch.slice", FILE, {}, {}) == ["What was set for batch.slice is taken back."]
