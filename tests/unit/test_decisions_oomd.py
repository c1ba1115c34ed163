# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kills by systemd-oomd, from its signal to a decision in the store that reads like the others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oomslice.carriers.model import Carrier
from oomslice.carriers.oomd import OomdCarrier
from oomslice.daemon import follow
from oomslice.decisions.journal import MESSAGE_OOMD, decision_fields
from oomslice.decisions.oomd import OomdKills, unit_name
from oomslice.decisions.record import Decision
from oomslice.decisions.sentence import sentence
from oomslice.decisions.store import DecisionStore
from oomslice.owner.words import message
from oomslice.policy.effective import effective
from oomslice.policy.model import Policy
from oomslice.settings.model import Configuration
from oomslice.settings.unitfile import parse_unit_files
from oomslice.snapshot import Snapshot
from tests.unit.test_follow import Signal, Systemd

BOOT = "b" * 32
NOW = 1_763_719_200_000_000


def plan(*paths: str, priority: int = 0) -> Policy:
    """A policy of these units; batch.slice has the priority."""
    snapshot = Snapshot.of(dict.fromkeys(paths, 1))
    settings, _ = parse_unit_files([("x.conf", f"[X-OOMSlice]\nPriority={priority}\n")])
    policy, problems = effective(snapshot.units, {"batch.slice": settings}, snapshot.cgroups, [], Configuration())
    assert not problems
    return policy


def kills(*policies: Policy) -> OomdKills:
    known = OomdKills(BOOT)
    for policy in policies:
        known.follow(policy)
    return known


def test_the_victim_is_the_unit_of_the_plan_with_its_priority() -> None:
    policy = plan("/batch.slice", "/batch.slice/job.service", "/web.service", priority=-200)
    made = kills(policy).decision("/batch.slice/job.service", "memory-pressure", NOW, 5)
    unit = next(unit for unit in policy.units if unit.name == "job.service")
    assert (made.carrier, made.trigger, made.outcome) == ("systemd-oomd", "oomd", "killed-by-oomd")
    assert (made.victim, made.victim_cgroup_id, made.victim_priority) == ("job.service", unit.cgroup_id, -200)
    assert (made.domain, made.realtime_usec, made.trigger_usec) == ("batch.slice", NOW, 5)
    assert made.id == f"{BOOT[:16]}-o{NOW}" and made.boot_id == BOOT
    assert made.extra == {"cgroup": "/batch.slice/job.service", "reason": "memory-pressure"}


def test_lack_of_memory_is_the_machines() -> None:
    made = kills(plan("/batch.slice", "/batch.slice/job.service")).decision(
        "/batch.slice/job.service", "memory-used", NOW, 5
    )
    assert made.domain == "-.slice"


def test_who_is_gone_from_the_newest_plan_is_found_in_an_earlier_one() -> None:
    before, after = plan("/batch.slice", "/batch.slice/job.service", priority=-7), plan("/batch.slice", priority=-9)
    made = kills(before, after).decision("/batch.slice/job.service", "memory-used", NOW, 5)
    assert made.victim == "job.service" and made.victim_cgroup_id and made.victim_priority == -7


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope/container", "app-x.scope"),
        ("/system.slice/_odd.service", "odd.service"),
        ("/machine", "-.slice"),
        ("", "-.slice"),
    ],
)
def test_who_is_in_no_plan_is_named_by_his_path(path: str, name: str) -> None:
    assert unit_name(path) == name
    made = kills().decision(path, "memory-used", NOW, 5)
    assert (made.victim, made.victim_cgroup_id, made.domain) == (name, 0, "-.slice")
    # A plan without that very cgroup knows the priority of what is above it, and not its identity.
    made = kills(plan("/web.service")).decision(path, "other", NOW, 5)
    assert (made.victim, made.victim_cgroup_id) == (name, 0) or path == ""


def test_it_reads_like_the_others() -> None:
    made = kills(plan("/web.service")).decision("/web.service", "memory-used", NOW, 5)
    assert sentence(made) == "systemd-oomd killed web.service: memory and swap of the machine were used up"
    assert f"MESSAGE_ID={MESSAGE_OOMD}" in [f"{name}={value}" for name, value in decision_fields(made)]
    told = message(made)
    assert told is not None and told.summary == "web was ended"
    assert Decision.from_dict(made.to_dict()) == made


def test_the_carrier_is_there_while_systemd_oomd_runs_and_counts(tmp_path: Path) -> None:
    running, stored = True, True
    with DecisionStore(tmp_path / "store", 10) as store:
        carrier = OomdCarrier(BOOT, lambda: running, lambda made: stored and store.add(made))
        as_one: Carrier = carrier
        as_one.follow(plan("/web.service"), [])
        carrier.heard("/web.service", "memory-used")
        (kept,) = store.list()
        assert kept.victim == "web.service"
        state = carrier.state()
        assert (state.name, state.active, state.acts, state.hits, state.missed) == ("systemd-oomd", True, False, 1, 0)
        stored = False
        carrier.heard("/web.service", "memory-used")
        assert (carrier.state().hits, carrier.state().missed) == (1, 1)
        carrier.listening_error = "the message bus is not there"
        assert not carrier.state().active and "cannot be heard" in carrier.state().detail
        running = False
        assert carrier.state().detail == "it does not run"


def test_only_what_systemd_oomd_says_of_kills_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[str, str]] = []
    problems: list[str] = []
    right = Signal("Killed", ["/a.service", "memory-used"])
    right.signature = "ss"
    odd = Signal("Killed", [7])
    odd.signature = "i"
    other = Signal("Other", ["/b.service", "x"])
    other.signature = "ss"

    async def connect() -> Systemd:
        return Systemd([odd, other, right])

    monkeypatch.setattr(follow.Connection, "open", connect)
    asyncio.run(follow._follow_oomd(lambda *signal: killed.append(signal), problems.append))
    assert killed == [("/a.service", "memory-used")]
    assert problems == [""]
    assert "sender='org.freedesktop.oom1'" in follow.OOMD_MATCH
