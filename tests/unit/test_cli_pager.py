# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which pager is taken, and what it is told."""

from __future__ import annotations

import pytest

from oomslice.cli.pager import LESS, command, pager_environment


@pytest.mark.parametrize(
    ("environment", "tried"),
    [
        ({}, (("less",), ("more",))),
        ({"PAGER": "most -s"}, (("most", "-s"),)),
        ({"PAGER": "most", "SYSTEMD_PAGER": "less -S"}, (("less", "-S"),)),
        ({"PAGER": "most", "SYSTEMD_PAGER": ""}, ()),
        ({"PAGER": "cat"}, ()),
    ],
)
def test_the_pager_is_the_one_that_systemctl_takes(
    environment: dict[str, str], tried: tuple[tuple[str, ...], ...]
) -> None:
    assert command(environment) == tried


def test_less_is_told_to_end_by_itself_and_to_be_careful_behind_sudo() -> None:
    assert pager_environment({"LESS": "-z"})["LESS"] == LESS
    assert pager_environment({"SYSTEMD_LESS": "-z"})["LESS"] == "-z"
    assert "LESSSECURE" not in pager_environment({})
    assert pager_environment({"SUDO_UID": "1000"})["LESSSECURE"] == "1"
