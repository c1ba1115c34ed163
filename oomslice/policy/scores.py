# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which oom_score_adj makes the kernel's own killer follow the priorities. Pure: no clock, no file, no bus.

The kernel kills the process with the most points: what it uses of memory and swap, page tables included, plus adj/1000
of all memory and swap there is (mm/oom_kill.c, oom_badness; at the limit of a cgroup, of that limit). So a process of A
goes before one of B, whatever is between them, if A's adj is larger by more than what B's process uses, in thousandths:

    adj(A) - adj(B) > 1000 * largest process of B / (RAM + swap)        the gap of B

It is processes that are compared, not units: eighty small ones of A have to be worse each than the largest of B. A gap
counts on no size in A therefore, and on one process that is all of its unit in B.

Units of one priority form a level. Priority 0 is left as it is, smaller ones are above zero, larger ones below,
protected ones are last. The gaps of all levels together need about 1000 at most, because all processes together use
no more than RAM and swap: so on either side of zero there is, but for some odd megabytes, an order that is strict
now. What is left of the thousand is shared out among the gaps, for levels to grow into. With one level on a side the
order is strict whatever anybody uses.

A slice has a value as well: what a unit gets that is started in it before the next plan is made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from oomslice.policy.model import Policy, PolicyUnit
from oomslice.settings.model import KillScope

MOST = 1000
LAST = -996
"""What protected units get. Not -999, which others use, and the rest below zero ends in 6 too where there is room: a
process that was started in a unit and moved elsewhere (a login, a container) is known by the value it took along."""
PROTECTED = 1001
"""The level of protected units: above every priority."""
OF_A_USER = 100
"""What a user manager adds to its own value for all that it starts (systemd, determine_default_oom_score_adjust)."""
PAGE = 4096
TIGHT_CHANGE = 50
"""Where there is no strict order, values follow the sizes in steps of this."""


@dataclass(frozen=True, slots=True)
class UnitScore:
    """What one unit gets. `adj` None: its processes keep what they have."""

    cgroup_id: int
    path: str
    adj: int | None
    baseline: int
    """what its processes have that nobody gave a value"""
    group: bool
    """a kill by the kernel is to take all of it (memory.oom.group)"""
    touched: bool
    """False: it has a value of its own, or is nobody's to touch; its processes are not even looked at"""
    reason: str


@dataclass(frozen=True, slots=True)
class SliceScore:
    """What a unit gets that is younger than the plan, by the slice that it is in. The fields are those of UnitScore."""

    cgroup_id: int
    path: str
    adj: int | None
    """None: those only get something that the plan knows by name"""
    baseline: int
    group: bool


@dataclass(frozen=True, slots=True)
class Scores:
    """What all units get."""

    units: tuple[UnitScore, ...] = ()
    slices: tuple[SliceScore, ...] = ()
    """those in which anybody might get something"""
    kept: Mapping[int, str] = field(default_factory=dict)
    """cgroup id -> path of slices that hand nothing down, so that they are not taken for younger ones"""
    levels: Mapping[int, int] = field(default_factory=dict)
    """priority (or PROTECTED) -> adj, also of levels that had units before: who comes back finds the same value"""
    strict: bool = True
    """False: the sizes leave no room for an order in which no process is too large"""

    @property
    def wanted(self) -> bool:
        """True if there is anything to give."""
        return any(unit.adj is not None or unit.group for unit in self.units) or any(
            slice_.adj is not None for slice_ in self.slices
        )


@dataclass(slots=True)
class _Level:
    """The units of one priority."""

    gap: int = 1
    """by which every level that goes before has to be above this one"""
    limit_gap: int = 1
    """the same at the limits of cgroups, where a thousandth is less"""
    floor: int = 0
    """the largest baseline in it: nobody is lowered because his priority is small"""


def scores(policy: Policy, sizes: Mapping[int, int], total: int, before: Scores | None = None) -> Scores:
    """What every unit gets.

    `sizes` is cgroup id -> bytes that a process of this unit uses at most now; `total` RAM and swap in bytes. `before`
    is the last result: its values hold on while the order is right with them.
    """
    before = before or Scores()
    leaves, slices = _leaves(policy), _slices(policy)
    levels = _levels(policy, leaves, sizes, max(total, 1))
    for number in slices:
        level = _level_below(policy, number)
        if level is not None:
            # Nobody has it now perhaps, so it needs no more room than that of a value of its own.
            found = levels.setdefault(level, _Level())
            found.floor = max(found.floor, _baseline_below(policy.units, policy.units[number]))
    values, strict = _values(levels, before)
    units = [_score(policy, number, values, strict) for number in leaves]
    units += [
        UnitScore(unit.cgroup_id, unit.path, None, 0, True, True, "taken as a whole")
        for number, unit in enumerate(policy.units)
        if unit.kill_scope is KillScope.SUBTREE and unit.candidate and unit.priority < 0 and not unit.self_
    ]
    watched, kept = _slice_scores(policy, slices, values, units)
    known = {**before.levels, **values} if values == _known(before, values) else values
    return Scores(tuple(units), watched, kept, known, strict)


