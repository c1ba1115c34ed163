# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's own kills: its log lines, the counters, and the account of both over restarts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomslice.decisions import ledger as ledger_module
from oomslice.decisions import whose as whose_module
from oomslice.decisions.kernel import KernelKills, counted_units
from oomslice.decisions.kmsg import Kill, KillParser, Record, parse_record
from oomslice.decisions.ledger import EXPLAIN_S, SETTLE_S, KillLedger, parse_oom_kills
from oomslice.decisions.record import Decision
from oomslice.decisions.store import DecisionStore
from oomslice.decisions.whose import CountedUnit
from oomslice.errors import StoreError
from oomslice.policy.model import Policy, PolicyUnit
from oomslice.settings.model import MachineTriggers

BOOT = "0123456789abcdef0123456789abcdef"

GLOBAL = (
    "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
    "task_memcg=/low.slice/hog.service,task=hog,pid=71,uid=0"
)
GLOBAL_KILLED = (
    "Out of memory: Killed process 71 (hog) total-vm:2048kB, anon-rss:1024kB, file-rss:8kB, shmem-rss:4kB, UID:0"
    " pgtables:40kB oom_score_adj:0"
)
LIMIT = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/low.slice,"
    "task_memcg=/low.slice/hog.service/sub,task=hog,pid=72,uid=1000"
)


def killed(pid: int, task: str = "hog", anonymous: int = 1024) -> str:
    return (
        f"Memory cgroup out of memory: Killed process {pid} ({task}) total-vm:9kB, anon-rss:{anonymous}kB,"
        f" file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:40kB oom_score_adj:-5"
    )


def kills(*lines: str, usec: Sequence[int] | None = None) -> list[Kill]:
    parser = KillParser()
    for number, line in enumerate(lines):
        parser.add(Record(100 + number, usec[number] if usec else 10 * number, line))
    return list(parser.take(all_complete=True))


def test_a_record_has_sequence_time_and_text() -> None:
    data = b"3,339,5140900,-;NET: Registered \\x5c protocol\\xc3\\xa4\n SUBSYSTEM=x\n DEVICE=y\n"
    assert parse_record(data) == Record(339, 5140900, "NET: Registered \\ protocolä")
    assert parse_record(b"6,1,2,-,caller=T1,more;text\n") == Record(1, 2, "text")


@pytest.mark.parametrize(
    "data", [b"", b"x", b"1,2;x", b"a,b,c,-;x", b"6,1,2,-", b"12,5,6,-;Out of memory: Killed process 1 (x)"]
)
def test_what_the_kernel_did_not_write_is_ignored(data: bytes) -> None:
    assert parse_record(data) is None


def test_a_kill_for_lack_of_memory_of_the_machine() -> None:
    (kill,) = kills("some driver", GLOBAL, "Mem-Info:", GLOBAL_KILLED)
    assert (kill.sequence, kill.usec, kill.last_usec) == (101, 10, 30)
    assert (kill.memcg, kill.constraint, kill.oom_memcg) == (False, "CONSTRAINT_NONE", "")
    assert kill.task_memcg == "/low.slice/hog.service"
    process = kill.processes[71]
    assert (process.task, process.uid, process.score_adjustment) == ("hog", 0, 0)
    assert (process.anonymous, process.file, process.shared) == (1 << 20, 8192, 4096)


def test_a_kill_at_a_limit() -> None:
    (kill,) = kills(LIMIT, killed(72))
    assert (kill.memcg, kill.oom_memcg, kill.task_memcg) == (True, "/low.slice", "/low.slice/hog.service/sub")
    assert kill.processes[72].score_adjustment == -5


def test_a_group_is_one_kill_and_its_first_process_counts_once() -> None:
    (kill,) = kills(
        LIMIT,
        killed(72, anonymous=100),
        "Tasks in /low.slice/hog.service are going to be killed due to memory.oom.group set",
        killed(72, anonymous=0),
        "unrelated",
        killed(73, "child", 50),
    )
    assert kill.group == "/low.slice/hog.service" and kill.lines == 3
    assert {pid: item.anonymous for pid, item in kill.processes.items()} == {72: 102400, 73: 51200}


