# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory and swap of the machine, and the settings of the kernel that decide what a shortage looks like."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

from oomslice.cli.checkup.finding import Files, Finding, Verdict
from oomslice.cli.text import size

GROUP = "memory"
VM = "proc/sys/vm"
THP = "sys/kernel/mm/transparent_hugepage/enabled"
MIN_TTL = "sys/kernel/mm/lru_gen/min_ttl_ms"
PERSISTENT = "write it to a file in /etc/sysctl.d/ to keep it"


def findings(files: Files) -> Iterator[Finding]:
    """All of it."""
    meminfo = files.keyed("proc/meminfo")
    if "MemAvailable" not in meminfo:
        yield Finding(
            GROUP, "memory", Verdict.PROBLEM, "/proc/meminfo has no MemAvailable", "mount /proc; needs Linux 3.14"
        )
        return
    total, available = meminfo.get("MemTotal", 0), meminfo["MemAvailable"]
    yield Finding(GROUP, "memory", Verdict.OK, f"{size(total)}, {size(available)} available")
    yield _swap(files, meminfo)
    yield from _sysctls(files, swap=meminfo.get("SwapTotal", 0) > 0)
    yield from _min_free(files, total)
    yield _huge_pages(files)
    ttl = files.number(MIN_TTL)
    if ttl:
        yield Finding(
            GROUP,
            "lru_gen/min_ttl_ms",
            Verdict.NOTE,
            f"{ttl}: when what was used in the last {ttl} ms does not fit into memory, the kernel kills by itself",
            f"echo 0 >/{MIN_TTL} leaves the decision to oomslice",
        )


def _swap(files: Files, meminfo: dict[str, int]) -> Finding:
    total, free = meminfo.get("SwapTotal", 0), meminfo.get("SwapFree", 0)
    if not total:
        return Finding(
            GROUP,
            "swap",
            Verdict.NOTE,
            "none: there is little pressure to be seen before memory is gone, and less time for ladders",
            "a little is enough, also on zram: apt install systemd-zram-generator",
        )
    devices = [line.split()[0] for line in (files.text("proc/swaps") or "").splitlines()[1:] if line.split()]
    found = f"{size(total)} on {', '.join(devices) or 'an unknown device'}, {size(free)} free"
    if free * 10 < total:
        return Finding(
            GROUP,
            "swap",
            Verdict.NOTE,
            found + ": nearly full, so MemAvailable alone decides",
            "see who fills it: oomslicectl top",
        )
    return Finding(GROUP, "swap", Verdict.OK, found)


def _sysctls(files: Files, *, swap: bool) -> Iterator[Finding]:
    overcommit = files.number(f"{VM}/overcommit_memory")
    if overcommit == 2:
        yield Finding(
            GROUP,
            "vm.overcommit_memory",
            Verdict.NOTE,
            "2: programs are refused memory while there is some left, and oomslice will seldom have to act",
            f"sysctl vm.overcommit_memory=0 is the kernel's default; {PERSISTENT}",
        )
    elif overcommit is not None:
        yield Finding(GROUP, "vm.overcommit_memory", Verdict.OK, str(overcommit))
    allocating = files.number(f"{VM}/oom_kill_allocating_task")
    if allocating:
        yield Finding(
            GROUP,
            "vm.oom_kill_allocating_task",
            Verdict.PROBLEM,
            f"{allocating}: the kernel kills whoever happens to ask for memory, whatever its priority",
            f"sysctl vm.oom_kill_allocating_task=0; {PERSISTENT}",
        )
    elif allocating is not None:
        yield Finding(GROUP, "vm.oom_kill_allocating_task", Verdict.OK, "0")
    panic = files.number(f"{VM}/panic_on_oom")
    if panic:
        when = "also when one cgroup is at its limit" if panic == 2 else "when the kernel finds no memory any more"
        yield Finding(
            GROUP,
            "vm.panic_on_oom",
            Verdict.PROBLEM if panic == 2 else Verdict.NOTE,
            f"{panic}: the machine panics {when}",
            f"sysctl vm.panic_on_oom=0; {PERSISTENT}",
        )
    elif panic is not None:
        yield Finding(GROUP, "vm.panic_on_oom", Verdict.OK, "0")
    swappiness = files.number(f"{VM}/swappiness")
    if swap and swappiness == 0:
        yield Finding(
            GROUP,
            "vm.swappiness",
            Verdict.NOTE,
            "0: swap is used only when there is no file page left, which is when the machine is already slow",
            f"sysctl vm.swappiness=60 is the kernel's default; {PERSISTENT}",
        )
    elif swappiness is not None:
        yield Finding(GROUP, "vm.swappiness", Verdict.OK, str(swappiness))


def _min_free(files: Files, total: int) -> Iterator[Finding]:
    kbytes = files.number(f"{VM}/min_free_kbytes")
    if kbytes is None:
        return
    usual = usual_min_free_kbytes(total)
    name, found = "vm.min_free_kbytes", f"{kbytes} ({size(kbytes * 1024)})"
    if kbytes * 1024 > total // 20:
        advice = f"sysctl vm.min_free_kbytes={usual} is what the kernel takes by itself; {PERSISTENT}"
        yield Finding(GROUP, name, Verdict.NOTE, f"{found}: more than 5% of memory can never be used", advice)
    elif kbytes < usual // 2:
        advice = f"sysctl vm.min_free_kbytes={usual} is what the kernel takes by itself; {PERSISTENT}"
        yield Finding(
            GROUP, name, Verdict.NOTE, f"{found}: little is left to drivers and dying processes in a shortage", advice
        )
    else:
        yield Finding(GROUP, name, Verdict.OK, found)


def usual_min_free_kbytes(total: int) -> int:
    """What the kernel sets by itself (init_per_zone_wmark_min: sqrt(16 * KiB of memory), 128 to 262144)."""
    return min(max(isqrt(total // 1024 * 16), 128), 262_144)


def _huge_pages(files: Files) -> Finding:
    text = files.text(THP)
    name = "transparent huge pages"
    if text is None:
        return Finding(GROUP, name, Verdict.OK, "this kernel has none")
    mode = text.partition("[")[2].partition("]")[0]
    if mode == "always":
        return Finding(
            GROUP,
            name,
            Verdict.NOTE,
            "always: services may hold more memory than they asked for, and grow in steps of 2 MiB",
            f"echo madvise >/{THP} gives them to programs that ask for them",
        )
    return Finding(GROUP, name, Verdict.OK, mode or text)