def _known(before: Scores, values: Mapping[int, int]) -> dict[int, int]:
    return {level: before.levels[level] for level in values if level in before.levels}


def _leaves(policy: Policy) -> list[int]:
    holds = {unit.parent for unit in policy.units}
    return [
        number for number, unit in enumerate(policy.units) if number > 0 and number not in holds and not _is_slice(unit)
    ]


def _slices(policy: Policy) -> list[int]:
    return [number for number, unit in enumerate(policy.units) if _is_slice(unit)]


def _is_slice(unit: PolicyUnit) -> bool:
    """True if units are started in it, as in core/unplanned.c. One that is taken as a whole is a unit itself."""
    named = unit.name.endswith(".slice") or (unit.name.startswith("user@") and unit.name.endswith(".service"))
    return named and not unit.candidate and not unit.taken_with


def _level_below(policy: Policy, number: int) -> int | None:
    """The level of whoever is new in a slice. None if it hands nothing down: what is there is others', or as it is."""
    unit = policy.units[number]
    if unit.self_ or unit.left_to_oomd:
        return None
    return PROTECTED if unit.protected else unit.priority or None


def _slice_scores(
    policy: Policy, slices: Sequence[int], values: Mapping[int, int], units: Sequence[UnitScore]
) -> tuple[tuple[SliceScore, ...], dict[int, str]]:
    given = {unit.cgroup_id for unit in units if unit.adj is not None or unit.group}
    watched: dict[int, SliceScore] = {}
    kept: dict[int, str] = {}
    holds = {unit.parent for unit in policy.units if unit.cgroup_id in given}
    # From the inside out: a slice is worth a watch if one of those in it is, for that may be started anew.
    for number in reversed(slices):
        unit = policy.units[number]
        level = _level_below(policy, number)
        adj = values[level] if level is not None else None
        if unit.self_ or unit.left_to_oomd or (adj is None and number not in holds):
            kept[unit.cgroup_id] = unit.path
            continue
        holds.add(unit.parent)
        group = level is not None and level < 0 and unit.kill_scope is KillScope.UNIT
        if adj is not None and _is_of_a_user(unit):
            adj = max(adj, 0)  # as for his units, see _score
        watched[number] = SliceScore(unit.cgroup_id, unit.path, adj, _baseline_below(policy.units, unit), group)
    return tuple(watched[number] for number in sorted(watched)), kept


def _whole(policy: Policy, unit: PolicyUnit) -> PolicyUnit:
    """The unit that goes if this one goes."""
    while unit.taken_with and unit.parent >= 0:
        unit = policy.units[unit.parent]
    return unit


def _level(policy: Policy, unit: PolicyUnit) -> int:
    chosen = _whole(policy, unit)
    return PROTECTED if chosen.protected or unit.protected else chosen.priority


def _kept(policy: Policy, unit: PolicyUnit) -> str:
    """Why nobody gives this unit a value, "" if it may get one."""
    if unit.self_:
        return "never touched: the machine or oomslice stands on it"
    if _whole(policy, unit).left_to_oomd:
        return "left to systemd-oomd"
    if not unit.user and unit.oom_score_adjust:
        return f"OOMScoreAdjust={unit.oom_score_adjust} of its own is kept: the kernel follows that, not the priority"
    return ""


def _baseline(policy: Policy, unit: PolicyUnit) -> int:
    return _baseline_below(policy.units, unit) if unit.user else 0


def _is_of_a_user(slice_: PolicyUnit) -> bool:
    return slice_.user or not slice_.name.endswith(".slice")


def _baseline_below(units: Sequence[PolicyUnit], slice_: PolicyUnit) -> int:
    """What processes have in a slice that nobody gave a value."""
    unit = slice_
    if not _is_of_a_user(unit):
        return 0
    while unit.user and unit.parent >= 0:
        unit = units[unit.parent]
    return min(MOST, (unit.oom_score_adjust or 0) + OF_A_USER)


def _levels(policy: Policy, leaves: Sequence[int], sizes: Mapping[int, int], total: int) -> dict[int, _Level]:
    levels: dict[int, _Level] = defaultdict(_Level)
    smallest: dict[int, int] = {}
    """number of a unit with a limit -> the smallest level below it"""
    known: list[tuple[int, int, int]] = []
    for number in leaves:
        unit = policy.units[number]
        if _kept(policy, unit):
            continue
        level = _level(policy, unit)
        size = sizes.get(unit.cgroup_id, 0)
        found = levels[level]
        found.gap = max(found.gap, _gap(size, total))
        if level <= 0:
            found.floor = max(found.floor, _baseline(policy, unit))
        known.append((number, level, size))
        for above in _limited(policy, number):
            smallest[above] = min(smallest.get(above, level), level)
    for number, level, size in known:
        for above in _limited(policy, number):
            limit = policy.units[above].memory_max or 1
            if smallest[above] < level:
                levels[level].limit_gap = max(levels[level].limit_gap, _gap(min(size, limit), limit))
    return dict(levels)


