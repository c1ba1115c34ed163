/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * What an administrator's own BPF program is asked, and what it may answer. It replaces one function in the programs of
 * oomslice that choose a victim inside the kernel:
 *
 *     SEC("freplace/oomslice_policy")
 *     int oomslice_policy(struct oomslice_policy_candidate *candidate)
 *
 * It is asked once for each unit that may be chosen at all: nobody who is protected, or of oomslice itself, comes before it.
 * docs/examples/spare-young.bpf.c is one that works; `oomslice-bpf policy FILE.o` puts it in force.
 */
#include <linux/types.h>

enum oomslice_policy_answer {
        OOMSLICE_POLICY_DEFAULT = 0, /* chosen or not by priority and size */
        OOMSLICE_POLICY_SKIP = 1,    /* not this one, now */
        OOMSLICE_POLICY_KILL =
                2, /* before all for whom it does not say this; among these by priority and size */
};

struct oomslice_policy_candidate {
        __u64 cgroup_id;
        /* Bytes charged to it and all below it: memory and swap together, and swap alone. */
        __u64 usage;
        __u64 swap;
        /* The cgroup in which memory is short: 1 for the machine. */
        __u64 domain_id;
        /* Value of the unit in the plan: see Priority=, KillScope= in oomslice(5). */
        __s32 priority;
        __u32 flags; /* enum oomslice_unit_flag */
        __u32 scope; /* enum oomslice_kill_scope */
        /* The process that needs memory now, seldom one of the candidate's. */
        __u32 asking_pid;
};
