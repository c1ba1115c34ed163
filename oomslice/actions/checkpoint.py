# SPDX-License-Identifier: LGPL-2.1-or-later
"""checkpoint[:DIR]: writes the processes of a unit to disk with CRIU, and lets them end there.

All or nothing: what is in DIR/ID is a whole dump of processes that are gone. A dump that fails or takes too long is
killed and removed, and the processes go on. CRIU needs nearly every capability and the mounts of the machine itself,
so it runs in a transient service of its own, never in this one's sandbox.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from oomslice.actions import checks, systemd
from oomslice.actions.messages import ActionRequest
from oomslice.settings.unitname import check_unit_name

DIRECTORY = checks.DIRECTORY
"""Not in /var/lib/oomslice: that belongs to the user of oomsliced, who could put a dump of his own there."""
NOTE = "oomslice.json"
LOG = "criu.log"
COMPLETE = "inventory.img"
"""The last file that CRIU writes of a dump that succeeded is not fixed, but without this one there is none."""
PROCESSES_MAX = 1024
CGROUPS_MAX = 1024
EARLY_S = 0.3
"""CRIU is stopped this much before the deadline, or a tenth: to remove a dump takes time as well."""
END_S = 3.0
"""How long CRIU has to be gone after SIGKILL, and the victim's processes after a dump."""
CRIU_OPTIONS = ("--manage-cgroups=ignore", "--tcp-close", "--file-locks", "--link-remap", "--log-file", LOG, "-v2")
"""For dump and restore alike. The cgroup is systemd's to make anew; connections of a service that is gone are cut, as
a kill would; without --tcp-close the packet filter would keep them for a restore that may never come."""


class Note(NamedTuple):
    """What a restore has to know, beside what CRIU writes itself."""

    decision: str
    unit: str
    cgroup: str
    pid: int
    processes: int
    shell_job: bool = False
    sockets: tuple[int, ...] = ()
    """inodes of standard output and error, where those are the journal's"""


def dump(request: ActionRequest, deadline: float, path: str = checks.PROGRAM_PATH) -> tuple[str, int, str]:
    """Result, errno and a sentence. Raises CheckError, OSError, and TimeoutError when the deadline has passed."""
    criu = checks.program("criu", path)
    systemd_run = checks.program("systemd-run", path)
    if not request.decision or check_unit_name(f"{request.decision}.service")[0]:
        raise checks.CheckError("is without a decision that names the dump", errno.EINVAL)
    cgroup = open_cgroup(request.cgroup, request.cgroup_id)
    try:
        pids = processes(cgroup)
        if not pids:
            return "needless", errno.ESRCH, "no process is left in it"
        note = _note(request, pids)
        directory = checks.open_checkpoints(request.text or DIRECTORY)
        try:
            checks.check_room(directory, _memory(cgroup))
            where = f"{(request.text or DIRECTORY).rstrip('/')}/{request.decision}.partial"
            os.mkdir(f"{request.decision}.partial", 0o700, dir_fd=directory)
            try:
                return _dump(note, where, cgroup, directory, deadline, criu, systemd_run, path)
            finally:
                _remove(directory, f"{request.decision}.partial")
        finally:
            os.close(directory)
    finally:
        os.close(cgroup)


