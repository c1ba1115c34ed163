# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests on a real systemd machine that really runs out of memory, under QEMU.

image.py makes the disk, machine.py boots it and runs commands in it, programs/ holds what eats memory there, and the
test modules hold the scenarios. May import nothing of oomslice: the package under test is installed inside the machine.
"""
