# SPDX-License-Identifier: LGPL-2.1-or-later
"""Policies that others wrote: entry points of the group `oomslice.policies`, named by `policy:` in oomslice.yaml.

A policy gets the built-in ranking and says which priorities it would have otherwise. It runs in a process of its own,
under a time limit, when a plan is made: never in the kill path. Whatever it does wrong, the built-in choice holds. It
cannot make a candidate of what is none, nor unprotect what is protected. May import policy and settings.
"""
