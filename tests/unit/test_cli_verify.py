# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl verify: files, units, what is printed where, exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from oomslice.cli import verify
from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.main import main
from oomslice.units import files
from oomslice.units.model import Unit

GOOD = "[X-OOMSlice]\nPriority=-200\n"
BAD = "[Slice]\nMemoryMax=1G\n[X-OOMSlice]\nPriority=2000\nProtect=yes\n"
YAML = "tiers:\n  batch:\n    priority: -300\n"
USES_TIER = "[X-OOMSlice]\nTier=batch\n"


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(root: Path = Path("/"), problems: object = None) -> list[tuple[str, str]]:
        return []

    monkeypatch.setattr(files, "read_configuration", nothing)


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_good_file_is_no_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", written(tmp_path / "50-x.conf", GOOD)]) == Exit.OK
    printed = capsys.readouterr()
    assert printed.out == "1 file checked: no problems.\n"
    assert printed.err == ""


def test_a_bad_value_is_reported_like_systemd_analyze_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "low.slice", BAD)
    assert main(["verify", path]) == Exit.FAILED
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{path}:4: Priority=2000: ")
    assert printed.err.count("\n") == 1
    assert printed.out == "1 file checked: 1 error.\n"


def test_json_has_every_part_of_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "low.slice", BAD)
    assert main(["verify", "--json", path]) == Exit.FAILED
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == [path]
    assert report["errors"] == 1
    (problem,) = report["problems"]
    assert (problem["severity"], problem["file"], problem["line"]) == ("error", path, 4)
    assert (problem["key"], problem["value"]) == ("Priority", "2000")
    assert problem["message"]


def test_a_notice_does_not_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "50-x.conf", "[X-OOMSlice]\nActions=warn freeze@1s warn@2s\n")
    assert main(["verify", path]) == Exit.OK
    printed = capsys.readouterr()
    assert ": notice:" in printed.err
    assert printed.out == "1 file checked: 1 notice.\n"


def test_a_tier_is_looked_for_in_the_yaml_given_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit = written(tmp_path / "50-x.conf", USES_TIER)
    assert main(["verify", unit]) == Exit.FAILED
    assert "batch" in capsys.readouterr().err
    assert main(["verify", unit, written(tmp_path / "site.yaml", YAML)]) == Exit.OK


def test_yaml_is_checked_as_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "site.yaml", "tiers:\n  batch:\n    priorty: 5\n")
    assert main(["verify", path]) == Exit.FAILED
    assert f"{path}:3:" in (error := capsys.readouterr().err)
    assert "priority" in error


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "nosuch.conf")]) == Exit.FAILED
    assert "cannot be read: No such file or directory" in capsys.readouterr().err


def test_a_name_that_is_neither_file_nor_unit_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "nonsense"]) == Exit.USAGE
    assert "neither a file nor" in capsys.readouterr().err


def test_what_counts_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert verify.is_file("./low.slice")
    assert verify.is_file("x.conf")
    assert verify.is_file("x.yaml")
    assert not verify.is_file("low.slice")
    written(tmp_path / "low.slice", GOOD)
    assert verify.is_file("low.slice")


def systemctl(tmp_path: Path, output: str, code: int = 0) -> list[str]:
    """A command that answers as systemctl show does."""
    script = tmp_path / "systemctl.py"
    script.write_text(f"import sys\nsys.stdout.write({output!r})\nsys.exit({code})\n", encoding="utf-8")
    return [sys.executable, str(script)]


def test_a_unit_is_what_systemd_loads(tmp_path: Path) -> None:
    answer = (
        "LoadState=loaded\nFragmentPath=/etc/systemd/system/a.service\nTransient=no\nControlGroup=\n"
        "DropInPaths=/etc/systemd/system/a.service.d/10\\x20b.conf /run/systemd/system/a.service.d/20.conf\n"
    )
    unit = verify.named_unit("a.service", systemctl(tmp_path, answer))
    assert unit == Unit(
        "a.service",
        "",
        "/etc/systemd/system/a.service",
        ("/etc/systemd/system/a.service.d/10 b.conf", "/run/systemd/system/a.service.d/20.conf"),
    )


def test_a_unit_without_files_is_said_to_have_none(tmp_path: Path) -> None:
    answer = "LoadState=not-found\nFragmentPath=\nDropInPaths=\n"
    with pytest.raises(CommandFailure, match=r"no unit file of a\.service \(not-found\)"):
        verify.named_unit("a.service", systemctl(tmp_path, answer))


def test_systemd_that_does_not_answer_is_said_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(CommandFailure, match="systemd cannot be asked") as caught:
        verify.named_unit("a.service", systemctl(tmp_path, "", 1))
    assert "oomslicectl verify ./FILE" in caught.value.hint
    with pytest.raises(CommandFailure, match="systemd cannot be asked"):
        verify.named_unit("a.service", ["/nonexistent/systemctl"])


def test_all_running_units_with_a_section_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = written(tmp_path / "low.slice", BAD)
    plain = written(tmp_path / "plain.service", "[Service]\nExecStart=/bin/true\n")
    units = [Unit("low.slice", "/low.slice", bad), Unit("plain.service", "/plain.service", plain)]
    monkeypatch.setattr(verify, "running_units", lambda: units)
    assert main(["verify"]) == Exit.FAILED
    printed = capsys.readouterr()
    assert f"{bad}:4: Priority=2000" in printed.err
    assert printed.out == "1 file checked: 1 error.\n"


def test_without_systemd_it_says_what_can_be_checked_without_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    assert main(["verify"]) == Exit.FAILED
    errors = capsys.readouterr().err
    assert "systemd cannot be asked: the message bus at unix:path=/nonexistent/bus cannot be reached" in errors
    assert "oomslicectl verify ./FILE" in errors


def test_values_cannot_send_control_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", written(tmp_path / "x.conf", "[X-OOMSlice]\nPriority=\x1b[31m5\n")])
    assert "\x1b" not in capsys.readouterr().err
