# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of core/ as C programs, and of the executable."""
