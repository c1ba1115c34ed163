# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plugin of pytest (-p tests.vm.share): several runs of the same tests take them from each other.

Each group of tests, those of one file on one kernel, is run by who comes to it first. One run begins with the first
group, another with the last (--share-from-end): each stays with its kernel until they meet, and both end at about the
same time, however long a scenario takes.

Where somebody ends the whole run after a time, and then nothing of it counts, OOMSLICE_TESTS_UNTIL says from when on no
test is begun any more (seconds since 1970). Those that are left are skipped, and say so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

KERNELS = ("", "stable-kernel", "newest-kernel")
"""In the order in which groups are taken; "" is a scenario that boots machines of its own. Where time ends before they
meet, it is in the middle, where most scenarios run on the other kernel as well."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("share")
    group.addoption("--share", metavar="DIRECTORY", help="where runs that share the tests say what they have taken")
    group.addoption("--share-from-end", action="store_true", help="begin with the last group of tests")


def group_of(item: pytest.Item) -> tuple[int, str]:
    """The group that a test belongs to, as (place of its kernel, file)."""
    kernel = next((kernel for kernel in KERNELS if kernel and kernel in item.name), "")
    return KERNELS.index(kernel), item.path.stem


def taken(items: list[pytest.Item], directory: Path, from_end: bool) -> Iterator[pytest.Item]:
    """The tests that are this run's, group by group. A group is claimed when its first test is asked for."""
    groups = [(key, list(tests)) for key, tests in groupby(sorted(items, key=group_of), group_of)]
    for (kernel, name), tests in reversed(groups) if from_end else groups:
        try:
            os.close(os.open(directory / f"{kernel}-{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
        except FileExistsError:
            continue
        yield from tests


def leave_out_if_late(item: pytest.Item, now: float) -> None:
    """Has the test skipped if it is too late to begin it."""
    until = os.environ.get("OOMSLICE_TESTS_UNTIL")
    if until and now >= float(until):
        item.add_marker(pytest.mark.skip(reason="no time was left for it in this run: OOMSLICE_TESTS_UNTIL was over"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """pytest's own loop, but for the choice of tests."""
    directory = session.config.getoption("share")
    if directory is None or session.config.option.collectonly or session.testsfailed:
        return None
    mine = taken(session.items, Path(directory), session.config.getoption("share_from_end"))
    # pytest keeps what the next test will need, so that one is known in advance.
    item = next(mine, None)
    while item is not None:
        following = next(mine, None)
        leave_out_if_late(item, time.time())
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True
