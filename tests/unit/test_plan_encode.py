# SPDX-License-Identifier: LGPL-2.1-or-later
"""A policy survives its way through a plan, and nothing but a policy's own plan is taken for one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomslice._core import ffi, lib
from oomslice.cgroups.model import Usage
from oomslice.errors import PlanError
from oomslice.plan.encode import KILL_SCOPE, PSI_KIND, RANK_BY, STEP_KIND, decode, encode, plan_names, plan_texts
from oomslice.policy.model import Policy, PolicyDomain
from oomslice.policy.rank import pays_for, unit_flags
from oomslice.settings.model import (
    Amount,
    MachineTriggers,
    PressureTrigger,
    PressureVictims,
    PsiKind,
    RankBy,
    Step,
    UnitSettings,
)
from oomslice.settings.steps import PATH_MAX, STEPS_MAX, THROTTLE_DEFAULT, parse_actions
from oomslice.settings.unitname import UNIT_NAME_MAX
from oomslice.settings.values import parse_size
from tests.unit.policies import GIB, policies, policy, unit, usages, uses

TREE = policy(
    unit("low.slice", 10, priority=-200),
    unit("hog.service", 11, parent=1, priority=-200),
    unit("ssh.service", 12, protected=True),
)


def encoded(wanted: Policy, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "generation": 7,
        "made_realtime_usec": 1_700_000_000_000_000,
        "usage": {},
        "memory_total": 4 * GIB,
        "swap_total": GIB,
    }
    return encode(wanted, **(values | changes))


def refusal(data: bytes) -> int:
    """The result with which a plan is refused."""
    with pytest.raises(PlanError) as caught:
        decode(data)
    with pytest.raises(PlanError):
        plan_names(data)
    return caught.value.result


class Forgery:
    """A good plan, open for changes through the C structs; `bytes()` stamps size and checksum anew."""

    def __init__(self, wanted: Policy = TREE) -> None:
        data = encoded(wanted)
        self.size = len(data)
        self._memory = ffi.new("uint64_t[]", (self.size + 7) // 8)
        ffi.memmove(self._memory, data, self.size)
        self.header = ffi.cast("struct oomslice_plan_header *", self._memory)
        self.units = ffi.cast("struct oomslice_plan_unit *", self.header + 1)
        self.domains = ffi.cast("struct oomslice_plan_domain *", self.units + self.header.units_count)
        self.steps = ffi.cast("struct oomslice_plan_step *", self.domains + self.header.domains_count)
        self.names = ffi.cast("char *", self.steps + self.header.steps_count)

    def __bytes__(self) -> bytes:
        assert lib.oomslice_plan_finish(self._memory, self.size) == lib.OOMSLICE_PLAN_OK
        return bytes(ffi.buffer(self._memory, self.size))


def step_dict(step: Step) -> dict[str, Any]:
    """The step as a plan says it."""
    amount, text = 0, ""
    if step.name == "throttle":
        amount = int(step.argument or THROTTLE_DEFAULT)
    elif step.name == "reclaim":
        amount = parse_size(step.argument) if step.argument else 0
    else:
        text = step.argument or ""
    return {"kind": STEP_KIND[step.name], "delay_us": step.delay_usec, "amount": amount, "text": text}


def trigger_dict(trigger: PressureTrigger | None) -> dict[str, int]:
    if trigger is None:
        return {"kind": 0, "stall_us": 0, "window_us": 0}
    return {"kind": PSI_KIND[trigger.kind], "stall_us": trigger.stall_usec, "window_us": trigger.window_usec}


@given(policies(), st.data(), st.integers(1, (1 << 64) - 1), st.integers(1, 1 << 45), st.integers(0, 1 << 45))
@settings(max_examples=150, deadline=None)
def test_a_policy_comes_back_as_it_went_in(
    wanted: Policy, data: st.DataObject, generation: int, memory: int, swap: int
) -> None:
    usage = {one.cgroup_id: data.draw(usages) for one in wanted.units[::2]}
    plan = encoded(wanted, generation=generation, usage=usage, memory_total=memory, swap_total=swap)
    read = decode(plan)

    assert read["generation"] == generation
    assert read["made_realtime_us"] == 1_700_000_000_000_000
    assert read["machine"]["available_min"] == wanted.machine.available_min.of(memory)
    assert read["machine"]["swap_free_min"] == wanted.machine.swap_free_min.of(swap)
    assert read["machine"]["available_thrash"] == wanted.machine.available_thrash.of(memory)
    assert read["machine"]["sign"] == trigger_dict(wanted.machine.sign)
    assert read["machine"]["thrash"] == trigger_dict(wanted.machine.thrash)
    assert read["machine"]["death_deadline_us"] == wanted.death_deadline_usec
    for one, got in zip(wanted.units, read["units"], strict=True):
        before = usage.get(one.cgroup_id, Usage())
        assert (got["name"], got["cgroup_id"], got["parent"]) == (one.name, one.cgroup_id, one.parent)
        assert (got["priority"], got["flags"]) == (one.priority, unit_flags(one))
        assert bool(got["flags"] & lib.OOMSLICE_UNIT_TAKEN) == bool(one.taken_with)
        assert got["kill_scope"] == KILL_SCOPE[one.kill_scope]
        assert got["ladder"] == [step_dict(step) for step in one.ladder]
        assert (got["baseline_memory"], got["baseline_refaults"]) == (before.memory, before.refaults)
    for domain, got in zip(wanted.domains, read["domains"], strict=True):
        assert (got["unit"], got["rank_by"]) == (domain.unit, RANK_BY[domain.rank_by])
        assert got["flags"] == (
            (lib.OOMSLICE_DOMAIN_DRY_RUN if domain.dry_run else 0)
            | (lib.OOMSLICE_DOMAIN_LOWER if domain.victims is PressureVictims.LOWER_PRIORITY else 0)
        )
        assert got["cooldown_us"] == domain.cooldown_usec
        assert got["trigger"] == trigger_dict(domain.settings.pressure_trigger)
    assert plan_names(plan) == {one.cgroup_id: one.name for one in wanted.units}


@given(policies(), st.integers(1, 1 << 45), st.integers(0, 1 << 45))
@settings(max_examples=100, deadline=None)
def test_ladders_begin_between_the_limits_and_the_watch_or_not_at_all(wanted: Policy, memory: int, swap: int) -> None:
    machine = decode(encoded(wanted, memory_total=memory, swap_total=swap))["machine"]
    assert machine["reserve"] == wanted.reserve.of(memory)
    assert machine["available_watch"] >= machine["available_min"]
    if wanted.machine.available_ladder.is_zero:
        assert machine["available_ladder"] == machine["swap_free_ladder"] == 0
        return
    assert machine["available_watch"] >= machine["available_ladder"] >= machine["available_min"]
    assert machine["available_ladder"] >= wanted.machine.available_ladder.of(memory)
    assert machine["swap_free_ladder"] >= machine["swap_free_min"]
    assert machine["swap_free_ladder"] >= wanted.machine.swap_free_ladder.of(swap)


def test_the_watch_never_starts_below_a_limit() -> None:
    machine = MachineTriggers(
        available_min=Amount(permyriad=3000), available_watch=Amount(bytes=1), available_ladder=Amount(permyriad=4000)
    )
    read = decode(encoded(replace(TREE, machine=machine), memory_total=1000))
    assert read["machine"]["available_min"] == 300
    assert read["machine"]["available_ladder"] == read["machine"]["available_watch"] == 400


def test_equal_ladders_are_in_the_plan_once_and_names_are_shared_with_texts() -> None:
    ladder = parse_actions("warn purge:/run/cache start:b.service kill@2s")
    plan = encoded(
        policy(
            unit("a.service", 10, ladder=ladder),
            unit("b.service", 11, ladder=parse_actions("freeze")),
            unit("c.service", 12, ladder=tuple(ladder)),
        )
    )
    read = decode(plan)
    assert [one["steps_first"] for one in read["units"]] == [0, 0, 4, 0]
    assert [one["steps_count"] for one in read["units"]] == [0, 4, 1, 4]
    assert plan.count(b"b.service\0") == plan.count(b"/run/cache\0") == 1


def test_texts_of_ladders_are_known_by_cgroup() -> None:
    ladder = parse_actions("purge:/run/b warn purge:/run/a start:x.service checkpoint kill@9s")
    plan = encoded(policy(unit("a.service", 10, ladder=ladder), unit("b.service", 11, ladder=parse_actions("kill"))))
    assert plan_texts(plan) == {10: {"purge": ["/run/b", "/run/a"], "start": ["x.service"]}}


def test_limits_of_a_ladder_are_those_of_the_plan() -> None:
    assert STEPS_MAX == lib.OOMSLICE_LADDER_STEPS_MAX
    assert PATH_MAX == UNIT_NAME_MAX == lib.OOMSLICE_UNIT_NAME_MAX - 1
    longest = parse_actions("purge:/" + "p" * (PATH_MAX - 1) + " kill@1s")
    read = decode(encoded(policy(unit("a.service", 10, ladder=longest))))
    assert len(read["units"][1]["ladder"][0]["text"]) == PATH_MAX


def test_more_steps_than_a_plan_holds_are_refused() -> None:
    units = [
        unit(f"{i}.service", 10 + i, ladder=tuple(Step("warn", None, i * 100 + n) for n in range(STEPS_MAX)))
        for i in range(lib.OOMSLICE_PLAN_STEPS_MAX // STEPS_MAX + 1)
    ]
    with pytest.raises(PlanError, match="4104 steps") as caught:
        encoded(policy(*units))
    assert caught.value.result == lib.OOMSLICE_PLAN_E_BOUNDS
    assert len(decode(encoded(policy(*units[:-1])))["units"]) == len(units)


@pytest.mark.parametrize(
    "ladder",
    [
        (Step("warn"),) * 13,
        (Step("kill"), Step("warn")),
        (Step("warn", None, 2), Step("kill", None, 1)),
        (Step("throttle", "101"),),
        (Step("purge"),),
        (Step("purge", "/" + "x" * 255),),
    ],
)
def test_what_is_no_ladder_is_refused_with_the_unit_it_is_of(ladder: tuple[Step, ...]) -> None:
    with pytest.raises(PlanError) as caught:
        encoded(policy(unit("a.service", 10), unit("b.service", 11, ladder=ladder)))
    assert (caught.value.result, caught.value.detail) == (lib.OOMSLICE_PLAN_E_LADDER, 2)


def test_what_is_taken_must_be_below_a_whole_and_nothing_that_is_spared() -> None:
    whole = unit("batch.slice", 10, whole=True)
    good = unit("a.service", 11, parent=1, taken_with="batch.slice")
    read = decode(encoded(policy(whole, good)))
    assert [one["flags"] for one in read["units"]] == [0, lib.OOMSLICE_UNIT_CANDIDATE, lib.OOMSLICE_UNIT_TAKEN]
    for bad in (
        unit("a.service", 11, parent=1),
        unit("a.service", 11, taken_with="batch.slice"),
        unit("a.service", 11, parent=1, taken_with="batch.slice", protected=True),
        unit("a.service", 11, parent=1, taken_with="batch.slice", self_=True),
        unit("a.service", 11, parent=1, taken_with="batch.slice", left_to_oomd=True),
    ):
        with pytest.raises(PlanError) as caught:
            encoded(policy(whole, bad))
        assert caught.value.result == lib.OOMSLICE_PLAN_E_PARENT


def test_a_time_without_end_becomes_the_longest() -> None:
    wanted = replace(
        TREE,
        domains=(PolicyDomain(0, RankBy.SWAP, (1 << 64) - 1, False, UnitSettings()),),
        death_deadline_usec=(1 << 64) - 1,
    )
    read = decode(encoded(wanted))
    assert read["machine"]["death_deadline_us"] == lib.OOMSLICE_PLAN_TIME_MAX_S * 1_000_000
    assert read["domains"][0]["cooldown_us"] == lib.OOMSLICE_PLAN_TIME_MAX_S * 1_000_000


@pytest.mark.parametrize("character", ["x", "é", "√", "\U0001f40b", "\udcff"])
def test_a_long_name_is_shortened_between_two_characters(character: str) -> None:
    for length in range(50, 300):
        # One byte before, so that the limit falls into the middle of characters of two, three and four bytes.
        name = "a" + character * length
        read = decode(encoded(policy(unit(name, 10))))["units"][1]["name"]
        size = len(read.encode("utf-8", "surrogateescape"))
        assert size < lib.OOMSLICE_UNIT_NAME_MAX
        if read == name:
            continue
        assert len(name.encode("utf-8", "surrogateescape")) >= lib.OOMSLICE_UNIT_NAME_MAX
        assert read.endswith("…") and name.startswith(read[:-1])
        assert size > lib.OOMSLICE_UNIT_NAME_MAX - 8


def test_units_of_the_same_name_share_it() -> None:
    once = len(encoded(policy(unit("app.slice", 10))))
    twice = len(encoded(policy(unit("app.slice", 10), unit("app.slice", 11))))
    assert twice - once == ffi.sizeof("struct oomslice_plan_unit")


@pytest.mark.parametrize(
    "wanted, result, word",
    [
        (policy(unit("a.service", 10), unit("b.service", 10)), lib.OOMSLICE_PLAN_E_BOUNDS, "b.service"),
        (policy(unit("a.service", 0)), lib.OOMSLICE_PLAN_E_BOUNDS, "range"),
        (policy(unit("a.service", 1 << 64)), lib.OOMSLICE_PLAN_E_BOUNDS, "fit"),
        (policy(unit("a.service", 10, priority=-1001)), lib.OOMSLICE_PLAN_E_BOUNDS, "range"),
        (policy(unit("a.service", 10, priority=1 << 31)), lib.OOMSLICE_PLAN_E_BOUNDS, "fit"),
        (policy(unit("", 10)), lib.OOMSLICE_PLAN_E_NAME, "name"),
        (policy(unit("a.service", 10, parent=1)), lib.OOMSLICE_PLAN_E_PARENT, "parent"),
        (policy(unit("a.service", 10), unit("b.service", 11, parent=1)), lib.OOMSLICE_PLAN_E_PARENT, "candidate"),
        (replace(TREE, domains=()), lib.OOMSLICE_PLAN_E_BOUNDS, "count"),
        (replace(TREE, units=()), lib.OOMSLICE_PLAN_E_BOUNDS, "count"),
        (replace(TREE, domains=TREE.domains * 2), lib.OOMSLICE_PLAN_E_DOMAIN, "domain"),
        (replace(TREE, death_deadline_usec=0), lib.OOMSLICE_PLAN_E_BOUNDS, "limit"),
        (policy(*(unit("a.service", 10 + i) for i in range(4096))), lib.OOMSLICE_PLAN_E_SIZE, "4096 units"),
        (
            policy(*(unit(f"{i:0>250}.service", 10 + i) for i in range(4000))),
            lib.OOMSLICE_PLAN_E_SIZE,
            "1048576 bytes",
        ),
    ],
)
def test_what_is_no_plan_is_refused_with_a_reason(wanted: Policy, result: int, word: str) -> None:
    with pytest.raises(PlanError, match=word) as caught:
        encoded(wanted)
    assert caught.value.result == result


def test_generation_zero_is_no_plan() -> None:
    with pytest.raises(PlanError) as caught:
        encoded(TREE, generation=0)
    assert caught.value.result == lib.OOMSLICE_PLAN_E_GENERATION


def test_the_largest_plan_there_may_be_is_encoded() -> None:
    many = policy(*(unit(f"run-u{i}.service", 10 + i) for i in range(lib.OOMSLICE_PLAN_UNITS_MAX - 1)))
    names = plan_names(encoded(many, usage={10: uses(1)}))
    assert len(names) == lib.OOMSLICE_PLAN_UNITS_MAX
    assert names[10] == "run-u0.service"


@given(policies(max_units=5), st.integers(1, 255))
@settings(max_examples=15, deadline=None)
def test_every_change_of_a_single_byte_is_refused(wanted: Policy, change: int) -> None:
    plan = encoded(wanted)
    for index in range(len(plan)):
        changed = plan[:index] + bytes([plan[index] ^ change]) + plan[index + 1 :]
        assert refusal(changed) != lib.OOMSLICE_PLAN_OK


def test_a_torn_or_padded_plan_is_refused() -> None:
    plan = encoded(TREE)
    for size in range(len(plan)):
        assert refusal(plan[:size]) == lib.OOMSLICE_PLAN_E_SIZE
    assert refusal(plan + b"\0") == lib.OOMSLICE_PLAN_E_SIZE
    assert refusal(plan + bytes(lib.OOMSLICE_PLAN_SIZE_MAX)) == lib.OOMSLICE_PLAN_E_SIZE
    assert refusal(b"") == lib.OOMSLICE_PLAN_E_SIZE


def test_magic_and_version_are_looked_at_before_all_else() -> None:
    plan = encoded(TREE)
    assert refusal(b"X" + plan[1:]) == lib.OOMSLICE_PLAN_E_MAGIC
    assert refusal(bytes(len(plan))) == lib.OOMSLICE_PLAN_E_MAGIC
    forged = Forgery()
    good = bytes(forged)
    for field in ("version", "header_size"):
        offset = ffi.offsetof("struct oomslice_plan_header", field)
        assert refusal(good[:offset] + b"\xee\0\0\0" + good[offset + 4 :]) == lib.OOMSLICE_PLAN_E_VERSION


@pytest.mark.parametrize(
    "field, value, result",
    [
        ("cgroup_id", 0, lib.OOMSLICE_PLAN_E_BOUNDS),
        ("priority", 1001, lib.OOMSLICE_PLAN_E_BOUNDS),
        ("priority", -1001, lib.OOMSLICE_PLAN_E_BOUNDS),
        ("flags", 64, lib.OOMSLICE_PLAN_E_BOUNDS),
        ("flags", 1 << 31, lib.OOMSLICE_PLAN_E_BOUNDS),
        ("parent", -1, lib.OOMSLICE_PLAN_E_PARENT),
        ("parent", -(1 << 31), lib.OOMSLICE_PLAN_E_PARENT),
        ("parent", 2, lib.OOMSLICE_PLAN_E_PARENT),
        ("parent", (1 << 31) - 1, lib.OOMSLICE_PLAN_E_PARENT),
        ("name_offset", 1, lib.OOMSLICE_PLAN_E_NAME),  # the end of another's name
        ("name_offset", 7, lib.OOMSLICE_PLAN_E_NAME),  # its NUL
        ("name_offset", (1 << 32) - 1, lib.OOMSLICE_PLAN_E_NAME),
    ],
)
def test_a_unit_out_of_range_is_refused_although_the_checksum_is_right(field: str, value: int, result: int) -> None:
    forged = Forgery()
    setattr(forged.units[2], field, value)
    with pytest.raises(PlanError) as caught:
        decode(bytes(forged))
    assert (caught.value.result, caught.value.detail) == (result, 2)


@pytest.mark.parametrize(
    "field, value",
    [
        ("unit", 4),
        ("unit", -1),
        ("unit", 0),
        ("rank_by", 4),
        ("flags", 4),
        ("reserved", 1),
        ("cooldown_us", lib.OOMSLICE_PLAN_TIME_MAX_S * 1_000_000 + 1),
        ("cooldown_us", (1 << 64) - 1),
        ("trigger", {"kind": 3, "stall_us": 1, "window_us": 500_000}),
        ("trigger", {"kind": 0, "stall_us": 1, "window_us": 0}),
        ("trigger", {"kind": 1, "stall_us": 0, "window_us": 500_000}),
        ("trigger", {"kind": 1, "stall_us": 1, "window_us": 499_999}),
        ("trigger", {"kind": 1, "stall_us": 1, "window_us": 10_000_001}),
        ("trigger", {"kind": 2, "stall_us": 500_001, "window_us": 500_000}),
        ("trigger", {"kind": 2, "stall_us": 1, "window_us": 500_000, "reserved": 1}),
    ],
)
def test_a_domain_out_of_range_is_refused_although_the_checksum_is_right(field: str, value: Any) -> None:
    trigger = PressureTrigger(PsiKind.SOME, 1, 500_000)
    domain = PolicyDomain(1, RankBy.MEMORY, 0, False, UnitSettings(pressure_trigger=trigger))
    forged = Forgery(replace(TREE, domains=(*TREE.domains, domain)))
    setattr(forged.domains[1], field, value)
    with pytest.raises(PlanError) as caught:
        decode(bytes(forged))
    assert (caught.value.result, caught.value.detail) == (lib.OOMSLICE_PLAN_E_DOMAIN, 1)


def test_the_first_domain_is_the_machine() -> None:
    forged = Forgery()
    forged.domains[0].unit = 1
    assert refusal(bytes(forged)) == lib.OOMSLICE_PLAN_E_DOMAIN
    forged = Forgery()
    forged.domains[0].flags = lib.OOMSLICE_DOMAIN_LOWER
    assert refusal(bytes(forged)) == lib.OOMSLICE_PLAN_E_DOMAIN


@pytest.mark.parametrize("field", ["available_min", "death_deadline_us", "sign", "thrash"])
def test_limits_of_the_machine_that_make_no_sense_are_refused(field: str) -> None:
    forged = Forgery()
    nonsense = {"kind": 1, "stall_us": 0, "window_us": 0} if field in ("sign", "thrash") else (1 << 64) - 1
    setattr(forged.header.machine, field, nonsense)
    assert refusal(bytes(forged)) == lib.OOMSLICE_PLAN_E_BOUNDS


def test_a_name_without_end_is_refused() -> None:
    forged = Forgery()
    forged.names[forged.header.names_size - 1] = b"x"
    assert refusal(bytes(forged)) == lib.OOMSLICE_PLAN_E_NAME


def test_a_name_longer_than_a_record_can_hold_is_refused() -> None:
    # Four names of 70 bytes that lose the NULs between them become one of 280.
    forged = Forgery(policy(*(unit(f"{i:0>62}.service", 10 + i) for i in range(4))))
    forged.units[2].name_offset = forged.units[3].name_offset = forged.units[4].name_offset = 0
    for i in range(8, forged.header.names_size - 1):
        if forged.names[i] == b"\0":
            forged.names[i] = b"x"
    assert refusal(bytes(forged)) == lib.OOMSLICE_PLAN_E_NAME


@pytest.mark.parametrize("field", ["units_count", "domains_count", "names_size"])
def test_counts_that_do_not_add_up_are_refused(field: str) -> None:
    good = bytes(Forgery())
    offset = ffi.offsetof("struct oomslice_plan_header", field)
    for count in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        memory = ffi.new("uint64_t[]", (len(good) + 7) // 8)
        ffi.memmove(memory, good[:offset] + count.to_bytes(4, "little") + good[offset + 4 :], len(good))
        header = ffi.cast("struct oomslice_plan_header *", memory)
        if getattr(header, field) != getattr(Forgery().header, field):
            assert lib.oomslice_plan_finish(memory, len(good)) == lib.OOMSLICE_PLAN_E_SIZE


def test_every_refusal_has_a_sentence_of_its_own() -> None:
    results = [value for name in dir(lib) if name.startswith("OOMSLICE_PLAN_E_") for value in [getattr(lib, name)]]
    texts = {ffi.string(lib.oomslice_plan_result_text(result)) for result in results}
    assert len(results) == len(texts) > 10
    assert ffi.string(lib.oomslice_plan_result_text(9999)) == b"unknown result"


@given(policies())
def test_who_pays_for_a_domain_is_the_same_in_the_core_as_in_a_ranking(wanted: Policy) -> None:
    data = encoded(wanted)
    buffer = ffi.new("char[]", data)  # aligned, unlike bytes
    plan, detail = ffi.new("struct oomslice_plan *"), ffi.new("uint32_t *")
    assert lib.oomslice_plan_check(buffer, len(data), plan, detail) == lib.OOMSLICE_PLAN_OK
    for number, domain in enumerate(wanted.domains):
        said = [
            bool(lib.oomslice_plan_pays_for(plan, plan.domains + number, index, one.priority))
            for index, one in enumerate(wanted.units)
        ]
        assert said == pays_for(wanted, domain)
