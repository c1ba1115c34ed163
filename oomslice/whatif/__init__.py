# SPDX-License-Identifier: LGPL-2.1-or-later
"""What would be done if: other settings, another moment, a storm that has not come.

    state     all that a policy is made from, as values; with changes to it, the policy
    changes   --set and --with: text for the parsers that read unit files and YAML
    present   this machine: its state, and its figures now
    trace     states and figures in a file, as `oomslicectl record` writes them
    storm     figures of a storm on a machine that is well
    replay    figures over time in, decisions out

Nothing here decides: who is chosen is `policy.rank`, when the machine is short says `_core`'s judge, both the code of
an emergency. Only `present` and `trace` open files. May import settings, units, cgroups, policy, plan and `_core`.
"""
