# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslice-bpf built from this tree: what it makes of a kernel's types, and the choice inside this machine's own kernel
where that lets programs in. Which kernels run all of it is for the machines of tests/vm."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from oomslice.carriers.slices import SliceValues
from oomslice.settings.model import KillScope
from tests.core.bpf_rig import TOP, Kernel
from tests.unit.policies import unit

SHAPES = {
    "cgroup": "struct oom_control *oc, struct cgroup *cgrp",
    "link": "struct oom_control *oc, struct bpf_struct_ops_link *st_link",
}
"""Arguments of handle_out_of_memory() as they were published, by the name of the object for them."""

SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
"""Number of bpf(2)."""
ARCHITECTURE = {"x86_64": "x86", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
MAP_LOOKUP, OBJ_GET, PROG_RUN = 1, 7, 10
KILLS_MAX = 128
"""See oom_ops.h: of one unit in one go."""

pytestmark = pytest.mark.core


def types(directory: Path, declarations: str) -> Path:
    """The type information of a kernel that has these declarations and all functions that oom_ops calls."""
    called = (TOP / "bpf" / "ops.c").read_text().split("oomslice_ops_calls[] = {")[1].split("NULL")[0]
    functions = "".join(
        f"int {name}(void) {{ return 0; }}\n" for name in called.replace('"', "").split(",") if name.strip()
    )
    source = directory / "types.c"
    source.write_text(
        f"struct oom_control;\nstruct cgroup {{ int level; }};\nstruct bpf_struct_ops_link {{ int id; }};\n"
        f"{declarations}\n{functions}"
    )
    target = directory / "types.o"
    subprocess.run(["clang", "-target", "bpf", "-g", "-c", source, "-o", target], check=True)
    return target


def checked(build: Path, btf: Path) -> dict[str, str]:
    """What `oomslice-bpf check` says of each set of programs."""
    said = subprocess.run(
        [build / "oomslice-bpf", f"--btf={btf}", "check"], check=True, capture_output=True, text=True
    ).stdout
    return dict(line.split(": ", 1) for line in said.splitlines())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (SHAPES["cgroup"], "possible"),
        (SHAPES["link"], "possible"),
        ("struct oom_control *oc", "not possible: this kernel's struct bpf_oom_ops has a shape that is not known here"),
        (
            "struct oom_control *oc, struct oom_control *other",
            "not possible: this kernel's struct bpf_oom_ops has a shape that is not known here",
        ),
    ],
)
def test_the_shape_of_the_callback_is_found_in_the_kernels_types(
    build: Path, tmp_path: Path, arguments: str, says: str
) -> None:
    declared = f"struct bpf_oom_ops {{ int (*handle_out_of_memory)({arguments}); char name[64]; }} ops;"
    assert checked(build, types(tmp_path, declared))["oom_ops"] == says


def test_a_kernel_without_something_is_said_to_lack_it(build: Path, tmp_path: Path) -> None:
    said = checked(build, types(tmp_path, "int nothing;"))
    assert said["oom_ops"] == "not possible: this kernel has no struct bpf_oom_ops, as no released one has"
    assert said["observe"].startswith("not possible: this kernel has no function oom_kill_process")
    declared = f"struct bpf_oom_ops {{ int (*handle_out_of_memory)({SHAPES['link']}); char name[64]; }} ops;"
    text = types(tmp_path, declared).with_suffix(".c")
    text.write_text(text.read_text().replace("bpf_task_from_pid", "something_else"))
    subprocess.run(["clang", "-target", "bpf", "-g", "-c", text, "-o", text.with_suffix(".o")], check=True)
    said = checked(build, text.with_suffix(".o"))
    assert said["oom_ops"] == "not possible: this kernel has no function bpf_task_from_pid for BPF programs"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_struct_ops_objects_are_of_the_published_types(build: Path, shape: str) -> None:
    dump = subprocess.run(
        ["bpftool", "--json", "btf", "dump", "file", build / f"oom_ops_{shape}.bpf.o"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
    )
    by_id = {item["id"]: item for item in json.loads(dump.stdout)["types"]}

    def spelled(id: int) -> str:
        item = by_id.get(id, {"kind": "VOID"})
        if item["kind"] == "PTR":
            return spelled(item["type_id"]) + " *"
        return {"STRUCT": "struct ", "FWD": "struct "}.get(item["kind"], "") + str(item.get("name", "void"))

    ops = next(item for item in by_id.values() if item["kind"] == "STRUCT" and item["name"] == "bpf_oom_ops")
    assert [member["name"] for member in ops["members"]] == ["handle_out_of_memory", "name"]
    callback, name = (by_id[member["type_id"]] for member in ops["members"])
    assert (callback["kind"], name["kind"], name["nr_elems"]) == ("PTR", "ARRAY", 64)
    prototype = by_id[callback["type_id"]]
    wanted = [argument.rsplit("*", 1)[0].strip() + " *" for argument in SHAPES[shape].split(", ")]
    assert [spelled(parameter["type_id"]) for parameter in prototype["params"]] == wanted
    assert spelled(prototype["ret_type_id"]) == "int"
    assert ops["size"] == 8 + 64


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2)."""
    space = ctypes.create_string_buffer(attributes, 144)
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(SYSCALL[platform.machine()], command, space, len(space)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def pinned(path: Path) -> int:
    """A descriptor of what is pinned there."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return bpf(OBJ_GET, struct.pack("=Q", ctypes.addressof(name)))


