# SPDX-License-Identifier: LGPL-2.1-or-later
"""Typed contract of the C module, kept by hand; tests/unit/test_core_stub.py holds it against the module.

What the constants, structs and functions mean is said in the headers of core/, which cffi_build.py reads.
"""

from typing import Any, Protocol, TypeAlias

CData: TypeAlias = Any
"""A C value owned or pointed to by cffi. Exists for type checkers only."""

class _CType(Protocol):
    cname: str
    kind: str
    fields: list[tuple[str, Any]]
    args: tuple[Any, ...]
    result: Any

class _FFI:
    """The part of cffi.FFI that this package uses."""

    NULL: CData
    errno: int
    error: type[Exception]
    def new(self, cdecl: str, init: Any = ...) -> CData: ...
    def cast(self, cdecl: str, source: Any) -> CData: ...
    def buffer(self, cdata: CData, size: int = ...) -> Any: ...
    def from_buffer(self, cdecl: Any, python_buffer: Any = ..., require_writable: bool = ...) -> CData: ...
    def memmove(self, dest: Any, src: Any, n: int) -> None: ...
    def string(self, cdata: CData, maxlen: int = ...) -> bytes: ...
    def sizeof(self, cdecl: Any) -> int: ...
    def alignof(self, cdecl: str) -> int: ...
    def offsetof(self, cdecl: str, *fields_or_indexes: str | int) -> int: ...
    def typeof(self, cdecl: Any) -> _CType: ...
    def release(self, cdata: CData) -> None: ...
    def addressof(self, cdata: CData, *fields_or_indexes: str | int) -> CData: ...
    def gc(self, cdata: CData, destructor: Any, size: int = ...) -> CData: ...

