# SPDX-License-Identifier: LGPL-2.1-or-later
"""checkpoint and restore with a criu of the test's own: what is left behind when it works, fails, hangs or lies.

The processes and their cgroup are real. What the real criu makes of them is seen in tests/vm.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice.actions import checkpoint, checks
from oomslice.actions import restore as restoring
from oomslice.actions.checkpoint import dump
from oomslice.actions.messages import ActionAnswer, ActionRequest
from oomslice.actions.restore import RestoreError, restore, restored_unit, slice_of
from oomslice.actions.service import carry_out
from oomslice.cli import restore as verb
from oomslice.cli.main import main
from tests.core.rig import cgroup2_mount, wait_until

DECISION = "00000000000000aa-7"
CRIU = {
    "works": 'echo >"$images/inventory.img"; kill -KILL $(cat "$procs")',
    "fails": 'echo "Error (criu/files.c:7): no such thing" >"$images/criu.log"; echo >"$images/pages.img"; exit 1',
    "lies": 'kill -KILL $(cat "$procs")',
    "leaves": 'echo >"$images/inventory.img"',
}


class Rig:
    """A unit with processes, a directory for dumps, and programs that stand for systemd's and criu."""

    def __init__(self, directory: Path) -> None:
        mount = cgroup2_mount()
        if mount is None or os.geteuid() != 0:
            pytest.skip("needs cgroup v2 and root")
        self.cgroup = mount / f"oomslice-test-{os.getpid()}-{time.monotonic_ns()}"
        self.cgroup.mkdir()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.dumps = directory / "dumps"
        self.dumps.mkdir(mode=0o700)
        self.programs = directory / "bin"
        self.programs.mkdir()
        self.program(
            "systemd-run", 'printf "%s\\n" "$*" >>"$0.log"; until [ "$1" = -- ]; do shift; done; shift; exec "$@"'
        )
        self.program("systemctl", 'printf "%s\\n" "$*" >>"$0.log"; [ "$1" != is-active ]')

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def criu(self, how: str) -> None:
        find = 'while [ "$1" != --images-dir ]; do shift; done; images=$2'
        self.program("criu", f'procs={self.cgroup}/cgroup.procs; echo "$*" >>"$0.log"; {find}; {CRIU[how]}')

    def called(self, name: str) -> list[str]:
        path = self.programs / f"{name}.log"
        return path.read_text().splitlines() if path.exists() else []

    def populate(self) -> None:
        """One process with a child, alone in its cgroup."""
        script = f"echo $$ >{self.cgroup}/cgroup.procs; sleep 1000 & echo; wait"
        process = subprocess.Popen(["setsid", "sh", "-c", script], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert process.stdout is not None
        process.stdout.readline()
        self.processes.append(process)

    def alive(self) -> int:
        """How many processes of the unit run on."""
        return len((self.cgroup / "cgroup.procs").read_text().split())

    def request(self, text: str = "") -> ActionRequest:
        return ActionRequest(
            number=1,
            kind="checkpoint",
            decision=DECISION,
            unit="victim.service",
            cgroup="/" + str(self.cgroup.relative_to("/sys/fs/cgroup")),
            cgroup_id=self.cgroup.stat().st_ino,
            text=text or str(self.dumps),
        )

    def dump(self, seconds: float = 30, request: ActionRequest | None = None) -> ActionAnswer:
        return carry_out(request or self.request(), time.monotonic() + seconds, f"{self.programs}:/usr/bin:/bin")

    def close(self) -> None:
        for pid in (self.cgroup / "cgroup.procs").read_text().split():
            os.kill(int(pid), 9)
        for process in self.processes:
            process.communicate()
        wait_until(lambda: self.alive() == 0)
        self.cgroup.rmdir()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def test_a_dump_is_whole_and_named_after_the_decision(rig: Rig) -> None:
    rig.populate()
    rig.criu("works")
    answer = rig.dump()
    assert (answer.result, answer.error) == ("done", 0), answer
    assert rig.alive() == 0
    assert [path.name for path in rig.dumps.iterdir()] == [DECISION]
    assert (rig.dumps / DECISION).stat().st_mode & 0o777 == 0o700
    note = json.loads((rig.dumps / DECISION / "oomslice.json").read_text())
    assert (note["unit"], note["decision"], note["processes"]) == ("victim.service", DECISION, 2)
    assert note["pid"] == rig.processes[0].pid and note["shell_job"] is False
    (called,) = rig.called("systemd-run")
    assert f"--unit=oomslice-checkpoint-{DECISION}.service" in called
    assert f"dump --tree {note['pid']} --images-dir {rig.dumps}/{DECISION}.partial" in called


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [("fails", errno.EIO, "no such thing"), ("leaves", errno.EBUSY, "processes are left")],
)
def test_a_dump_that_fails_leaves_the_processes_and_nothing_else(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, how: str, error: int, said: str
) -> None:
    monkeypatch.setattr(checkpoint, "END_S", 0.1)
    rig.populate()
    rig.criu(how)
    answer = rig.dump()
    assert (answer.result, answer.error) == ("failed", error)
    assert said in answer.detail
    assert rig.alive() == 2
    assert list(rig.dumps.iterdir()) == []


