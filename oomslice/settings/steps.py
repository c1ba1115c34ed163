# SPDX-License-Identifier: LGPL-2.1-or-later
"""Actions=: the ladder, its steps, what each takes, and which ladders make sense.

A step is `name[:argument][@delay]`. A delay is counted from the trigger, so delays never fall from step to step.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from oomslice.settings.model import Step
from oomslice.settings.nearest import nearest
from oomslice.settings.unitname import UnitNameKind
from oomslice.settings.values import (
    TIME_MAX_USEC,
    WHITESPACE,
    BadValueError,
    parse_integer_between,
    parse_size,
    parse_startable_unit,
    parse_time_between,
    shown,
)
from oomslice.settings.words import join_words, split_words

STEPS_MAX = 12
"""Steps of one ladder, an added kill included; as in core/plan.h (a test compares them)."""
PATH_MAX = 255
"""Bytes, as many as a plan holds for one text."""
THROTTLE_DEFAULT = 90
"""Percent of what a unit has that memory.high is set to by a throttle without an argument."""
AFTER_TERMINATE_USEC = 10_000_000
"""How long after a terminate at the end of a ladder the added kill comes: a service's time to write its data."""
AFTER_LAST_USEC = 5_000_000
"""How long after any other last step."""


class Takes(enum.Enum):
    """Whether a step takes an argument."""

    NOTHING = "nothing"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class StepKind:
    """What one kind of step takes and whether a ladder can end in it."""

    name: str
    takes: Takes = Takes.NOTHING
    example: str = ""
    ends: bool = False
    """memory comes free, or stops being taken, whatever the processes do"""
    by_core: bool = False
    """the core does it by itself; the others are asked of the extended part"""
    undone: bool = False
    """what it did is taken back when the domain is calm"""
    at_sign: bool = False
    """its argument may hold an "@" of its own"""


STEPS: Mapping[str, StepKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            StepKind("warn"),
            StepKind("reclaim", Takes.OPTIONAL, "reclaim:256M", by_core=True),
            StepKind("throttle", Takes.OPTIONAL, "throttle:80", by_core=True, undone=True),
            StepKind("freeze", ends=True, by_core=True, undone=True),
            StepKind("purge", Takes.REQUIRED, "purge:/run/cache", at_sign=True),
            StepKind("checkpoint", Takes.OPTIONAL, "checkpoint:/var/lib/checkpoints", ends=True, at_sign=True),
            StepKind("start", Takes.REQUIRED, "start:notify.service", at_sign=True),
            StepKind("terminate", by_core=True),
            StepKind("kill", ends=True, by_core=True),
        )
    }
)

_DELAY_BEGINS = r"[\s+.0-9]"


def parse_step(text: str) -> Step:
    """One step, quotes already removed. Raises BadValueError.

    >>> parse_step("throttle:80@2s")
    Step(name='throttle', argument='80', delay_usec=2000000)
    """
    name = re.split("[:@]", text, maxsplit=1)[0]
    kind = STEPS.get(name)
    if kind is None:
        near = nearest(name, STEPS)
        right = f"did you mean {near}?" if near else f"steps are {', '.join(STEPS)}"
        raise BadValueError(f'has the unknown step "{shown(name, 40)}"; {right}')
    argument, delay = _split(kind, text[len(name) :])
    try:
        delay_usec = 0 if delay is None else parse_time_between(delay, 0, TIME_MAX_USEC)
    except BadValueError as error:
        raise BadValueError(f'has the step {name} with the delay "{shown(delay or "", 40)}", which {error}') from None
    if argument is None:
        if kind.takes is Takes.REQUIRED:
            raise BadValueError(f'has the step {name} without an argument; write it like "{kind.example}"')
        return Step(name, None, delay_usec)
    if kind.takes is Takes.NOTHING:
        raise BadValueError(f"has the step {name} with an argument; it takes none")
    try:
        return Step(name, _ARGUMENTS[name](argument), delay_usec)
    except BadValueError as error:
        raise BadValueError(f'has the step {name} with "{shown(argument, 60)}", which {error}') from None


