# SPDX-License-Identifier: LGPL-2.1-or-later
"""The process that runs one policy: `python3 -m oomslice.plugins.worker NAME`. It may hang, crash or be killed."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, BinaryIO

from oomslice.plugins import wire
from oomslice.policy.model import RankedUnit

GROUP = "oomslice.policies"
MEMORY_MAX = 512 << 20
"""Bytes of address space: a policy that eats memory is the last thing a machine without memory needs."""
FILES_MAX = 64
OOM_SCORE_ADJ = 500
"""It goes before what it is there to rank."""

Policy = Callable[[Sequence[RankedUnit]], Mapping[str, int]]


def load(name: str) -> Policy:
    """The policy of that name. Raises PolicyError."""
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        known = ", ".join(sorted({point.name for point in entry_points(group=GROUP)})) or "none"
        raise wire.PolicyError(f"no installed package has a policy of this name; installed are: {known}")
    if len({point.value for point in found}) > 1:
        raise wire.PolicyError("several installed packages have a policy of this name")
    policy = found[0].load()
    if not callable(policy):
        raise wire.PolicyError(f"{found[0].value} is no function")
    return policy  # type: ignore[no-any-return]


def bound() -> None:
    """Takes from this process what it does not need. What cannot be taken is left."""
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_MAX),
        (resource.RLIMIT_NOFILE, FILES_MAX),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (most, most))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(OOM_SCORE_ADJ))
    with contextlib.suppress(OSError):
        os.nice(10)


def answer(policy: Policy, line: bytes) -> bytes:
    """What the policy says to one question, as a line; a policy that fails is an answer as well."""
    try:
        priorities: Any = policy(wire.parse_request(line))
        return wire.answer_line({"priorities": {str(path): priority for path, priority in priorities.items()}})
    except Exception as error:
        return wire.answer_line({"error": f"it failed: {type(error).__name__}: {error}"})


def serve(name: str, questions: BinaryIO, answers: BinaryIO) -> int:
    """Answers until end of file. Returns the exit status."""
    try:
        policy = load(name)
    except Exception as error:
        sentence = str(error) if isinstance(error, wire.PolicyError) else f"it cannot be loaded: {error!r}"
        answers.write(wire.answer_line({"error": sentence}))
        answers.flush()
        return 1
    answers.write(wire.answer_line({"ready": True}))
    answers.flush()
    while line := questions.readline(wire.LINE_MAX):
        answers.write(answer(policy, line))
        answers.flush()
    return 0


def main() -> int:
    """The process's main function."""
    # What a policy prints is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    bound()
    return serve(sys.argv[1], sys.stdin.buffer, answers)


if __name__ == "__main__":
    sys.exit(main())