def test_nobody_is_chosen_before_there_is_a_plan(kernel: Kernel) -> None:
    assert kernel.choose(kernel.tree.mount)["result"] == "no-plan"


def test_the_kernel_chooses_whom_the_plan_says(kernel: Kernel) -> None:
    low, high = kernel.unit("low.service", -5), kernel.unit("high.service", 5)
    kernel.follow([low, high], 1)
    answer = kernel.choose(kernel.tree.mount)
    assert (answer["result"], answer["cgroup_id"], answer["priority"]) == ("chosen", low.cgroup_id, -5)
    assert (answer["units"], answer["eligible"], answer["processes"]) == (3, 2, 1)
    # Below a domain only, that one included.
    assert kernel.choose(kernel.tree.root / "high.service")["cgroup_id"] == high.cgroup_id
    # A new plan, with less in it.
    kernel.follow([replace(low, priority=7), high], 2)
    assert kernel.choose(kernel.tree.mount)["cgroup_id"] == high.cgroup_id
    kernel.follow([replace(low, priority=7)], 3)
    assert kernel.choose(kernel.tree.mount)["cgroup_id"] == low.cgroup_id
    assert kernel.values.units == 2


def test_what_an_earlier_daemon_has_written_is_forgotten(kernel: Kernel) -> None:
    low, high = kernel.unit("low.service", -5), kernel.unit("high.service", 5)
    kernel.follow([low, high], 1)
    kernel.values = SliceValues(kernel.cgroups, kernel.pins)
    kernel.follow([high], 2)
    assert kernel.choose(kernel.tree.mount)["cgroup_id"] == high.cgroup_id


def test_programs_that_were_loaded_anew_get_the_whole_plan(kernel: Kernel) -> None:
    low = kernel.unit("low.service", -5)
    kernel.follow([low], 1)
    kernel.load()
    assert kernel.choose(kernel.tree.mount)["result"] == "no-plan"
    kernel.follow([low], 2)
    assert kernel.choose(kernel.tree.mount)["cgroup_id"] == low.cgroup_id
    assert kernel.values.error == ""


def test_the_kernels_choice_is_the_cores(kernel: Kernel) -> None:
    dice = random.Random(20)
    units = [kernel.unit(f"u{index}.service") for index in range(20)]
    empty = kernel.tree.make("empty.service")
    units.append(
        replace(unit("empty.service", empty.stat().st_ino, 0, -9), path=f"/{kernel.tree.root.name}/empty.service")
    )
    for generation in range(30):
        units = [
            replace(
                planned,
                priority=dice.randint(-2, 2) if planned.name != "empty.service" else -9,
                protected=dice.random() < 0.3,
                self_=dice.random() < 0.2,
                left_to_oomd=dice.random() < 0.2,
                candidate=dice.random() < 0.8,
            )
            for planned in units
        ]
        kernel.follow(units, generation + 1)
        eligible = [
            planned
            for planned in units
            if planned.candidate
            and not (planned.protected or planned.self_ or planned.left_to_oomd or planned.name == "empty.service")
        ]
        answer = kernel.choose(kernel.tree.mount)
        assert answer["eligible"] == len(eligible)
        # Nobody has memory where the controller is not on, so the younger cgroup decides.
        controlled = (kernel.tree.root / "memory.current").exists()
        if eligible and not controlled:
            best = min(eligible, key=lambda planned: (planned.priority, -planned.cgroup_id))
            assert answer["cgroup_id"] == best.cgroup_id
        elif eligible:
            assert answer["priority"] == min(planned.priority for planned in eligible)
        else:
            assert answer["result"] == "nobody"


