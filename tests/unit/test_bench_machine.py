# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured in the machine: how its figures are read from what tools print."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.bench.machine_bench import HOG, calls_since
from tests.bench.reserve_bench import STORMS

PROGRAMS = Path(__file__).resolve().parents[1] / "vm" / "programs"
AT_REST = "11 futex(0x1, FUTEX_WAIT <unfinished ...>\n12 futex(0x2, FUTEX_WAIT <unfinished ...>\n10 epoll_wait(4,"
"""As strace leaves it. `wc -l` counts two lines, and whoever splits it three."""


def test_a_call_that_was_begun_before_the_minute_is_none_of_it() -> None:
    assert calls_since(len(AT_REST), AT_REST) == []


def test_every_call_of_the_minute_is_told_and_none_of_before() -> None:
    later = " <unfinished ...>\n11 <... futex resumed>) = 0\n11 read(3, 0x7f, 8) = 8\n11 futex(0x1,"
    assert calls_since(len(AT_REST), AT_REST + later) == ["11 <... futex resumed>) = 0", "11 read(3, 0x7f, 8) = 8"]
    ended = AT_REST + " <unfinished ...>\n"
    assert calls_since(len(ended), ended + "11 read(3, 0x7f, 8) = 8\n11 futex(0x1,") == ["11 read(3, 0x7f, 8) = 8"]


@pytest.mark.parametrize("command", [HOG, *STORMS.values()])
def test_a_storm_is_one_that_the_hog_understands(command: str, tmp_path: Path) -> None:
    subprocess.run(["gcc", "-std=gnu11", "-o", tmp_path / "hog", PROGRAMS / "hog.c"], check=True)
    program, *arguments, size = shlex.split(command)
    assert (Path(program).name, int(size)) == ("hog", 4000)
    hog = subprocess.Popen([tmp_path / "hog", *arguments, "1"])
    try:
        # It keeps what it has for good; what it does not understand would end it at once.
        with pytest.raises(subprocess.TimeoutExpired):
            hog.wait(0.5)
    finally:
        hog.kill()
        hog.wait()
