/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* One process: its value, read and written only while it is the one that was meant, in the cgroup that was meant. */
#include <stdbool.h>
#include <stdint.h>

/* A process that was found in a cgroup. The descriptor is of its directory in /proc: it never means a later process. */
struct oomslice_scored_target {
        int directory; /* -1 if it is gone */
        int32_t pid;
        int adj; /* now */
};

/* Opens it. 0, or -errno: -ESRCH if it is gone, or not in a cgroup at or below `path` (any more). */
int oomslice_adjust_open(int proc_fd, int32_t pid, const char *path, struct oomslice_scored_target *targetp);
void oomslice_adjust_close(struct oomslice_scored_target *target);
/* Whether it is a child of systemd that is going to be a unit's process, but has not become its program yet. */
bool oomslice_adjust_is_starting(const struct oomslice_scored_target *target);
/* When it was started, as in /proc/PID/stat. 0 or -errno. */
int oomslice_adjust_start(const struct oomslice_scored_target *target, uint64_t *startp);
/* Writes the value. If it left the cgroup meanwhile it gets back what it had, and this is -ESRCH. 0 or -errno. */
int oomslice_adjust_write(const struct oomslice_scored_target *target, const char *path, int adj);
