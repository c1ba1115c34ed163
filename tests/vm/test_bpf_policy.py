# SPDX-License-Identifier: LGPL-2.1-or-later
"""A BPF policy of the administrator in all programs that choose: in the answers of `choose`, and in the kills of
prekill while nothing else of oomslice runs. What is refused and what is kept is tested in tests/core, on any kernel."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.bpf_policies import COUNTER, COUNTS, EXAMPLE, compiled, written

from .lab import Lab
from .test_bpf import OOMSLICE_BPF, carriers, listed
from .test_bpf_choice import choose, three, wait_chosen
from .test_prekill import MACHINE, armed, assert_prekilled, nobody_else, prekill, run_out, wait_emptied

__all__ = ["armed"]

KEPT = "/etc/oomslice/bpf-policy"
SERVICE = "oomslice-bpf.service"


@pytest.fixture
def choosers(lab: Lab) -> Iterator[list[str]]:
    """Names of the programs here that ask a policy; none is in force before and after."""
    assert json.loads(lab.machine.check(f"{OOMSLICE_BPF} status --json"))["policy"] is None
    yield ["choice", *(["prekill"] if prekill(lab)["active"] else [])]
    lab.machine.check(f"{OOMSLICE_BPF} policy --remove; rm -f /run/*.o", timeout=300)


def put(lab: Lab, policy: Path) -> str:
    """Puts it in force; what was said."""
    lab.machine.put(f"/run/{policy.name}", policy.read_bytes())
    return lab.machine.check(f"{OOMSLICE_BPF} policy /run/{policy.name}", timeout=300)


def wait_told(lab: Lab, carrier: str, text: str, key: str = "Detail") -> None:
    lab.machine.wait_for(f"the bus says of {carrier}: {text}", lambda: text in carriers(lab)[carrier][key], 30, 0.3)


def asked(lab: Lab) -> int:
    """What the policy of COUNTS has in its map."""
    said = lab.machine.check("bpftool --json map lookup pinned /run/oomslice/bpf/policy/map-asked key 0 0 0 0")
    return int.from_bytes(bytes(int(byte, 16) for byte in json.loads(said)["value"]), "little")


@pytest.mark.both_kernels
def test_the_example_has_a_say_in_every_program_that_chooses(lab: Lab, choosers: list[str], tmp_path: Path) -> None:
    three(lab)
    wait_chosen(lab, "/test.slice/least.service")
    name = "skip-small.bpf.c.o"
    assert put(lab, compiled(EXAMPLE, tmp_path)) == f"{name}: in force in {' '.join(choosers)}\n"
    # 16 MiB unless told otherwise. The plan is still there.
    answer = choose(lab, "/test.slice")
    assert (answer["path"], answer["skipped"], answer["eligible"]) == ("/test.slice/large.service", 1, 3)
    smallest = "/run/oomslice/bpf/policy/map-smallest"
    lab.machine.check(f"bpftool map update pinned {smallest} key 0 0 0 0 value 0 0 0 4 0 0 0 0")
    answer = choose(lab, "/test.slice")
    assert (answer["result"], answer["skipped"]) == ("nobody", 3)
    # Whoever puts it in force, what is pinned is for the same readers.
    assert set(lab.machine.check("find /run/oomslice/bpf/*/* -printf '%g\\n'").split()) == {"oomslice"}
    for program in choosers:
        wait_told(lab, f"bpf-{program}", f"; it asks the policy {name}")
    assert carriers(lab)["bpf-choice"]["Active"]
    status = json.loads(lab.machine.check(f"{OOMSLICE_BPF} status --json"))["policy"]
    assert (status["name"], status["active"], status["carriers"]) == (name, True, choosers)
    lab.machine.check(f"{OOMSLICE_BPF} policy --remove", timeout=300)
    assert choose(lab, "/test.slice")["path"] == "/test.slice/least.service"
    lab.machine.wait_for("the bus knows", lambda: "policy" not in str(carriers(lab)), 30, 0.3)


@pytest.mark.both_kernels
def test_the_service_keeps_it_and_says_so_if_it_cannot(lab: Lab, choosers: list[str], tmp_path: Path) -> None:
    three(lab)
    wait_chosen(lab, "/test.slice/least.service")
    body = "return candidate && candidate->usage > (20 << 20) && candidate->usage < (50 << 20) ? 2 : 0;"
    policy = written(tmp_path, "kill", body)
    put(lab, policy)
    for verb in ("reload", "restart"):
        lab.machine.check(f"systemctl {verb} {SERVICE}", timeout=300)
        assert wait_chosen(lab, "/test.slice/small.service")["by_policy"]
        assert lab.machine.check(f"{OOMSLICE_BPF} policy").startswith(
            f"{policy.name}: in force in {' '.join(choosers)} "
        )
    assert lab.machine.check(f"stat -c '%a %U' {KEPT} {KEPT}/{policy.name}").split() == ["755", "root", "644", "root"]
    # As if the verifier of another kernel had another opinion.
    bad = written(tmp_path, "bad", "return *(volatile int *)candidate->cgroup_id;")
    lab.machine.put(f"{KEPT}/{policy.name}", bad.read_bytes())
    lab.machine.check(f"systemctl reload {SERVICE}", timeout=300)
    assert not wait_chosen(lab, "/test.slice/least.service")["by_policy"]
    said = lab.machine.check(f"{OOMSLICE_BPF} policy")
    assert said.startswith(f"{policy.name}: not in force: loading choice: ") and "the verifier says: " in said
    for program in choosers:
        wait_told(lab, f"bpf-{program}", f"the policy {policy.name} is not in force: ", "LastError")
        assert carriers(lab)[f"bpf-{program}"]["Active"]
    journal = lab.machine.check(f"journalctl -b -p warning -o cat -u {SERVICE}")
    assert f"policy {policy.name}: not in force: loading choice: " in journal


@pytest.fixture
def jailed(armed: Lab, choosers: list[str]) -> Lab:
    """A slice at its limit when told to go: by the plan `cheap` would die for it."""
    lab = armed
    lab.write("/etc/systemd/system/jail.slice", "[Slice]\nMemoryMax=200M\nMemorySwapMax=0\n")
    lab.daemon_reload()
    for unit, priority in (("cheap", -300), ("wanted", 7), ("dear", 300)):
        lab.drop_in(f"{unit}.service", f"Priority={priority}")
    lab.start_service("cheap", 40, slice="jail.slice")
    lab.start_service("wanted", 40, slice="jail.slice")
    lab.start_hog("dear", rate=60, max_mb=145, slice="jail.slice", wait_for="go")
    lab.wait_planned(cheap=-300, wanted=7, dear=300)
    return lab


@pytest.mark.both_kernels
def test_prekill_takes_whom_the_policy_wants_at_a_limit_while_nothing_else_runs(
    jailed: Lab, choosers: list[str], tmp_path: Path
) -> None:
    lab = jailed
    wait_chosen(lab, "/jail.slice/cheap.service", "/jail.slice")
    put(lab, written(tmp_path, "counts", COUNTS, COUNTER))
    before = asked(lab)
    with nobody_else(lab):
        lab.go()
        wait_emptied(lab, "wanted", "jail.slice")
    decision = assert_prekilled(lab, "wanted", "jail.slice", ("memory-limit",))
    assert (decision["victim_priority"], decision["extra"]["policy"]) == (7, "kill")
    assert "your BPF policy wanted it first" in lab.machine.check(f"oomslicectl show {decision['id']}")
    assert lab.victims() == ["wanted.service"]
    assert lab.machine.active("cheap") and lab.machine.active("dear")
    # One map for all programs: what prekill was asked is counted there, and what choice is comes on top of it, once.
    counted = asked(lab)
    assert counted >= before + 3
    eligible = choose(lab, "/jail.slice")["eligible"]
    assert asked(lab) == counted + eligible == counted + 2


@pytest.mark.both_kernels
def test_prekill_skips_whom_the_policy_skips_for_the_machine(armed: Lab, choosers: list[str], tmp_path: Path) -> None:
    lab = armed
    lab.drop_in("spared.service", "Priority=-300")
    lab.drop_in("batch.service", "Priority=-100")
    lab.drop_in("dear.service", "Priority=300")
    lab.start_service("spared", 100)
    lab.start_service("batch", 150)
    lab.start_hog("dear", rate=100, max_mb=lab.machine.available_mb() + 40, ahead=160, wait_for="go")
    lab.wait_planned(spared=-300, batch=-100, dear=300)
    put(lab, written(tmp_path, "spares", "return candidate && candidate->priority == -300 ? 1 : 0;"))
    run_out(lab, "batch")
    decision = assert_prekilled(lab, "batch", "-.slice", MACHINE)
    assert decision["victim_priority"] == -100
    assert json.loads(lab.machine.check(f"{OOMSLICE_BPF} status --json"))["policy"]["hits"] >= 1
    assert lab.victims() == ["batch.service"]
    assert lab.lives("spared") and lab.machine.active("dear")


ONCE = {"prog": {"judge_limit": 1, "wait_limit_1": 1, "who": 1}, "map": {"slices": 1, "flights": 1, "policy_hits": 1}}
"""How often these names are in the kernel, without a policy."""


def in_kernel(lab: Lab) -> dict[str, dict[str, int]]:
    """The names of ONCE as they are now, and those of the policy's maps if there are any."""
    found: dict[str, dict[str, int]] = {}
    for kind, names in ONCE.items():
        counted = Counter(one.get("name") for one in listed(lab, kind))
        found[kind] = {name: counted[name] for name in [*names, "asked"] if counted[name]}
    return found


