# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslice-actions over its socket, with programs of the test's own: answers in time, whatever its children do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oomslice.actions import systemd
from oomslice.actions.checks import CheckError
from oomslice.actions.client import ActionsClient
from oomslice.actions.messages import (
    MESSAGE_MAX,
    ActionAnswer,
    ActionRequest,
    MessageError,
    decode_answer,
    decode_request,
    encode,
)

TOP = Path(__file__).resolve().parents[2]
DECISION = "00000000000000aa-7"


def in_seconds(seconds: float) -> int:
    return int((time.monotonic() + seconds) * 1e6)


START = "import os, signal, sys, time; from oomslice.actions import service"
HANDED_OVER = "os.dup2({number}, 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')"
"""What systemd does before it starts a service for a socket."""


class Running:
    """The service in processes of its own, on a socket that takes connections also before one is there and between
    two; or, by hand, on one that it makes itself."""

    def __init__(self, directory: Path, idle: int = 60, patch: str = "", by_hand: bool = False) -> None:
        self.socket = str(directory / "actions.sock")
        self.listener: socket.socket | None = None
        if not by_hand:
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.listener.bind(self.socket)
            self.listener.listen(128)
        self.programs = directory / "bin"
        self.programs.mkdir()
        self.program("systemctl", 'printf "%s\\n" "$*" >>"$0.log"')
        self.log = directory / "log"
        self.idle = idle
        self.patch = patch
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Another one."""
        handed = ""
        descriptors: tuple[int, ...] = ()
        if self.listener is not None:
            handed, descriptors = HANDED_OVER.format(number=self.listener.fileno()), (self.listener.fileno(),)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-c", f"{START}\n{handed}\n{self.patch}\nsys.exit(service.main())"),
                    *("--socket", self.socket, "--idle", str(self.idle)),
                    *("--programs", f"{self.programs}:/usr/bin:/bin"),
                ],
                cwd=TOP,
                stderr=log,
                pass_fds=descriptors,
            )

    def end(self) -> None:
        """Ends it by force."""
        self.process.kill()
        self.process.wait()
        if self.listener is not None:
            self.listener.close()

    def program(self, name: str, script: str) -> None:
        """Puts a shell script in the place of a program."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def called(self, name: str = "systemctl") -> list[str]:
        """How a program was called that logs this."""
        path = self.programs / f"{name}.log"
        return path.read_text().splitlines() if path.exists() else []

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(30)
        deadline = time.monotonic() + 30
        while True:
            try:
                connection.connect(self.socket)
                return connection
            except (ConnectionRefusedError, FileNotFoundError):  # by hand: not there yet, or not listening
                assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
                time.sleep(0.01)

    def ask(self, **request: Any) -> ActionAnswer:
        """One request on a connection of its own."""
        values = {"number": 1, "deadline_usec": in_seconds(30), "unit": "victim.service", **request}
        with self.connect() as connection:
            connection.send(encode(ActionRequest(**values)))
            return decode_answer(connection.recv(MESSAGE_MAX))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.end()


def test_start_hands_a_job_to_systemd_and_does_not_wait_for_it(service: Running) -> None:
    answer = service.ask(kind="start", text="notify@.service", decision=DECISION)
    assert (answer.result, answer.error) == ("done", 0), answer
    (called,) = service.called()
    assert called.endswith(f"-- notify@{DECISION}.service")
    assert called.startswith("start --no-block --job-mode=fail")


def test_what_systemd_refuses_is_a_failure_with_its_reason(service: Running) -> None:
    service.program("systemctl", "echo Unit gone.service not found. >&2; exit 5")
    answer = service.ask(kind="start", text="gone.service")
    assert (answer.result, answer.error) == ("failed", errno.ENOENT)
    assert "gone.service not found" in answer.detail


@pytest.mark.parametrize("unit", ["", "--force", "x.service; reboot", "../x.service", "x", "-x.service\n"])
def test_names_that_are_no_units_never_reach_systemd(service: Running, unit: str) -> None:
    answer = service.ask(kind="start", text=unit)
    assert (answer.result, answer.error) == ("failed", errno.EINVAL)
    assert service.called() == []


