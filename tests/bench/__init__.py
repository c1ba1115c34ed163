# SPDX-License-Identifier: LGPL-2.1-or-later
"""Figures, not tests: `make bench` prints what a decision costs in time and what oomslice costs in memory. Nothing here
asserts a time, because times say as much of the machine as of the program."""