def _gap(size: int, total: int) -> int:
    """How much adj outweighs a process of this size. The kernel counts in pages, and drops what is left of them."""
    thousandth = max(1, total // PAGE // 1000) * PAGE
    return min(MOST, size // thousandth + 1)


def _limited(policy: Policy, number: int) -> Iterator[int]:
    """The unit and those above it that have a limit of their own."""
    while number >= 0:
        if policy.units[number].memory_max is not None:
            yield number
        number = policy.units[number].parent


def _values(levels: Mapping[int, _Level], before: Scores) -> tuple[dict[int, int], bool]:
    for with_limits in (True, False):
        needs = {
            level: max(found.gap, found.limit_gap) if with_limits else found.gap for level, found in levels.items()
        }
        above = _needed_above(levels, needs)
        below = _needed_below(levels, needs)
        strict = max(above.values(), default=0) <= MOST and max(below.values(), default=0) <= -LAST
        if strict:
            break
    kept = _known(before, {**above, **below})
    if len(kept) == len(above) + len(below) and strict and _right(kept, levels, needs):
        return kept, True
    raised = _spread(above, MOST)
    lowered = {level: -value for level, value in _spread(below, -LAST).items()}
    rounded = {level: min(-6, max(LAST, value - (value + 6) % 10)) for level, value in lowered.items()}
    values = {**raised, **(rounded if _right({**raised, **rounded}, levels, needs) else lowered)}
    near = len(kept) == len(values) and all(abs(values[level] - kept[level]) < TIGHT_CHANGE for level in values)
    if not strict and near and _in_order(kept):
        # Nobody can be right here: better the same than another one with every plan.
        return kept, False
    return values, strict


def _needed_above(levels: Mapping[int, _Level], needs: Mapping[int, int]) -> dict[int, int]:
    """The least value of each level that goes before priority 0, nearest to it first."""
    zero = levels.get(0)
    need = zero.floor + needs[0] if zero is not None else 1
    found: dict[int, int] = {}
    for level in sorted((level for level in levels if level < 0), reverse=True):
        need = max(need, levels[level].floor)
        found[level] = need
        need += needs[level]
    return found


def _needed_below(levels: Mapping[int, _Level], needs: Mapping[int, int]) -> dict[int, int]:
    """How far below zero at least each level is that goes after priority 0, nearest to it first."""
    need = 0
    found: dict[int, int] = {}
    for level in sorted(level for level in levels if level > 0):
        need += needs[level]
        found[level] = need
    return found


def _spread(needed: Mapping[int, int], room: int) -> dict[int, int]:
    """All of the room, what is not needed in equal parts; if it does not suffice, every level has its share of it."""
    count = len(needed)
    most = max(needed.values(), default=0)
    if most > room:
        return {
            level: max(number, min(room - count + number, need * room // most))
            for number, (level, need) in enumerate(needed.items(), start=1)
        }
    return {
        level: need + (room - most) * number // count for number, (level, need) in enumerate(needed.items(), start=1)
    }


def _in_order(values: Mapping[int, int]) -> bool:
    ordered = [values[level] for level in sorted(values)]
    return all(first > second for first, second in pairwise(ordered))


def _right(values: Mapping[int, int], levels: Mapping[int, _Level], needs: Mapping[int, int]) -> bool:
    """True if with these values no process of a level is worse than any of one that goes before it."""
    anchored = {**values, 0: 0}
    ordered = sorted(level for level in anchored if level in levels or level == 0)
    for first, second in pairwise(ordered):
        least = anchored[second] + (needs.get(second, 0) if second in levels else 0)
        if second == 0 and 0 in levels:
            least += levels[0].floor
        if anchored[first] < least or (first < 0 and anchored[first] < levels[first].floor):
            return False
    return True


def _score(policy: Policy, number: int, values: Mapping[int, int], strict: bool) -> UnitScore:
    unit = policy.units[number]
    kept = _kept(policy, unit)
    baseline = _baseline(policy, unit)
    if kept:
        return UnitScore(unit.cgroup_id, unit.path, None, baseline, False, False, kept)
    level = _level(policy, unit)
    if level == 0:
        return UnitScore(unit.cgroup_id, unit.path, None, baseline, False, True, "priority 0: as it is")
    adj = values[level]
    reason = "protected: last of all" if level == PROTECTED else f"priority {level}"
    if unit.user and level > 0:
        # A user may call his units what he likes, and must not get below what any process has that way.
        adj = 0
        reason += ", as far as a user's unit may be lowered"
    if not strict:
        reason += "; the units are too large for a strict order"
    group = level < 0 and not unit.taken_with and unit.candidate and unit.kill_scope is KillScope.UNIT
    return UnitScore(unit.cgroup_id, unit.path, adj, baseline, group, True, reason)
