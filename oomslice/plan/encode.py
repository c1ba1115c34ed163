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
from oomslice.settings.model import MachineTriggers, PressureTrigger, PsiKind, RankBy

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
    names, offsets = _pack_names(unit.name for unit in policy.units)
    size = (
        ffi.sizeof("struct oomslice_plan_header")
        + len(policy.units) * ffi.sizeof("struct oomslice_plan_unit")
        + len(policy.domains) * ffi.sizeof("struct oomslice_plan_domain")
        + len(names)
    )
    if size > lib.OOMSLICE_PLAN_SIZE_MAX or len(policy.units) > lib.OOMSLICE_PLAN_UNITS_MAX:
        raise PlanError(
            f"{len(policy.units)} units make a plan of {size} bytes; the limits are {lib.OOMSLICE_PLAN_UNITS_MAX} units"
            f" and {lib.OOMSLICE_PLAN_SIZE_MAX} bytes",
            lib.OOMSLICE_PLAN_E_SIZE,
        )

    memory = _aligned(size)
    header = ffi.cast("struct oomslice_plan_header *", memory)
    units = ffi.cast("struct oomslice_plan_unit *", header + 1)
    domains = ffi.cast("struct oomslice_plan_domain *", units + len(policy.units))
    try:
        header.generation = generation
        header.made_realtime_us = made_realtime_usec
        header.units_count = len(policy.units)
        header.domains_count = len(policy.domains)
        header.names_size = len(names)
        _put_machine(header.machine, policy, memory_total, swap_total)
        for index, unit in enumerate(policy.units):
            _put_unit(units[index], unit, usage.get(unit.cgroup_id, Usage()), offsets[index])
        for index, domain in enumerate(policy.domains):
            _put_domain(domains[index], domain)
    except OverflowError as error:
        raise PlanError(f"a number of the policy does not fit a plan: {error}", lib.OOMSLICE_PLAN_E_BOUNDS) from error
    ffi.memmove(ffi.cast("char *", domains + len(policy.domains)), names, len(names))

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
        "units": [{**_fields(plan.units[index]), "name": _name(plan, index)} for index in range(header.units_count)],
        "domains": [_fields(plan.domains[index]) for index in range(header.domains_count)],
    }


def plan_names(data: bytes) -> dict[int, str]:
    """Cgroup id -> unit name of every unit of a plan. Raises PlanError if the core would refuse it."""
    plan, _memory = _check(data)
    return {plan.units[index].cgroup_id: _name(plan, index) for index in range(plan.header.units_count)}


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


def _pack_names(names: Iterable[str]) -> tuple[bytes, list[int]]:
    """All names, each with its NUL, equal ones once; and where each unit's name starts."""
    packed = bytearray()
    known: dict[bytes, int] = {}
    offsets = []
    for name in names:
        encoded = _shortened(name.encode("utf-8", "surrogateescape").replace(b"\0", b""))
        if encoded not in known:
            known[encoded] = len(packed)
            packed += encoded + b"\0"
        offsets.append(known[encoded])
    return bytes(packed), offsets


def _shortened(name: bytes) -> bytes:
    limit = lib.OOMSLICE_UNIT_NAME_MAX - 1
    if len(name) <= limit:
        return name
    whole = name[: limit - len(_ELLIPSIS)]
    # Never in the middle of a character: bytes 10xxxxxx continue one.
    while whole and name[len(whole)] & 0xC0 == 0x80:
        whole = whole[:-1]
    return whole + _ELLIPSIS


def _put_machine(machine: CData, policy: Policy, memory_total: int, swap_total: int) -> None:
    triggers: MachineTriggers = policy.machine
    machine.available_min = triggers.available_min.of(memory_total)
    # A watch that starts below the limit would never see it come.
    machine.available_watch = max(triggers.available_watch.of(memory_total), machine.available_min)
    machine.swap_free_min = triggers.swap_free_min.of(swap_total)
    machine.available_thrash = triggers.available_thrash.of(memory_total)
    _put_trigger(machine.sign, triggers.sign)
    _put_trigger(machine.thrash, triggers.thrash)
    machine.death_deadline_us = min(policy.death_deadline_usec, _TIME_MAX_USEC)


def _put_unit(target: CData, unit: PolicyUnit, baseline: Usage, name_offset: int) -> None:
    target.cgroup_id = unit.cgroup_id
    target.baseline_memory = baseline.memory
    target.baseline_refaults = baseline.refaults
    target.parent = unit.parent
    target.priority = unit.priority
    target.flags = unit_flags(unit)
    target.name_offset = name_offset


def _put_domain(target: CData, domain: PolicyDomain) -> None:
    target.unit = domain.unit
    target.rank_by = RANK_BY[domain.rank_by]
    target.flags = lib.OOMSLICE_UNIT_DRY_RUN if domain.dry_run else 0
    target.cooldown_us = min(domain.cooldown_usec, _TIME_MAX_USEC)
    _put_trigger(target.trigger, domain.settings.pressure_trigger)


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
