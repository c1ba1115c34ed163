# SPDX-License-Identifier: LGPL-2.1-or-later
"""Other out-of-memory killers, found by the names of their processes: some are started by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator

from oomslice.cli.checkup.finding import Files, Finding, Verdict
from oomslice.cli.text import plural

GROUP = "other killers"
OOMD = "systemd-oomd"
DAEMONS = {
    OOMD: "systemd-oomd.service",
    "earlyoom": "earlyoom.service",
    "nohang": "nohang.service",
    "oomd": "oomd.service",
    "lmkd": "lmkd.service",
    "low-memory-moni": "low-memory-monitor.service",  # the kernel keeps 15 characters of a name
}
"""Name of the process -> its service."""


def findings(files: Files, left_to_oomd: int = 0) -> Iterator[Finding]:
    """One for each that runs. `left_to_oomd`: how many units are marked for systemd-oomd."""
    running = {name for pid in _processes(files) if (name := files.text(f"proc/{pid}/comm")) in DAEMONS}
    for name in sorted(running):
        service = DAEMONS[name]
        if name == OOMD:
            yield Finding(
                GROUP,
                name,
                Verdict.NOTE,
                f"runs; {plural(left_to_oomd, 'unit')} marked for it (ManagedOOM*=kill) "
                f"{'is' if left_to_oomd == 1 else 'are'} left to it",
                f"to have oomslice look after all of them: systemctl mask --now {service} systemd-oomd.socket",
            )
        else:
            yield Finding(
                GROUP,
                name,
                Verdict.PROBLEM,
                "runs: it knows nothing of priorities and may act first",
                f"systemctl disable --now {service}",
            )
    if not running:
        yield Finding(GROUP, "none", Verdict.OK, "no other killer runs")


def _processes(files: Files) -> list[str]:
    try:
        return [name for name in os.listdir(files.root / "proc") if name.isdecimal()]
    except OSError:
        return []