def test_a_hanging_step_is_late_holds_nobody_else_and_is_ended(service: Running, tmp_path: Path) -> None:
    service.program("systemctl", f'case "$*" in *hangs*) echo $$ >{tmp_path}/pid; exec sleep 1000;; esac')
    with service.connect() as connection:
        for number, unit, seconds in ((1, "hangs.service", 1.5), (2, "quick.service", 30)):
            connection.send(
                encode(ActionRequest(number, "start", in_seconds(seconds), unit="victim.service", text=unit))
            )
        first, second = (decode_answer(connection.recv(MESSAGE_MAX)) for _ in range(2))
    assert (first.number, first.result) == (2, "done")
    assert (second.number, second.result) == (1, "late")
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < deadline, "what hangs is still there"
        time.sleep(0.02)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_step_that_does_not_look_at_the_clock_is_told_and_then_killed(tmp_path: Path, deaf: bool) -> None:
    pid = tmp_path / "pid"
    stuck = f"""
import os
def stuck(*arguments):
    {"signal.signal(signal.SIGTERM, signal.SIG_IGN)" if deaf else "pass"}
    with open({str(pid)!r}, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(1000)
service.carry_out = stuck
service.GRACE_S = {0.3 if deaf else 1000}
"""
    running = Running(tmp_path, patch=stuck)
    try:
        assert running.ask(kind="purge", text="/x", deadline_usec=in_seconds(1)).result == "late"
        deadline = time.monotonic() + 20
        while alive(int(pid.read_text())):
            assert time.monotonic() < deadline, "what hangs is still there"
            time.sleep(0.02)
        assert running.ask(kind="hello").result == "done"
    finally:
        running.process.kill()
        running.process.wait()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_child_that_is_killed_is_a_failure(service: Running) -> None:
    service.program("systemctl", "kill -KILL $PPID; sleep 5")
    answer = service.ask(kind="start", text="x.service")
    assert (answer.result, answer.error) == ("failed", errno.EPIPE)
    service.program("systemctl", "true")
    assert service.ask(kind="start", text="x.service").result == "done"


def test_a_request_whose_time_has_passed_is_late_and_not_begun(service: Running) -> None:
    assert service.ask(kind="start", text="x.service", deadline_usec=in_seconds(-1)).result == "late"
    assert service.called() == []


def test_purge_reports_what_it_freed_and_refuses_what_is_no_tmpfs(service: Running, tmp_path: Path) -> None:
    answer = service.ask(kind="purge", text=str(tmp_path))
    assert (answer.result, answer.error) == ("failed", errno.EXDEV), answer
    assert "not on a tmpfs" in answer.detail
    mount = tmp_path / "cache"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "oomslice", mount], check=False).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted: needs root")
    try:
        (mount / "file").write_bytes(b"x" * 8192)
        answer = service.ask(kind="purge", text=str(mount))
        assert (answer.result, answer.amount) == ("done", 8192)
        assert service.ask(kind="purge", text=str(mount)).result == "needless"
    finally:
        subprocess.run(["umount", mount], check=True)


def test_checkpoint_without_criu_is_unavailable(service: Running) -> None:
    service.program("systemd-run", "exit 1")
    answer = service.ask(kind="checkpoint", decision=DECISION, cgroup="/x.service", cgroup_id=1)
    if (Path("/usr/bin/criu")).exists():
        pytest.skip("criu is installed in /usr/bin, where the test looks for programs")
    assert (answer.result, answer.error) == ("unavailable", errno.ENOENT)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"no json",
        b"[]",
        b'{"number":1}',
        b'{"number":1,"kind":"reboot"}',
        b'{"number":"1","kind":"start"}',
        b'{"number":true,"kind":"start"}',
        b'{"number":-1,"kind":"start"}',
        b'{"number":1,"kind":"start","command":"x"}',
        b'{"number":1,"kind":"start","text":"a\\u0000b"}',
        b"[" * 5000,
        b"x" * (MESSAGE_MAX + 1),
    ],
)
def test_packets_that_are_no_requests_end_the_connection_and_nothing_else(service: Running, packet: bytes) -> None:
    if packet:
        with pytest.raises(MessageError):
            decode_request(packet)
    with service.connect() as connection:
        connection.send(packet)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(MESSAGE_MAX) == b""
    assert service.ask(kind="hello").result == "done"


def test_strangers_are_not_served(service: Running, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    os.chmod(service.socket, 0o666)
    for above in tmp_path.parents:
        if above.stat().st_uid == os.geteuid():
            above.chmod(above.stat().st_mode | 0o011)
    script = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
        "s.connect(sys.argv[1]); s.send(sys.argv[2].encode());"
        "print(len(s.recv(100)))"
    )
    request = json.dumps({"number": 1, "kind": "hello"})
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    ended = subprocess.run(
        [sys.executable, "-c", script, service.socket, request], capture_output=True, text=True, check=False
    )
    assert ended.stdout.strip() == "0" or "Broken pipe" in ended.stderr or "reset" in ended.stderr, ended
    assert "was refused" in service.log.read_text()


def test_it_ends_when_nobody_wants_anything(tmp_path: Path) -> None:
    running = Running(tmp_path, idle=1, by_hand=True)
    assert running.ask(kind="hello").result == "done"
    assert running.process.wait(30) == 0


def test_sigterm_waits_for_what_is_begun(service: Running, tmp_path: Path) -> None:
    service.program("systemctl", f"touch {tmp_path}/begun; sleep 0.5; touch {tmp_path}/done")
    with service.connect() as connection:
        connection.send(encode(ActionRequest(1, "start", in_seconds(30), text="x.service")))
        deadline = time.monotonic() + 20
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
    assert (tmp_path / "done").exists()


