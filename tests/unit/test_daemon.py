# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's own small parts. What they are for as a whole is seen in tests/vm."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oomslice.actions.client import ActionsClient
from oomslice.cgroups.tree import CgroupTree
from oomslice.daemon.backend import DaemonBackend, Status
from oomslice.daemon.collector import Collector
from oomslice.daemon.commands import Commands, Core
from oomslice.daemon.main import Daemon
from oomslice.daemon.notify import notify, notify_reloading, watchdog
from oomslice.daemon.planner import Planner
from oomslice.decisions.history import History, MachineSample
from oomslice.decisions.record import Decision, StepTaken, Undo
from oomslice.decisions.store import DecisionStore
from oomslice.errors import InvalidSettingError, NoSuchUnitError, PlanError, StoreError
from oomslice.settings.model import Limits
from oomslice.units.model import Unit, UnitSnapshot


def no_core() -> Core:
    raise AssertionError("nothing is asked of the core here")


SHIPPED = (Path(__file__).resolve().parents[2] / "units" / "oomslice.yaml").read_text()


def decision(number: int) -> Decision:
    return Decision(
        id=f"a-{number}",
        boot_id="b",
        carrier="core",
        trigger="memory-available",
        domain="-.slice",
        outcome="freed",
        realtime_usec=number,
    )


