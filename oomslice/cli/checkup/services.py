# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our own units as systemd and the kernel see them: do they run, protected, unlimited and in their sandbox?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from oomslice.cli.checkup.finding import Files, Finding, Verdict
from oomslice.cli.checkup.systemd import show
from oomslice.cli.text import clean, plural, size

GROUP = "services"
SLICE = "oomslice.slice"
CORE = "oomslice-core.service"
DAEMON = "oomsliced.service"
ACTIONS = "oomslice-actions.socket"
UNITS = (CORE, DAEMON, ACTIONS, SLICE)
PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts", "NeedDaemonReload"),
    *("ControlGroup", "MemoryMin", "MemoryHigh", "MemoryMax", "MemorySwapMax"),
)
LIMITS = ("MemoryHigh", "MemoryMax", "MemorySwapMax")
INFINITY = "infinity"

Show = Callable[[Sequence[str], Sequence[str]], Mapping[str, Mapping[str, str]]]
"""Units, properties -> unit -> property -> value. Raises OSError, saying why systemd did not answer."""


def findings(files: Files, ask: Show = show) -> Iterator[Finding]:
    """All of it."""
    try:
        units = ask(UNITS, PROPERTIES)
    except OSError as error:
        yield Finding(
            GROUP,
            "systemd",
            Verdict.PROBLEM,
            f"does not answer: {clean(str(error))}",
            "oomslice needs a machine that systemd runs; systemctl status says how it is",
        )
        return
    for name in UNITS:
        yield from _unit(name, units.get(name, {}))
    for name in (CORE, DAEMON):
        pid = units.get(name, {}).get("MainPID", "0")
        if pid != "0" and files.exists(f"proc/{pid}"):
            yield from _process(files, name, pid)
    if CORE in units:
        yield from _protection(units)


def _unit(name: str, values: Mapping[str, str]) -> Iterator[Finding]:
    load, active = values.get("LoadState", "not-found"), values.get("ActiveState", "inactive")
    if load != "loaded":
        yield Finding(
            GROUP, name, Verdict.PROBLEM, f"{clean(load)}", "install the package: apt install ./oomslice_VERSION.deb"
        )
        return
    if active not in ("active", "activating", "reloading"):
        advice = f"systemctl start {name}; journalctl -b -u {name} says why it is not"
        yield Finding(GROUP, name, Verdict.PROBLEM, clean(active), advice)
        return
    found = f"{clean(active)} ({clean(values.get('SubState', ''))})"
    if int(values.get("NRestarts") or 0):
        restarts = plural(int(values["NRestarts"]), "restart")
        yield Finding(GROUP, name, Verdict.NOTE, f"{found}, {restarts}", f"journalctl -b -u {name} says why")
    elif values.get("UnitFileState") == "disabled" and name in (CORE, DAEMON):
        yield Finding(GROUP, name, Verdict.NOTE, f"{found}, but not at the next boot", f"systemctl enable {name}")
    elif values.get("NeedDaemonReload") == "yes":
        yield Finding(GROUP, name, Verdict.NOTE, f"{found}; its files have changed since", "systemctl daemon-reload")
    else:
        yield Finding(GROUP, name, Verdict.OK, found)


def _process(files: Files, name: str, pid: str) -> Iterator[Finding]:
    """The sandbox as the kernel sees it: a drop-in can take it away, and the unit still runs."""
    status = files.text(f"proc/{pid}/status")
    words = dict(line.split(":", 1) for line in (status or "").splitlines() if ":" in line)
    if "Seccomp" in words and "NoNewPrivs" in words:
        filtered, confined = words["Seccomp"].strip() == "2", words["NoNewPrivs"].strip() == "1"
        missing = [
            what for what, there in (("system call filter", filtered), ("NoNewPrivileges", confined)) if not there
        ]
        if missing:
            advice = f"systemctl cat {name} shows which drop-in takes it away"
            yield Finding(GROUP, f"sandbox of {name}", Verdict.NOTE, f"no {' and no '.join(missing)}", advice)
        else:
            yield Finding(GROUP, f"sandbox of {name}", Verdict.OK, "system call filter, no new privileges")
    if name == CORE:
        adjusted = files.number(f"proc/{pid}/oom_score_adj")
        if adjusted not in (None, -1000):
            yield Finding(
                GROUP,
                "oom_score_adj of the core",
                Verdict.PROBLEM,
                f"{adjusted}: the kernel may kill the core itself",
                f"remove OOMScoreAdjust= from the drop-ins of {name}",
            )


def _protection(units: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Nothing may limit us, and memory.min of a unit is void where a slice around it has none."""
    limited = [
        (name, limit, values[limit])
        for name, values in units.items()
        for limit in LIMITS
        if values.get(limit, INFINITY) not in (INFINITY, "", "[not set]")
    ]
    for name, limit, value in limited:
        yield Finding(
            GROUP,
            f"{limit}= of {name}",
            Verdict.PROBLEM,
            f"{_bytes(value)}: at that limit it waits, or dies, when it is needed most",
            f"systemctl cat {name} shows where it is set; remove it",
        )
    if not limited:
        yield Finding(GROUP, "memory limits", Verdict.OK, "none on oomslice's own units")
    inside = units.get(CORE, {}).get("ControlGroup", "")
    if inside and not inside.startswith(f"/{SLICE}/"):
        yield Finding(
            GROUP,
            "slice of the core",
            Verdict.PROBLEM,
            f"it runs in {clean(inside)}: what is protected in {SLICE} does not count there",
            f"remove Slice= from the drop-ins of {CORE}",
        )
    minimum = units.get(SLICE, {}).get("MemoryMin", "")
    if minimum in ("", "0", "[not set]"):
        yield Finding(
            GROUP,
            "protected memory",
            Verdict.PROBLEM,
            f"none: {SLICE} has no MemoryMin=, and without it that of its services is void",
            f"systemctl revert {SLICE}",
        )
    else:
        yield Finding(GROUP, "protected memory", Verdict.OK, f"{_bytes(minimum)} for {SLICE}")


def _bytes(value: str) -> str:
    return size(int(value)) if value.isdecimal() else clean(value)
