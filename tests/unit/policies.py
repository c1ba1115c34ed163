# SPDX-License-Identifier: LGPL-2.1-or-later
"""Policies for tests: a hand-made one, and strategies that make any policy the models allow."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from oomslice.cgroups.model import Usage
from oomslice.policy.model import Policy, PolicyDomain, PolicyUnit
from oomslice.settings.model import (
    Amount,
    KillScope,
    MachineTriggers,
    PressureTrigger,
    PressureVictims,
    PsiKind,
    RankBy,
    Step,
    UnitSettings,
)
from oomslice.settings.steps import STEPS_MAX, with_end
from oomslice.settings.values import TIME_MAX_USEC

GIB = 1 << 30


def unit(
    name: str,
    id: int,
    parent: int = 0,
    priority: int = 0,
    *,
    protected: bool = False,
    self_: bool = False,
    left_to_oomd: bool = False,
    ladder: tuple[Step, ...] = (),
    kill_scope: KillScope = KillScope.UNIT,
    whole: bool = False,
    taken_with: str = "",
) -> PolicyUnit:
    """A unit below `parent`; a service or scope is a candidate, and so is a `whole`."""
    return PolicyUnit(
        name=name,
        path=f"/{name}",
        cgroup_id=id,
        parent=parent,
        priority=priority,
        priority_origin="own",
        candidate=whole or (not name.endswith(".slice") and not taken_with),
        protected=protected,
        protected_origin="own" if protected else "",
        self_=self_,
        left_to_oomd=left_to_oomd,
        ladder=ladder,
        kill_scope=KillScope.SUBTREE if whole else kill_scope,
        taken_with=taken_with,
    )


ROOT = unit("-.slice", 1, parent=-1)
MACHINE_DOMAIN = PolicyDomain(0, RankBy.MEMORY, 2_000_000, False, UnitSettings())


def policy(*units: PolicyUnit, rank_by: RankBy = RankBy.MEMORY, domains: tuple[PolicyDomain, ...] = ()) -> Policy:
    """The root slice and what is given, with the machine as a domain, and others if wanted."""
    machine = PolicyDomain(0, rank_by, 2_000_000, False, UnitSettings())
    return Policy((ROOT, *units), (machine, *domains), MachineTriggers(), 2_000_000)


def uses(memory: int, **figures: int) -> Usage:
    """A unit that holds processes, and this much memory."""
    return Usage(memory=memory, populated=True, **figures)


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60)


@st.composite
def triggers(draw: st.DrawFn) -> PressureTrigger:
    window = draw(st.integers(500_000, 10_000_000))
    return PressureTrigger(draw(st.sampled_from(PsiKind)), draw(st.integers(1, window)), window)


amounts = st.one_of(
    st.builds(Amount, bytes=st.integers(0, 1 << 40)), st.builds(Amount, permyriad=st.integers(0, 10_000))
)

machines = st.builds(
    MachineTriggers,
    available_min=amounts,
    available_watch=amounts,
    swap_free_min=amounts,
    available_thrash=amounts,
    sign=triggers(),
    thrash=triggers(),
    available_ladder=amounts,
    swap_free_ladder=amounts,
)

paths = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60).map("/{}".format)
steps = st.one_of(
    st.sampled_from(["warn", "freeze", "terminate", "reclaim", "throttle", "checkpoint"]).map(Step),
    st.integers(1, 1 << 40).map(lambda size: Step("reclaim", str(size))),
    st.integers(1, 100).map(lambda percent: Step("throttle", str(percent))),
    st.builds(Step, st.sampled_from(["purge", "checkpoint"]), paths),
    st.just(Step("start", "notify@1.service")),
)


@st.composite
def any_ladder(draw: st.DrawFn) -> tuple[Step, ...]:
    """A ladder as it is climbed: it has an end, and delays do not fall."""
    chosen = draw(st.lists(steps, max_size=STEPS_MAX - 1))
    delays = sorted(draw(st.lists(st.integers(0, TIME_MAX_USEC), min_size=len(chosen), max_size=len(chosen))))
    timed = [replace(step, delay_usec=delay) for step, delay in zip(chosen, delays, strict=True)]
    return with_end(timed) or (Step("kill"),)


usages = st.builds(
    Usage,
    memory=st.sampled_from([0, 1, 4096, GIB, (1 << 64) - 1]) | st.integers(0, 8 * GIB),
    swap=st.integers(0, 3),
    refaults=st.integers(0, 3),
    populated=st.booleans(),
)


@st.composite
def policies(draw: st.DrawFn, max_units: int = 24) -> Policy:
    """Any policy: few different priorities so that ties are common, every flag, domains anywhere."""
    count = draw(st.integers(1, max_units))
    parents = [-1] + [draw(st.integers(0, index - 1)) for index in range(1, count)]
    ids = draw(st.lists(st.integers(1, (1 << 64) - 1), min_size=count, max_size=count, unique=True))
    ladders = st.sampled_from([(), *draw(st.lists(any_ladder(), max_size=3))])
    units: list[PolicyUnit] = []
    for index, parent in enumerate(parents):
        above = units[parent] if parent >= 0 else None
        taken_with = ""
        if above is not None:
            taken_with = above.taken_with or (above.name if above.candidate else "")
        whole = index > 0 and not taken_with and index in parents and draw(st.integers(0, 3)) == 0
        units.append(
            PolicyUnit(
                name=draw(names),
                path=f"/{index}",
                cgroup_id=ids[index],
                parent=parent,
                priority=draw(st.sampled_from([-1000, -1, 0, 1, 1000])),
                priority_origin="own",
                candidate=whole or (not taken_with and index not in parents and draw(st.integers(0, 5)) > 0),
                protected=not taken_with and draw(st.integers(0, 5)) == 0,
                self_=not taken_with and draw(st.integers(0, 5)) == 0,
                left_to_oomd=not taken_with and draw(st.integers(0, 5)) == 0,
                dry_run=draw(st.booleans()),
                ladder=draw(ladders),
                kill_scope=KillScope.SUBTREE if whole else draw(st.sampled_from(KillScope)),
                taken_with=taken_with,
            )
        )
    elsewhere = draw(st.lists(st.integers(1, count - 1), unique=True, max_size=5)) if count > 1 else []
    domains = tuple(
        PolicyDomain(
            unit=index,
            rank_by=draw(st.sampled_from(RankBy)),
            cooldown_usec=draw(st.integers(0, 10**12)),
            dry_run=draw(st.booleans()),
            settings=UnitSettings(pressure_trigger=draw(st.none() | triggers())),
            victims=draw(st.sampled_from(PressureVictims)) if index > 0 else PressureVictims.BELOW,
        )
        for index in (0, *elsewhere)
    )
    return Policy(tuple(units), domains, draw(machines), draw(st.integers(1, 10**12)), draw(amounts))
