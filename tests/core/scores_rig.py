# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of oomslice-scores stand on: its builds, and a process of it with a client."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import signal
import socket
import subprocess
from pathlib import Path

from tests.core.rig import Tree, wait_until

SCORES = Path(__file__).resolve().parents[2] / "scores"
BUILDS = {
    "static": ["-Os", "-g", "-static", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"],  # as shipped
    "sanitized": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def build(kind: str, directory: Path) -> Path:
    """Compiles it in one of the ways of BUILDS."""
    program = directory / f"oomslice-scores-{kind}"
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", *BUILDS[kind]]
    subprocess.run([*command, *sorted(SCORES.glob("*.c")), "-o", program], check=True)
    return program


def target(link: Path) -> str:
    """What a descriptor of another process is; nothing if it has been closed meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return os.readlink(link)
    return ""


def adj_of(pid: int) -> int:
    # In one read: the rest of a number that has changed meanwhile is none.
    with open(f"/proc/{pid}/oom_score_adj", "rb", buffering=0) as file:
        return int(file.read(16))


def set_adj(pid: int, adj: int) -> None:
    Path(f"/proc/{pid}/oom_score_adj").write_text(str(adj), encoding="ascii")


def values(pids: list[int]) -> set[int]:
    return {adj_of(pid) for pid in pids}


def unit(tree: Tree, name: str, processes: int = 3) -> tuple[Path, list[int]]:
    """A cgroup with its processes."""
    directory = tree.make(name)
    return directory, tree.populate(directory, processes)


def line(
    mount: Path, directory: Path, adj: int | None, baseline: int = 0, group: bool = False, kind: str = "unit"
) -> str:
    """A unit of a table, or a slice."""
    path = "/" + str(directory.relative_to(mount))
    return f"{kind} {directory.stat().st_ino} {'-' if adj is None else adj} {baseline} {group:d} {path}\n"


def keep(mount: Path, directory: Path) -> str:
    """A unit that nobody touches."""
    return f"keep {directory.stat().st_ino} /{directory.relative_to(mount)}\n"


def has_packet(connection: socket.socket) -> bool:
    poll = select.poll()  # no matter how large its number is
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


class ScoresProcess:
    """A running oomslice-scores, connected."""

    def __init__(self, program: Path, directory: Path, mount: Path) -> None:
        self.program = program
        self.mount = mount
        self.path = directory / "scores.sock"
        self.state = directory / "scores"
        self.process: subprocess.Popen[bytes] | None = None
        self.socket: socket.socket | None = None

    @property
    def options(self) -> list[str]:
        return ["--socket", str(self.path), "--cgroup-root", str(self.mount), "--state", str(self.state)]

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self.process = subprocess.Popen([self.program, *self.options], stderr=subprocess.PIPE)
        wait_until(self._connect)

    def _connect(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.process
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(self.path))
        except OSError:
            connection.close()
            return False
        connection.settimeout(20)
        self.socket = connection
        return True

    def send(self, *lines: str, seals: int = SEALS, text: bytes = b"table") -> None:
        assert self.socket is not None
        memfd = os.memfd_create("table", os.MFD_ALLOW_SEALING)
        os.write(memfd, "".join(lines).encode())
        if seals:
            fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, seals)
        self.socket.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memfd]))])
        os.close(memfd)

    def answer(self) -> dict[str, str]:
        """The next packet; empty if the connection was closed."""
        assert self.socket is not None
        text = self.socket.recv(4096).decode()
        head, _, error = text.partition(" error=")
        return {**dict(word.split("=") for word in head.split()), "error": error} if text else {}

    def table(self, *lines: str) -> dict[str, str]:
        """Puts a table in force."""
        # What it has said of units that came meanwhile is no answer to this.
        while has_packet(self.socket) and self.answer():
            pass
        self.send(*sorted(lines, key=lambda item: int(item.split()[1])))
        return self.answer()

    def watches(self) -> int:
        """How much the kernel watches for it."""
        assert self.process is not None
        directory = Path(f"/proc/{self.process.pid}")
        found = [link.name for link in (directory / "fd").iterdir() if "inotify" in target(link)]
        return (directory / "fdinfo" / found[0]).read_text(encoding="ascii").count("inotify wd:")

    def restore(self) -> None:
        """As the service manager does when it ended."""
        subprocess.run([self.program, *self.options, "--restore"], check=True)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        assert self.process is not None
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        self.process.send_signal(number)
        _out, said = self.process.communicate(timeout=20)
        status, self.process = self.process.returncode, None
        return status, said.decode(errors="replace")
