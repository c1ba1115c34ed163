# SPDX-License-Identifier: LGPL-2.1-or-later
"""What doctor finds on machines that are well, and on such as are not: each with the right verdict and advice."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from oomslice import __version__
from oomslice.cli import doctor
from oomslice.cli.checkup import daemon, kernel, killers, memory, services
from oomslice.cli.checkup.finding import Files, Finding, Verdict
from oomslice.cli.failure import CommandFailure, Exit
from oomslice.cli.main import main
from oomslice.cli.text import Terminal, display_width
from oomslice.daemon.planner import OTHER_DAEMONS
from tests.unit.test_cli_render import STATE

MEMINFO = "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nSwapTotal: 1048576 kB\nSwapFree: 1048576 kB\n"
HEALTHY = {
    "proc/sys/kernel/osrelease": "6.12.0-test\n",
    "proc/meminfo": MEMINFO,
    "proc/swaps": "Filename Type Size Used Priority\n/dev/zram0 partition 1048576 0 100\n",
    "proc/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n",
    "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "proc/sys/vm/overcommit_memory": "0\n",
    "proc/sys/vm/oom_kill_allocating_task": "0\n",
    "proc/sys/vm/panic_on_oom": "0\n",
    "proc/sys/vm/swappiness": "60\n",
    "proc/sys/vm/min_free_kbytes": "11584\n",
    "proc/11/comm": "oomslice-core\n",
    "proc/11/status": "Name:\toomslice-core\nNoNewPrivs:\t1\nSeccomp:\t2\n",
    "proc/11/oom_score_adj": "-1000\n",
    "proc/12/comm": "oomsliced\n",
    "proc/12/status": "Name:\toomsliced\nNoNewPrivs:\t1\nSeccomp:\t2\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/kernel/mm/lru_gen/min_ttl_ms": "0\n",
    "sys/kernel/btf/vmlinux": "\0task_struct\0bpf_oom_ops\0",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    "sys/fs/cgroup/cgroup.subtree_control": "cpu io memory pids\n",
    **{f"sys/fs/cgroup/init.scope/{name}": "" for name, *_ in kernel.CGROUP_FILES},
}
RUNNING = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "MainPID": "0", "NRestarts": "0"}
UNLIMITED = dict.fromkeys(services.LIMITS, "infinity")
UNITS: Mapping[str, Mapping[str, str]] = {
    "oomslice-core.service": {
        **RUNNING,
        **UNLIMITED,
        "MainPID": "11",
        "UnitFileState": "enabled",
        "ControlGroup": "/oomslice.slice/oomslice-core.service",
        "MemoryMin": "16777216",
    },
    "oomsliced.service": {**RUNNING, **UNLIMITED, "MainPID": "12", "UnitFileState": "enabled", "MemoryMin": "33554432"},
    "oomslice-actions.socket": {**RUNNING, "SubState": "listening"},
    "oomslice.slice": {**RUNNING, **UNLIMITED, "MemoryMin": "83886080"},
}
STATUS: dict[str, Any] = {
    "version": __version__,
    "state": {**STATE, "CoreFeaturesMissing": [], "OtherDaemons": [], "CoreDecisionsDropped": 0, "PlanError": ""},
    "carriers": [{"Name": "core", "Active": True, "Acts": True, "Detail": "armed"}],
    "configuration_errors": [],
}

Machine = Callable[..., Files]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A healthy machine's files, with changes: None takes a file away."""

    def made(changes: Mapping[str, str | None] | None = None) -> Files:
        for name, text in {**HEALTHY, **(changes or {})}.items():
            if text is not None:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text(text, encoding="ascii")
        return Files(tmp_path)

    return made


def has_mrelease() -> int:
    return errno.EBADF