def _split(kind: StepKind, rest: str) -> tuple[str | None, str | None]:
    """Argument and delay of what follows a step's name.

    Names of units and paths may hold an "@": there a delay is what follows the last one, if it begins as a time does
    and is no part of a unit's name ("start:notify@1.service").
    """
    if rest.startswith("@"):
        return None, rest[1:]
    if not rest:
        return None, None
    before, at, after = rest[1:].rpartition("@")
    if not at:
        return after, None
    if not kind.at_sign:
        before, _, after = rest[1:].partition("@")
        return before, after
    if re.match(_DELAY_BEGINS, after) and _is_time(after):
        return before, after
    return rest[1:], None


def _is_time(text: str) -> bool:
    try:
        parse_time_between(text, 0, TIME_MAX_USEC)
    except BadValueError:
        return False
    return True


def _size_argument(text: str) -> str:
    if parse_size(text) == 0:
        raise BadValueError("is no memory at all; write a size of more than 0")
    return text.strip(WHITESPACE)


def _percent_argument(text: str) -> str:
    return str(parse_integer_between(text.removesuffix("%"), 1, 100))


def _path_argument(text: str) -> str:
    if not text.startswith("/"):
        raise BadValueError("is not an absolute path; it must begin with /")
    if "%" in text:
        raise BadValueError("has a %; specifiers such as %t are not expanded here: write the path in full")
    if any(not character.isprintable() for character in text):
        raise BadValueError("has a character that a path should not have")
    if len(text.encode("utf-8", "surrogatepass")) > PATH_MAX:
        raise BadValueError(f"is longer than the {PATH_MAX} bytes that a plan has room for")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadValueError('has a ".."; write the path without')
    if not parts:
        raise BadValueError("is the root directory; write the directory that is meant")
    return "/" + "/".join(parts)


def _unit_argument(text: str) -> str:
    if parse_startable_unit(text) is UnitNameKind.TEMPLATE:
        raise BadValueError('is a template; name an instance of it, as in "notify@oom.service"')
    return text


_ARGUMENTS: Mapping[str, Callable[[str], str]] = {
    "reclaim": _size_argument,
    "throttle": _percent_argument,
    "purge": _path_argument,
    "checkpoint": _path_argument,
    "start": _unit_argument,
}


def parse_steps(words: Iterable[str]) -> tuple[Step, ...]:
    """A ladder of steps, quotes already removed. Raises BadValueError; one bad step makes the ladder bad."""
    steps = [parse_step(word) for word in words]
    if not steps:
        raise BadValueError("has no step; write steps such as kill, or nothing at all to reset")
    if len(steps) > STEPS_MAX:
        raise BadValueError(f"has more than {STEPS_MAX} steps")
    for earlier, later in itertools.pairwise(steps):
        if earlier.name == "kill":
            raise BadValueError(f"has the step {later.name} after kill, which ends a ladder; put kill last")
        if later.delay_usec < earlier.delay_usec:
            raise BadValueError(
                f'has "{later}" after "{earlier}"; delays count from the trigger, so they cannot become smaller'
            )
    if len(with_end(steps)) > STEPS_MAX:
        raise BadValueError(f"has {STEPS_MAX} steps, and no room for the kill that must be added: write one step less")
    return tuple(steps)


def with_end(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The ladder as it is climbed: one that has no end, or a terminate that nothing follows up, gets a kill.

    >>> format_actions(with_end(parse_actions("warn terminate@10s")))
    'warn terminate@10s kill@20s'
    """
    if not steps or steps[-1].name == "kill":
        return tuple(steps)
    last = steps[-1]
    if STEPS[last.name].ends and not any(step.name == "terminate" for step in steps):
        return tuple(steps)
    wait = AFTER_TERMINATE_USEC if last.name == "terminate" else AFTER_LAST_USEC
    return (*steps, Step("kill", None, last.delay_usec + wait))


def parse_actions(text: str) -> tuple[Step, ...]:
    """The value of Actions=: steps between white space, quoted as in systemd's lists. Raises BadValueError."""
    return parse_steps(split_words(text))


def format_actions(steps: Iterable[Step]) -> str:
    """The text that parse_actions() reads as `steps`.

    >>> format_actions(parse_actions("warn 'kill@1min 30s'"))
    'warn "kill@1min 30s"'
    """
    return join_words(str(step) for step in steps)