def _dump(
    note: Note, where: str, cgroup: int, directory: int, deadline: float, criu: str, systemd_run: str, path: str
) -> tuple[str, int, str]:
    with open(f"{where}/{NOTE}", "x", encoding="utf-8") as file:
        json.dump(note._asdict(), file)
    unit = f"oomslice-checkpoint-{note.decision}.service"
    left = deadline - time.monotonic()
    stop = deadline - min(EARLY_S, left / 10)
    command = [criu, "dump", "--tree", str(note.pid), "--images-dir", where, *CRIU_OPTIONS]
    command += [word for inode in note.sockets for word in ("--external", f"unix[{inode}]")]
    if note.shell_job:
        command.append("--shell-job")
    # systemd ends it too, if nobody is there any more to do it.
    limits = ["-p", f"TimeoutStartSec={max(1, int(left) + 1)}", "-p", "KillSignal=SIGKILL"]
    begin = [systemd_run, "--quiet", "--collect", f"--unit={unit}", "--slice=oomslice.slice", "-p", "Type=oneshot"]
    status = -1
    try:
        status, said = systemd.run([*begin, *limits, "--", *command], stop)
    finally:
        if status != 0:
            _end(unit, path)
            _resume(note, cgroup)
    if status != 0:
        return "failed", errno.EIO, f"criu could not dump it: {last_error(f'{where}/{LOG}') or said}"
    end = time.monotonic() + END_S
    while processes(cgroup):
        if time.monotonic() > end:
            return "failed", errno.EBUSY, "criu wrote a dump, and processes are left"
        time.sleep(0.01)
    if not os.path.exists(f"{where}/{COMPLETE}"):
        return "failed", errno.EIO, "criu ended well and wrote no dump"
    os.rename(f"{note.decision}.partial", note.decision, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
    return "done", 0, f"{note.processes} processes are in {where.removesuffix('.partial')}"


def open_cgroup(path: str, id: int, mount: str = "/sys/fs/cgroup") -> int:
    """The directory of a cgroup, by its path and for sure. Raises CheckError if it is another one by now."""
    if not path.startswith("/") or path == "/" or ".." in path.split("/"):
        raise checks.CheckError("is for a unit without a cgroup of its own", errno.EINVAL)
    try:
        descriptor = os.open(mount + path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise checks.CheckError("comes too late: the unit is gone", errno.ESRCH) from None
    if os.fstat(descriptor).st_ino != id:
        os.close(descriptor)
        raise checks.CheckError("comes too late: the unit was started anew", errno.ESRCH)
    return descriptor


def processes(cgroup: int) -> list[int]:
    """All processes in a cgroup and below it."""
    found: list[int] = []
    for directory in _below(cgroup):
        with contextlib.suppress(OSError):
            found += [int(word) for word in _read(directory, "cgroup.procs").split() if word.isdigit()]
    # 0 is a process of another pid namespace than ours.
    return [pid for pid in found if pid > 0]


def _below(cgroup: int) -> Iterator[int]:
    """Open directories of a cgroup and all below it; each is closed before the next is asked for."""
    pending = ["."]
    for _ in range(CGROUPS_MAX):
        if not pending:
            return
        path = pending.pop()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=cgroup)
        except OSError:
            continue
        try:
            with os.scandir(descriptor) as entries:
                pending += [f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
            yield descriptor
        finally:
            os.close(descriptor)


def _read(directory: int, name: str) -> str:
    with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory), encoding="ascii") as file:
        return file.read(1 << 20)


def _memory(cgroup: int) -> int:
    """Bytes of memory and swap: the most that a dump can take."""
    total = 0
    for name in ("memory.current", "memory.swap.current"):
        with contextlib.suppress(OSError, ValueError):
            total += int(_read(cgroup, name))
    return total


def _note(request: ActionRequest, pids: list[int]) -> Note:
    """Finds the process above all others. Raises CheckError if there is none: CRIU dumps trees."""
    if len(pids) > PROCESSES_MAX:
        raise checks.CheckError(f"is for a unit with {len(pids)} processes; at most {PROCESSES_MAX}", errno.E2BIG)
    status = {pid: found for pid in pids if (found := _stat(pid)) is not None}
    roots = [pid for pid, (parent, _, _) in status.items() if parent not in status]
    if len(roots) != 1:
        raise checks.CheckError(f"needs one process above all others, and the unit has {len(roots)}", errno.ENOTSUP)
    root = roots[0]
    return Note(
        decision=request.decision,
        unit=request.unit,
        cgroup=request.cgroup,
        pid=root,
        processes=len(status),
        shell_job=status[root][1] not in status,
        sockets=tuple(sorted({inode for pid in status for inode in _output_sockets(pid)})),
    )


def _stat(pid: int) -> tuple[int, int, str] | None:
    """Parent, session and state of a process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            words = file.read(4096).rpartition(")")[2].split()
        return int(words[1]), int(words[3]), words[0]
    except (OSError, ValueError, IndexError):
        return None


def _output_sockets(pid: int) -> Iterator[int]:
    """Where standard output and error are sockets: of a service, the journal's."""
    for number in (1, 2):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            if target.startswith("socket:["):
                yield int(target[8:-1])


def _end(unit: str, path: str) -> None:
    """Makes sure that CRIU is gone."""
    until = time.monotonic() + END_S
    with contextlib.suppress(OSError, checks.CheckError):
        systemctl = checks.program("systemctl", path)
        systemd.run([systemctl, "kill", "--signal=SIGKILL", "--", unit], until)
        systemd.run([systemctl, "stop", "--", unit], until)


def _resume(note: Note, cgroup: int) -> None:
    """What CRIU holds still runs on when CRIU is gone, for the kernel ends the hold. This is for what it stopped."""
    for pid in processes(cgroup):
        found = _stat(pid)
        if found is not None and found[2] == "T":
            with contextlib.suppress(OSError):
                os.kill(pid, 18)  # SIGCONT


def last_error(path: str) -> str:
    """The last thing that CRIU called an error."""
    found = ""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if "Error" in line and "FAILED" not in line:
                found = line.partition("Error")[2].strip(" :\n")
    return found[:300]


def _remove(directory: int, name: str) -> None:
    """Removes a dump, if it is still there. CRIU makes no directories in it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            for entry in os.listdir(descriptor):
                with contextlib.suppress(OSError):
                    os.unlink(entry, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        os.rmdir(name, dir_fd=directory)