def test_kills_without_a_summary_are_kills() -> None:
    first, second = kills(LIMIT, killed(72), killed(80), usec=(0, 1, 2))
    assert first.task_memcg and not second.task_memcg
    assert list(second.processes) == [80] and second.memcg


def test_a_kill_long_after_a_group_is_another() -> None:
    group = "Tasks in /a are going to be killed due to memory.oom.group set"
    assert len(kills(killed(1), group, killed(2), killed(3), usec=(0, 1, 2, 3_000_000))) == 2


def test_a_summary_of_another_process_is_not_used() -> None:
    (kill,) = kills(LIMIT, killed(99))
    assert kill.task_memcg == "" and kill.sequence == 101


def test_a_summary_alone_is_no_kill() -> None:
    assert kills(LIMIT) == []


def test_older_kernels_lines() -> None:
    (kill,) = kills("Memory cgroup out of memory: Killed process 5 (x) total-vm:9kB, anon-rss:8kB, file-rss:0kB")
    assert kill.processes[5].anonymous == 8192 and kill.processes[5].uid is None


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (",task=x", "/a/b.service"),
        ("a,pid=1,uid=0", "/a/b.service"),
        (") total-vm:1kB", "/a/b.service"),
        ("", "/a/b.service"),
        ("x", "/a/odd,name=1.service"),
        ("x", "/a/b.service,task=looooooooooooooong/c"),
    ],
)
def test_odd_names_are_taken_apart_rightly(name: str, path: str) -> None:
    summary = (
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
        f"task_memcg={path},task={name},pid=7,uid=0"
    )
    (kill,) = kills(summary, GLOBAL_KILLED.replace("71 (hog)", f"7 ({name})"))
    assert kill.task_memcg == path and kill.processes[7].task == name


@given(st.lists(st.one_of(st.text(), st.sampled_from([GLOBAL, GLOBAL_KILLED, LIMIT, killed(72)]))))
def test_no_text_makes_the_parser_fail(lines: list[str]) -> None:
    made = kills(*lines)
    assert sum(kill.lines for kill in made) == sum(line in (GLOBAL_KILLED, killed(72)) for line in lines)


@given(st.binary())
def test_no_bytes_make_the_record_parser_fail(data: bytes) -> None:
    record = parse_record(data)
    assert record is None or record.text == record.text.split("\n")[0]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b"low 0\nhigh 0\nmax 5\noom 2\noom_kill 7\noom_group_kill 1\n", 7),
        (b"", None),
        (b"oom_kill x\n", None),
        (b"oom_kill_disable 1\noom_kill 0\n", 0),
    ],
)
def test_the_counter_is_found(text: bytes, count: int | None) -> None:
    assert parse_oom_kills(text) == count


