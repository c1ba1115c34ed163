# SPDX-License-Identifier: LGPL-2.1-or-later
"""One emulated machine: boot it, run commands in it, look at what its kernel did.

Owns: QEMU's command line, the protocol of the agent inside (programs/agent.c) and the console log. Promises that no
QEMU outlives its Machine. Only the standard library is imported: `make demo` runs this with the system's Python.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from .image import CACHE, HERE, Image, Progress, image, quiet

T = TypeVar("T")

BOOT_TIMEOUT = 600.0
"""Seconds. A boot takes BOOT_SECONDS on an idle machine; this is for one that does other things as well."""
BOOT_SECONDS = 20.0
PROGRAMS = HERE / "programs"
PROCESSOR = "max,-erms,-fsrm,-fsrs,-fzrm,-fsrc"
"""It does not claim to be fast at string instructions: the emulator goes through them byte by byte, and by a clock of
instructions each byte takes it as long as a hundred others. So memory is cleared in half of the time, and in a
twentieth of it by that clock."""


class MachineError(RuntimeError):
    """The machine itself failed: it did not boot, or its agent does not answer."""


class MachineSilent(MachineError):
    """Nothing was heard from the machine for as long as the caller would wait."""


class CommandError(AssertionError):
    """A command inside the machine failed where it must not."""


@dataclass(frozen=True)
class Result:
    """What a command inside the machine left: exit status (128+N for signal N, 124 after a timeout) and its output."""

    rc: int
    out: str


class Machine:
    """A booted machine, as a context manager.

    `disk` is the root disk: nothing is written to it for good unless `keep` is set. `swap_mb` adds a swap disk,
    /dev/vdc, which is not used until somebody says swapon.

    With `steady` its clock goes by instructions, one nanosecond each on both processors together, and by the real one
    only while both wait. So nothing that this machine does besides gets into what is timed inside, and the times are
    those of a slow processor, not those of an emulator. It takes up to three times as long.
    """

    def __init__(
        self,
        base: Image,
        kernel: str,
        *,
        disk: Path | None = None,
        memory_mb: int = 1024,
        swap_mb: int = 0,
        keep: bool = False,
        kernel_arguments: str = "",
        steady: bool = False,
    ) -> None:
        self.base = base
        self.kernel = kernel
        self.disk = disk or base.root
        self.memory_mb = memory_mb
        self.swap_mb = swap_mb
        self.keep = keep
        self.kernel_arguments = kernel_arguments
        self.steady = steady
        self.boot_seconds = 0.0
        self.patience = 1.0
        """What every timeout is multiplied by: how much slower than usual this machine is. A steady one never is."""
        self._has_turn = False
        self._directory = Path(tempfile.mkdtemp(prefix="oomslice-vm-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._agent: socket.socket | None = None
        self._buffer = b""

    def __enter__(self) -> Machine:
        try:
            _take_turn()
            self._has_turn = True
            self._boot()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._has_turn:
            _end_turn()
            self._has_turn = False
        shutil.rmtree(self._directory, ignore_errors=True)

    # Boot and end

    def _boot(self) -> None:
        started = time.monotonic()
        # What has a slash in it is the file of another kernel, with FILE.initrd or with all that is needed built in.
        own = "/" in self.kernel
        kernel, initrd = (Path(self.kernel), Path(f"{self.kernel}.initrd")) if own else self.base.kernel(self.kernel)
        command = [
            # Nobody is left to end it if whoever runs these tests is killed.
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("qemu-system-x86_64", *_accelerator(self.steady), "-cpu", PROCESSOR),
            *("-smp", "2", "-m", str(self.memory_mb)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
            *("-kernel", os.fspath(kernel), "-append", self._kernel_command_line()),
            *(("-initrd", os.fspath(initrd)) if initrd.exists() else ()),
            *self._drive("root", self.disk, snapshot=not self.keep),
            *self._drive("programs", programs_disk(), snapshot=False, read_only=True),
            *(self._drive("swap", self._swap_file(), snapshot=False) if self.swap_mb else ()),
            *("-serial", f"file:{self._directory / 'console'}"),
            *("-qmp", f"unix:{self._directory / 'qmp'},server=on,wait=off"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=agent,path={self._directory / 'agent'},server=on,wait=off"),
            *("-device", "virtserialport,chardev=agent,name=oomslice.agent"),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self._directory
        )
        self._connect(started + BOOT_TIMEOUT)
        # Before its bus is there systemctl fails, too.
        self.check(
            "until systemctl is-system-running --wait | grep -qx 'running\\|degraded'; do sleep 0.2; done",
            timeout=BOOT_TIMEOUT,
        )
        self.boot_seconds = time.monotonic() - started
        if not self.steady:
            self.patience = max(1.0, self.boot_seconds / BOOT_SECONDS)

    def _kernel_command_line(self) -> str:
        # mitigations=off: under emulation they only cost time. The stall warnings speak of the emulator, not of us.
        return (
            "root=/dev/vda rw console=ttyS0 quiet panic=-1 psi=1 mitigations=off rcupdate.rcu_cpu_stall_suppress=1 "
            f"nowatchdog systemd.show_status=0 {self.kernel_arguments}"
        ).strip()

    @staticmethod
    def _drive(name: str, path: Path, *, snapshot: bool, read_only: bool = False) -> tuple[str, str]:
        """One more disk, /dev/vda and on, which QMP knows as `name`."""
        kind = "qcow2" if path.suffix == ".qcow2" else "raw"
        options = f"file={path},format={kind},if=virtio,id={name},cache=unsafe"
        return "-drive", options + (",snapshot=on" if snapshot else "") + (",readonly=on" if read_only else "")

    def _swap_file(self) -> Path:
        path = self._directory / "swap.img"
        with path.open("wb") as file:
            file.truncate(self.swap_mb << 20)
        subprocess.run(["/sbin/mkswap", "-q", path], check=True, capture_output=True)
        return path

    def _connect(self, deadline: float) -> None:
        agent = socket.socket(socket.AF_UNIX)
        while True:
            try:
                agent.connect(os.fspath(self._directory / "agent"))
                break
            except OSError:
                self._alive()
                if time.monotonic() > deadline:
                    raise MachineError("QEMU does not open its sockets") from None
                time.sleep(0.05)
        self._agent = agent
        if self._line(deadline) != "hello":
            raise MachineError("the agent inside the machine does not say hello")

    def _alive(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            assert self._process.stdout is not None
            said = self._process.stdout.read().decode(errors="replace")
            raise MachineError(
                f"QEMU ended with status {self._process.returncode}: {said.strip()}\n{self.console_tail()}"
            )

    def power_off(self) -> None:
        """An orderly shutdown, with all that was written kept on the disk."""
        assert self._process is not None
        # It may be off before it has answered.
        with contextlib.suppress(MachineError):
            self.run("systemctl poweroff --no-block")
        try:
            self._process.wait(90 * self.patience)
        except subprocess.TimeoutExpired:
            raise MachineError(f"the machine does not power off\n{self.console_tail()}") from None

    def qmp(self, command: str, **arguments: Any) -> Any:
        """One command to QEMU itself, for example "stop" and "cont"."""
        with contextlib.ExitStack() as opened:
            connection = opened.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(10)
            connection.connect(os.fspath(self._directory / "qmp"))
            file = opened.enter_context(connection.makefile("rw"))
            file.readline()
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                file.write(json.dumps(request) + "\n")
                file.flush()
                while "event" in (answer := json.loads(file.readline())):
                    pass
            if "error" in answer:
                raise MachineError(f"QEMU refuses {command}: {answer['error']['desc']}")
            return answer["return"]

    def console_tail(self, lines: int = 40) -> str:
        """The end of the console log."""
        try:
            text = (self._directory / "console").read_text(errors="replace")
        except OSError:
            return "(no console log)"
        return "\n".join(text.splitlines()[-lines:])

    # Commands

    def _receive(self, deadline: float) -> None:
        assert self._agent is not None
        left = deadline - time.monotonic()
        if left <= 0:
            raise MachineSilent(f"the agent inside the machine does not answer\n{self.console_tail()}")
        self._agent.settimeout(min(left, 1.0))
        try:
            data = self._agent.recv(1 << 16)
        except TimeoutError:
            self._alive()
            return
        if not data:
            self._alive()
            raise MachineError("QEMU closed the connection to the agent")
        self._buffer += data

    def _line(self, deadline: float) -> str:
        while b"\n" not in self._buffer:
            self._receive(deadline)
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()

    def run(self, command: str, timeout: float = 60.0, stdin: bytes = b"") -> Result:
        """Run a shell command as root inside the machine.

        A command that takes longer is killed and ends with status 124. Raises MachineError if the machine is gone.
        """
        timeout *= self.patience
        output = b""

        def keep(data: bytes) -> None:
            nonlocal output
            output += data

        status = self._exchange(command, timeout, stdin, keep, silence=timeout + 60)
        return Result(status, output.decode(errors="replace"))

    def follow(self, command: str, line: Callable[[str], None], *, timeout: float, silence: float) -> int:
        """Run a command that talks while it runs, and hand over each line at once. Returns its exit status.

        Raises MachineSilent if nothing at all came for `silence` seconds.
        """
        rest = b""

        def split(data: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + data).split(b"\n")
            for text in lines:
                line(text.decode(errors="replace"))

        status = self._exchange(command, timeout, b"", split, silence=silence)
        if rest:
            line(rest.decode(errors="replace"))
        return status

    def _exchange(
        self, command: str, timeout: float, stdin: bytes, take: Callable[[bytes], None], *, silence: float
    ) -> int:
        assert self._agent is not None, "the machine is not running"
        data = command.encode()
        self._agent.settimeout(60)
        self._agent.sendall(f"{int(timeout * 1000)} {len(data)} {len(stdin)}\n".encode() + data + stdin)
        while True:
            deadline = time.monotonic() + silence
            kind, _, number = self._line(deadline).partition(" ")
            if kind == "e":
                return int(number)
            if kind != "o":
                raise MachineError(
                    f"the agent inside the machine was started anew (it said {kind!r})\n{self.console_tail()}"
                )
            size = int(number)
            while len(self._buffer) < size:
                self._receive(deadline)
            take(self._buffer[:size])
            self._buffer = self._buffer[size:]

    def check(self, command: str, timeout: float = 60.0, stdin: bytes = b"") -> str:
        """Like run(), for a command that must succeed: its output, or CommandError."""
        result = self.run(command, timeout, stdin)
        if result.rc != 0:
            raise CommandError(f"`{command}` ended with status {result.rc} inside the machine:\n{result.out}")
        return result.out

    def put(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Write a file inside the machine, with its directories."""
        data = text if isinstance(text, bytes) else text.encode()
        name = shlex.quote(path)
        self.check(f'mkdir -p "$(dirname {name})" && cat > {name} && chmod {mode:o} {name}', stdin=data)

    def wait_for(self, what: str, condition: Callable[[], T], timeout: float = 30.0, interval: float = 0.1) -> T:
        """Wait until `condition` returns something true, and return that. CommandError names `what` if it does not."""
        timeout *= self.patience
        deadline = time.monotonic() + timeout
        while True:
            asked = time.monotonic()
            if value := condition():
                return value
            answered = time.monotonic()
            if answered > deadline:
                raise CommandError(f"did not happen within {timeout:g} s: {what}")
            # Asking takes the machine's time from what is waited for.
            time.sleep(max(interval, answered - asked))

    # Units

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit as `systemctl show` prints them."""
        listing = self.check(f"systemctl show -p {','.join(names)} -- {shlex.quote(unit)}")
        return dict(line.split("=", 1) for line in listing.splitlines() if "=" in line)

    def active(self, unit: str) -> bool:
        """Whether the unit is active."""
        return self.properties(unit, "ActiveState")["ActiveState"] == "active"

    def main_pid(self, unit: str) -> int:
        """The unit's main process, 0 if it has none."""
        return int(self.properties(unit, "MainPID")["MainPID"])

    def start_service(self, unit: str, command: str, *, slice: str = "system.slice", **properties: str) -> None:
        """Start a transient service. With Type="notify" only when it says that it is ready."""
        options = "".join(f" -p {name}={shlex.quote(value)}" for name, value in properties.items())
        self.check(
            f"systemd-run --quiet --unit={unit} --slice={slice} -p OOMPolicy=continue{options} -- {command}",
            timeout=120,
        )

    # The kernel's view

    def available_mb(self) -> int:
        """MemAvailable."""
        return int(self.check("grep MemAvailable /proc/meminfo").split()[1]) // 1024

    def kernel_oom_kills(self) -> int:
        """How many processes the kernel's own killer has taken since boot."""
        match = re.search(r"^oom_kill (\d+)$", self.check("cat /proc/vmstat"), re.MULTILINE)
        assert match, "/proc/vmstat has no oom_kill"
        return int(match[1])

    def diagnosis(self) -> str:
        """What somebody needs who asks why a test failed. Never raises."""
        parts = [f"== console\n{self.console_tail()}"]
        with contextlib.suppress(Exception):
            for title, command in (
                ("memory", "free -m; cat /proc/pressure/memory; grep oom_kill /proc/vmstat"),
                ("kernel", "dmesg | tail -n 40"),
                (
                    "journal",
                    "journalctl -b --no-pager -o short-monotonic | grep -v ' kernel: ' | tail -n 60",
                ),
                ("decisions", "oomslicectl decisions 2>&1 | tail -n 20"),
            ):
                parts.append(f"== {title}\n{self.run(command, 30).out}")
        return "\n".join(parts)