class _Library:
    # core/plan.h
    OOMSLICE_PLAN_VERSION: int
    OOMSLICE_PLAN_UNITS_MAX: int
    OOMSLICE_PLAN_DOMAINS_MAX: int
    OOMSLICE_PLAN_STEPS_MAX: int
    OOMSLICE_LADDER_STEPS_MAX: int
    OOMSLICE_PLAN_SIZE_MAX: int
    OOMSLICE_UNIT_NAME_MAX: int
    OOMSLICE_PLAN_TIME_MAX_S: int
    OOMSLICE_PRIORITY_MIN: int
    OOMSLICE_PRIORITY_MAX: int
    OOMSLICE_PSI_WINDOW_MIN_US: int
    OOMSLICE_PSI_WINDOW_MAX_US: int
    OOMSLICE_PLAN_NO_TEXT: int
    OOMSLICE_UNIT_CANDIDATE: int
    OOMSLICE_UNIT_PROTECTED: int
    OOMSLICE_UNIT_SELF: int
    OOMSLICE_UNIT_LEFT_TO_OOMD: int
    OOMSLICE_UNIT_DRY_RUN: int
    OOMSLICE_DOMAIN_DRY_RUN: int
    OOMSLICE_DOMAIN_LOWER: int
    OOMSLICE_UNIT_TAKEN: int
    OOMSLICE_RANK_MEMORY: int
    OOMSLICE_RANK_SWAP: int
    OOMSLICE_RANK_GROWTH: int
    OOMSLICE_RANK_REFAULT: int
    OOMSLICE_SCOPE_UNIT: int
    OOMSLICE_SCOPE_SUBTREE: int
    OOMSLICE_SCOPE_PROCESS: int
    OOMSLICE_STEP_KILL: int
    OOMSLICE_STEP_TERMINATE: int
    OOMSLICE_STEP_FREEZE: int
    OOMSLICE_STEP_THROTTLE: int
    OOMSLICE_STEP_RECLAIM: int
    OOMSLICE_STEP_WARN: int
    OOMSLICE_STEP_PURGE: int
    OOMSLICE_STEP_CHECKPOINT: int
    OOMSLICE_STEP_START: int
    OOMSLICE_PSI_NONE: int
    OOMSLICE_PSI_SOME: int
    OOMSLICE_PSI_FULL: int
    OOMSLICE_PLAN_OK: int
    OOMSLICE_PLAN_E_SEALS: int
    OOMSLICE_PLAN_E_SIZE: int
    OOMSLICE_PLAN_E_MAGIC: int
    OOMSLICE_PLAN_E_VERSION: int
    OOMSLICE_PLAN_E_CHECKSUM: int
    OOMSLICE_PLAN_E_BOUNDS: int
    OOMSLICE_PLAN_E_PARENT: int
    OOMSLICE_PLAN_E_NAME: int
    OOMSLICE_PLAN_E_DOMAIN: int
    OOMSLICE_PLAN_E_GENERATION: int
    OOMSLICE_PLAN_E_DESCRIPTORS: int
    OOMSLICE_PLAN_E_CGROUP: int
    OOMSLICE_PLAN_E_SEQUENCE: int
    OOMSLICE_PLAN_E_LADDER: int
    def oomslice_plan_finish(self, data: CData, size: int, /) -> int: ...
    def oomslice_plan_check(self, data: CData, size: int, planp: CData, detailp: CData, /) -> int: ...
    def oomslice_plan_check_seals(self, fd: int, sizep: CData, /) -> int: ...
    def oomslice_plan_pays_for(self, plan: CData, domain: CData, unit: int, priority: int, /) -> int: ...
    def oomslice_plan_is_below(self, plan: CData, unit: int, ancestor: int, /) -> int: ...
    def oomslice_plan_name(self, plan: CData, unit: int, /) -> CData: ...
    def oomslice_plan_step_text(self, plan: CData, step: CData, /) -> CData: ...
    def oomslice_plan_result_text(self, result: int, /) -> CData: ...
    def oomslice_plan_is_harsh(self, kind: int, /) -> int: ...

    # core/select.h
    OOMSLICE_VERDICT_ELIGIBLE: int
    OOMSLICE_VERDICT_CHOSEN: int
    OOMSLICE_VERDICT_EMPTY: int
    OOMSLICE_VERDICT_TRIED: int
    OOMSLICE_VERDICT_GONE: int
    OOMSLICE_VERDICT_LEFT_TO_OOMD: int
    OOMSLICE_VERDICT_PROTECTED: int
    OOMSLICE_VERDICT_SELF: int
    OOMSLICE_VERDICT_CONTAINER: int
    OOMSLICE_VERDICT_OUTSIDE: int
    OOMSLICE_CANDIDATE_POPULATED: int
    OOMSLICE_CANDIDATE_GONE: int
    OOMSLICE_CANDIDATE_TRIED: int
    OOMSLICE_CANDIDATE_BELOW: int
    def oomslice_select(self, candidates: CData, count: int, /) -> int: ...
    def oomslice_verdict_text(self, verdict: int, /) -> CData: ...

    # core/ring.h
    OOMSLICE_RING_VERSION: int
    OOMSLICE_RING_SLOTS: int
    OOMSLICE_RING_HEADER_SIZE: int
    OOMSLICE_RECORD_SIZE: int
    OOMSLICE_RECORD_PIDS: int
    OOMSLICE_RECORD_CANDIDATES: int
    OOMSLICE_RECORD_STEPS: int
    OOMSLICE_RING_REQUESTS: int
    OOMSLICE_REQUEST_TEXT: int
    OOMSLICE_RING_PRESSED: int
    OOMSLICE_HISTORY_SAMPLES: int
    OOMSLICE_HISTORY_UNITS: int
    OOMSLICE_HISTORY_OFFSET: int
    OOMSLICE_RING_SIZE: int
    OOMSLICE_TRIGGER_AVAILABLE: int
    OOMSLICE_TRIGGER_THRASH: int
    OOMSLICE_TRIGGER_PRESSURE: int
    OOMSLICE_TRIGGER_KERNEL: int
    OOMSLICE_TRIGGER_LOW: int
    OOMSLICE_TRIGGER_CALM: int
    OOMSLICE_TRIGGER_ASKED: int
    OOMSLICE_RECORD_EMPTY: int
    OOMSLICE_RECORD_CHOSEN: int
    OOMSLICE_RECORD_SIGNALLED: int
    OOMSLICE_RECORD_FINAL: int
    OOMSLICE_OUTCOME_PENDING: int
    OOMSLICE_OUTCOME_FREED: int
    OOMSLICE_OUTCOME_DEADLINE: int
    OOMSLICE_OUTCOME_DRY_RUN: int
    OOMSLICE_OUTCOME_NO_CANDIDATE: int
    OOMSLICE_OUTCOME_FAILED: int
    OOMSLICE_OUTCOME_GONE: int
    OOMSLICE_OUTCOME_INTERRUPTED: int
    OOMSLICE_OUTCOME_REFUSED: int
    OOMSLICE_OUTCOME_RELIEVED: int
    OOMSLICE_OUTCOME_HELD: int
    OOMSLICE_OUTCOME_KEPT: int
    OOMSLICE_OUTCOME_UNDONE: int
    OOMSLICE_OUTCOME_DONE: int
    OOMSLICE_RESULT_PENDING: int
    OOMSLICE_RESULT_DONE: int
    OOMSLICE_RESULT_FAILED: int
    OOMSLICE_RESULT_LATE: int
    OOMSLICE_RESULT_UNAVAILABLE: int
    OOMSLICE_RESULT_NEEDLESS: int
    OOMSLICE_RESULT_DRY_RUN: int
    OOMSLICE_RECORD_RESTARTING: int
    OOMSLICE_RECORD_WATCHDOG: int
    OOMSLICE_RECORD_UNMARKED: int
    def oomslice_ring_init(self, map: CData, ring_id: int, /) -> None: ...
    def oomslice_ring_check(self, map: CData, /) -> int: ...
    def oomslice_ring_take(self, map: CData, /) -> CData: ...
    def oomslice_ring_set_state(self, record: CData, state: int, /) -> None: ...
    def oomslice_ring_recover(self, map: CData, /) -> int: ...
    def oomslice_ring_ask(self, map: CData, request: CData, /) -> int: ...
    def oomslice_ring_answered(self, map: CData, serial: int, resultp: CData, errorp: CData, /) -> int: ...
    def oomslice_ring_forget(self, map: CData, serial: int, /) -> None: ...
    def oomslice_ring_take_request(self, map: CData, requestp: CData, /) -> int: ...
    def oomslice_ring_answer(self, map: CData, serial: int, result: int, error: int, /) -> None: ...
    def oomslice_ring_next(self, map: CData, /) -> CData: ...
    def oomslice_ring_release(self, map: CData, sequence: int, /) -> None: ...

    # core/history.h
    def oomslice_history_add_sample(self, map: CData, sample: CData, /) -> None: ...
    def oomslice_history_add_unit(self, map: CData, unit: CData, /) -> None: ...
    def oomslice_history_samples(self, map: CData, since_us: int, samples: CData, /) -> int: ...
    def oomslice_history_units(self, map: CData, since_us: int, units: CData, /) -> int: ...
    # core/channel.h
    OOMSLICE_CHANNEL_VERSION: int
    OOMSLICE_CHANNEL_DESCRIPTORS: int
    OOMSLICE_MESSAGE_HELLO: int
    OOMSLICE_MESSAGE_HELLO_REPLY: int
    OOMSLICE_MESSAGE_PLAN_BEGIN: int
    OOMSLICE_MESSAGE_PLAN_DESCRIPTORS: int
    OOMSLICE_MESSAGE_PLAN_COMMIT: int
    OOMSLICE_MESSAGE_PLAN_REPLY: int
    OOMSLICE_MESSAGE_STATE: int
    OOMSLICE_MESSAGE_STATE_REPLY: int
    OOMSLICE_MESSAGE_ACT: int
    OOMSLICE_MESSAGE_ACT_REPLY: int
    OOMSLICE_MESSAGE_RELEASE: int
    OOMSLICE_MESSAGE_RELEASE_REPLY: int
    OOMSLICE_MESSAGE_PROGRAMS: int
    OOMSLICE_MESSAGE_PROGRAMS_REPLY: int
    OOMSLICE_FEATURE_LOCKED: int
    OOMSLICE_FEATURE_REALTIME: int
    OOMSLICE_FEATURE_CGROUP_KILL: int
    OOMSLICE_FEATURE_MRELEASE: int
    OOMSLICE_FEATURE_PSI_MACHINE: int
    OOMSLICE_FEATURE_PSI_DOMAINS: int
    OOMSLICE_FEATURE_MEMORY: int
    OOMSLICE_FEATURE_FAULTS: int
    OOMSLICE_FEATURE_PULSE: int

    # core/psi.h
    def oomslice_psi_open(self, dir_fd: int, path: bytes, trigger: CData, /) -> int: ...

    # core/cgroup.h
    def oomslice_cgroup_kill(self, cgroup_fd: int, /) -> int: ...
    def oomslice_cgroup_id(self, cgroup_fd: int, idp: CData, /) -> int: ...
    def oomslice_cgroup_open_by_id(self, root_fd: int, id: int, /) -> int: ...

    # core/kill.h
    def oomslice_pidfd_open(self, pid: int, /) -> int: ...
    def oomslice_pidfd_send_signal(self, pidfd: int, signal: int, /) -> int: ...
    def oomslice_process_mrelease(self, pidfd: int, /) -> int: ...

    # core/watch.h
    def oomslice_watch_margin(self, machine: CData, info: CData, /) -> int: ...
    def oomslice_watch_interval(self, margin: int, fall: int, /) -> int: ...
    def oomslice_watch_pause(self, machine: CData, info: CData, fall: int, /) -> int: ...
    def oomslice_watch_update(self, watch: CData, machine: CData, info: CData, now_us: int, /) -> int: ...
    def oomslice_watch_judge(self, machine: CData, info: CData, thrashing: int, waited: int, /) -> int: ...

    # core/pinned.h
    def oomslice_pinned_open(self, path: bytes, /) -> int: ...
    def oomslice_pinned_map(self, fd: int, mapp: CData, /) -> int: ...
    def oomslice_pinned_lookup(self, fd: int, key: CData, value: CData, /) -> int: ...
    def oomslice_pinned_update(self, fd: int, key: CData, value: CData, /) -> int: ...
    def oomslice_pinned_delete(self, fd: int, key: CData, /) -> int: ...
    def oomslice_pinned_attach(self, map: int, cgroup: int, flags: int, /) -> int: ...
    def oomslice_pinned_missed(self, path: bytes, missedp: CData, /) -> int: ...

    # core/fact.h
    OOMSLICE_FACT_KILL: int
    OOMSLICE_FACT_VICTIM: int
    OOMSLICE_FACT_END: int
    OOMSLICE_FACT_LEVELS: int
    OOMSLICE_FACT_NAME_MAX: int
    OOMSLICE_FACT_TASK_MAX: int
    def oomslice_facts_new(self, fd: int, /) -> CData: ...
    def oomslice_facts_free(self, facts: CData, /) -> None: ...
    def oomslice_facts_next(self, facts: CData, recordp: CData, sizep: CData, /) -> int: ...
    def oomslice_facts_rewind(self, facts: CData, /) -> None: ...
    def oomslice_facts_release(self, facts: CData, position: int, /) -> None: ...
    def oomslice_facts_position(self, facts: CData, /) -> int: ...
    def oomslice_facts_map(self, fd: int, size: int, /) -> CData: ...

    # core/prekill.h
    OOMSLICE_PREKILL_KILL: int
    OOMSLICE_PREKILL_END: int
    OOMSLICE_PREKILL_SILENT: int
    OOMSLICE_PREKILL_LAST: int
    OOMSLICE_PREKILL_LIMIT: int
    OOMSLICE_PREKILL_EMPTY: int
    OOMSLICE_PREKILL_DEADLINE: int
    OOMSLICE_PREKILL_PIDS: int
    OOMSLICE_PREKILL_MACHINE: int
    OOMSLICE_PREKILL_WAITERS: int

ffi: _FFI
lib: _Library
