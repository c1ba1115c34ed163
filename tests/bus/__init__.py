# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of org.oomslice1 on a dbus-daemon of their own, with busctl as the client."""