TURNS = max(1, (os.cpu_count() or 1) // 2) + 1
"""Machines that run at once, of all that use this cache. A machine keeps one processor busy, and now and then two."""

_turn = -1
_machines = 0


def _take_turn() -> None:
    """Emulation takes the processors: more machines at once would only make all too slow. So the next one waits."""
    global _turn, _machines
    if _machines == 0:
        CACHE.mkdir(parents=True, exist_ok=True)
        places = [os.open(CACHE / f"turn-{n}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC) for n in range(TURNS)]
        _turn = _first_free(places)
        for place in places:
            if place != _turn:
                os.close(place)
    _machines += 1


def _first_free(places: list[int]) -> int:
    """Waits until one of the open files can be locked, and returns it."""
    while True:
        for place in places:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return place
        time.sleep(0.2)


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Keeps the turn from one machine to the next, once it is ours."""
    _take_turn()
    try:
        yield
    finally:
        _end_turn()


def _end_turn() -> None:
    global _machines
    _machines -= 1
    if _machines == 0:
        os.close(_turn)


@contextlib.contextmanager
def making() -> Iterator[None]:
    """What machines share is made by one run of tests at a time; the other finds it made."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "making").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _accelerator(steady: bool) -> tuple[str, ...]:
    """Software emulation, which runs everywhere.

    In one thread, for there are as many machines as processors, and then two threads for the two emulated processors
    only make each other wait: a boot takes a quarter longer, clearing memory more than twice as long. QEMU before 8
    breaks kernels of 7.x with more than one thread, too.
    """
    return "-accel", "tcg,thread=single", *(("-icount", "shift=0,sleep=on") if steady else ())


def programs_disk() -> Path:
    """The disk with the programs of the tests, built on this machine, statically."""
    sources = sorted(PROGRAMS.glob("*.c"))
    digest = hashlib.sha256()
    for source in sorted(PROGRAMS.glob("*.[ch]")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    disk = CACHE / f"programs-{digest.hexdigest()[:16]}.img"
    if disk.exists():
        return disk
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        for source in sources:
            target = Path(directory) / source.stem
            command: list[str | Path] = [
                "gcc",
                "-std=gnu11",
                "-O2",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-static",
                "-o",
                target,
                source,
            ]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                raise MachineError(f"{source.name} does not compile:\n{result.stderr}")
        partial = disk.with_suffix(".part")
        with partial.open("wb") as file:
            file.truncate(16 << 20)
        subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", directory, partial], check=True)
        for old in CACHE.glob("programs-*.img"):
            old.unlink()
        partial.rename(disk)
    return disk


def installed_disk(base: Image, package: Path, progress: Progress = quiet) -> Path:
    """A disk on which apt has installed `package` inside the running machine, as an overlay over the image."""
    digest = hashlib.sha256(base.directory.name.encode() + package.read_bytes()).hexdigest()[:16]
    disk = CACHE / f"installed-{digest}.qcow2"
    if disk.exists():
        return disk
    for old in sorted(CACHE.glob("installed-*.qcow2"), key=lambda path: path.stat().st_mtime)[:-4]:
        old.unlink()
    partial = disk.with_name(f"partial-{digest}.qcow2")
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base.root, partial],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    progress(f"installing {package.name} with apt inside the running machine")
    with Machine(base, base.kernels[0], disk=partial, keep=True) as machine:
        machine.put(f"/root/{package.name}", package.read_bytes())
        log = machine.check(f"DEBIAN_FRONTEND=noninteractive apt-get install -y /root/{package.name}", timeout=300)
        machine.put("/root/install.log", log)
        machine.check("systemctl is-active oomslice-core.service oomsliced.service", timeout=30)
        machine.power_off()
    partial.rename(disk)
    return disk


def default_image(progress: Progress = quiet) -> Image:
    """The image of the tests."""
    return image(progress)
