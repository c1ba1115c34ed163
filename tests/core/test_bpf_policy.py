# SPDX-License-Identifier: LGPL-2.1-or-later
"""An administrator's own policy in the programs that choose, inside this machine's own kernel where that lets programs
in. Those that kill with one are for the machines of tests/vm."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.bpf_policies import COUNTER, COUNTS, EXAMPLE, compiled, written
from tests.core.bpf_rig import Kernel

pytestmark = pytest.mark.core

FUNCTION = "int oomslice_policy(struct oomslice_policy_candidate *candidate) { return candidate ? 0 : 1; }\n"
HEAD = (
    "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n#include <oomslice/policy.h>\n"
    'char LICENSE[] SEC("license") = "GPL";\n'
)
STAYS = "What was in force before stays"


def bpftool(*arguments: str | Path) -> Any:
    """What it answers."""
    done = subprocess.run(
        ["bpftool", "--json", *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
    )
    return json.loads(done.stdout) if done.stdout.strip() else None


def asked(kernel: Kernel) -> int:
    """What the policy of COUNTS has in its map."""
    entry = bpftool("map", "lookup", "pinned", kernel.pins / "policy" / "map-asked", "key", "0", "0", "0", "0")
    return int.from_bytes(bytes(int(byte, 16) for byte in entry["value"]), "little")


def identities(kernel: Kernel, kind: str) -> dict[str, int]:
    """Ids of what is pinned: they tell whether it is still the same."""
    paths = sorted(kernel.pins.glob(f"*/{kind}-*"))
    what = "prog" if kind == "program" else "map"
    return {f"{path.parent.name}/{path.name}": bpftool(what, "show", "pinned", path)["id"] for path in paths}


def becomes(condition: Callable[[], bool]) -> bool:
    """Whether it is so after a while: the kernel lets go of what nobody has any more in its own time."""
    for _ in range(100):
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_the_example_has_a_say_and_its_map_is_read_while_it_is_in_force(kernel: Kernel, tmp_path: Path) -> None:
    low, high = kernel.unit("low.service", -5), kernel.unit("high.service", 5)
    kernel.follow([low, high], 1)
    assert kernel.choose(kernel.tree.mount)["cgroup_id"] == low.cgroup_id
    said = kernel.policy(str(compiled(EXAMPLE, tmp_path)))
    assert (said.returncode, said.stdout, said.stderr) == (0, "skip-small.bpf.c.o: in force in choice\n", "")
    # Nobody here has 16 MiB. The plan is still there.
    answer = kernel.choose(kernel.tree.mount)
    assert (answer["result"], answer["eligible"], answer["skipped"]) == ("nobody", 2, 2)
    smallest = kernel.pins / "policy" / "map-smallest"
    key, one = ("key", *"0000"), ("value", *"10000000")
    bpftool("map", "update", "pinned", smallest, *key, *one)
    controlled = (kernel.tree.root / "memory.current").exists()
    answer = kernel.choose(kernel.tree.mount)
    # Who has no memory controller holds nothing at all.
    assert answer["skipped"] == (0 if controlled else 2)
    assert kernel.policy("--remove").returncode == 0
    assert kernel.choose(kernel.tree.mount)["cgroup_id"] == low.cgroup_id
    assert not smallest.exists() and not kernel.policies.exists()
    assert kernel.policy().stdout == "no policy is in force: units are chosen by priority and size\n"


def test_what_a_policy_wants_killed_comes_first_and_it_is_asked_once_for_each(kernel: Kernel, tmp_path: Path) -> None:
    units = [kernel.unit("low.service", -5), kernel.unit("mid.service"), kernel.unit("wanted.service", 7)]
    kernel.follow(units, 1)
    assert kernel.policy(str(written(tmp_path, "counts", COUNTS, COUNTER))).returncode == 0
    answer = kernel.choose(kernel.tree.mount)
    assert (answer["cgroup_id"], answer["by_policy"]) == (units[2].cgroup_id, True)
    assert asked(kernel) == 3
    assert kernel.status()["policy"]["hits"] == 1
    # Here it leaves the choice to the plan.
    kernel.choose(kernel.tree.root / "mid.service")
    assert asked(kernel) == 4
    assert kernel.status()["policy"]["hits"] == 1
    assert kernel.policy().stdout.endswith("; hits 1\n")


def test_programs_with_a_policy_go_on_with_what_the_others_had(kernel: Kernel, tmp_path: Path) -> None:
    low = kernel.unit("low.service", -5)
    kernel.follow([low], 1)
    maps, programs = identities(kernel, "map"), identities(kernel, "program")
    assert maps and programs
    assert kernel.policy(str(written(tmp_path, "counts", COUNTS, COUNTER))).returncode == 0
    with_policy = identities(kernel, "program")
    assert with_policy.keys() == programs.keys() and not set(with_policy.values()) & set(programs.values())
    assert maps.items() <= identities(kernel, "map").items()
    # oomsliced has nothing to write anew.
    assert kernel.choose(kernel.tree.mount)["cgroup_id"] == low.cgroup_id
    assert kernel.policy("--remove").returncode == 0
    assert identities(kernel, "map") == maps
    # Nothing is left in the kernel of the policy, or of the programs before it.
    assert becomes(lambda: {one["id"] for one in bpftool("prog", "show")}.isdisjoint(with_policy.values()))


def test_a_policy_is_kept_and_is_there_after_each_load(kernel: Kernel, tmp_path: Path) -> None:
    policy = written(tmp_path, "counts", COUNTS, COUNTER)
    assert kernel.policy(str(policy)).returncode == 0
    kept = kernel.policies / policy.name
    assert [path.name for path in kernel.policies.iterdir()] == [policy.name]
    assert kept.read_bytes() == policy.read_bytes()
    assert (kept.stat().st_mode & 0o777, kernel.policies.stat().st_mode & 0o777) == (0o644, 0o755)
    before = kernel.status()["policy"]
    policy.unlink()
    kernel.load()
    said = kernel.status()["policy"]
    assert (said["name"], said["active"], said["why"], said["carriers"]) == (policy.name, True, "", ["choice"])
    assert said["since_usec"] > before["since_usec"] > 0
    assert kernel.policy().stdout.startswith(f"{policy.name}: in force in choice since 2")
    wanted = kernel.unit("wanted.service", 7)
    kernel.follow([kernel.unit("low.service", -5), wanted], 1)
    assert kernel.choose(kernel.tree.mount)["cgroup_id"] == wanted.cgroup_id
    assert asked(kernel) == 2
    # Another one takes its place.
    other = written(tmp_path, "other", "return candidate ? OOMSLICE_POLICY_SKIP : 0;")
    assert kernel.policy(str(other)).returncode == 0
    assert [path.name for path in kernel.policies.iterdir()] == [other.name]
    assert not (kernel.pins / "policy" / "map-asked").exists()
    assert kernel.choose(kernel.tree.mount)["skipped"] == 2
    assert kernel.status()["policy"]["hits"] == 1
    assert kernel.policy("--remove").returncode == 0
    kernel.load()
    assert kernel.status()["policy"] is None


BAD = {
    "other-name": (HEAD + FUNCTION.replace("oomslice_policy(", "other("), "it has no function oomslice_policy"),
    "weak": (HEAD + "__weak " + FUNCTION, "its function oomslice_policy is static or weak, and must be neither"),
    "argument": (HEAD + "int oomslice_policy(int candidate) { return candidate; }\n", "incompatible BTF kinds"),
    "other-structure": (
        HEAD + "struct x { int a; };\nint oomslice_policy(struct x *x) { return x ? x->a : 0; }\n",
        "incompatible struct names 'oomslice_policy_candidate' and 'x'",
    ),
    "memory": (
        HEAD + FUNCTION.replace("candidate ? 0 : 1", "*(volatile int *)candidate->cgroup_id"),
        "loading choice: Permission denied; the verifier says: R1 invalid mem access",
    ),
    "licence": (HEAD.replace('"GPL"', '"Proprietary"') + FUNCTION, 'its licence is "Proprietary"'),
    "program": (
        HEAD + FUNCTION + 'SEC("tp_btf/oom_score_adj_update") int mine(void) { return 0; }\n',
        "it has a program of its own, in the section tp_btf/oom_score_adj_update",
    ),
    "replaces": (
        HEAD + 'SEC("freplace/oomslice_policy") ' + FUNCTION,
        "its function is in the section freplace/oomslice_policy and has to be in none",
    ),
    "struct-ops": (
        HEAD + FUNCTION + 'struct mine { int a; } mine SEC(".struct_ops.link") = {1};\n',
        "it has a section .struct_ops.link, which a policy cannot have",
    ),
    "our-map": (
        HEAD + COUNTER.replace("asked", "slices") + "static __u32 zero;\n"
        "int oomslice_policy(struct oomslice_policy_candidate *c) { return c && bpf_map_lookup_elem(&slices, &zero); }",
        "conflicting non-weak symbol",
    ),
}
"""Text of a policy and what is said of it."""


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_and_what_was_in_force_stays(kernel: Kernel, tmp_path: Path, name: str) -> None:
    text, reason = BAD[name]
    units = [kernel.unit("low.service", -5), kernel.unit("wanted.service", 7)]
    kernel.follow(units, 1)
    good = written(tmp_path, "counts", COUNTS, COUNTER)
    assert kernel.policy(str(good)).returncode == 0
    before = identities(kernel, "program"), identities(kernel, "map"), kernel.report.read_text()
    source = tmp_path / f"{name}.bpf.c"
    source.write_text(text)
    bad = compiled(source, tmp_path)
    said = kernel.policy(str(bad))
    assert said.returncode == 1
    assert str(bad) in said.stderr and reason in said.stderr and STAYS in said.stderr, said.stderr
    assert (identities(kernel, "program"), identities(kernel, "map"), kernel.report.read_text()) == before
    assert [path.name for path in kernel.policies.iterdir()] == [good.name]
    assert kernel.choose(kernel.tree.mount)["cgroup_id"] == units[1].cgroup_id


def test_files_that_are_no_policies_are_refused(kernel: Kernel, tmp_path: Path) -> None:
    good = written(tmp_path, "good", "return candidate ? OOMSLICE_POLICY_SKIP : 0;")
    whole = good.read_bytes()
    assert kernel.policy(str(tmp_path / "none.o")).returncode == 1
    assert kernel.policy("/etc/passwd").returncode == 1
    assert kernel.policy(str(tmp_path)).returncode == 1
    for size in range(0, len(whole), 397):
        good.write_bytes(whole[:size])
        said = kernel.policy(str(good))
        assert said.returncode == 1 and STAYS in said.stderr, said
    # Each byte of the header, and of what it leads to, may be anything; no answer is a crash.
    for offset in [*range(4, 64, 2), *range(len(whole) - 1000, len(whole), 29)]:
        good.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0xFF]) + whole[offset + 1 :])
        assert kernel.policy(str(good)).returncode in (0, 1), offset
    stripped = subprocess.run(["llvm-objcopy", "--remove-section=.BTF", good, good], check=False)
    if stripped.returncode == 0:
        assert kernel.policy(str(good)).returncode == 1


def test_a_kept_policy_that_is_refused_leaves_the_programs_without_one(kernel: Kernel, tmp_path: Path) -> None:
    low, wanted = kernel.unit("low.service", -5), kernel.unit("wanted.service", 7)
    good = written(tmp_path, "counts", COUNTS, COUNTER)
    assert kernel.policy(str(good)).returncode == 0
    # As if another kernel's verifier had another opinion.
    kept = kernel.policies / good.name
    text, _ = BAD["memory"]
    source = tmp_path / "memory.bpf.c"
    source.write_text(text)
    kept.write_bytes(compiled(source, tmp_path).read_bytes())
    assert kernel.load() == "choice: active"
    said = kernel.status()["policy"]
    assert (said["name"], said["active"], said["carriers"]) == (good.name, False, [])
    assert said["why"].startswith("loading choice: Permission denied; the verifier says: R1 invalid mem access")
    assert kernel.policy().stdout == f"{good.name}: not in force: {said['why']}\n"
    assert f"policy {good.name}: not in force: " in kernel.said
    kernel.follow([low, wanted], 1)
    assert kernel.choose(kernel.tree.mount)["cgroup_id"] == low.cgroup_id
    # What others than root can write is not loaded into the kernel; and of two none is.
    kept.write_bytes(good.read_bytes())
    kept.chmod(0o666)
    kernel.load()
    assert kernel.status()["policy"]["why"] == f"{kept} can be written by others than root"
    kept.chmod(0o644)
    (kernel.policies / "second.o").write_bytes(good.read_bytes())
    kernel.load()
    assert kernel.status()["policy"]["why"] == f"there is more than one file in {kernel.policies}"
    (kernel.policies / "second.o").unlink()
    kernel.load()
    assert kernel.status()["policy"]["active"]


def test_programs_that_cannot_be_exchanged_are_said_to_run_no_more(kernel: Kernel, tmp_path: Path) -> None:
    policy = written(tmp_path, "counts", COUNTS, COUNTER)
    pin = kernel.pins / "choice" / "program-who"
    pin.unlink()
    pin.mkdir()
    said = kernel.policy(str(policy))
    assert said.returncode == 1
    assert f"{policy.name}: choice: removing what is pinned in {pin.parent}: " in said.stderr
    assert "No policy is in force" in said.stderr
    status = kernel.status()
    assert (status["policy"]["name"], status["policy"]["active"]) == (policy.name, False)
    assert "choice\tinactive\tremoving what is pinned in " in kernel.report.read_text()
    assert not kernel.policies.exists()
    pin.rmdir()
    assert kernel.load() == "choice: active"
    assert kernel.status()["policy"] is None


def test_no_program_is_left_over_after_many_policies(kernel: Kernel, tmp_path: Path) -> None:
    # Others may load programs on this kernel meanwhile; a program that is left over holds the maps of its policy.
    name = f"asked{os.getpid()}"
    counts = written(tmp_path, "counts", COUNTS.replace("asked", name), COUNTER.replace("asked", name))
    example = compiled(EXAMPLE, tmp_path)

    def left() -> int:
        return sum(one.get("name") == name for one in bpftool("map", "show"))

    for _ in range(10):
        assert kernel.policy(str(counts)).returncode == 0
        assert kernel.policy(str(example)).returncode == 0
    assert kernel.policy(str(counts)).returncode == 0
    assert left() >= 1
    assert kernel.policy("--remove").returncode == 0
    assert becomes(lambda: left() == 0)


def test_the_policy_is_linked_into_each_program_that_chooses(build: Path, tmp_path: Path) -> None:
    """For those that this machine's kernel does not let in: by the same linker, as bpftool calls it."""
    policy = written(tmp_path, "counts", COUNTS, COUNTER, license="Dual BSD/GPL")
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    for carrier in ("choice", "prekill", "oom_ops_cgroup", "oom_ops_link"):
        target = tmp_path / f"{carrier}.o"
        subprocess.run(
            ["bpftool", "gen", "object", target, build / f"{carrier}.bpf.o", policy], check=True, env=environment
        )
        symbols = subprocess.run(["readelf", "-sW", target], check=True, capture_output=True, text=True).stdout
        [function] = [line.split() for line in symbols.splitlines() if line.endswith(" oomslice_policy")]
        assert function[3:5] == ["FUNC", "GLOBAL"]
        # Ours is 0 at the beginning of its section.
        assert int(function[1], 16) > 0 and int(function[2]) > 32
    types = bpftool("btf", "dump", "file", build / "prekill.bpf.o")["types"]
    # Programs that take the place of others count anew how many victims are dying (reuse.c).
    assert {"in_flight", "flights"} <= {item.get("name") for item in types if item["kind"] == "VAR"}