def asked(units: Mapping[str, Mapping[str, str]]) -> services.Show:
    def show(names: Sequence[str], properties: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        return {name: units[name] for name in names if name in units}

    return show


def everything(files: Files) -> list[Finding]:
    return [
        *kernel.findings(files, has_mrelease),
        *memory.findings(files),
        *services.findings(files, asked(UNITS)),
        *killers.findings(files),
        *daemon.findings(STATUS, __version__),
    ]


def the(findings: Sequence[Finding], name: str) -> Finding:
    """The one finding of that name."""
    (found,) = [finding for finding in findings if finding.name == name]
    return found


def test_a_healthy_machine_has_nothing_to_mend(machine: Machine) -> None:
    found = everything(machine())
    assert [finding for finding in found if finding.verdict is not Verdict.OK] == []
    assert [finding for finding in found if finding.advice] == []
    assert doctor.render(found, Terminal(), quiet=True) == f"{len(found)} things looked at: all is well."


@pytest.mark.parametrize(
    ("changes", "name", "verdict", "found", "advice"),
    [
        ({"sys/fs/cgroup/cgroup.controllers": None}, "cgroup v2", "problem", "not mounted", "unified_cgroup_hierarchy"),
        ({"sys/fs/cgroup/cgroup.controllers": "cpu\n"}, "memory controller", "problem", "cpu", "cgroup_disable"),
        ({"sys/fs/cgroup/cgroup.subtree_control": "cpu\n"}, "memory controller", "problem", "slices", "Accounting"),
        (
            {"proc/mounts": "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"},
            "cgroup v1",
            "problem",
            "/sys/fs/cgroup/memory",
            "systemd.unified",
        ),
        ({"sys/fs/cgroup/init.scope/cgroup.kill": None}, "cgroup.kill", "note", "one by one", "5.14"),
        ({"sys/fs/cgroup/init.scope/memory.pressure": None}, "memory.pressure", "problem", "PressureTrigger", "psi=1"),
        ({"proc/pressure/memory": None}, "PSI", "problem", "none", "CONFIG_PSI"),
        ({"sys/kernel/btf/vmlinux": None}, "BPF", "note", "cannot be loaded", "BTF"),
        (
            {"sys/kernel/security/lockdown": "none integrity [confidentiality]\n"},
            "BPF",
            "note",
            "may read its memory",
            "lockdown=integrity",
        ),
        ({"proc/meminfo": "MemTotal: 8 kB\n"}, "memory", "problem", "MemAvailable", "/proc"),
        ({"proc/meminfo": MEMINFO.replace("1048576", "0")}, "swap", "note", "none", "zram"),
        ({"proc/meminfo": MEMINFO.replace("Free: 1048576", "Free: 100")}, "swap", "note", "nearly full", "top"),
        ({"proc/sys/vm/overcommit_memory": "2\n"}, "vm.overcommit_memory", "note", "refused", "=0"),
        ({"proc/sys/vm/oom_kill_allocating_task": "1\n"}, "vm.oom_kill_allocating_task", "problem", "priority", "=0"),
        ({"proc/sys/vm/panic_on_oom": "1\n"}, "vm.panic_on_oom", "note", "panics", "=0"),
        ({"proc/sys/vm/panic_on_oom": "2\n"}, "vm.panic_on_oom", "problem", "one cgroup", "=0"),
        ({"proc/sys/vm/swappiness": "0\n"}, "vm.swappiness", "note", "no file page left", "=60"),
        ({"proc/sys/vm/min_free_kbytes": "1048576\n"}, "vm.min_free_kbytes", "note", "never be used", "=11585"),
        ({"proc/sys/vm/min_free_kbytes": "1024\n"}, "vm.min_free_kbytes", "note", "little is left", "=11585"),
        (
            {"sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never\n"},
            "transparent huge pages",
            "note",
            "2 MiB",
            "madvise",
        ),
        ({"sys/kernel/mm/lru_gen/min_ttl_ms": "1000\n"}, "lru_gen/min_ttl_ms", "note", "1000 ms", "echo 0"),
        ({"proc/12/status": "NoNewPrivs:\t1\nSeccomp:\t0\n"}, "sandbox of oomsliced.service", "note", "filter", "cat"),
        ({"proc/11/oom_score_adj": "0\n"}, "oom_score_adj of the core", "problem", "kernel may kill", "OOMScoreAdjust"),
        ({"proc/40/comm": "earlyoom\n"}, "earlyoom", "problem", "priorities", "disable --now earlyoom.service"),
        ({"proc/40/comm": "systemd-oomd\n"}, "systemd-oomd", "note", "left to it", "mask"),
    ],
)
def test_what_is_wrong_with_a_machine_is_found_with_what_to_do(
    machine: Machine, changes: Mapping[str, str | None], name: str, verdict: str, found: str, advice: str
) -> None:
    finding = the(everything(machine(changes)), name)
    assert finding.verdict.value == verdict
    assert found in finding.found
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("unit", "changes", "name", "verdict", "advice"),
    [
        ("oomsliced.service", {"LoadState": "not-found"}, "oomsliced.service", "problem", "apt install"),
        ("oomsliced.service", {"ActiveState": "failed"}, "oomsliced.service", "problem", "journalctl"),
        ("oomsliced.service", {"NRestarts": "2"}, "oomsliced.service", "note", "journalctl"),
        ("oomsliced.service", {"UnitFileState": "disabled"}, "oomsliced.service", "note", "systemctl enable"),
        ("oomsliced.service", {"NeedDaemonReload": "yes"}, "oomsliced.service", "note", "daemon-reload"),
        ("oomsliced.service", {"MemoryMax": "1048576"}, "MemoryMax= of oomsliced.service", "problem", "remove it"),
        ("oomslice.slice", {"MemoryHigh": "1048576"}, "MemoryHigh= of oomslice.slice", "problem", "remove it"),
        ("oomslice.slice", {"MemoryMin": "0"}, "protected memory", "problem", "systemctl revert oomslice.slice"),
        (
            "oomslice-core.service",
            {"ControlGroup": "/system.slice/oomslice-core.service"},
            "slice of the core",
            "problem",
            "remove Slice=",
        ),
    ],
)
def test_what_is_wrong_with_our_services_is_found(
    machine: Machine, unit: str, changes: Mapping[str, str], name: str, verdict: str, advice: str
) -> None:
    units = {**UNITS, unit: {**UNITS[unit], **changes}}
    finding = the(list(services.findings(machine(), asked(units))), name)
    assert finding.verdict.value == verdict
    assert advice in finding.advice