class Clock:
    """Stands for the module time in the ledger."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def monotonic_ns(self) -> int:
        return int(self.now * 1e9)

    def time_ns(self) -> int:
        return 1_700_000_000_000_000_000 + self.monotonic_ns()


class Machine:
    """A cgroup tree with counters, a kernel log, a store; and ledgers that come and go."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = directory / "cgroup"
        self.clock = Clock()
        monkeypatch.setattr(ledger_module, "time", self.clock)
        monkeypatch.setattr(whose_module, "time", self.clock)
        self.store = DecisionStore(directory / "decisions.sqlite", 1000)
        self.records: list[bytes] = []
        self.log_allowed = True
        self.writers: list[socket.socket] = []
        self.units: dict[int, CountedUnit] = {}
        self.plans: list[tuple[int, Policy]] = []
        for path in ("/low.slice", "/low.slice/hog.service", "/low.slice/other.service", "/high.slice"):
            self.add_unit(path)
        self.ledger = self.start()

    def add_unit(self, path: str) -> int:
        (self.root / path[1:]).mkdir(parents=True)
        (self.root / path[1:] / "memory.events").write_text("oom_kill 0\n")
        id = (self.root / path[1:]).stat().st_ino
        parent_path = path.rpartition("/")[0]
        parent = (self.root / parent_path[1:]).stat().st_ino if parent_path else 0
        self.units[id] = CountedUnit(path.rpartition("/")[2], path, id, -len(path), parent)
        return id

    def remove_unit(self, path: str) -> None:
        del self.units[(self.root / path[1:]).stat().st_ino]
        shutil.rmtree(self.root / path[1:])

    def start(self) -> KillLedger:
        """A daemon starts."""
        machine = self

        class Ledger(KillLedger):
            def _open_log(self) -> None:
                if machine.log_allowed:
                    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                    for record in machine.records:
                        ours.send(record)
                    machine.writers.append(ours)
                    theirs.setblocking(False)
                    self._kmsg = theirs.detach()

        return Ledger(str(self.root), self.store, BOOT, "/nonexistent")

    def restart(self, *, hard: bool = True) -> None:
        if not hard:
            self.ledger.close()
        self.ledger = self.start()

    def count(self, path: str, kills: int = 1) -> None:
        """The kernel counts, for the cgroup and all above it."""
        while path:
            file = self.root / path[1:] / "memory.events"
            file.write_text(f"oom_kill {(parse_oom_kills(file.read_bytes()) or 0) + kills}\n")
            path = path.rpartition("/")[0]

    def log(self, *lines: str) -> None:
        for line in lines:
            sequence = 500 + len(self.records)
            usec = int(self.clock.now * 1e6)
            record = f"6,{sequence},{usec},-;{line}\n".encode()
            self.records.append(record)
            for writer in self.writers:
                with contextlib.suppress(BrokenPipeError):  # that daemon is gone
                    writer.send(record)

    def settle(self, seconds: float = 0.0) -> list[Decision]:
        self.clock.now += seconds
        return self.ledger.settle(dict(self.units), self.plans)[0]

    def plan(self, **priorities: int) -> None:
        """A plan is made, with these services in low.slice, each with its priority."""
        units = [PolicyUnit("-.slice", "/", 1, -1, 0, "default", False)]
        for name, priority in priorities.items():
            path = f"/low.slice/{name}.service"
            id = (self.root / path[1:]).stat().st_ino
            units.append(PolicyUnit(f"{name}.service", path, id, 0, priority, "own", True))
        self.plans.append((self.clock.monotonic_ns() // 1000, Policy(tuple(units), (), MachineTriggers(), 1)))

    def populated(self, path: str, populated: bool = True) -> None:
        (self.root / path[1:] / "cgroup.events").write_text(f"populated {populated:d}\nfrozen 0\n")

    def settle_all(self) -> list[Decision]:
        """Until nothing is open."""
        made: list[Decision] = []
        for _ in range(10):
            decisions, again = self.ledger.settle(dict(self.units), self.plans)
            made += decisions
            if again is None:
                return made
            self.clock.now += again
        raise AssertionError("never settled")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path, monkeypatch)
    made.settle()
    yield made
    made.ledger.close()
    for writer in made.writers:
        writer.close()
    made.store.close()


def hog_dies(machine: Machine) -> None:
    machine.count("/low.slice/hog.service")
    machine.log(GLOBAL, "Mem-Info:", GLOBAL_KILLED)


def test_a_kill_becomes_one_decision_with_unit_process_and_size(machine: Machine) -> None:
    hog_dies(machine)
    assert machine.settle() == []  # may not be complete yet
    (made,) = machine.settle(SETTLE_S)
    assert machine.settle_all() == [] and machine.store.count() == 1
    assert made == machine.store.get(f"{BOOT[:16]}-k500")
    assert (made.carrier, made.trigger, made.outcome) == ("kernel", "kernel-oom", "killed-by-kernel")
    assert (made.domain, made.victim, made.victim_priority) == ("-.slice", "hog.service", -22)
    assert made.victim_cgroup_id == (machine.root / "low.slice/hog.service").stat().st_ino
    assert made.victim_memory_before == (1024 + 8 + 4) * 1024 and made.bytes_freed == 1 << 20
    assert made.pids == (71,) and made.processes == 1
    assert made.trigger_usec == 1_000_000_000 and made.realtime_usec == 1_700_001_000_000_000
    assert made.extra["task"] == "hog" and made.extra["kernel_sequence"] == 500


@pytest.mark.parametrize(
    ("hog", "other", "other_lives", "said"),
    [
        (-5, 0, True, ("as-planned", "", -5)),
        (0, -5, True, ("against-plan", "other.service", 0)),
        (0, -5, False, ("as-planned", "", 0)),
    ],
)
def test_a_kill_is_held_against_the_plan_of_its_time(
    machine: Machine, hog: int, other: int, other_lives: bool, said: tuple[str, str, int]
) -> None:
    machine.populated("/low.slice/other.service", other_lives)
    machine.plan(hog=hog, other=other)
    machine.clock.now += 1
    hog_dies(machine)
    machine.clock.now += 1
    machine.plan(other=other)  # the next one has no such unit any more
    (made,) = machine.settle_all()
    assert (made.agreement, made.planned_victim, made.victim_priority) == said


def test_who_is_killed_later_was_alive_before(machine: Machine) -> None:
    machine.populated("/low.slice/other.service", False)
    machine.plan(hog=0, other=-5)
    machine.clock.now += 1
    hog_dies(machine)
    machine.count("/low.slice/other.service")
    machine.log(GLOBAL.replace("hog.service", "other.service").replace("71", "80"), GLOBAL_KILLED.replace("71", "80"))
    first, second = machine.settle_all()
    assert (first.agreement, first.planned_victim) == ("against-plan", "other.service")
    assert (second.victim, second.agreement) == ("other.service", "as-planned")


def test_without_a_plan_of_its_time_a_kill_is_not_judged(machine: Machine) -> None:
    hog_dies(machine)
    machine.clock.now += 1
    machine.plan(hog=0, other=-5)
    (made,) = machine.settle_all()
    assert made.agreement == "" and made.planned_victim == ""


def test_a_limit_names_its_domain_and_a_subgroup_counts_as_its_unit(machine: Machine) -> None:
    machine.count("/low.slice/hog.service")
    machine.log(LIMIT, killed(72))
    (made,) = machine.settle_all()
    assert (made.domain, made.victim, made.extra["uid"]) == ("low.slice", "hog.service", 1000)


def test_a_unit_that_no_plan_knew_is_named_by_its_path(machine: Machine) -> None:
    machine.count("/low.slice")
    machine.log(LIMIT.replace("hog.service", "new.scope"), killed(72))
    (made,) = machine.settle_all()
    assert made.victim == "new.scope" and made.victim_cgroup_id == 0
    assert made.victim_priority == -len("/low.slice")  # its slice's


def test_a_kill_without_a_summary_is_named_by_the_counter(machine: Machine) -> None:
    machine.count("/low.slice/other.service")
    machine.log(killed(80))
    (made,) = machine.settle_all()
    assert (made.victim, made.domain, made.pids) == ("other.service", "other.service", (80,))


def test_a_counted_kill_waits_for_its_line(machine: Machine) -> None:
    machine.count("/low.slice/hog.service")
    assert machine.settle() == [] and machine.settle(EXPLAIN_S / 2) == []
    machine.log(GLOBAL, GLOBAL_KILLED)
    (made,) = machine.settle_all()
    assert made.extra["source"] == "kernel-log" and machine.store.count() == 1


def test_a_counted_kill_without_a_line_is_told_all_the_same(machine: Machine) -> None:
    machine.count("/low.slice/hog.service", 2)
    assert machine.settle() == []
    (made,) = machine.settle(EXPLAIN_S)
    assert (made.victim, made.processes, made.extra["source"]) == ("hog.service", 2, "memory.events")
    assert machine.settle_all() == [] and machine.store.count() == 1


def test_without_the_log_the_counters_tell_unit_and_number(machine: Machine) -> None:
    machine.ledger.close()
    machine.log_allowed = False
    machine.restart()
    machine.settle()
    assert not machine.ledger.log_readable
    machine.count("/low.slice/hog.service", 3)
    machine.count("/high.slice")
    made = machine.settle()
    assert {item.victim: item.processes for item in made} == {"hog.service": 3, "high.slice": 1}
    assert machine.settle_all() == []
    machine.count("/low.slice/hog.service")
    (again,) = machine.settle()
    assert again.processes == 1 and again.id not in {item.id for item in made}


def test_a_closed_log_is_said_once(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    closed = KillLedger(str(machine.root), machine.store, BOOT, "/nonexistent/kmsg")
    closed.settle(machine.units)
    closed.settle(machine.units)
    assert [record.message for record in caplog.records] == [
        "/nonexistent/kmsg cannot be read (No such file or directory): the kernel's own kills are counted,"
        " but their processes are not known"
    ]


def test_a_unit_that_is_gone_is_counted_for_its_slice(machine: Machine) -> None:
    machine.log_allowed = False
    machine.restart()
    machine.settle()
    machine.count("/low.slice/hog.service")
    machine.remove_unit("/low.slice/hog.service")
    (made,) = machine.settle_all()
    assert made.victim == "low.slice"


def test_what_a_new_topmost_cgroup_counted_before_it_was_known_is_told(machine: Machine) -> None:
    machine.log_allowed = False
    machine.restart()
    machine.settle()
    machine.add_unit("/new.slice")
    machine.count("/new.slice")
    assert [item.victim for item in machine.settle_all()] == ["new.slice"]


def test_a_new_unit_is_not_counted_twice(machine: Machine) -> None:
    machine.log_allowed = False
    machine.restart()
    machine.settle()
    machine.add_unit("/low.slice/new.service")
    machine.count("/low.slice/new.service")
    assert [item.victim for item in machine.settle_all()] == ["low.slice"]  # killed before the plan knew it
    machine.count("/low.slice/new.service")
    assert [item.victim for item in machine.settle_all()] == ["new.service"]


@pytest.mark.parametrize("log_allowed", [True, False])
@pytest.mark.parametrize("hard", [True, False])
def test_kills_during_an_absence_are_found_once(machine: Machine, log_allowed: bool, hard: bool) -> None:
    machine.log_allowed = log_allowed
    machine.restart()
    machine.settle_all()
    hog_dies(machine)
    first = machine.settle_all()
    assert len(first) == 1
    machine.restart(hard=hard)
    machine.add_unit("/low.slice/born.service")
    machine.count("/low.slice/born.service")
    machine.log(LIMIT.replace("hog.service", "born.service"), killed(72))
    second = machine.settle_all()
    assert [item.victim for item in second] == ["born.service"]
    machine.restart(hard=hard)
    assert machine.settle_all() == []
    assert machine.store.count() == 2


def test_kills_before_the_first_start_of_a_boot_are_known_from_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, monkeypatch)
    hog_dies(machine)
    assert [item.victim for item in machine.settle_all()] == ["hog.service"]
    machine.restart()
    assert machine.settle_all() == [] and machine.store.count() == 1


def test_a_death_while_a_kill_is_half_read_loses_nothing(machine: Machine) -> None:
    hog_dies(machine)
    machine.count("/low.slice/hog.service", 3)
    machine.log(LIMIT, killed(72), "Tasks in /low.slice/hog.service are going to be killed due to memory.oom.group set")
    assert [item.pids for item in machine.settle()] == [(71,)]
    machine.restart()
    machine.log(killed(72), killed(73))
    (made,) = machine.settle_all()
    assert made.pids == (72, 73) and machine.store.count() == 2


def test_kills_in_the_middle_of_an_account_are_told_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0

    def then_kills(name: str) -> None:
        step = getattr(machine.ledger, name)

        def wrapped() -> object:
            nonlocal steps
            result = step()
            steps += 1
            if steps == 1:
                hog_dies(machine)
                hog_dies(machine)
            return result

        monkeypatch.setattr(machine.ledger, name, wrapped)

    then_kills("_count")
    then_kills("_read_log")
    assert [item.extra["source"] for item in machine.settle_all()] == ["kernel-log"] * 2
    machine.settle(EXPLAIN_S)
    machine.settle(EXPLAIN_S)
    assert machine.store.count() == 2


def test_a_line_that_comes_at_the_last_moment_is_still_the_one(machine: Machine) -> None:
    machine.count("/low.slice/hog.service")
    assert machine.settle() == []
    machine.log(GLOBAL, GLOBAL_KILLED)
    assert machine.settle(EXPLAIN_S) == []
    assert [item.extra["source"] for item in machine.settle_all()] == ["kernel-log"]
    assert machine.store.count() == 1


def test_a_death_before_a_counted_kill_is_told_loses_nothing(machine: Machine) -> None:
    hog_dies(machine)
    machine.settle_all()
    machine.count("/low.slice/hog.service")
    assert machine.settle() == []
    # Something else is stored meanwhile, and with it how far was read.
    machine.count("/high.slice")
    machine.log(GLOBAL.replace("low.slice/hog.service", "high.slice/x.service").replace("71", "9"), killed(9))
    machine.settle()
    machine.settle(SETTLE_S)
    machine.restart()
    assert [item.extra["source"] for item in machine.settle_all()] == ["memory.events"]
    assert machine.store.count() == 3


def test_a_store_that_fails_is_tried_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    hog_dies(machine)
    machine.settle()
    add = machine.store.add_kernel_kills

    def full(*arguments: Any) -> list[Decision]:
        raise StoreError("full")

    monkeypatch.setattr(machine.store, "add_kernel_kills", full)
    with pytest.raises(StoreError):
        machine.settle(SETTLE_S)
    monkeypatch.setattr(machine.store, "add_kernel_kills", add)
    assert [item.victim for item in machine.settle()] == ["hog.service"]


def test_a_quiet_machine_writes_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    hog_dies(machine)
    machine.settle_all()
    monkeypatch.setattr(DecisionStore, "add_kernel_kills", None)
    machine.log(*("a driver says something",) * 50)
    machine.add_unit("/low.slice/third.service")
    machine.remove_unit("/low.slice/other.service")
    assert machine.settle_all() == []


def test_many_kills_keep_their_number(machine: Machine) -> None:
    for pid in range(1000, 1100):
        machine.count("/low.slice/hog.service")
        machine.log(LIMIT.replace("pid=72", f"pid={pid}") if pid % 3 else "noise", killed(pid))
    made = machine.settle_all()
    assert [item.pids for item in made] == [(pid,) for pid in range(1000, 1100)]
    assert {item.victim for item in made} == {"hog.service"} and machine.store.count() == 100


def unit(name: str, path: str, id: int, parent: int, priority: int = 0) -> PolicyUnit:
    return PolicyUnit(
        name=name,
        path=path,
        cgroup_id=id,
        parent=parent,
        priority=priority,
        priority_origin="default",
        candidate=True,
    )


def policy(*units: PolicyUnit) -> Policy:
    return Policy(units=units, domains=(), machine=MachineTriggers(), death_deadline_usec=1)


def test_units_of_a_plan_and_topmost_cgroups_are_counted() -> None:
    plan = policy(
        unit("-.slice", "/", 1, -1, 7),
        unit("a.slice", "/a.slice", 2, 0, -3),
        unit("b.service", "/a.slice/b.service", 3, 1),
    )
    counted = counted_units(plan, {"a.slice": 2, "docker": 9})
    assert counted == {
        2: CountedUnit("a.slice", "/a.slice", 2, -3, 0),
        3: CountedUnit("b.service", "/a.slice/b.service", 3, 0, 2),
        9: CountedUnit("docker", "/docker", 9, 7, 0),
    }


def test_the_watch_tells_of_what_is_there_at_its_start(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    (root / "a.slice").mkdir(parents=True)
    events = root / "a.slice" / "memory.events"
    events.write_text("oom_kill 0\n")
    id = events.parent.stat().st_ino
    plan = policy(unit("-.slice", "/", 1, -1), unit("a.slice", "/a.slice", id, 0))
    made: list[Decision] = []

    async def main() -> None:
        for expected in (0, 1):
            kills = KernelKills(root, store, BOOT, made.append, kmsg=tmp_path / "none")
            kills.follow(plan)
            async with asyncio.timeout(5):
                while len(made) < expected or store.kernel_state(BOOT) is None:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            kills.close()
            events.write_text("oom_kill 1\n")

    with DecisionStore(tmp_path / "store", 10) as store:
        before = len(os.listdir("/proc/self/fd"))
        asyncio.run(main())
        assert [item.victim for item in made] == ["a.slice"]
        assert len(os.listdir("/proc/self/fd")) <= before


def test_a_decision_of_the_kernel_is_stored_like_any_other(machine: Machine) -> None:
    hog_dies(machine)
    (made,) = machine.settle_all()
    assert machine.store.list(0, 10) == [made] == machine.store.unannounced()
    assert dataclasses.replace(made, extra={}).candidates == ()
