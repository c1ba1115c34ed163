# SPDX-License-Identifier: LGPL-2.1-or-later
"""What verify says of a ladder on this machine."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from oomslice.actions import checks, verify
from oomslice.actions.checks import CheckError
from oomslice.settings.keys import UNIT_FILE_KEY_OF
from oomslice.settings.model import Severity, Source, UnitSettings
from oomslice.settings.steps import parse_actions
from oomslice.settings.verify import render


def settings(actions: str = "", on_decision: str | None = None) -> UnitSettings:
    sources = {"actions": Source("/etc/a.conf", 2), "on_decision": Source("/etc/a.conf", 3)}
    return UnitSettings(
        actions=parse_actions(actions) if actions else None, on_decision=on_decision, sources=MappingProxyType(sources)
    )


def lines(actions: str = "", on_decision: str | None = None, **changes: Any) -> list[str]:
    """What is said, as verify prints it; every unit exists unless something else is wanted."""
    changes.setdefault("unit_exists", lambda unit: None)
    found = verify.machine_problems(settings(actions, on_decision), "X-OOMSlice", UNIT_FILE_KEY_OF, **changes)
    return [render(problem) for problem in found]


def refuse(message: str, error: int) -> Any:
    def check(*values: Any) -> None:
        raise CheckError(message, error)

    return check


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "program", lambda name: f"/usr/sbin/{name}")


def test_a_ladder_without_what_a_machine_could_refuse_is_fine() -> None:
    assert lines("warn reclaim:1M throttle freeze@1s terminate@2s kill@3s") == []


def test_a_path_to_purge_that_frees_no_memory_is_an_error() -> None:
    assert lines("warn purge:/usr/share kill@2s") == [
        "/etc/a.conf:2: Actions=warn purge:/usr/share kill@2s: purge:/usr/share is not on a tmpfs: removing its files"
        " would free no memory. The step will be refused"
    ]


def test_state_of_the_machine_is_not_purged() -> None:
    (line,) = lines("purge:/run/systemd/x kill@2s")
    assert "purge:/run/systemd/x holds the state of the machine and is never purged. The step will be refused" in line


def test_a_path_to_purge_that_is_not_there_yet_is_a_notice(tmp_path: Path) -> None:
    (line,) = lines(f"purge:{tmp_path}/none kill@2s")
    assert line.startswith("/etc/a.conf:2: notice: ")
    assert "cannot be opened: No such file or directory now; there is nothing to remove until it exists" in line


def test_a_path_on_a_tmpfs_is_fine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checks, "file_system", lambda descriptor: "tmpfs")
    assert lines(f"purge:{tmp_path} kill@2s") == []


def test_what_only_root_may_look_at_is_not_called_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "check_purge_path", refuse("cannot be read: Permission denied", errno.EACCES))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert lines("purge:/run/x kill@2s") == []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert len(lines("purge:/run/x kill@2s")) == 1


def test_a_directory_for_dumps_that_is_missing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for uid in (0, 1000):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        (line,) = lines(f"checkpoint:{tmp_path}/none@2s")
        assert line.startswith("/etc/a.conf:2: Actions=")
        assert "cannot be opened: No such file or directory. The step will be refused" in line


def test_a_directory_without_room_is_a_notice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def check(path: str, needed: int) -> None:
        asked.append((path, needed))
        raise CheckError("has 5 MiB free, and 77 MiB are needed", errno.ENOSPC)

    monkeypatch.setattr(checks, "check_checkpoint_directory", check)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (line,) = lines(f"checkpoint:{tmp_path}@2s", needed=13)
    assert line.endswith("has 5 MiB free, and 77 MiB are needed for this unit as it is now") and ": notice:" in line
    assert asked == [(str(tmp_path), 13)]


def test_without_criu_a_dump_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "program", refuse("needs the program criu, which is not installed", errno.ENOENT))
    monkeypatch.setattr(verify, "DIRECTORY", "/nonexistent")
    (line,) = lines("checkpoint@2s")
    assert ": notice:" in line
    assert "checkpoint@2s needs the program criu, which is not installed: the step is unavailable" in line


def test_units_to_start_that_do_not_exist_are_errors() -> None:
    asked = []

    def exists(unit: str) -> None:
        asked.append(unit)
        raise CheckError("is no unit of this machine", errno.ENOENT)

    assert lines("start:gone.service kill@2s", "report@.service", unit_exists=exists) == [
        "/etc/a.conf:2: Actions=start:gone.service kill@2s: start:gone.service: gone.service is no unit of this"
        " machine. The step will be refused",
        "/etc/a.conf:3: OnDecision=report@.service: is no unit of this machine; nothing can be started",
    ]
    assert asked == ["gone.service", "report@.service"]


def test_a_systemd_that_does_not_answer_proves_nothing() -> None:
    exists = refuse("cannot be looked up: systemd does not answer", errno.EAGAIN)
    assert lines("start:gone.service kill@2s", "report@.service", unit_exists=exists) == []


def test_the_daemon_says_only_what_is_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, said in ((errno.EXDEV, 1), (errno.EPERM, 1), (errno.ENOENT, 0), (errno.EACCES, 0), (errno.ELOOP, 0)):
        monkeypatch.setattr(checks, "check_purge_path", refuse("is wrong", error))
        found = list(verify.purge_problems(settings("purge:/x kill@2s"), "X-OOMSlice", UNIT_FILE_KEY_OF))
        assert len(found) == said, os.strerror(error)
        assert all(problem.severity is Severity.ERROR and problem.source.line == 2 for problem in found)
