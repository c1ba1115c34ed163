# SPDX-License-Identifier: LGPL-2.1-or-later
"""The hand-written stub says of the C module exactly what is there, and the headers are what the module is made of."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oomslice import _core
from oomslice._core import ffi, lib

TOP = Path(__file__).parents[2]
STUB = TOP / "oomslice" / "_core.pyi"


def stub_class(name: str) -> ast.ClassDef:
    classes = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ClassDef)]
    return next(node for node in classes if node.name == name)


def constants(node: ast.ClassDef) -> set[str]:
    return {
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


def functions(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}


def written_type(ctype: Any) -> str:
    """How the stub writes a C type."""
    if ctype.kind == "void":
        return "None"
    return "int" if ctype.kind == "primitive" else "CData"


def test_the_stub_names_exactly_what_the_library_has() -> None:
    library = stub_class("_Library")
    described = constants(library) | set(functions(library))
    assert described == set(dir(lib))


def test_constants_and_functions_are_what_the_stub_says() -> None:
    library = stub_class("_Library")
    for name in constants(library):
        assert type(getattr(lib, name)) is int, name
    for name in functions(library):
        assert ffi.typeof(getattr(lib, name)).kind == "function", name


def test_functions_take_and_give_what_the_stub_says() -> None:
    for name, node in functions(stub_class("_Library")).items():
        ctype = ffi.typeof(getattr(lib, name))
        arguments = [ast.unparse(argument.annotation) for argument in node.args.posonlyargs[1:] if argument.annotation]
        wanted = [written_type(argument) for argument in ctype.args]
        # A `const char *` that is given is a bytes object.
        assert [one.replace("bytes", "CData") for one in arguments] == wanted, name
        assert not node.args.args, f"{name}: C knows no keywords"
        assert node.returns is not None and ast.unparse(node.returns) == written_type(ctype.result), name


def test_the_part_of_ffi_that_the_stub_names_is_there() -> None:
    node = stub_class("_FFI")
    missing = [name for name in constants(node) | set(functions(node)) if not hasattr(ffi, name)]
    assert missing == []
    assert {"ffi", "lib"} <= set(dir(_core))


def test_each_constant_is_the_headers() -> None:
    # The compiler has computed them; here they are only looked up, so that a stale module is noticed.
    text = "".join(header.read_text() for header in sorted((TOP / "core").glob("*.h")))
    written = dict(re.findall(r"^ {8}(OOMSLICE_\w+) =\s+(-?\d+),", text, re.MULTILINE))
    names = constants(stub_class("_Library"))
    assert {name: int(written[name]) for name in names} == {name: getattr(lib, name) for name in names}


def test_the_generator_makes_the_same_c_each_time(tmp_path: Path) -> None:
    pytest.importorskip("cffi.recompiler", reason="needs cffi with its generator")
    if not (TOP / "cffi_build.py").exists():
        pytest.skip("the package is tested without its sources")
    for name in ("first.c", "second.c"):
        subprocess.run([sys.executable, TOP / "cffi_build.py", tmp_path / name], check=True, stdout=subprocess.DEVNULL)
    first = (tmp_path / "first.c").read_text()
    assert first == (tmp_path / "second.c").read_text()
    assert '#include "plan.h"' in first and "PyInit__core" in first


def test_the_generator_says_how_it_is_used() -> None:
    result = subprocess.run([sys.executable, TOP / "cffi_build.py"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--inplace" in result.stderr


def test_every_source_of_the_core_is_built() -> None:
    listed = re.findall(r"^  '(\w+\.c)',$", (TOP / "core" / "meson.build").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (TOP / "core").glob("*.c"))
