# SPDX-License-Identifier: LGPL-2.1-or-later
"""From what systemd and the administrator say to the whole ranked list with reasons: pure functions over values.

Does no I/O and reads no clock. May import the models of settings, units and cgroups, and `oomslice._core`.
"""

from __future__ import annotations
