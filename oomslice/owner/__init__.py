# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tells the owner of a unit in words what became of it: on his terminals, and as a notification of his desktop.

A hook that is off unless an administrator names oomslice-tell-owner@.service in OnDecision=. May import the library.
"""