class Listener:
    """journald and the bus in one: notes what it is told, and can be told to refuse."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.bus: list[str] = []
        self.refuses = False

    def send(self, decision: Decision) -> bool:
        if not self.refuses:
            self.journal.append(decision.id)
        return not self.refuses

    def send_undo(self, decision: Decision, undo: Undo) -> bool:
        self.journal.append(f"{decision.id} undone")
        return not self.refuses

    async def emit(self, decision: Decision) -> None:
        self.bus.append(decision.id)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DecisionStore]:
    store = DecisionStore(tmp_path / "decisions.sqlite", 100)
    yield store
    store.close()


def test_each_decision_is_announced_once_and_a_refusing_journal_is_asked_again(store: DecisionStore) -> None:
    listener = Listener()
    collector = Collector(store, listener, "b", listener.emit)  # type: ignore[arg-type]
    store.add(decision(1))
    store.add(decision(2))
    listener.refuses = True
    assert asyncio.run(collector.announce()) is False
    assert listener.bus == []
    listener.refuses = False
    assert asyncio.run(collector.announce()) is True
    assert asyncio.run(collector.announce()) is True
    assert sorted(listener.journal) == sorted(listener.bus) == ["a-1", "a-2"]


class Ring:
    """A ring of decisions; remembers what was given back."""

    def __init__(self, *decisions: Decision | Undo) -> None:
        self.waiting = list(decisions)
        self.released: list[str] = []

    def drain(self, names: Any, boot_id: str, texts: Any) -> Iterator[Decision | Undo]:
        while self.waiting:
            yield self.waiting[0]
            if not self.released or self.released[-1] != self.waiting[0].id:
                return
            self.waiting.pop(0)

    def release(self, decision: Decision | Undo) -> None:
        self.released.append(decision.id)

    def history(self, since_usec: int, names: Any) -> History:
        return History((MachineSample(len(self.released), max(since_usec, 0), 0, 0, 0),))


def test_the_figures_around_a_decision_are_stored_with_it_and_once_more_when_it_is_over(store: DecisionStore) -> None:
    collector = Collector(store, Listener(), "b", Listener().emit)  # type: ignore[arg-type]
    ring = Ring(replace(decision(1), trigger_usec=130_000_000))
    collector.collect(ring, {})  # type: ignore[arg-type]
    assert store.history("a-1").samples == (MachineSample(0, 10_000_000, 0, 0, 0),)
    collector.follow(ring, {})  # type: ignore[arg-type]
    assert [sample.usec for sample in store.history("a-1").samples] == [1]
    ring.released.append("later")
    collector.follow(ring, {})  # type: ignore[arg-type]
    assert [sample.usec for sample in store.history("a-1").samples] == [1], "that one is over"


def test_a_record_leaves_the_ring_only_when_it_is_stored(store: DecisionStore) -> None:
    collector = Collector(store, Listener(), "b", Listener().emit)  # type: ignore[arg-type]
    ring = Ring(decision(1), decision(2))
    assert collector.collect(ring, {}) == 2  # type: ignore[arg-type]
    assert ring.released == ["a-1", "a-2"]
    again = Ring(decision(2), decision(3))
    assert collector.collect(again, {}) == 1, "the one that was stored before our death is not new"  # type: ignore[arg-type]
    lost = Ring(decision(4))
    assert Collector(FullDisk(), Listener(), "b", Listener().emit).collect(lost, {}) == 0  # type: ignore[arg-type]
    assert lost.released == []


def test_what_is_undone_is_noted_at_its_decision_once_and_told_once(store: DecisionStore) -> None:
    listener = Listener()
    collector = Collector(store, listener, "b", listener.emit)  # type: ignore[arg-type]
    frozen = replace(decision(1), steps=(StepTaken("freeze", "done"), StepTaken("kill", "done")))
    undo = Undo("a-2", "a-1", 77, {"freeze": 0})
    ring = Ring(frozen, undo)
    assert collector.collect(ring, {}) == 1, "an end is no decision"  # type: ignore[arg-type]
    assert ring.released == ["a-1", "a-2"]
    assert [step.undone_usec for step in store.get("a-1").steps] == [77, 0]
    again = Ring(replace(undo, usec=99))
    assert collector.collect(again, {}) == 0  # type: ignore[arg-type]
    assert again.released == ["a-2"]
    assert [step.undone_usec for step in store.get("a-1").steps] == [77, 0], "after our death it comes again"
    assert listener.journal == ["a-1 undone"]


def test_the_end_of_a_decision_that_is_not_kept_does_not_stop_those_behind_it(store: DecisionStore) -> None:
    ring = Ring(Undo("a-1", "other-5", 77, {"freeze": 0}), decision(2))
    assert Collector(store, Listener(), "b", Listener().emit).collect(ring, {}) == 1  # type: ignore[arg-type]
    assert ring.released == ["a-1", "a-2"] and store.count() == 1


def test_an_end_that_cannot_be_noted_stays_in_the_ring() -> None:
    ring = Ring(Undo("a-2", "a-1", 77, {"freeze": 0}))
    assert Collector(FullDisk(), Listener(), "b", Listener().emit).collect(ring, {}) == 0  # type: ignore[arg-type]
    assert ring.released == []


class FullDisk:
    """A store that can store nothing."""

    def add(self, decision: Decision) -> bool:
        raise StoreError("no space left on device")

    def undo(self, undo: Undo) -> Decision | None:
        raise StoreError("no space left on device")


class FakeUnits:
    """What systemd says, without systemd."""

    def __init__(self, *units: Unit) -> None:
        self.units = units

    async def snapshot(self, *, full: bool = False) -> UnitSnapshot:
        return UnitSnapshot(self.units)


@pytest.fixture
def machine(tmp_path: Path) -> SimpleNamespace:
    """A root with configuration, units and cgroups."""
    root, cgroups = tmp_path / "root", tmp_path / "cgroup"
    for path in ("/", "/low.slice", "/low.slice/hog.service"):
        directory = cgroups / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.events").write_text("populated 1\nfrozen 0\n")
        (directory / "memory.current").write_text("4096\n")
        (directory / "memory.stat").write_text("anon 4096\nactive_file 0\ninactive_file 0\n")
    (root / "usr/lib/oomslice").mkdir(parents=True)
    (root / "usr/lib/oomslice/oomslice.yaml").write_text(SHIPPED)
    drop_in = tmp_path / "50-oomslice.conf"
    drop_in.write_text("[X-OOMSlice]\nPriority=-200\n")
    units = FakeUnits(
        Unit("-.slice", "/"),
        Unit("low.slice", "/low.slice", drop_in_paths=(str(drop_in),)),
        Unit("hog.service", "/low.slice/hog.service"),
        Unit("ended.service", "/low.slice/ended.service"),
    )
    planner = Planner(CgroupTree(cgroups), units, root)  # type: ignore[arg-type]
    return SimpleNamespace(root=root, cgroups=cgroups, drop_in=drop_in, planner=planner)


def priority_of_hog(planner: Planner, *, full: bool = False) -> int:
    prepared = asyncio.run(planner.prepare(full=full))
    assert len(prepared.descriptors) == len(prepared.policy.units)
    prepared.close()
    return next(unit.priority for unit in prepared.policy.units if unit.name == "hog.service")


def test_a_plan_has_the_drop_ins_priority_and_leaves_out_what_ended(machine: SimpleNamespace) -> None:
    assert priority_of_hog(machine.planner) == -200
    assert [unit.name for unit in machine.planner.policy.units] == ["-.slice", "low.slice", "hog.service"]


def test_a_file_counts_when_systemd_has_read_it_not_before(machine: SimpleNamespace) -> None:
    assert priority_of_hog(machine.planner) == -200
    machine.drop_in.write_text("[X-OOMSlice]\nPriority=50\n")
    assert priority_of_hog(machine.planner) == -200
    assert priority_of_hog(machine.planner, full=True) == 50


def test_yaml_with_errors_leaves_the_last_good_one_in_force_and_is_told(machine: SimpleNamespace) -> None:
    extra = machine.root / "etc/oomslice/oomslice.yaml.d/50-site.yaml"
    extra.parent.mkdir(parents=True)
    extra.write_text("rules:\n  - {match: hog.service, priority: 7}\n")
    machine.planner.reload()
    assert priority_of_hog(machine.planner) == 7
    extra.write_text("rules: [\n")
    machine.planner.reload()
    assert priority_of_hog(machine.planner) == 7
    assert any(problem.source.file.endswith("50-site.yaml") for problem in machine.planner.problems)
    extra.write_text("rules:\n  - {match: hog.service, priority: 8}\n")
    machine.planner.reload()
    assert priority_of_hog(machine.planner) == 8
    assert machine.planner.problems == ()


def test_what_this_machine_refuses_is_told_and_the_rest_holds(machine: SimpleNamespace) -> None:
    machine.drop_in.write_text("[X-OOMSlice]\nPriority=-3\nActions=purge:/usr/share kill@2s\n")
    extra = machine.root / "etc/oomslice/oomslice.yaml.d/50-site.yaml"
    extra.parent.mkdir(parents=True)
    extra.write_text(
        "limits: {reserve: 900T}\ntiers: {t: {priority: 7, actions: 'purge:/usr/lib kill@2s'}}\n"
        "rules:\n  - {match: hog.service, priority: 5}\n"
    )
    machine.planner.reload()
    assert priority_of_hog(machine.planner, full=True) == 5
    said = {(problem.source.line, problem.key): problem.message for problem in machine.planner.problems}
    assert set(said) == {(1, "reserve"), (2, "actions"), (3, "Actions")}
    assert "more than a quarter of memory" in said[1, "reserve"]
    assert "purge:/usr/lib is not on a tmpfs" in said[2, "actions"]
    assert "purge:/usr/share is not on a tmpfs" in said[3, "Actions"]
    assert machine.planner.policy.reserve == Limits().reserve
    assert machine.planner.configuration.tiers["t"].priority == 7


def test_the_backend_says_the_ladder_in_force_and_where_it_is_from(
    machine: SimpleNamespace, store: DecisionStore
) -> None:
    async def nothing() -> None: ...

    machine.drop_in.write_text("[X-OOMSlice]\nActions=warn 'terminate@1min 5s'\nOnDecision=report@.service\n")
    backend = DaemonBackend(machine.planner, store, Status(), Commands(ActionsClient(), nothing, nothing, no_core), ())
    priority_of_hog(machine.planner)
    hog = backend.slice("hog.service")
    assert hog["Actions"] == 'warn "terminate@1min 5s" "kill@1min 15s"'
    assert hog["ActionsOrigin"] == "inherited from low.slice, kill added"
    assert (hog["KillScope"], hog["KillScopeOrigin"], hog["TakenWith"]) == ("unit", "default", "")
    assert hog["OnDecision"] == "report@.service" and hog["Sources"]["OnDecision"] == "inherited from low.slice"
    assert {row["name"]: row["actions"] for row in backend.slices()} == {
        "-.slice": "kill",
        "low.slice": hog["Actions"],
        "hog.service": hog["Actions"],
    }
    machine.drop_in.write_text("[X-OOMSlice]\nActions=freeze\nKillScope=subtree\n")
    priority_of_hog(machine.planner, full=True)
    assert [(row["candidate"], row["actions"]) for row in backend.slices()] == [
        (False, "kill"),
        (True, "freeze"),
        (False, ""),
    ]
    assert backend.slice("hog.service")["TakenWith"] == "low.slice"
    assert backend.slice("low.slice")["KillScope"] == "subtree"
    (domain,) = backend.explain()
    assert [(candidate["name"], candidate["verdict"]) for candidate in domain["candidates"][:1]] == [
        ("low.slice", "chosen")
    ]


@pytest.mark.parametrize(
    ("available_mb", "swap_free_mb", "room"),
    [(40, 0, False), (71, 0, False), (72, 0, True), (900, 0, True), (40, 130, False), (40, 160, True)],
)
def test_what_can_wait_waits_until_memory_or_swap_is_well_above_its_limit(
    machine: SimpleNamespace, tmp_path: Path, available_mb: int, swap_free_mb: int, room: bool
) -> None:
    proc = tmp_path / "proc"
    proc.mkdir()
    planner = Planner(CgroupTree(machine.cgroups, proc), FakeUnits(), machine.root)  # type: ignore[arg-type]
    assert planner.has_room(), "what cannot be known keeps nobody waiting"
    figures = {"MemTotal": 1000, "MemAvailable": available_mb, "SwapTotal": 1000, "SwapFree": swap_free_mb}
    (proc / "meminfo").write_text("".join(f"{name}: {value << 10} kB\n" for name, value in figures.items()))
    assert planner.has_room() == room


def test_generations_rise_also_over_a_restart(machine: SimpleNamespace) -> None:
    first = asyncio.run(machine.planner.prepare(full=True))
    second = asyncio.run(machine.planner.prepare(full=False))
    restarted = Planner(CgroupTree(machine.cgroups), FakeUnits(Unit("-.slice", "/")), machine.root)  # type: ignore[arg-type]
    third = asyncio.run(restarted.prepare(full=True))
    assert first.generation < second.generation < third.generation
    for prepared in (first, second, third):
        prepared.close()


def test_the_backend_answers_from_the_newest_plan(machine: SimpleNamespace, store: DecisionStore) -> None:
    async def nothing() -> None: ...

    backend = DaemonBackend(machine.planner, store, Status(), Commands(ActionsClient(), nothing, nothing, no_core), ())
    assert backend.slices() == [] and backend.explain() == []
    priority_of_hog(machine.planner)
    assert [row["name"] for row in backend.slices()] == ["-.slice", "low.slice", "hog.service"]
    (domain,) = backend.explain()
    assert domain["candidates"][0]["name"] == "hog.service"
    assert domain["candidates"][0]["verdict"] == "chosen"
    assert backend.slice("low.slice")["Priority"] == -200
    assert str(machine.drop_in) in backend.slice("low.slice")["Sources"]["Priority"]
    assert backend.state()["Armed"] is False
    with pytest.raises(NoSuchUnitError):
        backend.slice("no.service")


def test_other_settings_are_simulated_by_the_same_choice_and_change_nothing(
    machine: SimpleNamespace, store: DecisionStore
) -> None:
    async def nothing() -> None: ...

    backend = DaemonBackend(machine.planner, store, Status(), Commands(ActionsClient(), nothing, nothing, no_core), ())
    with pytest.raises(PlanError, match="no plan yet"):
        backend.simulate({})
    before = priority_of_hog(machine.planner)
    assert backend.simulate({}) == backend.explain()
    (domain,) = backend.simulate({"low.slice": {"Priority": "-777"}})
    assert (domain["candidates"][0]["name"], domain["candidates"][0]["priority"]) == ("hog.service", -777)
    (domain,) = backend.simulate({"low.slice": {"Priority": ""}})
    assert domain["candidates"][0]["priority"] == 0, "a reset"
    (domain,) = backend.simulate({"hog.service": {"Protect": "yes"}})
    assert domain["candidates"][0]["verdict"] == "protected"
    assert backend.explain()[0]["candidates"][0]["priority"] == before
    for settings, kind in (
        ({"no.service": {"Priority": "1"}}, NoSuchUnitError),
        ({"hog.service": {"Priority": "high"}}, InvalidSettingError),
        ({"hog.service": {"Nope": "1"}}, InvalidSettingError),
    ):
        with pytest.raises(kind):
            backend.simulate(settings)


def test_systemd_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify("READY=1", "STATUS=Plan 7")
        assert manager.recv(4096) == b"READY=1\nSTATUS=Plan 7"
        assert notify_reloading()
        reloading, _, monotonic = manager.recv(4096).decode().partition("\n")
        assert reloading == "RELOADING=1" and monotonic.startswith("MONOTONIC_USEC=")

        async def some_pings() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(watchdog(), 1)

        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        asyncio.run(some_pings())
        assert manager.recv(4096) == b"WATCHDOG=1"
        assert manager.recv(4096) == b"WATCHDOG=1"


def test_nobody_to_tell_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert notify("READY=1") is False
    asyncio.run(watchdog())


def test_the_journal_hears_of_carriers_that_come_and_go_and_of_why_they_cannot_act() -> None:
    told: list[tuple[str, bool, str]] = []

    class Journal:
        def send_carrier(self, name: str, active: bool, detail: str, error: str) -> bool:
            told.append((name, active, detail))
            return True

    daemon = Daemon.__new__(Daemon)
    daemon._told = []
    daemon._journal = Journal()  # type: ignore[assignment]

    def state(active: bool, detail: str, hits: int = 0) -> list[dict[str, object]]:
        return [{"Name": "core", "Active": active, "Detail": detail, "LastError": "", "Hits": hits}]

    for states in (
        state(False, "not running"),
        state(False, "not running", 1),
        state(False, "no plan"),
        state(True, "armed"),
        state(True, "armed, too", 5),
        state(False, "gone"),
    ):
        daemon._tell_carriers(states)
    assert told == [
        ("core", False, "not running"),
        ("core", False, "no plan"),
        ("core", True, "armed"),
        ("core", False, "gone"),
    ]
