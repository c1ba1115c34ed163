# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the manual pages of the daemons and services say is what these do: options, features, journal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from oomslice.actions import checkpoint, messages, service, systemd
from oomslice.carriers import score_adj
from oomslice.cli.status import FEATURES as LACKS
from oomslice.decisions import journal
from oomslice.plan.channel import FEATURES
from oomslice.policy import scores
from tests.unit.manual import PAGES, ROOT, entries, page, section

OWN = {path.stem for path in PAGES}
UNITS = sorted(
    path
    for path in (ROOT / "units").iterdir()
    if path.suffix in (".service", ".socket", ".slice", ".mount", ".timer", ".catalog")
    and "[D-BUS Service]" not in path.read_text(encoding="utf-8")
)
PROGRAMS = ("oomsliced", "oomslice-core", "oomslice-bpf", "oomslice-actions", "oomslice-scores")


def options(name: str) -> set[str]:
    """Options that the page of a program defines."""
    return {entry for entry in entries(section(name, "OPTIONS")) if entry.startswith("-")}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_documentation_of_a_unit_is_a_page_that_is(unit: Path) -> None:
    lines = re.findall(r"^Documentation[=:] ?(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
    assert lines
    for word in " ".join(lines).split():
        name, number = re.fullmatch(r"man:([\w.-]+)\((\d)\)", word).groups()  # type: ignore[union-attr]
        assert f"{name}.{number}" in OWN or "oomslice" not in name, word


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_is_started_as_a_service_has_a_page_of_its_own(program: str) -> None:
    assert f"{program}.8" in OWN
    assert f"/usr/lib/oomslice/{program} " in section(f"{program}.8", "SYNOPSIS")
    assert f"*{program}*(8)" in section("oomslice.7", "SEE ALSO")


# oomsliced(8).


def test_every_message_and_field_of_the_journal_is_in_the_manual() -> None:
    text = section("oomsliced.8", "JOURNAL")
    found = dict(re.findall(r"^\*([0-9a-f]{32})\*\n\t(.*)$", text, re.MULTILINE))
    expected: dict[str, set[str]] = {}
    for outcome, (message_id, _) in journal.MESSAGES.items():
        expected.setdefault(message_id, set()).add(outcome)
    expected |= {journal.MESSAGE_STEP: {"step"}, journal.MESSAGE_CARRIER: {"carrier"}}
    assert {message_id: set(outcomes.split(", ")) for message_id, outcomes in found.items()} == expected
    source = (ROOT / "oomslice/decisions/journal.py").read_text(encoding="utf-8")
    names = set(re.findall(r'\("(OOMSLICE_\w+)",', source))
    assert set(re.findall(r"\*(OOMSLICE_\w+)=\*,?", text)) - {"OOMSLICE_VICTIM"} == names - {"OOMSLICE_VICTIM"}
    assert "*OOMSLICE_VICTIM=*," in text


def test_every_option_of_the_daemons_is_in_the_manual() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "oomslice.daemon.main", "--help"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    words = set(re.findall(r"(?<![\w-])(--?[a-z-]+)(?![\w/])", help_text))
    assert options("oomsliced.8") == words


# oomslice-core(8).


def test_every_option_of_the_core_is_in_the_manual_with_its_default() -> None:
    source = (ROOT / "core/options.c").read_text(encoding="utf-8")
    assert options("oomslice-core.8") == set(re.findall(r'^ +"  (--[a-z-]+)', source, re.MULTILINE))
    defaults = re.findall(r'^ +\.\w+ = "(/[^"]+)",$', source, re.MULTILINE)
    assert defaults
    for default in defaults:
        assert f"Default: {default}." in section("oomslice-core.8", "OPTIONS")


def test_every_feature_of_the_core_and_the_lack_of_it_is_in_the_manual() -> None:
    assert set(FEATURES) == set(LACKS)
    assert entries(section("oomslice-core.8", "FEATURES")) == set(FEATURES)


def test_signals_and_exit_codes_of_the_core_are_in_the_manual() -> None:
    source = (ROOT / "core/main.c").read_text(encoding="utf-8")
    handled = set(re.findall(r"sigaddset\(&set, (SIG[A-Z]+)\)", source))
    assert entries(section("oomslice-core.8", "SIGNALS")) == {*handled, "SIGKILL"}
    body = source[source.index("int main(") :]
    assert entries(section("oomslice-core.8", "EXIT STATUS")) == set(re.findall(r"\b[0-9]\b", body))


# The services.


def test_every_option_and_step_of_the_actions_service_is_in_the_manual() -> None:
    words = set(re.findall(r"^  (--[a-z]+)", service.HELP, re.MULTILINE))
    assert words == options("oomslice-actions.8")
    assert f"Default: {service.IDLE_S:g}." in section("oomslice-actions.8", "OPTIONS")
    kinds = section("oomslice-actions.8", "STEPS") + section("oomslice-actions.8", "SETTINGS")
    steps = set(re.findall(r"^\*([a-z]+)[:*\[]", kinds, re.MULTILINE))
    assert steps == set(messages.KINDS) - {"hello"}
    text = page("oomslice-actions.8")
    assert checkpoint.DIRECTORY in text
    assert systemd.ENVIRONMENT_DIRECTORY in text
    assert systemd.STARTED_DIRECTORY in text
    capabilities = (ROOT / "units/oomslice-actions.service").read_text(encoding="utf-8")
    bounding = re.search(r"^CapabilityBoundingSet=(.*)$", capabilities, re.MULTILINE)
    assert bounding and len(bounding[1].split()) == 5 and re.search(r"with five\s+capabilities", text)


def test_what_the_manual_says_of_oomslice_scores_is_what_it_does() -> None:
    source = (ROOT / "scores/main.c").read_text(encoding="utf-8")
    words = set(re.findall(r'^ +"  (--[a-z-]+)', source, re.MULTILINE))
    assert options("oomslice-scores.8") == words
    text = page("oomslice-scores.8")
    bounding = re.search(
        r"^CapabilityBoundingSet=(.*)$",
        (ROOT / "units/oomslice-scores.service").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert bounding and len(bounding[1].split()) == 2 and "has two capabilities" in text
    assert f"protected units get {scores.LAST}." in text
    assert score_adj.TRIGGER.window_usec == 2_000_000 and "at most every two seconds" in text
    assert score_adj.DEFAULT_SOCKET in text and score_adj.DEFAULT_STATE in text
