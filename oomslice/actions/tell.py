# SPDX-License-Identifier: LGPL-2.1-or-later
"""A line in the journal of a unit: what oomslice did to it. `journalctl -u UNIT` believes such a line of root alone.

What is asked for is one of our own messages about a unit, never an entry of any other kind.
"""

from __future__ import annotations

import errno

from oomslice.actions.checks import CheckError
from oomslice.actions.messages import ActionRequest
from oomslice.decisions.journal import MESSAGE_STEP, MESSAGES, NOTICE, SOCKET_PATH, JournalSender
from oomslice.settings.unitname import UnitNameKind, check_unit_name

STEP = "step"
"""In the place of an outcome: the line is about one step."""


def tell(request: ActionRequest) -> tuple[str, int, str]:
    """Result, errno and detail. Raises CheckError."""
    problem, kind = check_unit_name(request.unit)
    if kind not in (UnitNameKind.PLAIN, UnitNameKind.INSTANCE):
        raise CheckError(problem or "is a template, which has no journal", errno.EINVAL)
    if request.outcome == STEP:
        message_id, priority = MESSAGE_STEP, NOTICE
    elif request.outcome in MESSAGES:
        message_id, priority = MESSAGES[request.outcome]
    else:
        raise CheckError("is about no outcome that there is", errno.EINVAL)
    sent = JournalSender(SOCKET_PATH).send_fields(
        [
            ("MESSAGE", request.text),
            ("MESSAGE_ID", message_id),
            ("PRIORITY", str(priority)),
            ("SYSLOG_IDENTIFIER", "oomslice"),
            ("OOMSLICE_DECISION", request.decision),
            ("OOMSLICE_DOMAIN", request.domain),
            ("OOMSLICE_OUTCOME", request.outcome),
            ("OOMSLICE_STEP", request.step),
            ("OOMSLICE_VICTIM", request.unit),
            ("OBJECT_SYSTEMD_UNIT", request.unit),
        ]
    )
    return ("done", 0, "") if sent else ("unavailable", errno.EAGAIN, "the journal takes nothing")
