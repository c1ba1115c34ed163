# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reader's side of the ring in shared memory: the core's records become decisions.

A record stays in the ring until it is released, and it is released only once it is stored: whoever dies in between,
it is offered again under the same id. What stands in the ring is taken with care: a damaged record gives an odd
decision, never an exception.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, TypeAlias

from oomslice._core import ffi, lib
from oomslice.decisions.history import History, MachineSample, UnitSample
from oomslice.decisions.record import UNDOABLE, Candidate, Decision, StepTaken, Undo
from oomslice.errors import ChannelError
from oomslice.settings.model import PressureTrigger, PsiKind

Texts: TypeAlias = Mapping[str, Sequence[str]]
"""Name of a step -> its arguments in one ladder, in order."""
NO_TEXTS: Mapping[int, Texts] = MappingProxyType({})

TRIGGERS: Mapping[int, str] = {
    lib.OOMSLICE_TRIGGER_AVAILABLE: "memory-available",
    lib.OOMSLICE_TRIGGER_THRASH: "thrash",
    lib.OOMSLICE_TRIGGER_PRESSURE: "pressure",
    lib.OOMSLICE_TRIGGER_KERNEL: "kernel-oom",
    lib.OOMSLICE_TRIGGER_LOW: "memory-low",
    lib.OOMSLICE_TRIGGER_ASKED: "asked",
}
OUTCOMES: Mapping[int, str] = {
    lib.OOMSLICE_OUTCOME_FREED: "freed",
    lib.OOMSLICE_OUTCOME_DEADLINE: "deadline",
    lib.OOMSLICE_OUTCOME_DRY_RUN: "dry-run",
    lib.OOMSLICE_OUTCOME_NO_CANDIDATE: "no-candidate",
    lib.OOMSLICE_OUTCOME_FAILED: "failed",
    lib.OOMSLICE_OUTCOME_GONE: "gone",
    lib.OOMSLICE_OUTCOME_INTERRUPTED: "interrupted",
    lib.OOMSLICE_OUTCOME_REFUSED: "refused",
    lib.OOMSLICE_OUTCOME_RELIEVED: "relieved",
    lib.OOMSLICE_OUTCOME_HELD: "held",
    lib.OOMSLICE_OUTCOME_KEPT: "kept",
    lib.OOMSLICE_OUTCOME_DONE: "done",
}
RANKS: Mapping[int, str] = {
    lib.OOMSLICE_RANK_MEMORY: "memory",
    lib.OOMSLICE_RANK_SWAP: "swap",
    lib.OOMSLICE_RANK_GROWTH: "growth",
    lib.OOMSLICE_RANK_REFAULT: "refault",
}
STEPS: Mapping[int, str] = {
    lib.OOMSLICE_STEP_KILL: "kill",
    lib.OOMSLICE_STEP_TERMINATE: "terminate",
    lib.OOMSLICE_STEP_FREEZE: "freeze",
    lib.OOMSLICE_STEP_THROTTLE: "throttle",
    lib.OOMSLICE_STEP_RECLAIM: "reclaim",
    lib.OOMSLICE_STEP_WARN: "warn",
    lib.OOMSLICE_STEP_PURGE: "purge",
    lib.OOMSLICE_STEP_CHECKPOINT: "checkpoint",
    lib.OOMSLICE_STEP_START: "start",
}
RESULTS: Mapping[int, str] = {
    lib.OOMSLICE_RESULT_PENDING: "pending",
    lib.OOMSLICE_RESULT_DONE: "done",
    lib.OOMSLICE_RESULT_FAILED: "failed",
    lib.OOMSLICE_RESULT_LATE: "late",
    lib.OOMSLICE_RESULT_UNAVAILABLE: "unavailable",
    lib.OOMSLICE_RESULT_NEEDLESS: "needless",
    lib.OOMSLICE_RESULT_DRY_RUN: "dry-run",
}
SCOPES: Mapping[int, str] = {
    lib.OOMSLICE_SCOPE_UNIT: "unit",
    lib.OOMSLICE_SCOPE_SUBTREE: "subtree",
    lib.OOMSLICE_SCOPE_PROCESS: "process",
}
FLAGS: Mapping[int, str] = {
    lib.OOMSLICE_RECORD_RESTARTING: "restarting",
    lib.OOMSLICE_RECORD_WATCHDOG: "watchdog",
    lib.OOMSLICE_RECORD_UNMARKED: "unmarked",
}
PSI_KINDS: Mapping[int, PsiKind] = {
    lib.OOMSLICE_PSI_SOME: PsiKind.SOME,
    lib.OOMSLICE_PSI_FULL: PsiKind.FULL,
}


