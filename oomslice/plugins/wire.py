# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lines between oomsliced and the process that runs a policy: one JSON object each. Pure.

Request:  {"units": [[...], ...]}            the fields of RankedUnit in their order
Answers:  {"ready": true}                    once, when the policy is loaded
          {"priorities": {PATH: PRIORITY}}
          {"error": "a sentence"}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from oomslice.errors import OomsliceError
from oomslice.policy.model import RankedUnit

LINE_MAX = 32 << 20
ERROR_MAX = 500
_FIELDS = tuple(field.name for field in fields(RankedUnit))


class PolicyError(OomsliceError):
    """A policy that cannot be used, or an answer of it that cannot be."""


def request_line(units: Iterable[RankedUnit]) -> bytes:
    """A question as it goes over the pipe."""
    rows = [[getattr(unit, name) for name in _FIELDS] for unit in units]
    return json.dumps({"units": rows}).encode() + b"\n"


def parse_request(line: bytes) -> tuple[RankedUnit, ...]:
    """The units of a question."""
    return tuple(RankedUnit(*row) for row in json.loads(line)["units"])


def answer_line(answer: Mapping[str, Any]) -> bytes:
    """An answer as it goes over the pipe. Raises TypeError or ValueError for what is no JSON."""
    return json.dumps(answer, allow_nan=False).encode() + b"\n"


def parse_answer(line: bytes) -> dict[str, int] | None:
    """Priorities by cgroup path; None for the word that the policy is loaded. Raises PolicyError."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise PolicyError("it said something that is no answer") from None
    if not isinstance(answer, dict):
        raise PolicyError("it said something that is no answer")
    if "error" in answer:
        raise PolicyError(str(answer["error"])[:ERROR_MAX])
    if answer.get("ready") is True:
        return None
    priorities = answer.get("priorities")
    if not isinstance(priorities, dict):
        raise PolicyError("it gave no mapping from cgroup paths to priorities")
    for path, priority in priorities.items():
        if type(priority) is not int:
            raise PolicyError(f"it gave {path} the priority {str(priority)[:40]!r}, which is no whole number")
    return priorities