def test_a_machine_without_systemd_is_one_problem(machine: Machine) -> None:
    def silent(names: Sequence[str], properties: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        raise OSError("no \033[31msystemd")

    (finding,) = services.findings(machine(), silent)
    assert finding.verdict is Verdict.PROBLEM
    assert "no \\x1b[31msystemd" in finding.found


def test_a_kernel_without_mrelease_is_noted(machine: Machine) -> None:
    finding = the(list(kernel.findings(machine(), lambda: errno.ENOSYS)), "process_mrelease")
    assert (finding.verdict, finding.advice) == (Verdict.NOTE, "needs Linux 5.15")


@pytest.mark.parametrize(
    ("changes", "name", "verdict"),
    [
        ({"version": "0.0.1"}, "version", "note"),
        ({"state": {**STATUS["state"], "Armed": False}}, "core", "problem"),
        ({"state": {**STATUS["state"], "Armed": False, "CoreConnected": False}}, "core", "problem"),
        ({"state": {**STATUS["state"], "PlanError": "refused"}}, "plan", "problem"),
        ({"state": {**STATUS["state"], "Candidates": 0}}, "candidates", "problem"),
        ({"state": {**STATUS["state"], "CoreFeaturesMissing": ["locked"]}}, "core without locked", "problem"),
        ({"state": {**STATUS["state"], "CoreFeaturesMissing": ["mrelease"]}}, "core without mrelease", "note"),
        ({"state": {**STATUS["state"], "CoreFeaturesMissing": ["pulse"]}}, "core without pulse", "note"),
        ({"state": {**STATUS["state"], "SignalsDropped": 3}}, "signals on the bus", "note"),
        ({"carriers": [{"Name": "bpf", "Active": False, "Detail": "no BPF"}]}, "carrier bpf", "note"),
        ({"carriers": [{"Name": "bpf", "Active": True, "LastError": "x"}]}, "carrier bpf, last error", "note"),
        ({"carriers": [{"Name": "systemd-oomd", "Active": False, "LastError": "x"}]}, "carrier systemd-oomd", "note"),
        ({"configuration_errors": [{}, {}]}, "configuration", "problem"),
    ],
)
def test_what_the_daemon_says_is_judged(changes: Mapping[str, Any], name: str, verdict: str) -> None:
    finding = the(list(daemon.findings({**STATUS, **changes}, __version__)), name)
    assert finding.verdict.value == verdict
    assert finding.advice


def test_a_systemd_oomd_that_does_not_run_is_nothing_to_mend() -> None:
    idle = {"Name": "systemd-oomd", "Active": False, "Detail": "it does not run"}
    found = list(daemon.findings({**STATUS, "carriers": [*STATUS["carriers"], idle]}, __version__))
    assert [finding for finding in found if "oomd" in finding.name] == []
    found = list(daemon.findings({**STATUS, "carriers": [{**idle, "Active": True}]}, __version__))
    assert the(found, "carrier systemd-oomd").verdict is Verdict.OK


def test_all_killers_that_the_daemon_names_are_looked_for() -> None:
    assert {name for name in OTHER_DAEMONS if "desktop" not in name} <= set(killers.DAEMONS.values())
    assert all(len(name) <= 15 for name in killers.DAEMONS)


def test_json_has_every_check_and_the_exit_code_follows_the_problems(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = everything(machine())
    monkeypatch.setattr(doctor, "examine", lambda: found)
    assert main(["doctor", "--json"]) == Exit.OK
    data = json.loads(capsys.readouterr().out)
    assert (data["version"], data["problems"], data["notes"]) == (__version__, 0, 0)
    assert [check["name"] for check in data["checks"]] == [finding.name for finding in found]
    found.append(Finding("memory", "swap", Verdict.PROBLEM, "gone", "get some"))
    assert main(["doctor"]) == Exit.FAILED
    assert "get some" in capsys.readouterr().out


def test_a_daemon_that_does_not_answer_is_a_problem_among_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent() -> dict[str, Any]:
        raise CommandFailure("oomsliced is not running", Exit.NOT_RUNNING, "first\nsecond")

    monkeypatch.setattr(doctor, "ask_daemon", silent)
    found = doctor.examine()
    assert the(found, "oomsliced").advice == "first; second"
    assert {"kernel", "memory", "services", "other killers", "oomslice"} == {finding.group for finding in found}


@pytest.mark.parametrize("width", [80, 200])
def test_lines_fit_the_terminal(machine: Machine, width: int) -> None:
    found = everything(machine({"proc/meminfo": MEMINFO.replace("1048576", "0"), "proc/40/comm": "systemd-oomd\n"}))
    text = doctor.render(found, Terminal(width=width))
    assert max(display_width(line) for line in text.splitlines()) <= width
    assert "\n".join(line for line in text.splitlines() if "✓" in line or "!" in line).count("\n") == len(found) - 1
