# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the running core stand on: its builds, a process of it, cgroups with victims, a service manager.

The cgroups are real ones below this machine's cgroup v2 mount, so kills are real; where that mount has no memory
controller (a hybrid hierarchy) every metric is 0. /proc/meminfo is a file of the test's.
"""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from oomslice._core import ffi, lib
from tests.core.client import Client
from tests.core.plans import MEBIBYTE, Plan, Unit

CORE = Path(__file__).resolve().parents[2] / "core"
Step = tuple[int, int, int, str]
"""kind, amount, delay in microseconds and text, as in plans.Unit.ladder"""
SMALL = ["-ffunction-sections", "-fdata-sections", "-fno-asynchronous-unwind-tables"]
SMALL += ["-Wl,--gc-sections", "-Wl,-z,noseparate-code"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DOOMSLICE_UNFILTERED"]
SANITIZERS += [f"-DOOMSLICE_{thread}_STACK=1048576" for thread in ("REAPER", "RESERVE", "WATCHDOG")]
GUARDED = ["malloc", "calloc", "realloc", "free", "open", "openat", "fopen", "vfprintf", "vsnprintf", "fputs", "fwrite"]
GUARDED += ["printf", "fprintf", "snprintf", "puts"]
"""What the build "guarded" must not use once it is armed; see guard.c."""
SHIPPED = ["-Os", "-g", "-static", *SMALL]
"""See core/meson.build."""
STUCK = [str(Path(__file__).with_name("stuck.c")), *(f"-Wl,--wrap={name}" for name in ("pread", "pwrite", "openat"))]
GUARD = [str(Path(__file__).with_name("guard.c")), *(f"-Wl,--wrap={name}" for name in GUARDED)]
BUILDS = {
    "static": SHIPPED,
    "sanitized": ["-O1", "-g", *SANITIZERS],
    "stuck": ["-O1", "-g", *SANITIZERS, *STUCK],
    "static-stuck": [*SHIPPED, "-DOOMSLICE_UNFILTERED", *STUCK],
    "guarded": ["-O2", "-g", "-static", *GUARD],
    "guarded-stuck": ["-O2", "-g", "-static", "-DOOMSLICE_UNFILTERED", *STUCK, *GUARD],
}


def build(kind: str, directory: Path) -> Path:
    """Compiles the core in one of the ways of BUILDS."""
    program = directory / f"oomslice-core-{kind}"
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{CORE}", *BUILDS[kind]]
    subprocess.run([*command, *sorted(CORE.glob("*.c")), "-o", program], check=True)
    return program


def cgroup2_mount() -> Path | None:
    """Where cgroup v2 is mounted here."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _device, target, kind, *_rest = line.split()
        if kind == "cgroup2":
            return Path(target)
    return None


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for something that is going to be true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Tree:
    """A cgroup that holds the test's cgroups: unit 0 of its plans."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        self.root = mount / f"oomslice-test-{os.getpid()}-{time.monotonic_ns()}"
        self.root.mkdir()
        self.children: list[subprocess.Popen[bytes]] = []

    def make(self, path: str) -> Path:
        directory = self.root / path
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def populate(self, directory: Path, count: int = 1) -> list[int]:
        """Starts processes in a cgroup."""
        # One shell forks them all: a process of its own for each would take seconds.
        script = 'echo $$ >"$0/cgroup.procs"; for i in $(seq "$1"); do sleep 1000 & done; echo; exec sleep 1000'
        child = subprocess.Popen(["sh", "-c", script, directory, str(count - 1)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        self.children.append(child)
        wait_until(lambda: len(self.pids(directory)) == count)
        return self.pids(directory)

    def pids(self, directory: Path) -> list[int]:
        return [int(line) for line in (directory / "cgroup.procs").read_text(encoding="ascii").split()]

    def remove_processes(self, directory: Path) -> None:
        """Kills all that is in a cgroup, which stays."""
        (directory / "cgroup.kill").write_text("1", encoding="ascii")
        wait_until(lambda: not self.pids(directory))

    def remove(self, directory: Path) -> None:
        """Removes one cgroup with all below it, as soon as it is empty."""
        for inner, _directories, _files in os.walk(directory, topdown=False):
            for attempt in range(200):
                try:
                    os.rmdir(inner)
                    break
                except OSError:
                    assert attempt < 199, f"{inner} does not get empty"
                    time.sleep(0.01)

    def close(self) -> None:
        (self.root / "cgroup.kill").write_text("1", encoding="ascii")
        for child in self.children:
            child.kill()
            child.wait()
        self.remove(self.root)


class Manager:
    """The service manager's end of sd_notify, with a store of descriptors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.states: list[str] = []
        self.store: list[tuple[str, int]] = []

    def read(self) -> None:
        """Takes all that has been sent."""
        while True:
            try:
                data, control, _flags, _address = self.socket.recvmsg(4096, 64, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            lines = data.decode().splitlines()
            self.states += lines
            fields = dict(line.split("=", 1) for line in lines)
            fds = array.array("i")
            for _level, _kind, payload in control:
                fds.frombytes(payload)
            if fields.get("FDSTOREREMOVE") == "1":
                for name, fd in self.store:
                    if name == fields["FDNAME"]:
                        os.close(fd)
                self.store = [(name, fd) for name, fd in self.store if name != fields["FDNAME"]]
            if fields.get("FDSTORE") == "1":
                self.store += [(fields["FDNAME"], fd) for fd in fds]

    def ready(self) -> bool:
        self.read()
        return "READY=1" in self.states

    def close(self) -> None:
        for _name, fd in self.store:
            os.close(fd)
        self.socket.close()


class Core:
    """A running core. The listening socket is handed over as systemd does it, and so are stored descriptors."""

    def __init__(self, program: Path, directory: Path, mount: Path) -> None:
        self.program = program
        self.directory = directory
        self.mount = mount
        self.path = directory / "core.sock"
        self.meminfo = directory / "proc" / "meminfo"
        self.undo = directory / "undo"
        self.sys = directory / "sys"
        self.sys.mkdir()  # without processors: what others do on this machine wakes nobody
        (directory / "proc").mkdir()
        self.set_memory(8192)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.manager = Manager(directory / "notify")
        self.process: subprocess.Popen[bytes] | None = None
        self.options: list[str] = []

    def set_memory(self, available: int, swap_total: int = 0, swap_free: int = 0) -> None:
        """What the core is going to read from meminfo, in MiB. In one write, so that no half is ever read."""
        text = f"MemTotal: {16384 * 1024:9} kB\nMemAvailable: {available * 1024:9} kB\n"
        text += f"SwapTotal: {swap_total * 1024:9} kB\nSwapFree: {swap_free * 1024:9} kB\n"
        fd = os.open(self.meminfo, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(fd, text.encode(), 0)
        os.close(fd)

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        names = ["core.sock", *(name for name, _fd in self.manager.store)]
        fds = [self.listener.fileno(), *(fd for _name, fd in self.manager.store)]
        # Where it is certain that nothing is in the way of 3, 4, ...
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in fds]
        moves = " ".join(f"{3 + index}<&{fd}" for index, fd in enumerate(copies))
        closes = " ".join(f"{fd}<&-" for fd in copies)
        script = f'exec {moves}; exec {closes}; LISTEN_PID=$$ exec "$0" "$@"'
        environment = {
            **os.environ,
            "LISTEN_FDS": str(len(fds)),
            "LISTEN_FDNAMES": ":".join(names),
            "NOTIFY_SOCKET": str(self.manager.path),
            "ASAN_OPTIONS": "detect_leaks=0",
        }
        self.manager.states.clear()
        roots = ["--cgroup-root", self.mount, "--proc-root", self.meminfo.parent, "--sys-root", self.sys]
        self.process = subprocess.Popen(
            ["bash", "-c", script, self.program, *roots, "--undo-file", self.undo, *self.options],
            pass_fds=copies,
            env=environment,
            stderr=subprocess.PIPE,
        )
        for fd in copies:
            os.close(fd)
        wait_until(lambda: self.manager.ready() or self.process is None or self.process.poll() is not None)
        assert self.manager.ready(), self.stop()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def client(self) -> Client:
        return Client(self.path)

    def poke(self) -> Any:
        """Wakes it, so that it reads meminfo: as a pressure event would. Its state."""
        with self.client() as client:
            return client.state()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Ends it; exit status and what it said."""
        assert self.process is not None
        self.process.send_signal(number)
        _out, said = self.process.communicate(timeout=20)
        status, self.process = self.process.returncode, None
        self.manager.read()
        return status, said.decode(errors="replace")

    def close(self) -> None:
        said = (0, "")
        if self.process is not None:
            said = self.stop()
        self.manager.close()
        self.listener.close()
        assert said == (0, ""), said


class Records:
    """The reader's side of the ring."""

    def __init__(self, fd: int) -> None:
        self.map = mmap.mmap(fd, lib.OOMSLICE_RING_SIZE)
        self.address = ffi.from_buffer(self.map)

    def next(self) -> Any:
        """A copy of the oldest record that is complete, taken out of the ring; None if there is none."""
        record = lib.oomslice_ring_next(self.address)
        if record == ffi.NULL:
            return None
        copy = ffi.new("struct oomslice_record *")
        ffi.memmove(copy, record, ffi.sizeof(copy[0]))
        lib.oomslice_ring_release(self.address, copy.sequence)
        return copy

    def wait(self, seconds: float = 60) -> Any:
        found: list[Any] = []

        def look() -> bool:
            record = self.next()
            if record is not None:
                found.append(record)
            return bool(found)

        wait_until(look, seconds)
        return found[0]


class Scene:
    """A core, a tree, and a plan of it, for tests of decisions."""

    def __init__(self, core: Core, tree: Tree) -> None:
        self.core = core
        self.tree = tree
        self.units = [Unit("-.slice", os.stat(tree.root).st_ino, -1)]
        self.paths = [tree.root]
        self.generation = 0

    def add(
        self,
        path: str,
        priority: int = 0,
        flags: int = 0,
        *,
        processes: int = 0,
        parent: int = 0,
        ladder: Sequence[Step] = (),
        kill_scope: int = 0,
    ) -> Path:
        """A candidate of the plan, with processes."""
        directory = self.tree.make(path)
        flags |= lib.OOMSLICE_UNIT_CANDIDATE
        self.units.append(
            Unit(directory.name, os.stat(directory).st_ino, parent, priority, flags, kill_scope, tuple(ladder))
        )
        self.paths.append(directory)
        if processes:
            self.tree.populate(directory, processes)
        return directory

    def add_slice(self, path: str, priority: int = 0, flags: int = 0, *, parent: int = 0) -> int:
        """A container of the plan; its index."""
        directory = self.tree.make(path)
        self.units.append(Unit(directory.name, os.stat(directory).st_ino, parent, priority, flags))
        self.paths.append(directory)
        return len(self.units) - 1

    def plan(self, **fields: Any) -> Plan:
        self.generation += 1
        return Plan(units=self.units, generation=self.generation, **fields)

    def hand_over(self, **fields: Any) -> Records:
        """Makes the plan that of the core; the ring."""
        with self.core.client() as client:
            hello = client.hello()
            reply = client.send_plan(self.plan(**fields), self.paths)
            assert (reply.status, reply.detail) == (0, 0)
            records = Records(hello.fds[0])
            for fd in hello.fds:
                os.close(fd)
        return records

    def shortage(self) -> None:
        """The machine runs out of memory."""
        self.core.set_memory(50)
        self.core.poke()

    def alive(self, directory: Path) -> int:
        return len(self.tree.pids(directory))


def name(array_of_char: Any) -> str:
    return ffi.string(array_of_char).decode()


def verdicts(record: Any) -> dict[int, str]:
    """Cgroup id -> verdict of all listed candidates, best first."""
    return {
        entry.cgroup_id: ffi.string(lib.oomslice_verdict_text(entry.verdict)).decode()
        for entry in record.candidates[0 : record.candidates_count]
    }


def scenes(core: Core, mount: Path) -> Iterator[Scene]:
    """For fixtures: a scene, and the end of it."""
    tree = Tree(mount)
    try:
        core.start()
        yield Scene(core, tree)
    finally:
        tree.close()
        core.close()


__all__ = ["BUILDS", "MEBIBYTE", "Core", "Manager", "Records", "Scene", "Tree", "build", "cgroup2_mount", "scenes"]
