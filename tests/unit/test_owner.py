# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the owner of a unit is told, and on which terminals."""

from __future__ import annotations

import dataclasses
import os
import pty
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomslice.daemon.owners import KNOWN_MAX, Owners
from oomslice.owner import deliver
from oomslice.owner.words import Message, application, message, printable
from oomslice.policy.effective import effective
from oomslice.settings.model import Configuration
from oomslice.snapshot import Snapshot
from tests.unit.test_cli_render import DECISION

FIREFOX = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-1.scope"


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        ("app-gnome-firefox-1234.scope", "firefox"),
        ("app-org.gnome.Terminal.slice", "org.gnome.Terminal"),
        ("app-gnome-google\\x2dchrome-99.scope", "google-chrome"),
        ("app-flatpak-org.mozilla.firefox@1.service", "org.mozilla.firefox"),
        ("backup.service", "backup"),
        (".scope", ".scope"),
    ],
)
def test_a_program_has_the_name_that_its_user_knows(unit: str, name: str) -> None:
    assert application(unit) == name


def test_what_is_said_depends_on_what_was_done() -> None:
    browser = dataclasses.replace(DECISION, victim="app-gnome-firefox-1234.scope")
    ended = message(browser)
    assert ended is not None and ended.summary == "firefox was ended"
    assert "ran out of memory" in ended.body and "300.0 MiB" in ended.body and f"show {DECISION.id}" in ended.body
    held = message(dataclasses.replace(browser, outcome="held"))
    assert held is not None and held.summary == "firefox was stopped" and "goes on by itself" in held.body
    aside = message(dataclasses.replace(browser, step="checkpoint"))
    assert aside is not None and aside.summary == "firefox was put aside"
    for outcome in ("relieved", "dry-run", "no-candidate", "refused", "gone"):
        assert message(dataclasses.replace(browser, outcome=outcome)) is None


def test_no_terminal_takes_it_for_more_than_text() -> None:
    assert printable("a\x1b[31m\x07\r\n\u202eb") == "a?[31m????b"
    assert len(printable("x" * 10_000)) == 400


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The near end of a terminal, and a folder that stands for /dev with the far end in it."""
    near, far = pty.openpty()
    number = os.path.basename(os.ttyname(far))
    devices = Path("/dev")
    os.fchmod(far, 0o620)
    yield near, devices / "pts" / number
    os.close(far)
    os.close(near)


def said(near: int) -> str:
    return os.read(near, 4096).decode() if select.select([near], [], [], 0)[0] else ""


def test_a_terminal_of_the_user_is_told_unless_it_takes_no_messages(terminal: tuple[int, Path]) -> None:
    near, path = terminal
    user = 54_321
    os.chown(path, user, -1)
    text = Message("firefox was ended", "why")
    assert deliver.tell_terminals(user, text) == 1
    assert "firefox was ended" in said(near)
    assert deliver.tell_terminals(user + 1, text) == 0
    os.chmod(path, 0o600)  # mesg n
    assert deliver.tell_terminals(user, text) == 0
    assert said(near) == ""


def test_what_is_no_terminal_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "pts").mkdir()
    file = tmp_path / "pts" / "0"
    file.write_text("")
    file.chmod(0o620)
    (tmp_path / "pts" / "1").symlink_to(file)
    os.mkfifo(tmp_path / "pts" / "2")
    assert deliver.tell_terminals(os.geteuid(), Message("a", "b"), tmp_path) == 0
    assert file.read_text() == ""


def test_without_a_desktop_there_is_no_notification(tmp_path: Path) -> None:
    assert deliver.notify(54_321, Message("a", "b"), tmp_path) is False
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "bus").write_text("no socket")
    assert deliver.notify(0, Message("a", "b"), tmp_path) is False


def test_victims_of_users_have_an_owner_in_the_record_also_after_they_are_gone() -> None:
    snapshot = Snapshot.of({FIREFOX: 1, "/system.slice/hog.service": 1})
    # Below a user manager units are known by their cgroups alone.
    users = [snapshot.cgroups[FIREFOX]]
    units = dataclasses.replace(
        snapshot.units, units=tuple(unit for unit in snapshot.units.units if "/app.slice" not in unit.control_group)
    )
    policy = effective(units, {}, snapshot.cgroups, users, Configuration())[0]
    owners = Owners()
    owners.follow(policy)
    owners.follow(effective(Snapshot.of({}).units, {}, Snapshot.of({}).cgroups, [], Configuration())[0])
    mine = dataclasses.replace(DECISION, victim_cgroup_id=users[0].id, extra={"victim_metric": 5})
    assert owners.named(mine).extra == {"victim_metric": 5, "owner": 1000}
    systems = dataclasses.replace(DECISION, victim_cgroup_id=snapshot.cgroups["/system.slice/hog.service"].id)
    assert owners.named(systems) is systems
    for number in range(2 * KNOWN_MAX):
        owners._users[10_000 + number] = 1
    owners.follow(policy)
    assert len(owners._users) == KNOWN_MAX
    assert owners.named(mine).extra["owner"] == 1000
