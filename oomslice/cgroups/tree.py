# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cgroup tree as values. Every read is bounded; whatever is missing or went away is a CgroupError with a sentence.

Below user@UID.service the tree belongs to its user, who may name and nest cgroups as he likes. `walk_user_units` makes
of it what systemd would call units, and leaves whole what it cannot take apart, so that nothing there can hide: a
cgroup that is not listed is part of the nearest listed one above it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from oomslice.cgroups.model import Cgroup, MemoryInfo, Usage
from oomslice.errors import CgroupError

USER_UNITS_MAX = 1024
"""Cgroups listed below one user manager."""
USER_DEPTH_MAX = 16
"""Levels below one user manager that are listed. systemd's slices seldom nest deeper than four."""
SUBTREE_MAX = 4096
"""Cgroups below one unit whose processes are counted."""
FILE_SIZE_MAX = 256 * 1024

_TRUE = (b"1", b"yes", b"y", b"true", b"t", b"on")


class CgroupTree:
    """cgroup v2 as mounted at `root`, and /proc at `proc`. Holds no state."""

    def __init__(
        self,
        root: Path = Path("/sys/fs/cgroup"),
        proc: Path = Path("/proc"),
        getxattr: Callable[[str, str], bytes] = os.getxattr,
        listxattr: Callable[[str], list[str]] = os.listxattr,
    ) -> None:
        self._root = os.fspath(root)
        self._proc = os.fspath(proc)
        self._getxattr = getxattr
        self._listxattr = listxattr

    def check(self) -> None:
        """Raises CgroupError, saying what is needed, unless this is cgroup v2 with the memory controller."""
        try:
            with open(f"{self._root}/cgroup.controllers", encoding="ascii") as file:
                controllers = file.read(4096).split()
        except FileNotFoundError:
            raise CgroupError(self._why_not_v2()) from None
        except OSError as error:
            raise CgroupError(f"{self._root}/cgroup.controllers cannot be read: {error.strerror}") from error
        if "memory" not in controllers:
            raise CgroupError(
                f"the memory controller is not available in {self._root} (it has: {' '.join(controllers) or 'none'}); "
                "it needs CONFIG_MEMCG, no 'cgroup_disable=memory' at boot, and no cgroup v1 hierarchy that holds it"
            )

    def _why_not_v2(self) -> str:
        root = self._root
        cure = "boot with 'systemd.unified_cgroup_hierarchy=1' on the kernel command line (default since systemd 248)"
        if os.path.exists(f"{root}/unified/cgroup.controllers"):
            return f"{root} is a hybrid of cgroup v1 and v2; oomslice needs cgroup v2 alone: {cure}"
        if os.path.isdir(f"{root}/memory") or os.path.isdir(f"{root}/systemd"):
            return f"{root} is cgroup v1; oomslice needs cgroup v2: {cure}"
        return f"no cgroup v2 is mounted at {root}; oomslice needs it: {cure}"

    def read(self, path: str) -> Cgroup:
        """One cgroup. Raises CgroupError if there is none of this path."""
        directory = self._directory(path)
        try:
            status = os.stat(directory)
        except OSError as error:
            raise _gone(path, error) from error
        # The root has no cgroup.events: it is never empty.
        populated = path == "/" or _keyed(self._text(directory, "cgroup.events")).get("populated") == 1
        return Cgroup(path, status.st_ino, status.st_uid, populated, self._preference(directory))

    def walk_user_units(self, path: str) -> list[Cgroup]:
        """The units of the user manager whose service has this cgroup: parents before children, sorted; not itself.

        Slices are taken apart into what is in them, whatever that is called. A slice stays whole if it holds a name
        that cannot be shown, if its children have no memory figures of their own, or if a limit would be passed.
        """
        found: list[Cgroup] = []
        queue = [(path, 0)]
        while queue:
            parent, depth = queue.pop(0)
            children = self._children(parent) if depth < USER_DEPTH_MAX else None
            if children is None or len(found) + len(children) > USER_UNITS_MAX:
                continue
            for name in children:
                child = f"{parent}/{name}"
                try:
                    found.append(self.read(child))
                except CgroupError:
                    continue  # ended meanwhile
                if name.endswith(".slice"):
                    queue.append((child, depth + 1))
        return sorted(found, key=lambda cgroup: cgroup.path.split("/"))

    def _children(self, path: str) -> list[str] | None:
        """Names of the cgroups in this one, sorted; None if they cannot stand for themselves."""
        directory = self._directory(path)
        names: list[str] = []
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        continue
                    names.append(entry.name)
                    if len(names) > USER_UNITS_MAX or not entry.name.isprintable():
                        return None  # undecodable bytes are not printable either
        except OSError:
            return None
        if names and not os.path.exists(f"{directory}/{names[0]}/memory.current"):
            return None
        return sorted(names)

    def names(self) -> dict[int, str]:
        """Cgroup id -> last part of its path, of every cgroup there is now. One pass over all directories."""
        names: dict[int, str] = {}
        queue = [self.root]
        while queue:
            with contextlib.suppress(OSError), os.scandir(queue.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        names[entry.inode()] = _shown(entry.name)
                        queue.append(entry.path)
        return names

    def usage(self, path: str) -> Usage:
        """Figures of one cgroup and all below it. Raises CgroupError if it is gone.

        Where the memory controller is not on (as for the root cgroup itself) memory is 0.
        """
        directory = self._directory(path)
        if not os.path.isdir(directory):
            raise CgroupError(f"the cgroup {path} is gone")
        current = _number(self._text(directory, "memory.current"))
        swap = _number(self._text(directory, "memory.swap.current"))
        statistics = _keyed(self._text(directory, "memory.stat"))
        file_pages = statistics.get("active_file", 0) + statistics.get("inactive_file", 0)
        populated = path == "/" or _keyed(self._text(directory, "cgroup.events")).get("populated") == 1
        return Usage(
            memory=max(0, current - file_pages) + swap,
            current=current,
            swap=swap,
            refaults=statistics.get("workingset_refault_anon", 0) + statistics.get("workingset_refault_file", 0),
            processes=self._processes(directory) if populated else 0,
            populated=populated,
        )

    def process_bound(self, path: str, coarse: int) -> int:
        """Bytes of memory and swap that no single process of this cgroup uses more of; 0 if it is gone.

        Where `coarse` is enough the page cache is counted in, and one file less is read.
        """
        directory = self._directory(path)
        bound = _number(self._text(directory, "memory.current"))
        swap = _number(self._text(directory, "memory.swap.current"))
        if bound + swap > coarse:
            statistics = _keyed(self._text(directory, "memory.stat"))
            counted = ("anon", "shmem", "file_mapped", "pagetables")
            bound = min(bound, sum(statistics.get(name, 0) for name in counted))
        return bound + swap

    def _processes(self, directory: str) -> int:
        # Not pids.current: that counts threads, and needs another controller.
        count = 0
        pending = [directory]
        for _ in range(SUBTREE_MAX):
            if not pending:
                break
            directory = pending.pop()
            count += len(self._text(directory, "cgroup.procs").split())
            try:
                with os.scandir(directory) as entries:
                    pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError:
                continue
        return count

    def memory(self) -> MemoryInfo:
        """The machine's memory. Raises CgroupError if /proc/meminfo cannot be read."""
        path = f"{self._proc}/meminfo"
        figures: dict[str, int] = {}
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                for line in file:
                    key, _, value = line.partition(":")
                    words = value.split()
                    if words and words[0].isdigit():
                        figures[key] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
            return MemoryInfo(figures["MemTotal"], figures["MemAvailable"], figures["SwapTotal"], figures["SwapFree"])
        except OSError as error:
            raise CgroupError(f"{path} cannot be read: {error.strerror}") from error
        except KeyError as error:
            raise CgroupError(f"{path} has no line {error}") from error

    def open(self, path: str) -> int:
        """A descriptor of the cgroup's directory, through which its files can be opened. Raises CgroupError."""
        try:
            return os.open(self._directory(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _gone(path, error) from error

    def _directory(self, path: str) -> str:
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise CgroupError(f"{path!r} is not a path below the cgroup root")
        return self._root + path.rstrip("/")

    def _preference(self, directory: str) -> str:
        # Most cgroups have none of the two: one call tells that, instead of two that fail.
        try:
            names = self._listxattr(directory)
        except OSError:
            return "none"
        for name in ("omit", "avoid"):  # omit beats avoid, as in systemd-oomd
            if f"user.oomd_{name}" not in names:
                continue
            try:
                value = self._getxattr(directory, f"user.oomd_{name}")
            except OSError:
                continue
            if value.strip().lower() in _TRUE:
                return name
        return "none"

    @property
    def root(self) -> str:
        """Where the tree is mounted."""
        return self._root

    @staticmethod
    def _text(directory: str, name: str) -> str:
        """The file's text, or "" if there is none (any more)."""
        try:
            descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            text = b""
            while len(text) < FILE_SIZE_MAX and (more := os.read(descriptor, FILE_SIZE_MAX)):
                text += more
            return text.decode("ascii", "replace")
        except OSError:  # ENODEV: removed meanwhile
            return ""
        finally:
            os.close(descriptor)


def _shown(name: str) -> str:
    """A name that a user may have chosen, fit for a terminal, D-Bus and the store."""
    return name if name.isprintable() else name.encode("unicode_escape", "backslashreplace").decode("ascii")


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0


def _keyed(text: str) -> dict[str, int]:
    """A flat keyed file: one "KEY VALUE" a line."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            values[key] = int(value)
    return values


def _gone(path: str, error: OSError) -> CgroupError:
    if isinstance(error, FileNotFoundError):
        return CgroupError(f"the cgroup {path} is gone")
    return CgroupError(f"the cgroup {path} cannot be read: {error.strerror}")
