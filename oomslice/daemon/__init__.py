# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomsliced, the extended part: wires units, policy, plan, decisions and bus together and holds no logic of its own.

May import every other package of oomslice but cli.
"""
