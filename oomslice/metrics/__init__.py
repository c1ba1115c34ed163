# SPDX-License-Identifier: LGPL-2.1-or-later
"""Figures for Prometheus: `gather` asks oomsliced and /proc, `exposition` writes the text format, `server` serves it.

Unprivileged, and nothing runs unless somebody scrapes or a timer was enabled. May import bus and decisions.
"""