def test_a_run_is_timed_by_the_kernel(kernel: Kernel) -> None:
    kernel.follow([kernel.unit("one.service")], 1)
    answer = kernel.choose(kernel.tree.mount, "--runs=20")
    assert answer["runs"] == 20 and answer["nsec_per_run"] > 0


class Twin:
    """oom_ops with a note in the place of a kill, see oom_ops_twin.bpf.c."""

    def __init__(self, kernel: Kernel, directory: Path) -> None:
        compiled, linked, pin = directory / "compiled.o", directory / "twin.o", kernel.pins / "twin"
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        maps = [f"map name {name} pinned {kernel.pins}/shared/map-{name}" for name in ("slices", "pulse")]
        for command in (
            "clang -target bpf -mcpu=v3 -O2 -g -ffreestanding -Wall -Wextra -Wno-unused-parameter -Werror "
            f"-I{TOP}/core -I{TOP}/bpf -idirafter /usr/include/{platform.machine()}-linux-gnu "
            f"-D__TARGET_ARCH_{ARCHITECTURE} "
            f"-c {Path(__file__).with_name('oom_ops_twin.bpf.c')} -o {compiled}",
            f"bpftool gen object {linked} {compiled}",
            f"bpftool prog load {linked} {pin} {' '.join(maps)} pinmaps {kernel.pins}/twin-maps",
        ):
            done = subprocess.run(command.split(), capture_output=True, text=True, env=environment, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        self._program = pinned(pin)
        self._outcomes = pinned(kernel.pins / "twin-maps" / "outcomes")

    def run(self, domain: Path) -> tuple[int, int, int]:
        """What the callback returned, how many kills there would have been, and of which process the first."""
        ctx = ctypes.create_string_buffer(struct.pack("=Q", domain.stat().st_ino), 8)
        bpf(PROG_RUN, struct.pack("=6I2Q2I2Q", self._program, 0, 0, 0, 0, 0, 0, 0, 8, 0, ctypes.addressof(ctx), 0))
        key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(24)
        bpf(MAP_LOOKUP, struct.pack("=IxxxxQQQ", self._outcomes, ctypes.addressof(key), ctypes.addressof(value), 0))
        result, kills, first = struct.unpack("=3Q", value.raw)
        return result, kills, first

    def close(self) -> None:
        os.close(self._program)
        os.close(self._outcomes)


@pytest.fixture
def twin(kernel: Kernel, tmp_path: Path) -> Iterator[Twin]:
    with contextlib.closing(Twin(kernel, tmp_path)) as twin:
        yield twin


def test_the_struct_ops_program_kills_the_plans_choice_and_nobody_else(kernel: Kernel, twin: Twin) -> None:
    top = kernel.tree.mount
    low, high = kernel.unit("low.service", -5), kernel.unit("high.service", 5)
    inner = kernel.tree.make("low.service/inner")
    assert twin.run(top) == (0, 0, 0)  # there is no plan yet
    kernel.follow([low, high], 1)
    # The note is no kill: the same process is the largest each time.
    result, kills, first = twin.run(top)
    assert (result, kills) == (1, KILLS_MAX)
    assert first in kernel.tree.pids(kernel.tree.root / "low.service")
    assert first not in kernel.tree.pids(kernel.tree.root / "high.service")
    assert twin.run(kernel.tree.root / "high.service")[2] in kernel.tree.pids(kernel.tree.root / "high.service")
    # One process, and the largest, where the unit says so; in a cgroup below its own, too.
    big = kernel.tree.populate(inner, 3)
    script = f"open('{inner}/cgroup.procs', 'w').write('0'); x = bytes(64 << 20); print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    kernel.tree.children.append(child)
    assert child.stdout is not None
    child.stdout.readline()
    kernel.follow([replace(low, kill_scope=KillScope.PROCESS), high], 2)
    assert child.pid not in big
    assert twin.run(top) == (1, 1, child.pid)
    # Whom nobody may kill: then the kernel chooses.
    kernel.follow([replace(low, dry_run=True), high], 3)
    assert twin.run(top) == (0, 0, 0)
    kernel.follow([replace(low, protected=True), replace(high, self_=True)], 4)
    assert twin.run(top) == (0, 0, 0)
