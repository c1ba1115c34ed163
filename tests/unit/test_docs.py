# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manual says what the code does: every option, key, member and default, and every example works."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from oomslice import errors
from oomslice.bus.interface import (
    BUS_NAME,
    DECISION_SIGNATURES,
    MANAGER,
    OBJECT_MANAGER,
    OBJECT_PATH,
    Argument,
    Interface,
)
from oomslice.bus.log_control import LOG_CONTROL
from oomslice.bus.members import DECISION, DECISIONS_RECENT, SLICE, SLICE_FIGURES
from oomslice.cli import answers, show, verify
from oomslice.cli.failure import EXIT_CODES
from oomslice.cli.main import build_parser
from oomslice.decisions.record import UNDOABLE, Decision
from oomslice.policy.effective import AVOID_BONUS, COOLDOWN_DEFAULT_USEC
from oomslice.settings.configuration import SECTIONS, parse_configuration
from oomslice.settings.keys import YAML_CARRIER_KEYS, YAML_LIMIT_KEYS, YAML_MACHINE_KEYS, YAML_SETTING_KEYS
from oomslice.settings.model import SETTING_KEYS, CarrierSwitches, Limits, MachineTriggers, format_usec
from oomslice.settings.steps import (
    AFTER_LAST_USEC,
    AFTER_TERMINATE_USEC,
    PATH_MAX,
    STEPS,
    STEPS_MAX,
    THROTTLE_DEFAULT,
    Takes,
)
from oomslice.settings.unitfile import parse_unit_files
from tests.unit.manual import DOCS, PAGES, ROOT, code_blocks, entries, page, section

TEXTS = [
    ROOT / name
    for name in (
        "README.md",
        "NEWS.md",
        "CONTRIBUTING.md",
        "bpf/README.md",
        "docs/architecture.md",
        "docs/benchmarks.md",
        "docs/library.md",
    )
]


def verbs() -> dict[str, argparse.ArgumentParser]:
    """The parser of each verb."""
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("oomslicectl has no verbs")


def options(parser: argparse.ArgumentParser) -> set[str]:
    """All option strings of a parser."""
    return {string for action in parser._actions for string in action.option_strings}


