# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslice: decides which slice of a systemd machine pays when memory runs out.

The public library is `oomslice.kernel` (PSI triggers, pidfds, cgroup.kill), `oomslice.settings` (what unit files and
YAML say), `oomslice.policy` (who would be chosen, and why) and `oomslice.decisions` (what was decided).
"""

__version__ = "0.1.0"
