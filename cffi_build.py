# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the C of `oomslice._core` from the headers of core/.

Every declaration is taken from between the lines `/* cffi: begin */` and `/* cffi: end */` of a header, so no
constant, struct or prototype is written twice. The module is API mode: the compiler checks what cffi was told.

    python cffi_build.py OUT.c       what meson runs; the module is then linked with core's static library
    python cffi_build.py --inplace   developer's build: oomslice/_core.*.so in the tree, without meson
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import cffi

TOP = Path(__file__).resolve().parent
CORE = TOP / "core"
MODULE = "oomslice._core"

HEADERS = (
    *("plan.h", "select.h", "ring.h", "history.h", "channel.h", "psi.h", "cgroup.h", "kill.h", "pinned.h", "fact.h"),
    *("meminfo.h", "watch.h", "slicevalue.h", "pulse.h", "prekill.h"),
)
"""Headers with a cffi block, in an order in which each type is declared before it is used. What they declare is
defined in the .c of the same name, except for those of TYPES_ONLY."""
TYPES_ONLY = ("channel.h", "meminfo.h", "slicevalue.h", "pulse.h", "prekill.h")

HELPERS = ("bpfring.c", "hash.c", "number.c")
"""What those call, besides."""

BLOCK = re.compile(r"^/\* cffi: begin \*/$(.*?)^/\* cffi: end \*/$", re.MULTILINE | re.DOTALL)


def declarations(header: Path) -> str:
    """What a header has between its cffi markers; an error if it has no such block."""
    blocks = BLOCK.findall(header.read_text(encoding="utf-8"))
    if not blocks:
        raise SystemExit(f"{header}: no lines between /* cffi: begin */ and /* cffi: end */")
    return "".join(blocks)


def builder() -> cffi.FFI:
    """The FFI of the module, ready to emit its C."""
    ffi = cffi.FFI()
    for header in HEADERS:
        ffi.cdef(declarations(CORE / header))
    ffi.set_source(MODULE, "".join(f'#include "{header}"\n' for header in HEADERS))
    return ffi


def build_inplace() -> Path:
    """Compiles the module with the sources of its headers, next to the Python files."""
    target = TOP / "oomslice" / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    flags = shlex.split(os.environ.get("CFLAGS", "-O2 -g"))
    sources = [CORE / header.replace(".h", ".c") for header in HEADERS if header not in TYPES_ONLY]
    sources += [CORE / name for name in HELPERS]
    scratch = TOP / ".cache"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        generated, module = Path(directory, "_core.c"), Path(directory, "_core.so")
        builder().emit_c_code(str(generated))
        subprocess.run(
            [*compiler, "-std=c11", "-fPIC", "-shared", "-Wl,-z,now", *flags]
            + [f"-I{CORE}", f"-I{sysconfig.get_path('include')}"]
            + [str(path) for path in (generated, *sources)]
            + ["-o", str(module)],
            check=True,
        )
        # Replaced in one step: a program that has the old module mapped keeps it.
        os.replace(module, target)
    return target


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--inplace"]:
            print(build_inplace())
        case [out] if not out.startswith("-"):
            builder().emit_c_code(out)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
