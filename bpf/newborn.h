/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Takes the children that a victim's processes were just having when they were killed. Until the kernel is done with a fork
 * the child is in no cgroup (cgroup_post_fork), so a walk along all processes passes it by; on a slow machine it has children
 * of its own before anybody walks again. After that the kernel tells of it, and it has not run yet.
 */
#include "flight.h"

enum { NEWBORN_LEVELS = 16 }; /* no unit is as deep */

static __always_inline bool is_of_victim(struct task_struct *task) {
        const struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);
        int level = BPF_CORE_READ(cgroup, level);

        for (int i = 1; i <= NEWBORN_LEVELS; i++) {
                struct flight *flight;
                __u64 id, *domain;

                if (i > level)
                        return false;
                id = id_at_level(cgroup, i);
                domain = bpf_map_lookup_elem(&dying, &id);
                flight = domain ? bpf_map_lookup_elem(&flights, domain) : NULL;
                /* Of a unit that loses one process the others live on. */
                if (flight && flight->victim == id && !flight->emptied &&
                    flight->scope != OOMSLICE_SCOPE_PROCESS)
                        return true;
        }
        return false;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(see_newborn, struct task_struct *parent, struct task_struct *child) {
        if (in_flight && is_of_victim(child) && send(child) == 0)
                COUNT_UP(victims);
        return 0;
}
