# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests without privileges, bus or virtual machine. Helpers that several of them share are modules here."""
