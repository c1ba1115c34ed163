# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commands to copy, for those who want to know more. Quoted for a shell, whatever a unit is called."""

from __future__ import annotations

import shlex

from oomslice.report.model import Case

BEFORE_SEC, AFTER_SEC = 120, 60
"""What of the journal is worth reading: so long before the trigger and after it."""


def commands(case: Case) -> list[tuple[str, str]]:
    """What each shows, and the command."""
    decision = case.decision
    seconds = decision.realtime_usec // 1_000_000
    window = f"--since=@{seconds - BEFORE_SEC} --until=@{seconds + AFTER_SEC}"
    boot = decision.boot_id.replace("-", "")
    where = f"--boot={shlex.quote(boot)} {window}" if boot else window
    listed = [
        ("This decision with everything known of it", _command("oomslicectl", "show", decision.id)),
        ("Its entries in the journal", _command("journalctl", "-o", "verbose", f"OOMSLICE_DECISION={decision.id}")),
    ]
    if decision.victim:
        unit = shlex.quote(f"--unit={decision.victim}")
        listed.append(("What the unit wrote before it", f"journalctl {where} {unit}"))
    listed += [
        ("What the kernel wrote around it", f"journalctl {where} --dmesg"),
        ("What all wrote around it", f"journalctl {where}"),
    ]
    if decision.victim:
        listed.append(("The settings of the unit now", _command("oomslicectl", "slices", "--", decision.victim)))
    listed.append(("Who would be chosen now, and why", "oomslicectl explain"))
    return listed


def _command(*words: str) -> str:
    return shlex.join(words)