@dataclass(frozen=True, slots=True)
class StepRequest:
    """A step that the core asks the extended part for. `serial` names it in its ring."""

    serial: int
    kind: int
    """enum oomslice_step_kind"""
    decision: str
    """id of the decision that it belongs to"""
    deadline_usec: int
    """CLOCK_MONOTONIC; the core goes on without it from then on"""
    domain: str
    """name of the unit whose shortage it is"""
    cgroup_id: int
    victim: str
    text: str
    amount: int
    """bytes"""


@dataclass(frozen=True, slots=True)
class Begun:
    """A decision that is being carried out, as far as it has come."""

    id: str
    victim: str
    steps: Sequence[tuple[str, str]]
    """name and result of each step that is over"""


class Ring:
    """The ring in the memfd `fd`, which stays the caller's and may be closed after this.

    Raises ChannelError if it holds no ring of this version.
    """

    def __init__(self, fd: int) -> None:
        try:
            self._map = mmap.mmap(fd, lib.OOMSLICE_RING_SIZE)
        except (OSError, ValueError) as error:
            raise ChannelError(f"the core's ring cannot be mapped: {error}") from error
        self._data = ffi.from_buffer("char[]", self._map, require_writable=True)
        if lib.oomslice_ring_check(self._data) != 0:
            self.close()
            raise ChannelError("the core's ring is damaged or of another version")
        self._header = ffi.cast("struct oomslice_ring_header *", self._data)
        self.id: int = self._header.ring_id
        """names the ring for ever; with a record's sequence it is the decision's id"""

    @property
    def dropped(self) -> int:
        """Records the core could not write because the ring was full. Their kills happened all the same."""
        return int(self._header.dropped)

    @property
    def pending(self) -> int:
        """Records that are not released yet, complete or not."""
        return int(self._header.head - self._header.tail)

    def drain(
        self, names: Mapping[int, str], boot_id: str, texts: Mapping[int, Texts] = NO_TEXTS
    ) -> Iterator[Decision | Undo]:
        """The complete records, oldest first: decisions, and what of earlier ones was undone.

        `names` gives unit names by cgroup id, for the candidates; `texts` the paths and units in the victims' ladders.
        Each must be released before the next is asked for; one that was not ends the iteration.
        """
        released = -1
        while True:
            record = lib.oomslice_ring_next(self._open_data())
            if record == ffi.NULL or int(record.sequence) == released:
                return
            released = int(record.sequence)
            if record.trigger == lib.OOMSLICE_TRIGGER_CALM:
                yield _undo(record, self.id)
            else:
                yield _decision(record, self.id, names, boot_id, texts)

    def release(self, decision: Decision | Undo) -> None:
        """Gives the record's slot back to the core. Raises ValueError if it is not of this ring."""
        ring_id, _, sequence = decision.id.partition("-")
        if ring_id != f"{self.id:016x}" or not sequence.isdecimal():
            raise ValueError(f"record {decision.id} is not of ring {self.id:016x}")
        lib.oomslice_ring_release(self._open_data(), int(sequence))

    def history(self, since_usec: int, names: Mapping[int, str]) -> History:
        """What the core noted since then (CLOCK_MONOTONIC) of the machine, and of units that `names` knows by id."""
        samples = ffi.new("struct oomslice_history_sample[]", lib.OOMSLICE_HISTORY_SAMPLES)
        units = ffi.new("struct oomslice_history_unit[]", lib.OOMSLICE_HISTORY_UNITS)
        since_usec = max(since_usec, 0)
        samples_count = lib.oomslice_history_samples(self._open_data(), since_usec, samples)
        units_count = lib.oomslice_history_units(self._open_data(), since_usec, units)
        return History(
            tuple(
                MachineSample(
                    usec=int(sample.at_us),
                    memory_available=int(sample.available),
                    swap_free=int(sample.swap_free),
                    some_usec=int(sample.some_total_us),
                    full_usec=int(sample.full_total_us),
                )
                for sample in samples[0:samples_count]
            ),
            tuple(
                UnitSample(usec=int(unit.at_us), unit=names[int(unit.cgroup_id)], memory=int(unit.memory))
                for unit in units[0:units_count]
                if int(unit.cgroup_id) in names
            ),
        )

    @property
    def pressed(self) -> frozenset[int]:
        """Ids of the cgroups of the domains that are short of memory now."""
        self._open_data()
        return frozenset(int(id) for id in self._header.pressed if id)

    def begun(self) -> list[Begun]:
        """The decisions that are not complete yet, with the steps that are over."""
        found = []
        for sequence in range(int(self._header.tail) + 1, min(int(self._header.head), int(self._header.tail) + 32) + 1):
            record = self._record(sequence)
            if record is None or record.state == lib.OOMSLICE_RECORD_FINAL or not record.victim_cgroup_id:
                continue
            steps = [(step.step, step.result) for step in _steps(record, {}) if step.result != "pending"]
            found.append(Begun(f"{self.id:016x}-{sequence}", _text(record.victim_name), steps))
        return found

    def take_request(self) -> StepRequest | None:
        """The oldest request that nobody has taken; it is ours to answer then."""
        request = ffi.new("struct oomslice_request *")
        if not lib.oomslice_ring_take_request(self._open_data(), request):
            return None
        return StepRequest(
            serial=int(request.serial),
            kind=int(request.kind),
            decision=f"{self.id:016x}-{int(request.sequence)}",
            deadline_usec=int(request.deadline_us),
            domain=self._domain(int(request.sequence)),
            cgroup_id=int(request.cgroup_id),
            victim=_text(request.victim),
            text=_text(request.text),
            amount=int(request.amount),
        )

    def answer(self, serial: int, result: int, error: int) -> None:
        """Answers a request, with enum oomslice_step_result and errno. One that the core has given up is left alone."""
        lib.oomslice_ring_answer(self._open_data(), serial, result, error)

    def _domain(self, sequence: int) -> str:
        """Of the record of this sequence, while it is in the ring, else empty."""
        record = self._record(sequence)
        return _text(record.domain_name) if record is not None else ""

    def _record(self, sequence: int) -> Any:
        """The record of this sequence, None if it is not in the ring."""
        slot = lib.OOMSLICE_RING_HEADER_SIZE + (sequence - 1) % lib.OOMSLICE_RING_SLOTS * lib.OOMSLICE_RECORD_SIZE
        record = ffi.cast("struct oomslice_record *", self._open_data() + slot)
        return record if record.sequence == sequence else None

    def abandoned(self, own: Collection[int] = ()) -> list[int]:
        """Serials of requests that a reader before us took and did not answer; `own` are those we work on."""
        self._open_data()
        return [
            int(request.serial)
            for request in self._header.requests
            if request.serial
            and request.taken == request.serial
            and request.answered != request.serial
            and int(request.serial) not in own
        ]

    def close(self) -> None:
        """Unmaps the ring; nothing can be read or released any more."""
        self._header = self._data = ffi.NULL
        self._map.close()

    def _open_data(self) -> Any:
        if self._data == ffi.NULL:
            raise ChannelError("the core's ring was closed")
        return self._data

    def __enter__(self) -> Ring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _undo(record: Any, ring_id: int) -> Undo:
    errors: dict[str, int] = {}
    for step in record.steps[0 : min(record.steps_count, lib.OOMSLICE_RECORD_STEPS)]:
        good = step.result in (lib.OOMSLICE_RESULT_DONE, lib.OOMSLICE_RESULT_NEEDLESS)
        errors[STEPS.get(step.kind, "")] = 0 if good else abs(int(step.error)) or errno.EIO
    if not record.steps_count and record.outcome == lib.OOMSLICE_OUTCOME_UNDONE:
        errors = dict.fromkeys(UNDOABLE, 0)
    return Undo(
        id=f"{ring_id:016x}-{int(record.sequence)}",
        decision=f"{int(record.undoes_ring):016x}-{int(record.undoes_sequence)}",
        usec=int(record.trigger_us),
        errors=errors,
    )


