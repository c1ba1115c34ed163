# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel offers: cgroup v2 and its controllers, pressure figures, the ways to kill and to take memory back."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator

from oomslice.cli.checkup.finding import Files, Finding, Verdict

GROUP = "kernel"
CGROUPS = "sys/fs/cgroup"
BTF = "sys/kernel/btf/vmlinux"
LOCKDOWN = "sys/kernel/security/lockdown"
CGROUP_FILES = (
    (
        "cgroup.kill",
        "5.14",
        Verdict.NOTE,
        "processes are killed one by one instead, which a unit that forks can outrun",
    ),
    ("cgroup.freeze", "5.2", Verdict.NOTE, "the step freeze does not work"),
    ("memory.reclaim", "5.19", Verdict.NOTE, "the step reclaim does not work"),
    ("memory.pressure", "4.20", Verdict.PROBLEM, "PressureTrigger= of units does not work"),
)
"""File of a cgroup -> since which Linux, what it means that it is not there, and what that is."""

Probe = Callable[[], int]


def findings(files: Files, mrelease: Probe | None = None) -> Iterator[Finding]:
    """All of it. `mrelease` tries process_mrelease() and returns an errno."""
    yield Finding(GROUP, "version", Verdict.OK, f"Linux {files.text('proc/sys/kernel/osrelease') or 'unknown'}")
    yield from _cgroups(files)
    yield from _pressure(files)
    yield _mrelease(mrelease or probe_mrelease)
    yield _bpf(files)


def _cgroups(files: Files) -> Iterator[Finding]:
    controllers = files.text(f"{CGROUPS}/cgroup.controllers")
    if controllers is None:
        yield Finding(
            GROUP,
            "cgroup v2",
            Verdict.PROBLEM,
            "not mounted at /sys/fs/cgroup",
            "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line",
        )
        return
    yield Finding(GROUP, "cgroup v2", Verdict.OK, "mounted at /sys/fs/cgroup")
    enabled = (files.text(f"{CGROUPS}/cgroup.subtree_control") or "").split()
    if "memory" not in controllers.split():
        yield Finding(
            GROUP,
            "memory controller",
            Verdict.PROBLEM,
            f"not available (there are: {controllers or 'none'})",
            "boot without cgroup_disable=memory (some machines need cgroup_enable=memory)",
        )
    elif "memory" not in enabled:
        yield Finding(
            GROUP,
            "memory controller",
            Verdict.PROBLEM,
            "not enabled for the slices below the root",
            "leave MemoryAccounting= of slices at its default, yes",
        )
    else:
        yield Finding(GROUP, "memory controller", Verdict.OK, "enabled")
    if shared := [line for line in (files.text("proc/mounts") or "").splitlines() if _is_v1_memory(line)]:
        yield Finding(
            GROUP,
            "cgroup v1",
            Verdict.PROBLEM,
            f"its memory controller is mounted too, at {shared[0].split()[1]}",
            "boot with systemd.unified_cgroup_hierarchy=1, and have nothing mount cgroup v1",
        )
    yield from _cgroup_files(files)


def _is_v1_memory(line: str) -> bool:
    words = line.split()
    return len(words) > 3 and words[2] == "cgroup" and "memory" in words[3].split(",")


def _cgroup_files(files: Files) -> Iterator[Finding]:
    """Every cgroup but the root has these, so any will do."""
    for child in ("init.scope", "system.slice"):
        if files.exists(f"{CGROUPS}/{child}"):
            break
    else:
        return
    for name, since, verdict, means in CGROUP_FILES:
        if files.exists(f"{CGROUPS}/{child}/{name}"):
            yield Finding(GROUP, name, Verdict.OK, "there")
        else:
            advice = "boot with psi=1" if name == "memory.pressure" else f"needs Linux {since}"
            yield Finding(GROUP, name, verdict, f"not there: {means}", advice)


def _pressure(files: Files) -> Iterator[Finding]:
    if not files.exists("proc/pressure/memory"):
        found, advice = "this kernel has none", "needs Linux 4.20 with CONFIG_PSI=y, booted with psi=1"
    elif files.text("proc/pressure/memory") is None:
        found, advice = "switched off", "boot with psi=1 on the kernel command line"
    else:
        yield Finding(GROUP, "PSI", Verdict.OK, "there")
        return
    yield Finding(GROUP, "PSI", Verdict.PROBLEM, found, advice)


def probe_mrelease() -> int:
    """The errno of process_mrelease() on a descriptor that cannot be: EBADF where the kernel has it."""
    # Not oomslice.kernel, which brings along what settings are made of.
    from oomslice._core import lib

    return -min(0, int(lib.oomslice_process_mrelease(-1)))


def _mrelease(probe: Probe) -> Finding:
    try:
        result = probe()
    except ModuleNotFoundError as error:
        return Finding(GROUP, "process_mrelease", Verdict.NOTE, f"not tried: {error}", "install the package again")
    if result in (errno.ENOSYS, errno.EPERM):
        return Finding(
            GROUP,
            "process_mrelease",
            Verdict.NOTE,
            "not there: the memory of a victim comes back more slowly",
            "needs Linux 5.15",
        )
    return Finding(GROUP, "process_mrelease", Verdict.OK, "there")


def _bpf(files: Files) -> Finding:
    """Whether programs that follow the kernel's types could be loaded, and what the kernel's own killer can be told."""
    try:
        with open(files.root / BTF, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise OSError(errno.ENODATA, "empty")
            try:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as types:
                    has_ops = types.find(b"\0bpf_oom_ops\0") >= 0
            except OSError:  # sysfs before Linux 6.16 cannot map it
                has_ops = b"\0bpf_oom_ops\0" in file.read()
    except OSError:
        return Finding(
            GROUP,
            "BPF",
            Verdict.NOTE,
            "no type information: BPF programs cannot be loaded",
            "needs CONFIG_DEBUG_INFO_BTF=y",
        )
    if "[confidentiality]" in (files.text(LOCKDOWN) or ""):
        return Finding(
            GROUP,
            "BPF",
            Verdict.NOTE,
            "the kernel is locked down (confidentiality): no BPF program may read its memory, so none can be loaded",
            "lockdown=integrity does not hinder them; see man kernel_lockdown",
        )
    return Finding(GROUP, "BPF", Verdict.OK, "type information is there" + (", and bpf_oom_ops" if has_ops else ""))