@pytest.mark.both_kernels
def test_policies_come_and_go_while_a_slice_is_at_its_limit(armed: Lab, choosers: list[str], tmp_path: Path) -> None:
    """Programs are exchanged while they are in use: nobody is killed for that, and nothing is left in the kernel."""
    lab = armed
    policy = written(tmp_path, "counts", COUNTS, COUNTER)
    put(lab, policy)
    lab.machine.check(f"{OOMSLICE_BPF} policy --remove", timeout=300)
    lab.write("/etc/systemd/system/tight.slice", "[Slice]\nMemoryMax=60M\nMemorySwapMax=0\n")
    lab.daemon_reload()
    reads = "truncate -s 200M /var/tmp/mine; while :; do cat /var/tmp/mine >/dev/null; done"
    lab.start("reader", f"/bin/sh -c '{reads}'", slice="tight.slice")
    for _ in range(2):
        lab.machine.check(f"{OOMSLICE_BPF} policy /run/{policy.name} && {OOMSLICE_BPF} policy --remove", timeout=300)
    # The kernel lets go of what nobody has any more in its own time.
    lab.machine.wait_for("each is there once", lambda: in_kernel(lab) == ONCE, 60, 0.5)
    assert lab.machine.active("reader")
    assert (lab.victims(), lab.kernel_killed()) == ([], 0)
    lab.machine.check("systemctl stop reader.service; rm -f /var/tmp/mine")
