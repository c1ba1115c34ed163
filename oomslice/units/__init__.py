# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd says of its units: asked of PID 1 each time, by a worker process of its own, and the files it names.

pystemd holds the interpreter while it waits for the bus, so it is imported in `worker.py` only, which is never imported
by the daemon but run beside it. May import settings (its values) and cgroups' model, nothing above.
"""

from __future__ import annotations
