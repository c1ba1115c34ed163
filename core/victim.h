/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The kill itself: one cgroup with all that is in it. */
#include <stdint.h>

#include "held.h"
#include "processes.h"

enum oomslice_victim_result {
        OOMSLICE_VICTIM_KILLED = 0,
        OOMSLICE_VICTIM_GONE = 1,    /* the cgroup was removed, or emptied itself */
        OOMSLICE_VICTIM_REFUSED = 2, /* it holds PID 1 or this process */
};

/* What the victim holds now, and whether it may be touched. KILLED (so far so good), GONE, REFUSED or -errno. */
int oomslice_victim_check(const struct oomslice_held *held, struct oomslice_processes *processesp);
/* SIGKILL to all of it. KILLED, GONE or -errno; `serial` as in reaper.h, `processes` as the check left them. */
int oomslice_victim_kill(const struct oomslice_held *held, struct oomslice_processes *processes,
                         uint32_t serial);
/* The same by pidfds alone, for whom that cannot be done. With a `serial` of 0 nobody reaps: any thread may call it. */
int oomslice_victim_kill_each(const struct oomslice_held *held, struct oomslice_processes *processes,
                              uint32_t serial);
/* All it holds, in cgroups below as well. 0 or -errno: ENOENT without such a file, EPERM if it may not be touched. */
int oomslice_victim_list(const struct oomslice_held *held, struct oomslice_processes *processes);
/* Another signal to each process. Returns how many have it, or -errno; `processes` lists the first of them. */
int oomslice_victim_tell(const struct oomslice_held *held, struct oomslice_processes *processes, int signal);
/* After the kill: lists what is in cgroups below, and has all listed processes reaped. */
void oomslice_victim_reap(const struct oomslice_held *held, struct oomslice_processes *processes,
                          uint32_t serial);
