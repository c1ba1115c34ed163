# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslicectl: one module per verb, each with its options, its questions and its answers as text.

Functions named `render` turn data into text and do nothing else; asking (the bus, systemd, files) is kept apart from
them. Everything may be imported from here, but only inside the function that needs it: the tool has to start quickly
on a machine that is short of memory, and `--help` must work in an installation that lacks the other packages.
"""

from __future__ import annotations
