# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads cgroupfs below a root that is a parameter. A cgroup's identity is its id (inode), never its path alone.

Reads and watches only; writing to cgroups is the core's affair. May import errors and its own model.
"""

from __future__ import annotations
