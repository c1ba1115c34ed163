# SPDX-License-Identifier: LGPL-2.1-or-later
"""Decisions after the act: the record, the ring it arrives by, the store, the journal, and the kernel's own kills.

`record` is pure data. `ring` reads what the core wrote into shared memory, `kernel` finds out what the kernel killed
by itself, `store` keeps both exactly once, `journal` tells people. Nothing here decides anything, and nothing here
runs before the kill. May import settings.model, policy.model and `oomslice._core`; never bus, daemon or cli.
"""

from __future__ import annotations