def test_few_modules_are_imported() -> None:
    # It is started when memory is short; each of these would cost more than all of ours together.
    code = "import sys, oomslice.actions.service; print(*sys.modules)"
    names = set(subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path[:0] = [{str(TOP)!r}]; {code}"],
                               capture_output=True, text=True, check=True).stdout.split())  # fmt: skip
    assert "oomslice.actions.service" in names
    assert not names & {
        "asyncio",
        "_cffi_backend",
        "argparse",
        "logging",
        "shutil",
        "ctypes",
        "dbus_next",
        "yaml",
        "inspect",
    }


# The other end


def test_client_gets_answers_and_finds_the_service_again_after_it_ended(service: Running) -> None:
    async def body() -> list[str]:
        client = ActionsClient(service.socket)
        client.wake()
        request = ActionRequest(0, "start", in_seconds(30), text="x.service")
        answers = await asyncio.gather(*(client.ask(request) for _ in range(5)))
        client.close()
        answers.append(await client.ask(request))
        client.close()
        return [answer.result for answer in answers]

    assert asyncio.run(body()) == ["done"] * 6


def test_no_request_is_lost_when_the_service_ends_and_none_is_done_twice(service: Running) -> None:
    async def restarted() -> None:
        # As systemd does it when a connection waits.
        while True:
            await asyncio.to_thread(service.process.wait, 60)
            service.process = service.start()

    async def body() -> list[str]:
        client = ActionsClient(service.socket)
        few = asyncio.Semaphore(8)

        async def one(number: int) -> str:
            async with few:
                answer = await client.ask(ActionRequest(0, "start", in_seconds(60), text=f"u{number}.service"))
            if number % 20 == 10:
                # Requests lie in the socket, some are being done, and more follow.
                service.process.send_signal(signal.SIGTERM)
            return answer.result if answer.result == "done" else str(answer)

        systemd = asyncio.create_task(restarted())
        results = await asyncio.gather(*(one(number) for number in range(60)))
        systemd.cancel()
        client.close()
        service.process.kill()  # to_thread() waits for it
        return results

    service.program("systemctl", 'printf "%s\\n" "$*" >>"$0.log"; sleep 0.0$(( $$ % 5 ))')
    assert asyncio.run(body()) == ["done"] * 60
    assert sorted(line.rpartition(" ")[2] for line in service.called()) == sorted(f"u{n}.service" for n in range(60))


def test_client_says_at_once_that_there_is_no_service(tmp_path: Path) -> None:
    async def body() -> ActionAnswer:
        client = ActionsClient(str(tmp_path / "none"))
        client.wake()
        return await client.ask(ActionRequest(0, "warn", in_seconds(3600)))

    answer = asyncio.run(body())
    assert (answer.result, answer.error) == ("unavailable", errno.ENOENT)


def test_client_is_told_when_the_service_dies_and_does_not_wait_for_one_that_hangs(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.recv(MESSAGE_MAX)
        connection.close()
        connection, _ = listener.accept()
        connection.recv(MESSAGE_MAX)
        connection.recv(MESSAGE_MAX)
        connection.close()

    async def body() -> list[str]:
        client = ActionsClient(path)
        dead = await client.ask(ActionRequest(0, "warn", in_seconds(3600)))
        silent = await client.ask(ActionRequest(0, "warn", in_seconds(0.2)))
        client.close()
        return [dead.result, silent.result]

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(4)
        thread = threading.Thread(target=serve, args=[listener])
        thread.start()
        assert asyncio.run(body()) == ["unavailable", "late"]
        thread.join()


# OnDecision=


def test_a_unit_of_on_decision_is_started_once_and_told_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text('#!/bin/sh\nprintf "%s\\n" "$*" >>"$0.log"\n')
    systemctl.chmod(0o755)
    monkeypatch.setattr(systemd, "ENVIRONMENT_DIRECTORY", str(tmp_path / "environment"))
    monkeypatch.setattr(systemd, "STARTED_DIRECTORY", str(tmp_path / "started"))
    request = ActionRequest(
        1, "start", decision=DECISION, unit="dev-a\\x2db.service", text="tell.service", outcome="freed", domain="it's"
    )
    results = [systemd.start(request, time.monotonic() + 30, str(systemctl))[0] for _ in range(2)]
    assert results == ["done", "needless"]
    assert len((tmp_path / "systemctl.log").read_text().splitlines()) == 1
    text = (tmp_path / "environment/tell.service").read_text()
    assert f"OOMSLICE_DECISION='{DECISION}'\n" in text
    assert "OOMSLICE_VICTIM='dev-a\\x2db.service'\n" in text
    assert "OOMSLICE_DOMAIN='it?s'\n" in text
    with pytest.raises(CheckError):
        systemd.first_time("../../etc/passwd", str(tmp_path / "started"))


def test_notes_of_started_units_do_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "NOTES_MAX", 3)
    for number in range(6):
        assert systemd.first_time(f"a-{number}", str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 3
    assert not systemd.first_time("a-5", str(tmp_path))
