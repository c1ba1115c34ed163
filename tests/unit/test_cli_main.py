# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl as a command: options, exit codes, what it says when nobody answers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from oomslice import __version__
from oomslice.bus.errors import AccessDeniedError, BusUnreachableError, NoReplyError, NotRunningError
from oomslice.cli import ask
from oomslice.cli.failure import EXIT_CODES, Exit
from oomslice.cli.main import VERBS, build_parser, main, terminal_of
from oomslice.errors import NoSuchDecisionError, NoSuchUnitError
from tests.unit.test_cli_render import CARRIERS, DECISION, DOMAINS, LISTED, STATE, UNITS

ROOT = Path(__file__).parents[2]


class FakeManager:
    """Answers as the daemon would."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.properties: dict[str, Any] = {
            "Version": "0.1.0",
            "State": STATE,
            "Carriers": CARRIERS,
            "ConfigurationErrors": [("/etc/x.conf", 3, "Priority", "9999", "out of range")],
        }
        self.decisions: list[tuple[Any, ...]] = LISTED

    async def rows(self, member: str, *arguments: Any) -> list[Any]:
        self.asked.append((member, *arguments))
        return {"ListSlices": UNITS, "ListDecisions": self.decisions, "Explain": DOMAINS, "GetHistory": [[], []]}[
            member
        ]

    async def values(self, member: str, *arguments: Any) -> dict[str, Any]:
        self.asked.append((member, *arguments))
        values = DECISION.to_dict()
        values["candidates"] = [tuple(candidate.values()) for candidate in values["candidates"]]
        return values

    async def slice(self, name: str) -> dict[str, Any]:
        if name == "nosuch.service":
            raise NoSuchUnitError("no running slice, service or scope is called 'nosuch.service'")
        return {"Name": name, "RankBy": "memory", "Priority": 7, "Sources": {}}

    async def get(self, name: str) -> Any:
        return self.properties[name]

    async def do(self, member: str, *arguments: Any) -> Any:
        self.asked.append((member, *arguments))
        return "/etc/systemd/system/batch.slice.d/50-oomslice-set.conf"


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> FakeManager:
    fake = FakeManager()

    def answered(question: Callable[[ask.Manager], Awaitable[Any]]) -> Any:
        async def once() -> Any:
            return await question(fake)

        try:
            return asyncio.run(once())
        except (NoSuchUnitError, NoSuchDecisionError) as error:
            raise ask.CommandFailure(str(error)) from error

    monkeypatch.setattr(ask, "ask", answered)
    return fake


@pytest.mark.parametrize("verb", ["status", "slices", "decisions", "show", "explain"])
def test_json_is_json_and_text_is_not(verb: str, manager: FakeManager, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb]) == Exit.OK
    text = capsys.readouterr().out
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    assert main([verb, "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)


def test_json_holds_exact_figures_under_the_names_of_the_record(
    manager: FakeManager, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["show", "--json"])
    shown = json.loads(capsys.readouterr().out)
    expected = json.loads(json.dumps(DECISION.to_dict()))
    assert shown == expected


def test_show_takes_the_newest_or_the_id_given(manager: FakeManager) -> None:
    main(["show"])
    assert manager.asked == [("ListDecisions", 0, 1), ("GetDecision", "5f3a09c2e4b1d786-4")]
    manager.asked.clear()
    main(["show", "abc-1"])
    assert manager.asked == [("GetDecision", "abc-1")]


def test_show_without_any_decision_fails_and_says_so(manager: FakeManager, capsys: pytest.CaptureFixture[str]) -> None:
    manager.decisions = []
    assert main(["show"]) == Exit.FAILED
    assert "there are no decisions yet" in capsys.readouterr().err


def test_since_and_limit_reach_the_bus(manager: FakeManager) -> None:
    main(["decisions", "--since", "@1763719200", "--limit", "3"])
    assert manager.asked == [("ListDecisions", 1_763_719_200_000_000, 3)]


def test_status_fails_when_the_core_is_not_armed(manager: FakeManager) -> None:
    manager.properties["State"] = {**STATE, "Armed": False}
    assert main(["status"]) == Exit.FAILED


def test_slices_of_a_unit_shows_its_settings(manager: FakeManager, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slices", "nginx.service"]) == Exit.OK
    assert "Priority: 7" in capsys.readouterr().out
    assert main(["slices", "nosuch.service"]) == Exit.FAILED


def test_the_root_slice_can_be_named_after_two_dashes(manager: FakeManager, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--", "-.slice"]) == Exit.OK
    assert "empty.slice" not in capsys.readouterr().out


def test_an_unknown_domain_fails(manager: FakeManager, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "nosuch.slice"]) == Exit.FAILED
    assert "Domains are: -.slice, empty.slice." in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nosuch"],
        ["status", "--nosuch"],
        ["decisions", "--limit", "0"],
        ["decisions", "--limit", "many"],
        ["decisions", "--limit", "99999999999"],
        ["decisions", "--since", "soon"],
        ["decisions", "--lim", "3"],
    ],
)
def test_wrong_usage_has_its_own_exit_code(arguments: list[str], manager: FakeManager) -> None:
    try:
        code = main(arguments)
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        code = ended.code
    assert code == Exit.USAGE


def test_version_needs_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == Exit.OK
    assert capsys.readouterr().out == f"oomslicectl {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_teaches(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == Exit.OK
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "--json" in text
    assert f"oomslicectl {verb}" in text.split("examples:")[1]


def test_the_general_help_lists_verbs_and_exit_codes() -> None:
    text = build_parser().format_help()
    for verb, purpose in VERBS.items():
        assert re.search(rf"^    {verb}\s+{re.escape(purpose)}$", text, re.MULTILINE), verb
    for code, meaning in EXIT_CODES:
        assert f"{code.value}  {meaning}" in text
    assert [code for code, _ in EXIT_CODES] == list(Exit)


def machine(tmp_path: Path, *, cgroup2: bool = True, daemon: bool = True) -> Path:
    """A file system with the files that tell what is installed."""
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    if cgroup2:
        (tmp_path / ask.CONTROLLERS).write_text("memory\n", encoding="ascii")
    if daemon:
        (tmp_path / ask.DAEMON).parent.mkdir(parents=True)
        (tmp_path / ask.DAEMON).write_text("#!/usr/bin/python3\n", encoding="ascii")
    return tmp_path


def test_a_daemon_that_does_not_run_is_not_taken_for_anything_else(tmp_path: Path) -> None:
    error = NotRunningError("oomsliced is not running; start it: systemctl start oomsliced")
    failure = ask.unanswered(error, machine(tmp_path))
    assert failure.code == Exit.NOT_RUNNING
    assert "systemctl start oomsliced" in str(failure)
    assert "journalctl" in failure.hint


def test_no_bus_counts_as_not_running(tmp_path: Path) -> None:
    failure = ask.unanswered(BusUnreachableError("no message bus"), machine(tmp_path))
    assert failure.code == Exit.NOT_RUNNING
    assert "no message bus" in str(failure)


def test_no_answer_in_time_counts_as_not_running(tmp_path: Path) -> None:
    assert ask.unanswered(NoReplyError("oomsliced did not answer"), tmp_path).code == Exit.NOT_RUNNING


def test_no_permission_has_its_own_code(tmp_path: Path) -> None:
    failure = ask.unanswered(AccessDeniedError("Reload is not permitted"), tmp_path)
    assert failure.code == Exit.NO_PERMISSION
    assert "root" in failure.hint


def test_cgroup_v1_is_the_first_thing_to_say(tmp_path: Path) -> None:
    failure = ask.unanswered(NotRunningError("x"), machine(tmp_path, cgroup2=False, daemon=False))
    assert failure.code == Exit.NOT_INSTALLED
    assert "cgroup v2" in str(failure)
    assert "systemd.unified_cgroup_hierarchy=1" in failure.hint


def test_an_installation_by_pip_says_what_it_lacks(tmp_path: Path) -> None:
    failure = ask.unanswered(NotRunningError("x"), machine(tmp_path, daemon=False))
    assert failure.code == Exit.NOT_INSTALLED
    assert "only the Python library" in str(failure)
    assert "apt install" in failure.hint


def test_a_missing_module_is_named_with_its_package() -> None:
    failure = ask.missing_module(ModuleNotFoundError("No module named 'dbus_next'", name="dbus_next.aio"))
    assert failure.code == Exit.NOT_INSTALLED
    assert failure.hint == "Install it with: apt install python3-dbus-next"
    unknown = ask.missing_module(ModuleNotFoundError("No module named 'x'", name="x"))
    assert "incomplete" in str(unknown)


class FakeTerminal(StringIO):
    encoding = "UTF-8"

    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them() -> None:
    assert terminal_of(FakeTerminal(), {"TERM": "xterm"}).colour
    assert not terminal_of(FakeTerminal(), {"TERM": "xterm", "NO_COLOR": "1"}).colour
    assert not terminal_of(FakeTerminal(), {"TERM": "dumb"}).colour
    assert not terminal_of(StringIO(), {"TERM": "xterm"}).colour
    assert terminal_of(StringIO(), {}).width is None


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """oomslicectl as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "oomslice.cli.main", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_bus_that_is_not_there_ends_with_advice_and_no_traceback() -> None:
    ended = run("status", DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent/bus")
    assert ended.returncode in (Exit.NOT_RUNNING, Exit.NOT_INSTALLED)
    assert ended.stderr.startswith("oomslicectl: ")
    assert "Traceback" not in ended.stderr


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    script = f"{sys.executable} -m oomslice.cli.main --help | true; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "0\n"
    assert "Traceback" not in ended.stderr


HEAVY = (
    *(
        "asyncio",
        "concurrent.futures",
        "curses",
        "dataclasses",
        "inspect",
        "json",
        "logging",
        "shutil",
        "sqlite3",
        "ssl",
    ),
    *("subprocess", "tempfile", "urllib.request", "http.client", "email"),
    *("yaml", "dbus_next", "pystemd", "oomslice._core", "oomslice.bus", "oomslice.settings", "oomslice.units"),
)
"""What takes milliseconds to import, each."""
FOR_A_QUESTION = frozenset({"json", "oomslice.bus"})
"""What of that asking the daemon needs."""


def imported(*arguments: str, **environment: str) -> set[str]:
    """Which of the heavy modules a call has imported."""
    code = (
        "import sys, oomslice.cli.main as m\n"
        f"try: m.main({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        f"print('heavy:', *(set({list(HEAVY)!r}) & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(ended.stderr.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), *((verb, "--help") for verb in VERBS)])
def test_nothing_heavy_is_imported_for_help(arguments: tuple[str, ...]) -> None:
    assert imported(*arguments) == set()


@pytest.mark.parametrize(
    "call",
    [
        *("status", "slices", "slices a.slice", "decisions", "decisions --since today", "show", "explain", "reload"),
        *("set a.slice Priority=1", "act a.service freeze", "release a.service", "report -o /dev/null"),
        *("top", "top --once", "monitor", "metrics"),
    ],
)
def test_a_question_imports_no_more_than_it_needs(call: str) -> None:
    assert imported(*call.split(), DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent/bus") <= FOR_A_QUESTION


def test_a_file_is_checked_with_what_reads_files() -> None:
    needed = {"dataclasses", "inspect", "yaml", "oomslice.settings", "oomslice.units"}
    assert imported("verify", "/dev/null") <= FOR_A_QUESTION | needed


def test_the_screen_is_drawn_before_the_loop_is_imported() -> None:
    code = "import sys, oomslice.cli.live.screen; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_only_the_module_of_the_verb_that_is_called_is_imported() -> None:
    code = (
        "import sys, oomslice.cli.main as m\n"
        "try: m.main(['show', '--help'])\n"
        "except SystemExit: pass\n"
        f"print(sorted(v for v in {list(VERBS)!r} if f'oomslice.cli.{{v}}' in sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stderr == "['show']\n"


def test_output_that_the_locale_cannot_show_is_escaped() -> None:
    ended = run("verify", "söz.conf/ß", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert "Traceback" not in ended.stderr
    assert ended.returncode in (Exit.FAILED, Exit.NOT_INSTALLED)
