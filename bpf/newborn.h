/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Takes the children that a victim's processes were just having when they were killed. Until the kernel is done with a fork
 * the child is in no cgroup (cgroup_post_fork), so a walk along all processes passes it by; on a slow machine it has children
 * of its own before anybody walks again. After that the kernel tells of it, and it has not run yet.
 */
#include "flight.h"

SEC("tp_btf/sched_process_fork")
int BPF_PROG(see_newborn, struct task_struct *parent, struct task_struct *child) {
        if (in_flight && flight_with(child) && send(child) == 0)
                COUNT_UP(victims);
        return 0;
}