def _steps(record: Any, texts: Texts) -> tuple[StepTaken, ...]:
    left = {kind: list(written) for kind, written in texts.items()}
    taken = []
    for step in record.steps[0 : min(record.steps_count, lib.OOMSLICE_RECORD_STEPS)]:
        name = STEPS.get(step.kind, f"step-{int(step.kind)}")
        written = left.get(name)
        taken.append(
            StepTaken(
                step=name,
                result=RESULTS.get(step.result, f"result-{int(step.result)}"),
                argument=written.pop(0) if written else "",
                amount=int(step.amount),
                error=abs(int(step.error)),
                begin_usec=int(step.begin_us),
                end_usec=int(step.end_us),
                memory_before=int(step.memory_before),
                memory_after=int(step.memory_after),
            )
        )
    return tuple(taken)


def _last_acted(steps: Sequence[StepTaken]) -> str:
    """The step that a decision is known by: of a dry run the one that would have been the last."""
    acted = [step.step for step in steps if step.acted] or [step.step for step in steps]
    return acted[-1] if acted else "kill"


def _decision(
    record: Any, ring_id: int, names: Mapping[int, str], boot_id: str, texts: Mapping[int, Texts]
) -> Decision:
    pressure = record.pressure
    victim_cgroup_id = int(record.victim_cgroup_id)
    victim = _name(record.victim_name, victim_cgroup_id, names) if victim_cgroup_id else ""
    # A victim younger than the plan is in no list, and its cgroup is gone by now: the record alone knows its name.
    names = {victim_cgroup_id: victim, **names}
    candidates = tuple(
        Candidate(
            name=names.get(int(candidate.cgroup_id)) or f"cgroup:{int(candidate.cgroup_id)}",
            cgroup_id=int(candidate.cgroup_id),
            priority=int(candidate.priority),
            metric=int(candidate.metric),
            verdict=_verdict(int(candidate.verdict)),
        )
        for candidate in record.candidates[0 : min(record.candidates_count, lib.OOMSLICE_RECORD_CANDIDATES)]
    )
    steps = _steps(record, texts.get(victim_cgroup_id, {}))
    return Decision(
        id=f"{ring_id:016x}-{int(record.sequence)}",
        boot_id=boot_id,
        carrier="core",
        trigger=TRIGGERS.get(record.trigger, f"trigger-{int(record.trigger)}"),
        domain=_name(record.domain_name, int(record.domain_cgroup_id), names),
        outcome=OUTCOMES.get(record.outcome, f"outcome-{int(record.outcome)}"),
        realtime_usec=int(record.trigger_realtime_us),
        trigger_usec=int(record.trigger_us),
        decision_usec=int(record.decision_us),
        signal_usec=int(record.signal_us),
        death_usec=int(record.death_us),
        memory_back_usec=int(record.memory_back_us),
        step=_last_acted(steps),
        steps=steps,
        kill_scope=SCOPES.get(record.kill_scope, f"scope-{int(record.kill_scope)}"),
        flags=tuple(name for bit, name in FLAGS.items() if record.flags & bit),
        rank_by=RANKS.get(record.rank_by, f"rank-{int(record.rank_by)}"),
        victim=victim,
        victim_cgroup_id=victim_cgroup_id,
        victim_priority=int(record.victim_priority),
        victim_memory_before=int(record.victim_memory_before),
        victim_memory_after=int(record.victim_memory_after),
        bytes_freed=_bytes_freed(record, steps),
        processes=int(record.processes_total),
        pids=tuple(int(pid) for pid in record.pids[0 : min(record.pids_count, lib.OOMSLICE_RECORD_PIDS)]),
        reaped=int(record.reaped_count),
        error=abs(int(record.error)),
        memory_total=int(record.mem_total),
        memory_available=int(record.mem_available),
        memory_available_limit=int(record.mem_available_limit),
        memory_available_after=int(record.mem_available_after),
        swap_total=int(record.swap_total),
        swap_free=int(record.swap_free),
        swap_free_limit=int(record.swap_free_limit),
        pressure=_pressure(pressure),
        pressure_some_avg10=int(pressure.some_avg10) / 100,
        pressure_full_avg10=int(pressure.full_avg10) / 100,
        plan_generation=int(record.plan_generation),
        candidates=candidates,
        candidates_total=max(int(record.candidates_total), len(candidates)),
        extra={
            "victim_metric": int(record.victim_metric),
            "domain_cgroup_id": int(record.domain_cgroup_id),
            "pressure_some_total_usec": int(pressure.some_total_us),
            "pressure_full_total_usec": int(pressure.full_total_us),
            **({"asked_uid": int(record.asked_user)} if record.trigger == lib.OOMSLICE_TRIGGER_ASKED else {}),
        },
    )


def _bytes_freed(record: Any, steps: Sequence[StepTaken]) -> int:
    """What the victim gave back: something must have been done for anything to be freed by us."""
    if not record.signal_us:
        acted = [step for step in steps if step.acted]
        return sum(max(0, step.memory_before - step.memory_after) for step in acted)
    return max(0, int(record.victim_memory_before) - int(record.victim_memory_after))


def _name(text: Any, cgroup_id: int, names: Mapping[int, str]) -> str:
    # The copy in the record is what the plan in force said; `names` may be of a newer one.
    return _text(text) or names.get(cgroup_id) or f"cgroup:{cgroup_id}"


def _text(array: Any) -> str:
    return bytes(ffi.buffer(array)).split(b"\0", 1)[0].decode("utf-8", "replace")


def _pressure(figures: Any) -> str:
    kind = PSI_KINDS.get(figures.kind)
    return str(PressureTrigger(kind, int(figures.stall_us), int(figures.window_us))) if kind else ""


def _verdict(verdict: int) -> str:
    text = lib.oomslice_verdict_text(verdict)
    return ffi.string(text).decode() if text != ffi.NULL else f"verdict-{verdict}"
