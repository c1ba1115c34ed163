# SPDX-License-Identifier: LGPL-2.1-or-later
"""Policies for tests: a hand-made one, and strategies that make any policy the models allow."""

from __future__ import annotations

from hypothesis import strategies as st

from oomslice.cgroups.model import Usage
from oomslice.policy.model import Policy, PolicyDomain, PolicyUnit
from oomslice.settings.model import (
    Amount,
    MachineTriggers,
    PressureTrigger,
    PsiKind,
    RankBy,
    UnitSettings,
)

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
) -> PolicyUnit:
    """A unit below `parent`; a service or scope is a candidate."""
    return PolicyUnit(
        name=name,
        path=f"/{name}",
        cgroup_id=id,
        parent=parent,
        priority=priority,
        priority_origin="own",
        candidate=not name.endswith(".slice"),
        protected=protected,
        protected_origin="own" if protected else "",
        self_=self_,
        left_to_oomd=left_to_oomd,
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
)

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
    units = tuple(
        PolicyUnit(
            name=draw(names),
            path=f"/{index}",
            cgroup_id=ids[index],
            parent=parent,
            priority=draw(st.sampled_from([-1000, -1, 0, 1, 1000])),
            priority_origin="own",
            candidate=index not in parents and draw(st.integers(0, 5)) > 0,
            protected=draw(st.integers(0, 5)) == 0,
            self_=draw(st.integers(0, 5)) == 0,
            left_to_oomd=draw(st.integers(0, 5)) == 0,
            dry_run=draw(st.booleans()),
        )
        for index, parent in enumerate(parents)
    )
    elsewhere = draw(st.lists(st.integers(1, count - 1), unique=True, max_size=5)) if count > 1 else []
    domains = tuple(
        PolicyDomain(
            unit=index,
            rank_by=draw(st.sampled_from(RankBy)),
            cooldown_usec=draw(st.integers(0, 10**12)),
            dry_run=draw(st.booleans()),
            settings=UnitSettings(pressure_trigger=draw(st.none() | triggers())),
        )
        for index in (0, *elsewhere)
    )
    return Policy(units, domains, draw(machines), draw(st.integers(1, 10**12)))
