# SPDX-License-Identifier: LGPL-2.1-or-later
"""The linters, each as a test. They look at every file that git knows or would add, so that no list has to be kept."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


def run(*command: str) -> None:
    """Fails with what the linter said."""
    result = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert result.returncode == 0, (
        f"{' '.join(command[:4])} ...: status {result.returncode}\n{result.stdout}{result.stderr}"
    )


def program(name: str) -> str:
    """The program that `make setup` has put into .venv or installed, else a skip."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: run `make setup`")
    return found


@cache
def tracked() -> tuple[Path, ...]:
    """Files of the tree, relative to its top."""
    if not (TOP / ".git").exists():
        pytest.skip("not a git checkout: the files to be linted are listed by git")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP,
        capture_output=True,
        check=True,
    )
    paths = [Path(name) for name in listing.stdout.decode().split("\0") if name]
    return tuple(path for path in paths if (TOP / path).is_file())


@cache
def interpreted_by(*names: str) -> tuple[str, ...]:
    """Files whose first line names one of these interpreters."""
    found = []
    for path in tracked():
        with (TOP / path).open("rb") as file:
            first = file.readline(200)
        words = first.decode(errors="replace").removeprefix("#!/usr/bin/env ").removeprefix("#!").split()
        if first.startswith(b"#!") and words and words[0].split("/")[-1] in names:
            found.append(str(path))
    return tuple(found)


def with_suffix(*suffixes: str) -> list[str]:
    return [str(path) for path in tracked() if path.suffix in suffixes]


def python_files() -> list[str]:
    return sorted({*with_suffix(".py", ".pyi"), *interpreted_by("python3")})


def shell_files() -> list[str]:
    # The maintainer scripts of Debian name their interpreter as well.
    return sorted({*with_suffix(".sh"), *interpreted_by("sh", "bash")})


def test_files_to_lint_are_found() -> None:
    assert {"tools/run-tests", "units/oomsliced", "oomslice/errors.py"} <= set(python_files())
    assert {"tools/setup", ".ci/run", "packaging/debian/oomslice.postinst"} <= set(shell_files())


def test_ruff_finds_nothing() -> None:
    run(program("ruff"), "check", "--no-cache", "--force-exclude", *python_files())


def test_python_is_formatted() -> None:
    run(program("ruff"), "format", "--no-cache", "--force-exclude", "--check", *python_files())


@pytest.mark.timeout(300)
def test_mypy_strict_finds_nothing() -> None:
    run(program("mypy"))


def test_c_is_formatted() -> None:
    run(
        program("clang-format"),
        "--dry-run",
        "--Werror",
        *[name for name in with_suffix(".c", ".h") if name.startswith(("core/", "bpf/", "scores/"))],
    )


def test_shellcheck_finds_nothing() -> None:
    run(program("shellcheck"), *shell_files())


def test_every_source_file_names_its_license() -> None:
    suffixes = (".c", ".h", ".build", ".options", ".service", ".socket", ".slice")
    without = []
    for name in [*python_files(), *shell_files(), *with_suffix(*suffixes)]:
        if name.startswith(("packaging/debian/", "tests/fixtures/")):
            continue  # one copyright file for all of them; and what stands for an administrator's files
        with (TOP / name).open(encoding="utf-8") as file:
            head = [file.readline() for _ in range(3)]
        if any(head) and not any("SPDX-License-Identifier:" in line for line in head):
            without.append(name)
    assert not without


def test_every_python_file_says_what_it_owns() -> None:
    without = []
    for name in python_files():
        tree = ast.parse((TOP / name).read_text(encoding="utf-8"), name)
        if tree.body and not ast.get_docstring(tree):
            without.append(name)
    assert not without
