/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * What an administrator's own policy is asked, and what it may answer. It is a BPF function that takes the place of one in
 * the programs of oomslice that choose a victim inside the kernel:
 *
 *     int oomslice_policy(struct oomslice_policy_candidate *candidate)
 *
 * It is in no section of its own (no SEC()), since it is linked into those programs, with what it calls, its variables and
 * its maps. Variables are there once for each program, a map once for all of them.
 *
 * It is asked once for each unit that may be chosen at all: nobody who is protected, left to systemd-oomd, or of oomslice
 * itself. It may not sleep. What it writes into the candidate is of no effect. An example is docs/examples/skip-small.bpf.c;
 * `oomslice-bpf policy FILE.o` puts one in force.
 */
#include <linux/types.h>

enum oomslice_policy_answer {
        OOMSLICE_POLICY_DEFAULT = 0, /* by priority and size */
        OOMSLICE_POLICY_SKIP = 1,    /* not this one, now */
        /* Before all for whom it does not say this; among these by priority and size. */
        OOMSLICE_POLICY_KILL = 2,
};

struct oomslice_policy_candidate {
        __u64 cgroup_id;
        /* Bytes charged to it and all below it: memory and swap together, and swap alone. */
        __u64 usage;
        __u64 swap;
        /* The cgroup in which memory is short: 1 for the machine. */
        __u64 domain_id;
        /* What the plan says of it, see oomslice.unit(5): Priority=, and KillScope= (0 unit, 1 subtree, 2 process). */
        __s32 priority;
        __u32 scope;
        /* Bits. 16: DryRun=yes, and nobody will be killed if this one is chosen. */
        __u32 flags;
        /* The process that needs memory now, seldom one of the candidate's. */
        __u32 asking_pid;
};
