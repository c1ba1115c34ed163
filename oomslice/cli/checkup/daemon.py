# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon says of itself, the core, its carriers and the configuration. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from oomslice.cli.checkup.finding import Finding, Verdict
from oomslice.cli.status import FEATURES
from oomslice.cli.text import clean, plural

GROUP = "oomslice"
DROPPED = {
    "CoreDecisionsDropped": "records of decisions",
    "SignalsDropped": "signals on the bus",
    "RepliesDropped": "answers on the bus",
    "JournalEntriesDropped": "journal entries",
}
"""Member of State -> what was lost."""
NOT_NEEDED = ("cgroup-kill", "mrelease", "pulse")
"""Features of the core without which it does the same, a little later."""


def findings(status: Mapping[str, Any], own_version: str) -> Iterator[Finding]:
    """From the properties of org.oomslice1.Manager, as `oomslicectl status` gets them."""
    state: Mapping[str, Any] = status["state"]
    version = str(status["version"])
    if version != own_version:
        yield Finding(
            GROUP,
            "version",
            Verdict.NOTE,
            f"oomsliced is {clean(version)}, oomslicectl is {own_version}",
            "systemctl restart oomslice-core.service oomsliced.service",
        )
    else:
        yield Finding(GROUP, "version", Verdict.OK, own_version)
    if state.get("Armed"):
        plan = f"armed, plan {state.get('PlanGeneration', 0)} with {plural(int(state.get('Units', 0)), 'unit')}"
        yield Finding(GROUP, "core", Verdict.OK, plan)
    elif not state.get("CoreConnected"):
        advice = (
            "systemctl start oomslice-core.service; journalctl -b -u oomslice-core.service says why it does not run"
        )
        yield Finding(GROUP, "core", Verdict.PROBLEM, "not connected", advice)
    else:
        yield Finding(GROUP, "core", Verdict.PROBLEM, "it has no plan", "journalctl -b -u oomsliced.service says why")
    if state.get("PlanError"):
        advice = "journalctl -b -u oomsliced.service; the older plan is in force until then"
        yield Finding(GROUP, "plan", Verdict.PROBLEM, clean(state["PlanError"]), advice)
    yield from _features(state)
    for carrier in status["carriers"]:
        active = bool(carrier.get("Active"))
        if carrier.get("Name") == "systemd-oomd" and not active and not carrier.get("LastError"):
            continue  # nothing is missed where it does not run
        yield Finding(
            GROUP,
            f"carrier {clean(carrier.get('Name', ''))}",
            Verdict.OK if active else Verdict.NOTE,
            f"{'active' if active else 'inactive'}: {clean(carrier.get('Detail', ''))}",
            ""
            if active
            else f"oomslice works without it; {_page(str(carrier.get('Name', '')))} says what it would add",
        )
        if carrier.get("LastError"):
            name = f"carrier {clean(carrier.get('Name', ''))}, last error"
            yield Finding(GROUP, name, Verdict.NOTE, clean(carrier["LastError"]), "journalctl -b -u oomsliced.service")
    if state.get("Armed") and not int(state.get("Candidates", 0)):
        advice = "oomslicectl explain --all says why"
        yield Finding(GROUP, "candidates", Verdict.PROBLEM, "none: there is nobody to choose", advice)
    for key, what in DROPPED.items():
        if count := int(state.get(key, 0)):
            yield Finding(GROUP, what, Verdict.NOTE, f"{count} lost", "journalctl -b -u oomsliced.service")
    errors = status["configuration_errors"]
    if errors:
        advice = "oomslicectl verify lists them with file and line"
        yield Finding(GROUP, "configuration", Verdict.PROBLEM, plural(len(errors), "problem"), advice)
    else:
        yield Finding(GROUP, "configuration", Verdict.OK, "no problems")


def _features(state: Mapping[str, Any]) -> Iterator[Finding]:
    missing = [str(name) for name in state.get("CoreFeaturesMissing", ())]
    for name in missing:
        yield Finding(
            GROUP,
            f"core without {clean(name)}",
            Verdict.NOTE if name in NOT_NEEDED else Verdict.PROBLEM,
            FEATURES.get(name, "not to be had"),
            "why not is said of carrier bpf-signs"
            if name == "pulse"
            else "journalctl -b -u oomslice-core.service says why it was refused",
        )


def _page(carrier: str) -> str:
    """The manual page of a carrier."""
    if carrier.startswith("bpf-"):
        return "oomslice-bpf(8)"
    return "oomslice-scores(8)" if carrier == "score_adj" else "oomslice(7)"
