# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds core/ with AddressSanitizer and UndefinedBehaviorSanitizer and runs every prog_*.c of this directory on it.

A program ends with 0 if all is well; what it or a sanitizer says otherwise is the message of the test.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CORE = TESTS.parents[1] / "core"
PROGRAMS = sorted(TESTS.glob("prog_*.c"))
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
FLAGS = ["-std=c11", "-O1", "-g", "-pthread", *WARNINGS, *SANITIZERS, f"-I{CORE}"]

pytestmark = pytest.mark.core


def run(*command: str | Path, timeout: float = 300) -> None:
    """Runs a command; a failure is shown with all that it said."""
    words = [str(word) for word in command]
    result = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=timeout, check=False)
    assert result.returncode == 0, (
        f"{shlex.join(words)}: exit status {result.returncode}\n{result.stdout}{result.stderr}"
    )


def compiler_or_skip(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of core but its main(), as a static library: a program gets only those files that it calls."""
    compiler = compiler_or_skip("gcc")
    directory = tmp_path_factory.mktemp("core")
    objects = []
    for source in sorted(CORE.glob("*.c")):
        if source.name != "main.c":
            objects.append(directory / f"{source.stem}.o")
            run(compiler, *FLAGS, "-c", source, "-o", objects[-1])
    archive = directory / "libcore.a"
    run("ar", "rcs", archive, *objects)
    return archive


@pytest.mark.parametrize("source", PROGRAMS, ids=lambda source: source.stem.removeprefix("prog_"))
def test_program_ends_well_under_the_sanitizers(source: Path, library: Path, tmp_path: Path) -> None:
    program = tmp_path / source.stem
    run(compiler_or_skip("gcc"), *FLAGS, source, library, "-o", program)
    run(program)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("source", sorted(CORE.glob("*.c")), ids=lambda source: source.stem)
def test_source_compiles_without_a_warning(source: Path, compiler: str, tmp_path: Path) -> None:
    # With optimisation: some warnings come from the data flow that only the optimiser sees.
    run(compiler_or_skip(compiler), "-std=c11", "-O2", *WARNINGS, f"-I{CORE}", "-c", source, "-o", tmp_path / "out.o")


def test_there_are_programs_to_run() -> None:
    assert {source.stem for source in PROGRAMS} >= {"prog_plan_fuzz", "prog_select_order", "prog_ring_death"}