# Manual pages build.


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_manual_page_builds_without_warnings(path: Path, tmp_path: Path) -> None:
    if shutil.which("scdoc") is None:
        pytest.skip("scdoc is missing: apt install scdoc")
    built = subprocess.run(
        [ROOT / "tools/man-page", "scdoc"], stdin=path.open("rb"), capture_output=True, timeout=60, check=False
    )
    assert built.returncode == 0, built.stderr.decode()
    assert built.stderr == b""
    name, number = path.stem.rsplit(".", 1)
    assert path.read_text(encoding="utf-8").startswith(f"{name}({number})\n")
    if shutil.which("man") and shutil.which("groff"):
        (tmp_path / path.stem).write_bytes(built.stdout)
        shown = subprocess.run(
            ["man", "--warnings", "-l", str(tmp_path / path.stem)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert shown.stderr == ""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_mandoc_has_no_warning_of_a_manual_page(path: Path) -> None:
    for program in ("scdoc", "mandoc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt install {program}")
    built = subprocess.run(
        [ROOT / "tools/man-page", "scdoc"], stdin=path.open("rb"), capture_output=True, timeout=60, check=True
    )
    linted = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning"],
        input=built.stdout,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (linted.stdout + linted.stderr).decode() == ""


def test_a_manual_page_looks_as_scdoc_made_it(tmp_path: Path) -> None:
    for program in ("scdoc", "mandoc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt install {program}")
    page = DOCS / "oomslicectl.1.scd"
    shown = []
    for command in (["scdoc"], [ROOT / "tools/man-page", "scdoc"]):
        built = subprocess.run(command, stdin=page.open("rb"), capture_output=True, timeout=60, check=True).stdout
        text = subprocess.run(["mandoc", "-T", "utf8"], input=built, capture_output=True, timeout=60, check=True).stdout
        shown.append(text)
    assert shown[0] == shown[1]


def test_the_pages_refer_only_to_pages_that_are() -> None:
    own = {path.stem for path in PAGES}
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for name, number in re.findall(r"\*([a-z0-9.-]*oomslice[a-z0-9.-]*)\*\((\d)\)", text):
            assert f"{name}.{number}" in own, f"{path.name} refers to {name}({number})"


# oomslicectl(1) and completions.


def test_every_verb_and_option_is_in_the_manual() -> None:
    text = page("oomslicectl.1")
    for name, parser in verbs().items():
        (synopsis,) = re.findall(rf"^\*oomslicectl\* \*{name}\*.*$", text, re.MULTILINE)
        assert name in entries(section("oomslicectl.1", "VERBS"))
        for option in options(parser) - {"-h", "--help"}:
            assert f"*{option}*" in synopsis, f"{option} is not in the synopsis of {name}"
            assert option in entries(section("oomslicectl.1", "OPTIONS"))


def test_the_manual_has_no_option_that_is_not() -> None:
    known = set().union(*(options(parser) for parser in verbs().values()), options(build_parser()))
    assert {entry for entry in entries(section("oomslicectl.1", "OPTIONS")) if entry.startswith("-")} == known


def test_exit_codes_are_in_the_manual() -> None:
    text = section("oomslicectl.1", "EXIT STATUS")
    assert entries(text) == {str(code.value) for code, _ in EXIT_CODES}


def test_the_example_of_verify_is_what_it_prints(tmp_path: Path) -> None:
    example = next(block for block in code_blocks(page("oomslicectl.1")) if "oomslicectl verify" in block)
    command, *expected = example.splitlines()
    (tmp_path / "50-oomslice.conf").write_text("[X-OOMSlice]\nPriority=2000\n", encoding="utf-8")
    code = "import sys; from oomslice.cli.main import main; sys.exit(main(sys.argv[1:]))"
    ended = subprocess.run(
        [sys.executable, "-c", code, *command.split()[2:]],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stderr + ended.stdout).splitlines() == expected
    assert ended.returncode == 1


def test_every_key_of_the_json_is_in_the_manual() -> None:
    text = section("oomslicectl.1", "JSON")
    for names in (
        answers.SLICE_FIELDS,
        answers.DECISION_FIELDS,
        answers.CANDIDATE_FIELDS,
        answers.EXPLAINED_FIELDS,
        answers.PROBLEM_FIELDS,
        *(verify.as_data(verify.Report()),),
    ):
        for name in names:
            assert f"_{name}_" in text, name


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    script = (
        f"source {ROOT}/completions/oomslicectl.bash\n"
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _oomslicectl; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ended = subprocess.run(
        ["bash", "-c", script, "bash", *words], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stderr == ""
    return [line for line in ended.stdout.splitlines() if line]


def test_bash_completes_verbs_and_options_of_the_parser() -> None:
    assert set(completed("oomslicectl", "")) == set(verbs())
    assert set(completed("oomslicectl", "-")) == options(build_parser())
    for name, parser in verbs().items():
        assert set(completed("oomslicectl", name, "-")) == options(parser), name


def test_bash_completes_every_key_and_every_step() -> None:
    assert set(completed("oomslicectl", "set", "--runtime", "a.service", "")) == {f"{key}=" for key in SETTING_KEYS}
    offered = set(completed("oomslicectl", "act", "a.service", ""))
    assert offered == {name + ":" * (step.takes is Takes.REQUIRED) for name, step in STEPS.items()}
    assert completed("oomslicectl", "act", "a.service", "freeze", "") == []


def test_zsh_completes_every_key_and_every_step() -> None:
    text = (ROOT / "completions/_oomslicectl").read_text(encoding="utf-8")
    for words in re.findall(r"keys=\((.*)\)$", text, re.MULTILINE):
        assert set(words.split()) == set(SETTING_KEYS)
    (steps,) = re.findall(r"^_oomslicectl_steps\(\) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"\b[a-z]+\b", steps)) - {"compadd"} == set(STEPS)


def test_bash_completes_moments_and_nothing_for_a_number() -> None:
    assert "1h ago" in completed("oomslicectl", "decisions", "--since", "1")
    assert completed("oomslicectl", "decisions", "--limit", "") == []


def test_shellcheck_finds_nothing_in_the_bash_completion() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is missing: apt install shellcheck")
    ended = subprocess.run(
        ["shellcheck", str(ROOT / "completions/oomslicectl.bash")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "")


def test_zsh_completes_verbs_and_options_of_the_parser() -> None:
    text = (ROOT / "completions/_oomslicectl").read_text(encoding="utf-8")
    for name, parser in verbs().items():
        assert f"'{name}:" in text
        (branch,) = re.findall(rf"^ +{name}\)\n(.*?);;", text, re.MULTILINE | re.DOTALL)
        assert "$common" in branch
        own = options(parser) - {"-h", "--help", "--json"}
        assert set(re.findall(r"'\*?(?:\([^)]*\))?(--?[a-z-]+)\[", branch)) == own, name


def test_the_zsh_completion_is_valid_zsh() -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is missing: apt install zsh")
    subprocess.run(["zsh", "-n", str(ROOT / "completions/_oomslicectl")], timeout=60, check=True)


# The picture of top.


def test_the_picture_of_top_is_one_and_is_shown() -> None:
    root = ElementTree.parse(DOCS / "top.svg").getroot()
    text = "\n".join(element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")).replace(
        "\u00a0", " "
    )
    for words in ("Memory", "hog.service", "GROWTH/S", "quit"):
        assert words in text, words
    assert "(docs/top.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")


# oomslice.unit(5).


def test_every_key_of_a_unit_file_is_in_the_manual() -> None:
    assert {entry for entry in entries(page("oomslice.unit.5")) if entry.endswith("=")} == {
        f"{key}=" for key in SETTING_KEYS
    }


def test_every_step_is_in_the_manual() -> None:
    text = section("oomslice.unit.5", "OPTIONS")
    steps = set(re.findall(r"^\t_([a-z]+)_(?:[:\[].*)?$", text, re.MULTILINE))
    assert steps == set(STEPS)


def test_who_carries_out_a_step_and_what_is_undone_is_in_the_manual() -> None:
    text = " ".join(section("oomslice.unit.5", "OPTIONS").split())
    core = [name for name, step in STEPS.items() if step.by_core]
    extended = [name for name, step in STEPS.items() if not step.by_core]
    for names, rest in ((core, "are carried out by *oomslice-core*"), (extended, "need *oomsliced*(8) and")):
        listed = ", ".join(f"_{name}_" for name in names[:-1]) + f" and _{names[-1]}_"
        assert f"{listed} {rest}" in text, listed
    undone = {name for name, step in STEPS.items() if step.undone}
    assert undone == UNDOABLE == show.UNDOABLE
    for name in undone:
        assert re.search(rf"_{name}_(\[:_PERCENT_\])? [^_]* Undone\.", text), name


def test_figures_of_ladders_are_those_of_the_code() -> None:
    options = section("oomslice.unit.5", "OPTIONS")
    assert f"At most {STEPS_MAX} steps" in options
    assert f"Default: {THROTTLE_DEFAULT}." in options
    assert f"can have {PATH_MAX} bytes" in options
    ladders = " ".join(section("oomslice.unit.5", "LADDERS").split())
    assert f"a kill is added: {format_usec(AFTER_TERMINATE_USEC)} after the last step if that is _terminate_" in ladders
    assert f"else {format_usec(AFTER_LAST_USEC)} after it" in ladders


def test_examples_of_unit_files_are_right() -> None:
    blocks = [
        block
        for path in [*PAGES, *TEXTS]
        for language in ("", "ini")
        for block in code_blocks(path.read_text(encoding="utf-8"), language)
        if block.startswith(("[X-OOMSlice]", "# /etc/systemd"))
    ]
    assert len(blocks) >= 5
    for block in blocks:
        settings, problems = parse_unit_files([("example", block)])
        assert problems == ()
        assert settings.sources


def test_defaults_of_unit_settings_are_those_of_the_code() -> None:
    text = section("oomslice.unit.5", "OPTIONS")
    assert f"Default: {format_usec(COOLDOWN_DEFAULT_USEC)}." in text
    assert f"priority by {AVOID_BONUS}" in page("oomslice.7")


# oomslice.yaml(5).


def test_every_key_of_the_yaml_is_in_the_manual() -> None:
    text = section("oomslice.yaml.5", "OPTIONS")
    found = {entry.rstrip(":") for entry in entries(text) if entry.endswith(":")}
    assert found == {*SECTIONS, "match", "manager", "tier", *YAML_MACHINE_KEYS, *YAML_LIMIT_KEYS, *YAML_CARRIER_KEYS}
    for key in set(YAML_SETTING_KEYS) - {"tier"}:
        assert f"*{key}*" in text, key


def yaml_default(key: str) -> str:
    """What the manual says of a key's default."""
    text = section("oomslice.yaml.5", "OPTIONS")
    found = re.search(rf"^\t\*{key}:\*\n(.*?)(?=^\t?\*|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, key
    default = re.search(r"Default:\s+(.*?)\.\s*$", found.group(1), re.DOTALL | re.MULTILINE)
    assert default, key
    return " ".join(default.group(1).split())


def test_defaults_of_the_yaml_are_those_of_the_code() -> None:
    machine, limits, carriers = MachineTriggers(), Limits(), CarrierSwitches()
    for key, name in YAML_CARRIER_KEYS.items():
        assert yaml_default(key) == ("yes" if getattr(carriers, name) else "no"), key
    for key, name in YAML_MACHINE_KEYS.items():
        value = getattr(machine, name)
        expected = f"{value.permyriad / 100:g}%" if hasattr(value, "permyriad") else str(value)
        assert yaml_default(key) == expected, key
    assert yaml_default("death-deadline-sec") == format_usec(limits.death_deadline_usec)
    assert yaml_default("decisions-max") == str(limits.decisions_max)
    assert yaml_default("leave-to-systemd-oomd") == ("yes" if limits.leave_to_systemd_oomd else "no")


def test_the_example_of_the_yaml_is_right() -> None:
    (example,) = code_blocks(section("oomslice.yaml.5", "EXAMPLE"))
    configuration, problems = parse_configuration([("example", example)])
    assert problems == ()
    assert set(configuration.tiers) == {"batch", "precious"}
    assert len(configuration.rules) == 2


# org.oomslice1(5).


def typed(arguments: tuple[Argument, ...]) -> str:
    """Arguments as the manual writes them."""
    return ", ".join(f"*{argument.signature}* {argument.name}" for argument in arguments)


SECTIONS_OF_INTERFACES = {
    MANAGER: ("METHODS", "SIGNALS", "PROPERTIES"),
    OBJECT_MANAGER: ("OBJECTS",),
    SLICE: ("PROPERTIES OF A SLICE",),
    DECISION: ("PROPERTIES OF A DECISION",),
    LOG_CONTROL: ("LOGGING",),
}


def members(interface: Interface) -> Iterator[str]:
    """What the manual has of each member of the interface."""
    for method in interface.methods:
        result = f" -> {typed(method.outputs)}" if method.outputs else ""
        yield f"*{method.name}*({typed(method.inputs)}){result}"
    for signal in interface.signals:
        yield f"*{signal.name}*({typed(signal.arguments)})"
    for item in interface.properties:
        yield f"*{item.name}* (*{item.signature}*)"


@pytest.mark.parametrize("interface", SECTIONS_OF_INTERFACES, ids=lambda interface: interface.name)
def test_every_member_of_the_bus_is_in_the_manual_with_its_types(interface: Interface) -> None:
    documented = [
        member
        for title in SECTIONS_OF_INTERFACES[interface]
        for line in section("org.oomslice1.5", title).splitlines()
        if line.startswith("*")
        for member in (line.split(", ") if line.count("* (*") > 1 else [line])
    ]
    assert sorted(member.rstrip(",") for member in documented) == sorted(members(interface))
    assert f"*{interface.name}*" in page("org.oomslice1.5")
    assert f"*{BUS_NAME}*" in page("org.oomslice1.5")
    assert f"*{OBJECT_PATH}*" in page("org.oomslice1.5")


def test_figures_that_change_all_the_time_are_named_in_the_manual() -> None:
    text = section("org.oomslice1.5", "OBJECTS")
    for name in SLICE_FIGURES:
        assert f"_{name}_" in text
    assert f"the last {DECISIONS_RECENT} decisions" in " ".join(text.split())


def underlined(title: str) -> set[str]:
    """Names that a section of org.oomslice1(5) defines."""
    heads = [line for line in section("org.oomslice1.5", title).splitlines() if line.startswith("_")]
    return {name.strip("_") for line in heads for name in line.split(", ")}


def test_every_field_of_a_decision_is_in_the_manual() -> None:
    assert underlined("RECORD OF A DECISION") == {field.name for field in fields(Decision)} == set(DECISION_SIGNATURES)


def test_every_verdict_outcome_and_trigger_is_in_the_manual() -> None:
    text = section("org.oomslice1.5", "RECORD OF A DECISION")
    for word in [*show.VERDICTS, *(set(show.OUTCOMES) - {"pending"}), *show.TRIGGERS]:
        assert f"_{word}_" in text, word


def string_keys(function: str) -> set[str]:
    """Keys of the dictionary literal that a function of daemon/backend.py makes: those that begin with a capital."""
    source = (ROOT / "oomslice/daemon/backend.py").read_text(encoding="utf-8")
    found = re.search(rf"def {function}\(.*?(?=\n(?:    )?(?:async )?def |\Z)", source, re.DOTALL)
    assert found, function
    return set(re.findall(r'"([A-Z][A-Za-z]+)"(?=: |\] = )', found.group(0)))


def test_every_key_of_the_state_is_in_the_manual() -> None:
    assert underlined("STATE") == string_keys("state")


def test_every_setting_of_a_unit_is_in_the_manual() -> None:
    assert underlined("SETTINGS OF A UNIT") == string_keys("_described") | string_keys("slice")


def test_every_error_name_is_in_the_manual() -> None:
    kinds = [errors.OomsliceError, *errors.OomsliceError.__subclasses__()]
    names = {kind.bus_name for kind in kinds if kind.bus_name.startswith("org.oomslice1.")}
    assert set(re.findall(r"\*(org\.oomslice1\.Error\.\w+)\*", section("org.oomslice1.5", "ERRORS"))) == names


# README and the other pages.


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_examples_in_python_run(capfd: pytest.CaptureFixture[str]) -> None:
    blocks = code_blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    printed = capfd.readouterr().out.splitlines()
    expected = [line[2:] for line in blocks[1].splitlines() if line.startswith("# chosen")]
    assert printed[:1] == expected


def test_the_picture_is_well_formed_and_described() -> None:
    root = ElementTree.parse(DOCS / "architecture.svg").getroot()
    names = {element.tag.rpartition("}")[2] for element in root}
    assert {"title", "desc"} <= names


def test_the_licence_is_the_whole_lgpl() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "GNU LESSER GENERAL PUBLIC LICENSE" in text
    assert "Version 2.1, February 1999" in text
    assert "How to Apply These Terms to Your New Libraries" in text


def test_news_begins_with_this_version() -> None:
    from oomslice import __version__

    news = (ROOT / "NEWS.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", news, re.MULTILINE)[0] == __version__
