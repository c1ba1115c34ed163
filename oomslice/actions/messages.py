# SPDX-License-Identifier: LGPL-2.1-or-later
"""What oomsliced and oomslice-actions.service say to each other: one JSON object per packet, bounded in every part.

What cannot be read is refused with a MessageError and never half understood. Unknown keys are an error as well: both
ends come from one package.
"""

from __future__ import annotations

import errno
import json
from typing import Any, NamedTuple

from oomslice.errors import OomsliceError

DEFAULT_SOCKET = "/run/oomslice/actions.sock"
MESSAGE_MAX = 8192
"""Bytes of one packet."""
TEXT_MAX = 4096
RESULTS = ("done", "failed", "late", "unavailable", "needless")
"""How a request ends; in core/ring.h OOMSLICE_RESULT_ with the same words."""
NOT_BEGUN = errno.ESHUTDOWN
"""The error of a request that came when the service was about to end: nothing was done of it, so ask the next one."""
KINDS = ("hello", "warn", "purge", "checkpoint", "start", "tell", "set")
"""`hello` asks for nothing: whoever starts the service ahead of need sends it. `tell` is a line for the journal."""
NUMBERS = ("number", "deadline_usec", "cgroup_id", "amount", "error")
"""The keys whose values are numbers; the others are texts."""


class MessageError(OomsliceError):
    """A packet that is no message of this protocol."""


class ActionRequest(NamedTuple):
    """One step to be done."""

    number: int
    """names the request on its connection"""
    kind: str
    deadline_usec: int = 0
    """CLOCK_MONOTONIC"""
    decision: str = ""
    """id of the decision that it belongs to"""
    unit: str = ""
    """the victim"""
    cgroup: str = ""
    """its path below the cgroup mount, beginning with a slash"""
    cgroup_id: int = 0
    text: str = ""
    """PATH, DIR or UNIT of the step; of tell, the line; of set, settings, one on each line"""
    amount: int = 0
    """bytes to free, 0 for all; of `set`, 1 until the next boot"""
    outcome: str = ""
    """of the decision, for OnDecision=: then the unit's environment is written first; and for tell"""
    domain: str = ""
    step: str = ""


class ActionAnswer(NamedTuple):
    """What came of it."""

    number: int
    result: str
    error: int = 0
    """errno, 0 if none"""
    amount: int = 0
    """bytes that were freed, as far as that is known"""
    detail: str = ""
    """a sentence for the log"""


def encode(message: ActionRequest | ActionAnswer) -> bytes:
    """One packet. Raises MessageError if it is too large."""
    data = json.dumps(message._asdict(), separators=(",", ":")).encode("utf-8", "surrogateescape")
    if len(data) > MESSAGE_MAX:
        raise MessageError(f"a message of {len(data)} bytes; at most {MESSAGE_MAX} are sent")
    return data


def decode_request(data: bytes) -> ActionRequest:
    """Raises MessageError."""
    request = ActionRequest(**_values(data, ActionRequest))
    if request.kind not in KINDS:
        raise MessageError(f"there is no request of the kind {request.kind[:40]!r}")
    return request


def decode_answer(data: bytes) -> ActionAnswer:
    """Raises MessageError."""
    answer = ActionAnswer(**_values(data, ActionAnswer))
    if answer.result not in RESULTS:
        raise MessageError(f"there is no result {answer.result[:40]!r}")
    return answer


def _values(data: bytes, kind: type[ActionRequest] | type[ActionAnswer]) -> dict[str, Any]:
    if len(data) > MESSAGE_MAX:
        raise MessageError("a message that is too long")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise MessageError("a message that is no JSON") from None
    if not isinstance(values, dict):
        raise MessageError("a message that is no object")
    types = {name: int if name in NUMBERS else str for name in kind._fields}
    required = {"number", "kind"} if kind is ActionRequest else {"number", "result"}
    if not required <= values.keys() or values.keys() - types.keys():
        raise MessageError("a message with missing or unknown keys")
    for name, value in values.items():
        if type(value) is not types[name]:
            raise MessageError(f"{name} is of the wrong type")
        if isinstance(value, int) and not 0 <= value < 1 << 64:
            raise MessageError(f"{name} is out of range")
        if isinstance(value, str) and (len(value) > TEXT_MAX or "\0" in value):
            raise MessageError(f"{name} is too long, or no text")
    return values
