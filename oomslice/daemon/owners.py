# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose units they are, by their place below user.slice; also of those that are gone, as victims are by then."""

from __future__ import annotations

import re
from dataclasses import replace

from oomslice.decisions.record import Decision
from oomslice.policy.model import Policy

KNOWN_MAX = 8192
_USER = re.compile(r"/user\.slice/user-([0-9]{1,10})\.slice/.+")


class Owners:
    """Cgroup id -> user, of the newest plan and some before."""

    def __init__(self) -> None:
        self._users: dict[int, int] = {}
        """the newest last"""

    def follow(self, policy: Policy) -> None:
        """Takes what the newest plan says."""
        for unit in policy.units:
            found = _USER.fullmatch(unit.path)
            if found:
                self._users.pop(unit.cgroup_id, None)
                self._users[unit.cgroup_id] = int(found[1])
        while len(self._users) > KNOWN_MAX:
            del self._users[next(iter(self._users))]

    def named(self, decision: Decision) -> Decision:
        """The decision, with `owner` in its `extra` if its victim is a user's."""
        user = self._users.get(decision.victim_cgroup_id)
        return decision if user is None else replace(decision, extra={**decision.extra, "owner": user})
