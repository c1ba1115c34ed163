# SPDX-License-Identifier: LGPL-2.1-or-later
"""Figures over time in, decisions out: which there would have been, and when.

Whether the machine is short is judged by `oomslice_watch_judge` (core/watch.c) and who is chosen by `rank`
(core/select.c), as in an emergency. What is only modelled here is said in oomslicectl(1):
- The kernel's triggers are taken from the totals of stall between frames; it looks within them.
- Who was killed gives all back until the next frame, and what the trace says of it later is taken back as well.
- Of a ladder the last step counts: it is taken at its delay if the pressure lasts until then; those before it change
  nothing in the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from oomslice._core import ffi, lib
from oomslice.cgroups.model import Usage
from oomslice.plan.encode import put_machine
from oomslice.policy.model import Policy, PolicyUnit, RankedUnit
from oomslice.policy.rank import is_lower, rank
from oomslice.settings.model import PressureTrigger, Problem, PsiKind, RankBy, Step
from oomslice.settings.steps import format_actions
from oomslice.whatif.state import Changes, Figures, Frame, Stall, State

if TYPE_CHECKING:
    from oomslice._core import CData

TRIGGERS = {
    lib.OOMSLICE_TRIGGER_AVAILABLE: "memory-available",
    lib.OOMSLICE_TRIGGER_THRASH: "thrash",
    lib.OOMSLICE_TRIGGER_PRESSURE: "pressure",
    lib.OOMSLICE_TRIGGER_LOW: "memory-low",
}
SIGN_LASTS_USEC = 2_000_000
QUIET_NOBODY_USEC = 10_000_000
REST_DRY_RUN_USEC = 10_000_000
LASTS_LOW_USEC = 2_500_000
"""As in core/machine.c and core/decide.c; a test compares them."""
HISTORY_USEC = 20_000_000

STEP_KINDS = {"kill": lib.OOMSLICE_STEP_KILL, "terminate": lib.OOMSLICE_STEP_TERMINATE}
STEP_KINDS["checkpoint"] = lib.OOMSLICE_STEP_CHECKPOINT


@dataclass(frozen=True, slots=True)
class WouldBe:
    """A decision that there would have been. Sizes in bytes."""

    moment_usec: int
    """since the first frame"""
    domain: str
    trigger: str
    victim: str
    """empty: nobody could be chosen"""
    priority: int
    metric: int
    reason: str
    actions: str
    outcome: str
    """"killed", "climbs" (a ladder was begun), "held" (it ended in a freeze), "dry-run" or "no-candidate" """
    available: int
    """MemAvailable at that moment, with what earlier victims have given back"""
    swap_free: int
    frees: int
    """what the victim had"""


@dataclass(slots=True)
class _Domain:
    rest_usec: int = 0
    quiet_usec: int = 0
    victim: PolicyUnit | None = None
    """whose ladder is being climbed"""
    first: RankedUnit | None = None
    """the same, as it was chosen"""
    end_usec: int = 0
    last_seen_usec: int = 0
    lasts_usec: int = 0


def replay(frames: Iterable[Frame], changes: Changes = Changes()) -> Iterator[WouldBe]:  # noqa: B008
    """The decisions of these frames. Raises PlanError if a state has no root slice."""
    run = Replay(changes)
    for frame in frames:
        yield from run.take(frame)


class Replay:
    """One run over frames."""

    def __init__(self, changes: Changes = Changes()) -> None:  # noqa: B008
        self.changes = changes
        self.problems: tuple[Problem, ...] = ()
        self.gone: set[int] = set()
        """cgroup ids of those who would be dead"""
        self.held: set[int] = set()
        """of those who would stand still, with all that they have"""
        self.state: State | None = None
        """that of the last frame"""
        self._policy: Policy
        self._machine: CData = ffi.new("struct oomslice_machine *")
        self._watch: CData = ffi.new("struct oomslice_watch *")
        self._first_usec: int | None = None
        self._domains: dict[int, _Domain] = {}
        self._history: list[Figures] = []
        self._sign_usec = 0
        self._baseline: dict[int, Usage] = {}

    @property
    def policy(self) -> Policy:
        """What is in force since the last frame."""
        return self._policy

    def take(self, frame: Frame) -> list[WouldBe]:
        """The next moment."""
        if frame.state is not self.state:
            self.state = frame.state
            self._policy, self.problems = frame.state.policy(self.changes)
            put_machine(self._machine, self._policy, frame.state.memory_total, frame.state.swap_total)
            self._baseline = dict(frame.figures.usage)
        figures = self._without_the_dead(frame)
        now = figures.moment_usec
        if self._first_usec is None:
            self._first_usec = now
        self._history = [old for old in self._history if now - old.moment_usec <= HISTORY_USEC]
        self._history.append(figures)
        info = ffi.new("struct oomslice_meminfo *")
        info.total, info.available = frame.state.memory_total, figures.available
        info.swap_total, info.swap_free = frame.state.swap_total, figures.swap_free
        lib.oomslice_watch_update(self._watch, self._machine, info, now)
        machine = self._policy.machine
        if self._fires(machine.sign, None):
            self._sign_usec = now
        waited = bool(self._sign_usec) and now - self._sign_usec < SIGN_LASTS_USEC
        trigger = lib.oomslice_watch_judge(self._machine, info, self._fires(machine.thrash, None), waited)
        decisions = self._decide(0, trigger, figures) if trigger else []
        for index, domain in enumerate(self._policy.domains):
            own = domain.settings.pressure_trigger
            if is_lower(domain) and figures.available > self._machine.available_thrash:
                continue
            if own is not None and self._fires(own, self._policy.units[domain.unit].cgroup_id):
                decisions += self._decide(index, lib.OOMSLICE_TRIGGER_PRESSURE, figures)
        return decisions

    def _without_the_dead(self, frame: Frame) -> Figures:
        figures = frame.figures
        available, swap_free = figures.available, figures.swap_free
        usage = dict(figures.usage)
        for id in self.gone & usage.keys():
            dead = usage.pop(id)
            available += dead.memory - dead.swap
            swap_free += dead.swap
        return replace(
            figures,
            available=max(0, min(available, frame.state.memory_total)),
            swap_free=max(0, min(swap_free, frame.state.swap_total)),
            usage=usage,
        )

    def _fires(self, trigger: PressureTrigger, cgroup_id: int | None) -> bool:
        """Whether tasks stalled for so long in the last window; across a whole frame if frames are further apart."""
        if trigger.stall_usec == 0 or len(self._history) < 2:
            return False
        now = self._history[-1]
        before = next(
            (old for old in reversed(self._history[:-1]) if now.moment_usec - old.moment_usec >= trigger.window_usec),
            self._history[0],
        )
        stalled = _total(now, cgroup_id, trigger.kind) - _total(before, cgroup_id, trigger.kind)
        # In proportion: a stall is not more than a window allows because frames are further apart than it is.
        across = max(trigger.window_usec, now.moment_usec - before.moment_usec)
        return stalled * trigger.window_usec >= trigger.stall_usec * across

    def _decide(self, index: int, trigger: int, figures: Figures) -> list[WouldBe]:
        policy = self._policy
        domain = policy.domains[index]
        own = self._domains.setdefault(policy.units[domain.unit].cgroup_id, _Domain())
        now = figures.moment_usec
        urgent = trigger == lib.OOMSLICE_TRIGGER_AVAILABLE
        if own.victim is not None:
            if now - own.last_seen_usec > own.lasts_usec:
                own.victim = None  # it was calm in between: the ladder was left
            else:
                own.last_seen_usec = now
                # Low memory alone is no reason for a step that the unit does not survive.
                gentle = trigger == lib.OOMSLICE_TRIGGER_LOW and is_harsh(own.victim.ladder[-1])
                if not urgent and (now < own.end_usec or gentle):
                    return []
                own.rest_usec = now + (0 if urgent else domain.cooldown_usec)
                return [self._end(own, index, trigger, figures)]
        if now < own.rest_usec and not urgent:
            return []
        ranked = rank(policy, figures.usage, domain=index, tried=self.gone | self.held, baseline=self._baseline)
        first = ranked[0]
        if first.verdict != "chosen":
            if now < own.quiet_usec or trigger == lib.OOMSLICE_TRIGGER_LOW:
                return []
            own.quiet_usec = now + QUIET_NOBODY_USEC
            return [self._would_be(index, trigger, figures, None, None, "no-candidate")]
        unit = next(unit for unit in policy.units if unit.cgroup_id == first.cgroup_id)
        if trigger == lib.OOMSLICE_TRIGGER_LOW and not is_gentle(unit.ladder):
            return []
        if unit.dry_run or domain.dry_run:
            if now < own.quiet_usec:
                return []
            own.rest_usec = own.quiet_usec = now + max(domain.cooldown_usec, REST_DRY_RUN_USEC)
            return [self._would_be(index, trigger, figures, first, unit, "dry-run")]
        end = unit.ladder[-1].delay_usec if unit.ladder else 0
        own.victim, own.first, own.end_usec, own.last_seen_usec = unit, first, now + end, now
        own.lasts_usec = self._lasts(index, trigger)
        if urgent or (len(unit.ladder) <= 1 and end == 0):
            own.rest_usec = now + (0 if urgent else domain.cooldown_usec)
            return [self._end(own, index, trigger, figures)]
        return [self._would_be(index, trigger, figures, first, unit, "climbs")]

    def _end(self, own: _Domain, index: int, trigger: int, figures: Figures) -> WouldBe:
        """The last step of a ladder, or the kill of whoever has none."""
        victim, first = own.victim, own.first
        assert victim is not None
        own.victim = own.first = None
        if victim.ladder and victim.ladder[-1].name == "freeze":
            self.held.add(victim.cgroup_id)
            return self._would_be(index, trigger, figures, first, victim, "held")
        self.gone.add(victim.cgroup_id)
        # Who is taken as a whole takes along what is below it.
        self.gone |= {unit.cgroup_id for unit in self._policy.units if unit.taken_with == victim.name}
        return self._would_be(index, trigger, figures, first, victim, "killed")

    def _lasts(self, index: int, trigger: int) -> int:
        if trigger == lib.OOMSLICE_TRIGGER_PRESSURE:
            psi = self._policy.domains[index].settings.pressure_trigger
            assert psi is not None
            return psi.window_usec * 2
        return self._policy.machine.thrash.window_usec * 2 if trigger == lib.OOMSLICE_TRIGGER_THRASH else LASTS_LOW_USEC

    def _would_be(
        self,
        index: int,
        trigger: int,
        figures: Figures,
        first: RankedUnit | None,
        unit: PolicyUnit | None,
        outcome: str,
    ) -> WouldBe:
        assert self._first_usec is not None
        return WouldBe(
            moment_usec=figures.moment_usec - self._first_usec,
            domain=self._policy.units[self._policy.domains[index].unit].name,
            trigger=TRIGGERS[trigger],
            victim=first.name if first else "",
            priority=first.priority if first else 0,
            metric=first.metric if first else 0,
            reason=first.reason if first else "nobody may be chosen",
            actions=(format_actions(unit.ladder) or "kill") if unit else "",
            outcome=outcome,
            available=figures.available,
            swap_free=figures.swap_free,
            frees=figures.usage[first.cgroup_id].memory if first and first.cgroup_id in figures.usage else 0,
        )


def is_gentle(ladder: tuple[Step, ...]) -> bool:
    """Whether the first step leaves the unit alive."""
    return bool(ladder) and not is_harsh(ladder[0])


def is_harsh(step: Step) -> bool:
    """Whether the unit does not survive it."""
    return bool(lib.oomslice_plan_is_harsh(STEP_KINDS.get(step.name, 0)))


def _total(figures: Figures, cgroup_id: int | None, kind: PsiKind) -> int:
    stall = figures.stall if cgroup_id is None else figures.stalls.get(cgroup_id, Stall())
    return stall.some if kind is PsiKind.SOME else stall.full


@dataclass(frozen=True, slots=True)
class Place:
    """One unit in the order in which all would go. Sizes in bytes."""

    name: str
    priority: int
    metric: int
    frees: int
    available_after: int
    swap_free_after: int
    reason: str
    actions: str
    enough: bool
    """with it, the target is reached"""


def order(
    state: State, figures: Figures, changes: Changes, *, domain: str, target: int
) -> tuple[RankBy, list[Place], tuple[Problem, ...]]:
    """Who would be chosen one after the other in a shortage of this moment, until nobody is left. Raises KeyError if
    there is no such domain, PlanError."""
    policy, problems = state.policy(changes)
    index = {policy.units[item.unit].name: number for number, item in enumerate(policy.domains)}[domain]
    available, swap_free = figures.available, figures.swap_free
    places: list[Place] = []
    tried: set[int] = set()
    while True:
        first = rank(policy, figures.usage, domain=index, tried=tried)[0]
        if first.verdict != "chosen":
            return policy.domains[index].rank_by, places, problems
        unit = next(unit for unit in policy.units if unit.cgroup_id == first.cgroup_id)
        usage = figures.usage[first.cgroup_id]
        available = min(available + usage.memory - usage.swap, state.memory_total)
        swap_free = min(swap_free + usage.swap, state.swap_total)
        tried.add(first.cgroup_id)
        places.append(
            Place(
                name=first.name,
                priority=first.priority,
                metric=first.metric,
                frees=usage.memory,
                available_after=available,
                swap_free_after=swap_free,
                reason=first.reason,
                actions=format_actions(unit.ladder) or "kill",
                enough=available >= target,
            )
        )
