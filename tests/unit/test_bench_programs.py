# SPDX-License-Identifier: LGPL-2.1-or-later
"""What BPF programs cost: how the figures come from what bpftool and the watcher of the pulse print."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.bench.figures import Figure
from tests.bench.programs_bench import (
    LIST_PINS,
    Runs,
    compile_empty,
    maps_memory,
    memory_of,
    pinned_programs,
    run_figures,
    runs_of,
)
from tests.vm.pulse import LOOK, WATCH, Look, looks_of

PINS = """\
/run/oomslice/bpf/prekill/link-judge_end {"id":5,"type":"tracing","prog_id":31,"attach_type":"trace_raw_tp"}
/run/oomslice/bpf/prekill/link-wait_limit_1 {"id":6,"type":"tracing","prog_id":32}
/run/oomslice/bpf/prekill/link-wait_limit_2 {"id":7,"type":"tracing","prog_id":33}
/sys/fs/bpf/empty/fentry {"id":9,"type":"tracing","prog_id":40}
/run/oomslice/bpf/prekill/program-judge_end {"id":31,"type":"tracing","name":"judge_end"}
/run/oomslice/bpf/choice/program-choose {"id":50,"type":"syscall","name":"choose"}
"""
"""Of a link the program's number is told apart from its own, and the program's pin has the same one."""
NAMES = {
    **{31: "prekill/judge_end", 32: "prekill/wait_limit", 33: "prekill/wait_limit"},
    **{40: "empty/fentry", 50: "choice/choose"},
}
SHOWN = json.dumps(
    [
        {"id": 31, "name": "judge_end", "bytes_memlock": 20480, "run_time_ns": 7000, "run_cnt": 7},
        {"id": 32, "name": "wait_limit_1", "bytes_memlock": 4096, "run_time_ns": 300, "run_cnt": 2},
        {"id": 33, "name": "wait_limit_2", "bytes_memlock": 4096, "run_time_ns": 100, "run_cnt": 2},
        {"id": 40, "name": "fentry", "bytes_memlock": 4096},
        {"id": 50, "name": "choose", "bytes_memlock": 8192},
        {"id": 60, "name": "sd_devices", "bytes_memlock": 4096, "run_time_ns": 99, "run_cnt": 9},
    ]
)


def test_programs_are_called_by_their_pins_and_those_that_differ_by_a_number_alike() -> None:
    assert pinned_programs(PINS) == NAMES


def test_pins_are_listed_with_what_is_said_of_each_on_a_line(tmp_path: Path) -> None:
    for pin in ("run/prekill/link-a", "run/prekill/program-a", "run/prekill/map-a", "empty/fentry"):
        (tmp_path / pin).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / pin).touch()
    tool = tmp_path / "bpftool"
    tool.write_text('#!/bin/sh\n[ "$2 $3 $4" = "$2 show pinned" ] || exit 1\necho "{\\"id\\":\n$(expr length $2)}"\n')
    tool.chmod(0o755)
    script = LIST_PINS.replace("/run/oomslice/bpf", f"{tmp_path}/run").replace("/sys/fs/bpf", str(tmp_path))
    path = f"{tmp_path}:/usr/bin:/bin"
    said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True, env={"PATH": path})
    assert said.stdout.splitlines() == [
        f'{tmp_path}/run/prekill/link-a {{"id":4}}',
        f'{tmp_path}/empty/fentry {{"id":4}}',
        f'{tmp_path}/run/prekill/program-a {{"id":4}}',
    ]


def test_runs_are_those_of_our_programs_and_of_those_alike_together() -> None:
    assert runs_of(SHOWN, NAMES) == {
        "prekill/judge_end": Runs(7, 7000),
        "prekill/wait_limit": Runs(4, 400),
        "empty/fentry": Runs(),
        "choice/choose": Runs(),
    }


def test_figures_are_of_programs_that_ran_and_time_of_samples_in_which_they_did() -> None:
    before, after = runs_of(SHOWN, NAMES), {name: Runs(9, 9000) for name in NAMES.values()}
    first = {name: after[name] - before[name] for name in after}
    samples = [{"a": first["prekill/judge_end"], "b": Runs()}, {"a": Runs(), "b": Runs()}]
    assert list(run_figures(samples, "at rest")) == [
        Figure("a at rest, runs", "", (2, 0)),
        Figure("a at rest, a run", "us", (1.0,)),
    ]


def test_memory_is_that_of_each_program_and_of_each_map_once() -> None:
    found = memory_of(SHOWN, NAMES)
    assert (
        found["prekill/judge_end"] == [20] and found["prekill/wait_limit"] == [4, 4] and found["choice/choose"] == [8]
    )
    shared = '{"id": 3, "bytes_memlock": 8192}\n'
    assert maps_memory(shared + '{"id": 4, "bytes_memlock": 4096}\n' + shared) == 12


def test_programs_that_do_nothing_are_compiled(tmp_path: Path) -> None:
    made = compile_empty(tmp_path)
    if made is None:
        pytest.skip("clang is not installed")
    assert all(section in made.read_bytes() for section in (b"fentry/", b"fexit/", b"tp_btf/"))


def test_each_sign_has_the_first_look_after_it_or_none() -> None:
    written = "begun\nsign 100\nlook 140 7\nsign 200\nsign 300\nlook 350 8\nsign 400\n"
    looks = looks_of(written)
    assert looks == [Look(100, 140, 7), Look(200), Look(300, 350, 8), Look(400)]
    assert looks[0].delay_nsec == 40


def test_scripts_for_the_machine_are_python() -> None:
    for script in (LOOK, WATCH):
        compile(script, "script", "exec")
