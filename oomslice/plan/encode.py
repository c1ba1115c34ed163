# SPDX-License-Identifier: LGPL-2.1-or-later
"""A policy as the bytes of a plan, and what can be read back from one.

Owns no rule of the format: sizes, limits and checks are the core's (core/plan.c), and a plan that leaves here was
accepted by the very code with which the core will check it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from oomslice._core import ffi, lib
from oomslice.cgroups.model import Usage
from oomslice.errors import PlanError
from oomslice.policy.model import Policy, PolicyDomain, PolicyUnit
from oomslice.policy.rank import unit_flags
from oomslice.settings.model import KillScope, MachineTriggers, PressureTrigger, PressureVictims, PsiKind, RankBy, Step
from oomslice.settings.steps import THROTTLE_DEFAULT
from oomslice.settings.values import parse_size

if TYPE_CHECKING:
    from oomslice._core import CData

RANK_BY: Mapping[RankBy, int] = {
    RankBy.MEMORY: lib.OOMSLICE_RANK_MEMORY,
    RankBy.SWAP: lib.OOMSLICE_RANK_SWAP,
    RankBy.GROWTH: lib.OOMSLICE_RANK_GROWTH,
    RankBy.REFAULT: lib.OOMSLICE_RANK_REFAULT,
}
"""RankBy= -> enum oomslice_rank_by."""

PSI_KIND: Mapping[PsiKind, int] = {PsiKind.SOME: lib.OOMSLICE_PSI_SOME, PsiKind.FULL: lib.OOMSLICE_PSI_FULL}
"""First word of PressureTrigger= -> enum oomslice_psi_kind."""

KILL_SCOPE: Mapping[KillScope, int] = {
    KillScope.UNIT: lib.OOMSLICE_SCOPE_UNIT,
    KillScope.SUBTREE: lib.OOMSLICE_SCOPE_SUBTREE,
    KillScope.PROCESS: lib.OOMSLICE_SCOPE_PROCESS,
}
"""KillScope= -> enum oomslice_kill_scope."""

STEP_KIND: Mapping[str, int] = {
    "kill": lib.OOMSLICE_STEP_KILL,
    "terminate": lib.OOMSLICE_STEP_TERMINATE,
    "freeze": lib.OOMSLICE_STEP_FREEZE,
    "throttle": lib.OOMSLICE_STEP_THROTTLE,
    "reclaim": lib.OOMSLICE_STEP_RECLAIM,
    "warn": lib.OOMSLICE_STEP_WARN,
    "purge": lib.OOMSLICE_STEP_PURGE,
    "checkpoint": lib.OOMSLICE_STEP_CHECKPOINT,
    "start": lib.OOMSLICE_STEP_START,
}
"""Name of a step -> enum oomslice_step_kind."""

_TIME_MAX_USEC = lib.OOMSLICE_PLAN_TIME_MAX_S * 1_000_000
_ELLIPSIS = "…".encode()
_MFD_NOEXEC_SEAL = 0x0008  # linux/memfd.h; the os module has no name for it yet


def encode(
    policy: Policy,
    *,
    generation: int,
    made_realtime_usec: int,
    usage: Mapping[int, Usage],
    memory_total: int,
    swap_total: int,
) -> bytes:
    """The finished, checked plan of a policy.

    `usage` (cgroup id -> figures now) is what growth and refaults will be counted from; a unit that is not in it
    starts from nothing. `memory_total` and `swap_total` (bytes) turn limits given in percent into bytes. A name that
    is too long is shortened and a time that is too long becomes the longest, so that neither can stop a plan.

    Raises PlanError if the policy is no plan: `result` and `detail` are what the core would have answered.
    """
    _refuse_twins(policy.units)
    names = _Names()
    offsets = [names.add(_shortened(unit.name)) for unit in policy.units]
    ladders = _Ladders(names)
    firsts = [ladders.add(unit.ladder, index) for index, unit in enumerate(policy.units)]
    size = (
        ffi.sizeof("struct oomslice_plan_header")
        + len(policy.units) * ffi.sizeof("struct oomslice_plan_unit")
        + len(policy.domains) * ffi.sizeof("struct oomslice_plan_domain")
        + len(ladders.steps) * ffi.sizeof("struct oomslice_plan_step")
        + len(names.packed)
    )
    if size > lib.OOMSLICE_PLAN_SIZE_MAX or len(policy.units) > lib.OOMSLICE_PLAN_UNITS_MAX:
        raise PlanError(
            f"{len(policy.units)} units make a plan of {size} bytes; the limits are {lib.OOMSLICE_PLAN_UNITS_MAX} units"
            f" and {lib.OOMSLICE_PLAN_SIZE_MAX} bytes",
            lib.OOMSLICE_PLAN_E_SIZE,
        )
    if len(ladders.steps) > lib.OOMSLICE_PLAN_STEPS_MAX:
        raise PlanError(
            f"the ladders of all units have {len(ladders.steps)} steps, equal ladders counted once; the limit is"
            f" {lib.OOMSLICE_PLAN_STEPS_MAX}",
            lib.OOMSLICE_PLAN_E_BOUNDS,
        )

    memory = _aligned(size)
    header = ffi.cast("struct oomslice_plan_header *", memory)
    units = ffi.cast("struct oomslice_plan_unit *", header + 1)
    domains = ffi.cast("struct oomslice_plan_domain *", units + len(policy.units))
    steps = ffi.cast("struct oomslice_plan_step *", domains + len(policy.domains))
    try:
        header.generation = generation
        header.made_realtime_us = made_realtime_usec
        header.units_count = len(policy.units)
        header.domains_count = len(policy.domains)
        header.steps_count = len(ladders.steps)
        header.names_size = len(names.packed)
        put_machine(header.machine, policy, memory_total, swap_total)
        for index, unit in enumerate(policy.units):
            _put_unit(units[index], unit, usage.get(unit.cgroup_id, Usage()), offsets[index], firsts[index])
        for index, domain in enumerate(policy.domains):
            _put_domain(domains[index], domain)
        for index, (step, text) in enumerate(ladders.steps):
            _put_step(steps[index], step, text)
    except OverflowError as error:
        raise PlanError(f"a number of the policy does not fit a plan: {error}", lib.OOMSLICE_PLAN_E_BOUNDS) from error
    ffi.memmove(ffi.cast("char *", steps + len(ladders.steps)), bytes(names.packed), len(names.packed))

    _raise_unless_good(lib.oomslice_plan_finish(memory, size), 0)
    data = bytes(ffi.buffer(memory, size))
    _check(data)
    return data


def decode(data: bytes) -> dict[str, Any]:
    """Everything a plan says, in plain types, keys as in core/plan.h. Raises PlanError if the core would refuse it."""
    plan, _memory = _check(data)
    header = plan.header
    return {
        "generation": header.generation,
        "made_realtime_us": header.made_realtime_us,
        "machine": _fields(header.machine),
        "units": [
            {**_fields(plan.units[index]), "name": _name(plan, index), "ladder": _ladder(plan, plan.units[index])}
            for index in range(header.units_count)
        ],
        "domains": [_fields(plan.domains[index]) for index in range(header.domains_count)],
    }


def plan_names(data: bytes) -> dict[int, str]:
    """Cgroup id -> unit name of every unit of a plan. Raises PlanError if the core would refuse it."""
    plan, _memory = _check(data)
    return {plan.units[index].cgroup_id: _name(plan, index) for index in range(plan.header.units_count)}


def plan_reserve(data: bytes) -> int:
    """The reserve that a plan asks for, in bytes. Raises PlanError if the core would refuse the plan."""
    plan, _memory = _check(data)
    return int(plan.header.machine.reserve)


def plan_texts(data: bytes) -> dict[int, dict[str, list[str]]]:
    """Cgroup id -> name of a step -> its paths or units in the unit's ladder, in order; without those that have none.

    Raises PlanError if the core would refuse the plan.
    """
    plan, _memory = _check(data)
    kinds = {kind: name for name, kind in STEP_KIND.items()}
    texts: dict[int, dict[str, list[str]]] = {}
    for unit in plan.units[0 : plan.header.units_count]:
        for step in _ladder(plan, unit):
            if step["text"]:
                texts.setdefault(unit.cgroup_id, {}).setdefault(kinds[step["kind"]], []).append(step["text"])
    return texts


def seal(data: bytes) -> int:
    """A memfd that holds `data` and can never change again. The caller closes it.

    Raises PlanError if the kernel refuses, or if the size is not one of a plan.
    """
    try:
        plan_fd = _memfd()
        try:
            with open(plan_fd, "wb", closefd=False) as file:
                file.write(data)
            seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            fcntl.fcntl(plan_fd, fcntl.F_ADD_SEALS, seals)
            _sealed_size(plan_fd)
        except BaseException:
            os.close(plan_fd)
            raise
    except OSError as error:
        raise PlanError(f"cannot seal a plan: {error.strerror}", -(error.errno or 0)) from error
    return plan_fd


def read_plan(plan_fd: int) -> bytes:
    """The bytes of a sealed plan; their content is not checked.

    Raises PlanError if it is not sealed, or is not of a size that a plan can have.
    """
    size = _sealed_size(plan_fd)
    try:
        return os.pread(plan_fd, size, 0)
    except OSError as error:
        raise PlanError(f"cannot read a plan: {error.strerror}", -(error.errno or 0)) from error


def _refuse_twins(units: Iterable[PolicyUnit]) -> None:
    """The id is what a unit is known by, so two with the same one are a mistake of whoever made the policy."""
    seen: dict[int, PolicyUnit] = {}
    for index, unit in enumerate(units):
        twin = seen.setdefault(unit.cgroup_id, unit)
        if twin is not unit:
            raise PlanError(
                f"{twin.name} and {unit.name} have the same cgroup id {unit.cgroup_id}",
                lib.OOMSLICE_PLAN_E_BOUNDS,
                index,
            )


class _Names:
    """The texts of a plan, each with its NUL, equal ones once."""

    def __init__(self) -> None:
        self.packed = bytearray()
        self._known: dict[bytes, int] = {}

    def add(self, text: bytes) -> int:
        """Where this text starts."""
        if text not in self._known:
            self._known[text] = len(self.packed)
            self.packed += text + b"\0"
        return self._known[text]


class _Ladders:
    """The steps of a plan, each with the offset of its text; equal ladders once."""

    def __init__(self, names: _Names) -> None:
        self.steps: list[tuple[Step, int]] = []
        self._names = names
        self._known: dict[tuple[Step, ...], int] = {}

    def add(self, ladder: tuple[Step, ...], unit: int) -> int:
        """Where this ladder starts. Raises PlanError if it cannot be one."""
        if not ladder:
            return 0
        if ladder not in self._known:
            self._known[ladder] = len(self.steps)
            self.steps += [(step, self._text(step, unit)) for step in ladder]
        return self._known[ladder]

    def _text(self, step: Step, unit: int) -> int:
        if step.name not in ("purge", "checkpoint", "start") or step.argument is None:
            return int(lib.OOMSLICE_PLAN_NO_TEXT)
        text = _bytes(step.argument)
        # Shortened, it would be another path or unit.
        if len(text) >= lib.OOMSLICE_UNIT_NAME_MAX:
            message = f"the step {step.name} has a text of {len(text)} bytes, more than a plan has room for"
            raise PlanError(message, lib.OOMSLICE_PLAN_E_LADDER, unit)
        return self._names.add(text)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape").replace(b"\0", b"")


def _shortened(text: str) -> bytes:
    name = _bytes(text)
    limit = lib.OOMSLICE_UNIT_NAME_MAX - 1
    if len(name) <= limit:
        return name
    whole = name[: limit - len(_ELLIPSIS)]
    # Never in the middle of a character: bytes 10xxxxxx continue one.
    while whole and name[len(whole)] & 0xC0 == 0x80:
        whole = whole[:-1]
    return whole + _ELLIPSIS


def put_machine(machine: CData, policy: Policy, memory_total: int, swap_total: int) -> None:
    triggers: MachineTriggers = policy.machine
    machine.available_min = triggers.available_min.of(memory_total)
    machine.available_ladder = triggers.available_ladder.of(memory_total)
    machine.swap_free_ladder = triggers.swap_free_ladder.of(swap_total)
    if triggers.available_ladder.is_zero:
        machine.swap_free_ladder = 0
    else:
        # Below the limits nobody waits any longer, so ladders begin at them at the latest.
        machine.available_ladder = max(machine.available_ladder, machine.available_min)
        machine.swap_free_ladder = max(machine.swap_free_ladder, triggers.swap_free_min.of(swap_total))
    # A watch that starts below a limit would never see it come.
    machine.available_watch = max(
        triggers.available_watch.of(memory_total), machine.available_min, machine.available_ladder
    )
    machine.swap_free_min = triggers.swap_free_min.of(swap_total)
    machine.available_thrash = triggers.available_thrash.of(memory_total)
    _put_trigger(machine.sign, triggers.sign)
    _put_trigger(machine.thrash, triggers.thrash)
    machine.death_deadline_us = min(policy.death_deadline_usec, _TIME_MAX_USEC)
    machine.reserve = policy.reserve.of(memory_total)
    machine.mark_kills = policy.mark_kills


def _put_unit(target: CData, unit: PolicyUnit, baseline: Usage, name_offset: int, steps_first: int) -> None:
    target.cgroup_id = unit.cgroup_id
    target.baseline_memory = baseline.memory
    target.baseline_refaults = baseline.refaults
    target.parent = unit.parent
    target.priority = unit.priority
    target.flags = unit_flags(unit)
    target.name_offset = name_offset
    target.steps_first = steps_first
    target.steps_count = len(unit.ladder)
    target.kill_scope = KILL_SCOPE[unit.kill_scope]


def _put_domain(target: CData, domain: PolicyDomain) -> None:
    target.unit = domain.unit
    target.rank_by = RANK_BY[domain.rank_by]
    target.flags = lib.OOMSLICE_DOMAIN_DRY_RUN if domain.dry_run else 0
    if domain.victims is PressureVictims.LOWER_PRIORITY:
        target.flags |= lib.OOMSLICE_DOMAIN_LOWER
    target.cooldown_us = min(domain.cooldown_usec, _TIME_MAX_USEC)
    _put_trigger(target.trigger, domain.settings.pressure_trigger)


def step_numbers(step: Step) -> tuple[int, int, bytes]:
    """A step that is asked for alone: enum oomslice_step_kind, amount, and its text. Raises PlanError."""
    target = ffi.new("struct oomslice_plan_step *")
    _put_step(target, step, 0)
    # What the amount does not say is in the text.
    text = b"" if target.amount or step.argument is None else _bytes(step.argument)
    if len(text) >= lib.OOMSLICE_REQUEST_TEXT:
        raise PlanError(f"the step {step.name} has a text of {len(text)} bytes, more than there is room for")
    return int(target.kind), int(target.amount), text


def _put_step(target: CData, step: Step, text: int) -> None:
    target.kind = STEP_KIND[step.name]
    target.delay_us = step.delay_usec
    target.text = text
    if step.name == "throttle":
        target.amount = THROTTLE_DEFAULT if step.argument is None else int(step.argument)
    elif step.name == "reclaim" and step.argument is not None:
        target.amount = parse_size(step.argument)


def _put_trigger(target: CData, trigger: PressureTrigger | None) -> None:
    """Writes a trigger into a zeroed `struct oomslice_psi_trigger`; None is the trigger that never fires."""
    if trigger is not None:
        target.kind = PSI_KIND[trigger.kind]
        target.stall_us = trigger.stall_usec
        target.window_us = trigger.window_usec


def _aligned(size: int) -> CData:
    """`size` zeroed bytes, aligned as every struct of a plan needs."""
    return ffi.new("uint64_t[]", (size + 7) // 8)


def _check(data: bytes) -> tuple[CData, CData]:
    """The checked plan and the memory that it points into, which must be kept as long as the plan is used."""
    memory = _aligned(len(data))
    ffi.memmove(memory, data, len(data))
    plan = ffi.new("struct oomslice_plan *")
    detail = ffi.new("uint32_t *")
    _raise_unless_good(lib.oomslice_plan_check(memory, len(data), plan, detail), detail[0])
    return plan, memory


def _sealed_size(plan_fd: int) -> int:
    size = ffi.new("size_t *")
    _raise_unless_good(lib.oomslice_plan_check_seals(plan_fd, size), 0)
    return int(size[0])


def _raise_unless_good(result: int, detail: int) -> None:
    if result == lib.OOMSLICE_PLAN_OK:
        return
    text = os.strerror(-result) if result < 0 else ffi.string(lib.oomslice_plan_result_text(result)).decode()
    raise PlanError(f"{text} (index {detail})" if detail else text, result, detail)


def _name(plan: CData, index: int) -> str:
    return bytes(ffi.string(lib.oomslice_plan_name(plan, index))).decode("utf-8", "surrogateescape")


def _ladder(plan: CData, unit: CData) -> list[dict[str, Any]]:
    """The steps of a unit, `text` being the text itself."""
    steps = []
    for index in range(unit.steps_first, unit.steps_first + unit.steps_count):
        step = plan.steps[index]
        text = bytes(ffi.string(lib.oomslice_plan_step_text(plan, ffi.addressof(step))))
        steps.append({**_fields(step), "text": text.decode("utf-8", "surrogateescape")})
    return steps


def _fields(struct: CData) -> dict[str, Any]:
    """A C struct as a dictionary, without its padding."""
    values: dict[str, Any] = {}
    for name, field in ffi.typeof(struct).fields:
        if name != "reserved":
            value = getattr(struct, name)
            values[name] = _fields(value) if field.type.kind == "struct" else value
    return values


def _memfd() -> int:
    with contextlib.suppress(OSError):
        return os.memfd_create("oomslice-plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _MFD_NOEXEC_SEAL)
    # Kernels before 6.3 do not know the last flag.
    return os.memfd_create("oomslice-plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
