/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The processes of a cgroup: listing them, and refusing a cgroup that holds one which is never touched. */
#include <stdbool.h>
#include <stdint.h>

enum oomslice_processes_limit {
        OOMSLICE_PROCESSES_MAX = 256,             /* listed; a kill reaches all */
        OOMSLICE_PROCESSES_DEPTH = 8,             /* of delegated cgroups below the unit */
        OOMSLICE_PROCESSES_DIRECTORIES_MAX = 256, /* of them in all */
};

struct oomslice_processes {
        uint32_t skip;  /* so many of them are passed over first */
        uint32_t total; /* how many there are */
        uint32_t count; /* how many are listed */
        int32_t pids[OOMSLICE_PROCESSES_MAX];
};

/* Appends the processes that a cgroup.procs file lists. 0 or -errno. */
int oomslice_processes_list(int procs_fd, struct oomslice_processes *processes);
/* Appends the processes of all cgroups below this directory, but not its own. What cannot be read is left out. */
void oomslice_processes_list_below(int directory_fd, struct oomslice_processes *processes);
/* True if PID 1 or this process itself is in the list. */
bool oomslice_processes_untouchable(const struct oomslice_processes *processes);
bool oomslice_processes_has(const struct oomslice_processes *processes, int32_t pid);
