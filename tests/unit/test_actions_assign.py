# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings that are set: what is refused and why, the drop-ins they make, and who may not have them written where."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from oomslice.actions.assign import assign
from oomslice.actions.checks import CheckError
from oomslice.actions.messages import ActionRequest
from oomslice.errors import InvalidSettingError
from oomslice.settings.assign import assignments_in, check_assignments, check_unit, drop_in
from oomslice.settings.unitfile import parse_unit_files

UNIT = "batch.slice"


class Machine:
    """A directory for each root, and a systemctl of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.roots = (str(directory / "etc"), str(directory / "run"))
        self.good = directory / f"etc/{UNIT}.d/50-oomslice-set.conf"
        self.runtime = directory / f"run/{UNIT}.d/51-oomslice-set.conf"
        self.calls = directory / "calls"
        self.systemctl = directory / "systemctl"
        self.script('[ "$1" = show ] && echo loaded; exit 0')

    def script(self, text: str) -> None:
        self.systemctl.write_text(f'#!/bin/sh\necho "$*" >>{self.calls}\n{text}\n')
        self.systemctl.chmod(0o755)

    def set(self, *lines: str, runtime: bool = False, unit: str = UNIT) -> tuple[str, int, str]:
        request = ActionRequest(1, "set", unit=unit, text="\n".join(lines), amount=int(runtime))
        return assign(request, time.monotonic() + 20, str(self.systemctl), self.roots)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def settings_of(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if "=" in line]


def test_what_is_written_is_what_the_parser_of_unit_files_reads(machine: Machine) -> None:
    lines = ["Priority=-200", 'Actions=warn "purge:/dev/shm/a b@2s" kill@15s', "PressureTrigger=some 150ms/1s"]
    assert machine.set(*lines) == ("done", 0, str(machine.good))
    settings, problems = parse_unit_files([(str(machine.good), machine.good.read_text())])
    assert settings.priority == -200 and not problems
    assert settings.actions is not None and settings.actions[1].argument == "/dev/shm/a b"
    assert machine.calls.read_text().splitlines() == [
        f"show --property=LoadState --value -- {UNIT}",
        "daemon-reload",
    ]


def test_everybody_may_read_it_whatever_the_umask(machine: Machine) -> None:
    before = os.umask(0o077)
    try:
        machine.set("Priority=1")
    finally:
        os.umask(before)
    assert machine.good.stat().st_mode & 0o777 == 0o644
    assert machine.good.parent.stat().st_mode & 0o777 == 0o755


def test_keys_that_are_not_named_stay_and_a_reset_is_written(machine: Machine) -> None:
    machine.set("Priority=-200", "Protect=no")
    machine.set("Protect=", "RankBy=swap")
    assert settings_of(machine.good) == ["Priority=-200", "Protect=", "RankBy=swap"]


def test_what_is_set_for_good_is_not_hidden_by_what_was_set_for_this_boot(machine: Machine) -> None:
    machine.set("Priority=5", "RankBy=swap", runtime=True)
    assert settings_of(machine.runtime) == ["Priority=5", "RankBy=swap"] and not machine.good.exists()
    machine.set("Priority=6")
    assert settings_of(machine.runtime) == ["RankBy=swap"] and settings_of(machine.good) == ["Priority=6"]
    machine.set("RankBy=memory")
    assert not machine.runtime.parent.exists(), "nothing of ours is left behind"


def test_reverting_takes_back_what_was_set_and_nothing_else(machine: Machine) -> None:
    machine.set("Priority=5")
    machine.set("Priority=6", runtime=True)
    other = machine.good.parent / "10-admin.conf"
    other.write_text("[X-OOMSlice]\nPriority=7\n")
    assert machine.set(runtime=True)[0] == "done"
    assert not machine.runtime.exists() and machine.good.exists()
    assert machine.set()[0] == "done"
    assert not machine.good.exists() and other.exists()
    assert machine.set()[0] == "done", "twice is no error"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["Priority=high"], "Priority=high"),
        (["Priority=9999"], "1000"),
        (["Priorty=5"], "did you mean Priority=?"),
        (["ExecStart=/bin/evil"], "is not a key of"),
        (["Actions=explode"], "Actions=explode"),
        (["[Service]"], "is not a key of"),
        (["Priority"], "Priority"),
        (["Tier=a\tb"], "one line of text"),
        (["Priority= 5"], "begins or ends"),
        (["OnDecision=x.service\\"], "begins or ends"),
    ],
)
def test_a_value_that_no_unit_file_may_have_is_refused_with_what_would_be_right(
    machine: Machine, lines: list[str], sentence: str
) -> None:
    if lines == ["Priority"]:
        machine.set(*lines)  # no value: a reset
        assert settings_of(machine.good) == ["Priority="]
        return
    with pytest.raises(CheckError) as refused:
        machine.set(*lines)
    assert sentence in str(refused.value) and refused.value.error == errno.EINVAL
    assert not machine.good.exists() and not machine.calls.exists()


@pytest.mark.parametrize(
    ("unit", "sentence"),
    [
        ("../../passwd", "not the name of a unit"),
        ("../x.slice", "not the name of a unit"),
        ("ssh.socket", "no memory of its own"),
        ("user@.service", "is a template"),
        ("", "not the name of a unit"),
        ("a" * 300 + ".slice", "longer than"),
    ],
)
def test_a_unit_that_is_none_is_refused(machine: Machine, unit: str, sentence: str) -> None:
    with pytest.raises(CheckError, match=sentence):
        machine.set("Priority=1", unit=unit)
    assert not list(machine.systemctl.parent.glob("etc"))


def test_a_unit_that_systemd_does_not_know_is_refused(machine: Machine) -> None:
    machine.script('[ "$1" = show ] && echo not-found; exit 0')
    with pytest.raises(CheckError, match=r"batch\.slice is not known to systemd \(not-found\)") as refused:
        machine.set("Priority=1")
    assert refused.value.error == errno.ENOENT and not machine.good.exists()


def test_a_reload_that_fails_is_said(machine: Machine) -> None:
    machine.script('[ "$1" = show ] && echo loaded && exit 0; echo "Access denied"; exit 1')
    result, error, detail = machine.set("Priority=1")
    assert (result, error) == ("failed", errno.ECANCELED) and "systemd did not reload: Access denied" in detail


def test_links_are_not_followed(machine: Machine, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "etc").mkdir()
    machine.good.parent.symlink_to(outside)
    with pytest.raises(CheckError, match="no directory but a link"):
        machine.set("Priority=1")
    assert not list(outside.iterdir())
    machine.good.parent.unlink()
    machine.good.parent.mkdir()
    (outside / "secret").write_text("[X-OOMSlice]\nPriority=3\n")
    machine.good.symlink_to(outside / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        machine.set("Protect=yes")
    assert (outside / "secret").read_text() == "[X-OOMSlice]\nPriority=3\n"


def test_what_somebody_else_wrote_into_our_file_is_kept_only_if_it_is_a_setting(machine: Machine) -> None:
    machine.good.parent.mkdir(parents=True)
    machine.good.write_text("[Service]\nExecStart=/bin/x\n[X-OOMSlice]\nPriority=4\nNope=1\nProtect=maybe\n# x\n")
    machine.set("RankBy=swap")
    assert settings_of(machine.good) == ["Priority=4", "RankBy=swap"]


def test_assignments_survive_being_written_and_read() -> None:
    wanted = {"Priority": "-5", "Actions": "warn@1s freeze@2s", "Tier": ""}
    check_assignments(wanted)
    check_unit("a.service")
    assert assignments_in(drop_in(wanted)) == wanted and drop_in({}) == ""
    with pytest.raises(InvalidSettingError, match="KillScope=all"):
        check_assignments({"KillScope": "all"})