def test_a_dump_that_criu_only_says_it_wrote_is_none(rig: Rig) -> None:
    rig.populate()
    rig.criu("lies")
    assert rig.dump().result == "failed"
    assert list(rig.dumps.iterdir()) == []


def test_a_dump_that_takes_too_long_is_ended_and_removed_and_what_was_stopped_goes_on(rig: Rig) -> None:
    rig.populate()
    # As if criu had stopped it before it hung.
    rig.program("criu", f"kill -STOP {rig.processes[0].pid}; exec sleep 1000")
    answer = rig.dump(seconds=1)
    assert (answer.result, answer.error) == ("late", errno.ETIME)
    assert rig.alive() == 2
    assert list(rig.dumps.iterdir()) == []
    unit = f"oomslice-checkpoint-{DECISION}.service"
    assert rig.called("systemctl") == [f"kill --signal=SIGKILL -- {unit}", f"stop -- {unit}"]
    stat = Path(f"/proc/{rig.processes[0].pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] != "T")


def test_there_has_to_be_room_for_all_memory_of_the_unit(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.populate()
    rig.criu("works")
    monkeypatch.setattr(checkpoint, "_memory", lambda cgroup: 1 << 60)
    answer = rig.dump()
    assert (answer.result, answer.error) == ("failed", errno.ENOSPC)
    assert rig.alive() == 2 and rig.called("criu") == []


def test_without_criu_it_is_unavailable(rig: Rig) -> None:
    rig.populate()
    answer = carry_out(rig.request(), time.monotonic() + 30, str(rig.programs))
    assert (answer.result, answer.error) == ("unavailable", errno.ENOENT)
    assert "criu" in answer.detail


def test_a_unit_that_was_started_anew_or_has_no_cgroup_of_its_own_is_left_alone(rig: Rig) -> None:
    rig.populate()
    rig.criu("works")
    request = rig.request()
    other = request._replace(cgroup_id=5)
    assert rig.dump(request=other).error == errno.ESRCH
    for path in ("", "/", "/../sys", "relative"):
        other = request._replace(cgroup=path)
        assert rig.dump(request=other).error == errno.EINVAL
    assert rig.called("criu") == [] and rig.alive() == 2


def test_a_unit_without_processes_needs_nothing_and_one_with_two_trees_cannot_be_dumped(rig: Rig) -> None:
    rig.criu("works")
    assert rig.dump().result == "needless"
    rig.populate()
    rig.populate()
    answer = rig.dump()
    assert (answer.result, answer.error) == ("failed", errno.ENOTSUP)
    assert rig.alive() == 4


def test_dumps_are_written_only_where_nobody_else_can_write(rig: Rig, tmp_path: Path) -> None:
    rig.populate()
    rig.criu("works")
    for spoil, mend in (
        (lambda: rig.dumps.chmod(0o770), lambda: rig.dumps.chmod(0o700)),
        (lambda: os.chown(rig.dumps, 12345, -1), lambda: os.chown(rig.dumps, 0, -1)),
        (lambda: os.chown(tmp_path, 12345, -1), lambda: os.chown(tmp_path, 0, -1)),
    ):
        spoil()
        answer = rig.dump()
        mend()
        assert (answer.result, answer.error) == ("failed", errno.EPERM), answer
    (tmp_path / "link").symlink_to(rig.dumps)
    assert rig.dump(request=rig.request(str(tmp_path / "link"))).error == errno.ELOOP
    assert rig.dump(request=rig.request("/nonexistent")).error == errno.ENOENT
    if checks.file_system(os.open("/dev/shm", os.O_PATH)) == "tmpfs":
        with pytest.raises(checks.CheckError) as refused:
            checks.check_checkpoint_directory("/dev/shm")
        assert refused.value.error in (errno.EXDEV, errno.EPERM)
    assert rig.alive() == 2 and rig.called("criu") == []


def test_a_second_dump_of_the_same_decision_does_not_spoil_the_first(rig: Rig) -> None:
    rig.criu("works")
    rig.populate()
    assert rig.dump().result == "done"
    rig.populate()
    (rig.dumps / f"{DECISION}.partial").mkdir()
    assert rig.dump().error == errno.EEXIST
    assert rig.alive() == 2


# Restore


def dumped(rig: Rig, **changes: object) -> Path:
    rig.criu("works")
    rig.populate()
    assert dump(rig.request(), time.monotonic() + 30, f"{rig.programs}:/usr/bin:/bin")[0] == "done"
    rig.processes.pop().communicate()
    path = rig.dumps / DECISION
    note = json.loads((path / "oomslice.json").read_text())
    (path / "oomslice.json").write_text(json.dumps(note | changes))
    return path


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(restoring, "PID_DIRECTORY", str(tmp_path))
    return tmp_path


def back(rig: Rig) -> restoring.Restored:
    return restore(DECISION, str(rig.dumps), f"{rig.programs}:/usr/bin:/bin")


def test_restore_runs_criu_in_a_service_of_its_own(rig: Rig, pids: Path) -> None:
    path = dumped(rig, sockets=[4711], cgroup="/batch.slice/victim.service")
    rig.program("criu", 'echo "$*" >"$0.log"')
    restored = back(rig)
    assert (restored.unit, restored.was, restored.directory) == ("victim-restored.service", "victim.service", str(path))
    run = rig.called("systemd-run")[-1]
    assert "--unit=victim-restored.service" in run and "--slice=batch.slice" in run and "Type=forking" in run
    (criu,) = rig.called("criu")
    assert criu.startswith(
        f"restore --images-dir {path} --restore-detached --pidfile {pids}/victim-restored.service.pid"
    )
    assert "--inherit-fd fd[1]:socket:[4711]" in criu
    assert "--tcp-close" in criu and "--manage-cgroups=ignore" in criu


def test_what_cannot_be_restored_is_said_with_what_to_do(rig: Rig, pids: Path) -> None:
    path = dumped(rig)
    with pytest.raises(RestoreError) as refused:
        restore("00000000000000aa-8", str(rig.dumps))
    assert refused.value.error == errno.ENOENT and "--directory DIR" in refused.value.hint
    with pytest.raises(RestoreError, match="is no id"):
        restore("../etc", str(rig.dumps))

    rig.program("systemctl", "exit 0")
    with pytest.raises(RestoreError, match="runs already, as victim-restored"):
        back(rig)
    rig.program("systemctl", '[ "$4" = victim.service ]')
    with pytest.raises(RestoreError, match="was started anew and runs") as refused:
        back(rig)
    assert "systemctl stop victim.service" in refused.value.hint
    rig.program("systemctl", "exit 3")

    rig.program("criu", f'echo "Error (x.c:1): Can\'t open file" >{path}/criu-restore.log; exit 1')
    with pytest.raises(RestoreError, match="Can't open file") as refused:
        back(rig)
    assert "criu-restore.log" in refused.value.hint

    (rig.programs / "criu").unlink()
    with pytest.raises(RestoreError) as refused:
        restore(DECISION, str(rig.dumps), str(rig.programs))
    assert refused.value.error == errno.ENOPKG and "apt install criu" in refused.value.hint

    os.chown(path, 12345, -1)
    with pytest.raises(RestoreError, match="others than root can write"):
        back(rig)
    os.chown(path, 0, -1)

    note = path / "oomslice.json"
    for text in ("", "[]", "{}", json.dumps(json.loads(note.read_text()) | {"pid": "1; reboot"})):
        note.write_text(text)
        with pytest.raises(RestoreError, match="damaged"):
            back(rig)


def test_a_taken_process_number_is_seen_beforehand(rig: Rig, pids: Path) -> None:
    dumped(rig, pid=os.getpid())
    with pytest.raises(RestoreError, match="is taken by another process"):
        back(rig)
    assert len(rig.called("systemd-run")) == 1


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("web.service", "web-restored.service"),
        ("job@1.service", "oomslice-restored.service"),
        ("a" * 250 + ".scope", "oomslice-restored.service"),
    ],
)
def test_the_name_of_the_service_that_takes_the_processes(unit: str, expected: str) -> None:
    assert restored_unit(unit) == expected


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("/system.slice/web.service", "system.slice"),
        ("/batch.slice/batch-night.slice/job.service/inner.slice", "inner.slice"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", "system.slice"),
        ("/web.service", "system.slice"),
    ],
)
def test_the_slice_that_takes_the_processes(cgroup: str, expected: str) -> None:
    assert slice_of(cgroup) == expected


def test_the_verb_says_what_went_wrong(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.DIRECTORY == checkpoint.DIRECTORY
    assert main(["restore", "--directory", str(rig.dumps), "00000000000000aa-9"]) == 1
    said = capsys.readouterr()
    assert "there is no dump of decision 00000000000000aa-9" in said.err
    assert said.out == ""
