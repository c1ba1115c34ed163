# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a policy becomes the plan that the core acts on: `encode` writes and checks it, `channel` hands it over.

May import `oomslice._core`, `errors`, `policy`, and the models of `cgroups` and `settings`. The format itself, with
every check of it, is C (core/plan.h), so that both ends of the channel use the same.
"""
