# SPDX-License-Identifier: LGPL-2.1-or-later
"""Everybody who can act on the plan, or sees who acted: one protocol, one module each, all shown in `Carriers`.

`model` has the protocol. A carrier finds out by itself whether it can work here, takes every new plan, and says at any
time what it is and does. May import policy, plan, decisions, cgroups, settings and `_core`; never bus or daemon.
"""

from __future__ import annotations
