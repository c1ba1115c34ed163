# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files of units and of the configuration: which are read, how much of them, and what is said of the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oomslice.settings.model import Problem, Severity
from oomslice.units.files import FILE_SIZE_MAX, read_configuration, read_unit_files
from oomslice.units.model import Unit

FRAGMENT = "/usr/lib/systemd/system/a.service"
DROP_INS = ("/etc/systemd/system/service.d/10.conf", "/run/systemd/system/a.service.d/5.conf")
UNIT = Unit("a.service", "/a.service", FRAGMENT, DROP_INS)


def write(root: Path, path: str, data: bytes = b"text\n") -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def test_fragment_and_drop_ins_come_in_systemds_order(tmp_path: Path) -> None:
    for number, path in enumerate((FRAGMENT, *DROP_INS)):
        write(tmp_path, path, f"[X-OOMSlice]\nPriority={number}\n".encode())
    files, problems = read_unit_files(UNIT, root=tmp_path)
    assert files == [
        (FRAGMENT, "[X-OOMSlice]\nPriority=0\n"),
        (DROP_INS[0], "[X-OOMSlice]\nPriority=1\n"),
        (DROP_INS[1], "[X-OOMSlice]\nPriority=2\n"),
    ]
    assert problems == []


def test_unit_without_files_has_none() -> None:
    assert read_unit_files(Unit("init.scope", "/init.scope")) == ([], [])


def problem_of_drop_in(tmp_path: Path) -> Problem:
    """The one problem, after a check that the rest was read."""
    files, problems = read_unit_files(UNIT, root=tmp_path)
    assert [path for path, _ in files] == [FRAGMENT, DROP_INS[1]]
    assert len(problems) == 1
    assert problems[0].source.file == DROP_INS[0]
    return problems[0]


def test_unreadable_files_are_problems_that_name_file_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, FRAGMENT)
    write(tmp_path, DROP_INS[1])
    file = tmp_path / DROP_INS[0].lstrip("/")
    file.parent.mkdir(parents=True)
    file.mkdir()
    assert str(problem_of_drop_in(tmp_path)) == f"{DROP_INS[0]}: cannot be read: Not a regular file"
    file.rmdir()
    os.mkfifo(file)
    assert "Not a regular file" in problem_of_drop_in(tmp_path).message
    file.unlink()
    file.symlink_to(file.name)
    assert "Too many levels of symbolic links" in problem_of_drop_in(tmp_path).message
    file.unlink()
    file.write_bytes(b"x" * (FILE_SIZE_MAX + 1))
    assert "Larger than 1024 KiB" in problem_of_drop_in(tmp_path).message
    file.write_bytes(b"x" * FILE_SIZE_MAX)
    assert len(read_unit_files(UNIT, root=tmp_path)[0]) == 3

    def refused(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    assert [problem.message for problem in read_unit_files(UNIT, root=tmp_path)[1]] == [
        "cannot be read: Permission denied"
    ] * 3


def test_file_removed_since_the_unit_was_loaded_is_a_notice_with_the_cure(tmp_path: Path) -> None:
    write(tmp_path, FRAGMENT)
    write(tmp_path, DROP_INS[1])
    problem = problem_of_drop_in(tmp_path)
    assert problem.severity is Severity.NOTICE and "daemon-reload" in problem.message


def test_files_of_a_transient_unit_may_go_with_it(tmp_path: Path) -> None:
    unit = Unit("run-1.scope", "/run-1.scope", "/run/systemd/transient/run-1.scope", transient=True)
    assert read_unit_files(unit, root=tmp_path) == ([], [])


def test_masked_files_say_nothing(tmp_path: Path) -> None:
    unit = Unit("a.service", "/a.service", os.devnull)
    assert read_unit_files(unit) == ([(os.devnull, "")], [])


def test_bytes_that_are_not_utf8_are_kept_for_the_parser_to_complain_about(tmp_path: Path) -> None:
    write(tmp_path, FRAGMENT, b"a=\xff\nb=2\n")
    files, _ = read_unit_files(Unit("a.service", "/a.service", FRAGMENT), root=tmp_path)
    assert files == [(FRAGMENT, "a=\udcff\nb=2\n")]


def test_configuration_is_read_in_systemds_order_with_masks(tmp_path: Path) -> None:
    write(tmp_path, "/usr/lib/oomslice/oomslice.yaml", b"shipped\n")
    write(tmp_path, "/usr/lib/oomslice/oomslice.yaml.d/20-b.yaml", b"b\n")
    write(tmp_path, "/usr/lib/oomslice/oomslice.yaml.d/30-c.yaml", b"c\n")
    write(tmp_path, "/etc/oomslice/oomslice.yaml.d/10-a.yaml", b"a\n")
    write(tmp_path, "/etc/oomslice/oomslice.yaml.d/note.txt", b"no\n")
    (tmp_path / "etc/oomslice/oomslice.yaml.d/20-b.yaml").symlink_to(os.devnull)
    problems: list[Problem] = []
    assert read_configuration(tmp_path, problems) == [
        ("/usr/lib/oomslice/oomslice.yaml", "shipped\n"),
        ("/etc/oomslice/oomslice.yaml.d/10-a.yaml", "a\n"),
        ("/etc/oomslice/oomslice.yaml.d/20-b.yaml", ""),
        ("/usr/lib/oomslice/oomslice.yaml.d/30-c.yaml", "c\n"),
    ]
    assert problems == []


def test_configuration_that_cannot_be_read_is_a_problem_and_the_rest_is_read(tmp_path: Path) -> None:
    write(tmp_path, "/etc/oomslice/oomslice.yaml.d/10-a.yaml", b"a\n")
    (tmp_path / "etc/oomslice/oomslice.yaml").mkdir()
    problems: list[Problem] = []
    assert read_configuration(tmp_path, problems) == [("/etc/oomslice/oomslice.yaml.d/10-a.yaml", "a\n")]
    assert [str(problem) for problem in problems] == ["/etc/oomslice/oomslice.yaml: cannot be read: Not a regular file"]
    assert len(read_configuration(tmp_path)) == 1


def test_machine_without_any_configuration_has_none(tmp_path: Path) -> None:
    problems: list[Problem] = []
    assert read_configuration(tmp_path, problems) == [] and problems == []


def test_a_file_that_takes_the_place_of_a_shipped_one_is_said_as_a_notice(tmp_path: Path) -> None:
    write(tmp_path, "/usr/lib/oomslice/oomslice.yaml", b"rules: []\n")
    write(tmp_path, "/etc/oomslice/oomslice.yaml", b"machine: {}\n")
    problems: list[Problem] = []
    files = read_configuration(tmp_path, problems)
    assert files == [("/etc/oomslice/oomslice.yaml", "machine: {}\n")]
    (problem,) = problems
    assert problem.severity is Severity.NOTICE
    assert problem.source.file == "/etc/oomslice/oomslice.yaml"
    assert "/usr/lib/oomslice/oomslice.yaml" in problem.message
