# SPDX-License-Identifier: LGPL-2.1-or-later
"""Policies of an administrator, compiled as the example in docs/ says how."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
EXAMPLE = TOP / "docs" / "examples" / "skip-small.bpf.c"


def compiled(source: Path, directory: Path) -> Path:
    """The object. The command is the one in the comment of the example."""
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    headers = directory / "include" / "oomslice"
    headers.mkdir(parents=True, exist_ok=True)
    shutil.copy(TOP / "bpf" / "policy.h", headers)
    said = re.search(r"^ \*     (clang .*)$", EXAMPLE.read_text(), re.MULTILINE)
    assert said is not None
    multiarch = subprocess.run(["gcc", "-print-multiarch"], check=True, capture_output=True, text=True).stdout.strip()
    target = directory / f"{source.name}.o"
    command = [
        {"skip-small.bpf.c": str(source), "skip-small.o": str(target)}.get(word, word)
        for word in said[1].replace("$(gcc -print-multiarch)", multiarch).split()
    ]
    subprocess.run([*command, "-Wextra", "-Werror", f"-I{headers.parent}"], check=True)
    return target


def written(directory: Path, name: str, body: str, before: str = "", license: str = "GPL") -> Path:
    """The object of a policy with this body, and with this before the function."""
    source = directory / f"{name}.bpf.c"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n#include <oomslice/policy.h>\n"
        f'char LICENSE[] SEC("license") = "{license}";\n{before}\n'
        f"int oomslice_policy(struct oomslice_policy_candidate *candidate) {{ {body} }}\n"
    )
    return compiled(source, directory)


COUNTER = """
struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, __u64);
} asked SEC(".maps");
"""
COUNTS = """
        __u32 zero = 0;
        __u64 *count = bpf_map_lookup_elem(&asked, &zero);

        if (count)
                __sync_fetch_and_add(count, 1);
        return candidate && candidate->priority == 7 ? OOMSLICE_POLICY_KILL : OOMSLICE_POLICY_DEFAULT;
"""
"""With COUNTER: counts how often it is asked, and wants units of priority 7 to die first."""
