/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What systemd reads of a kill: user.oomd_ooms of the unit's cgroup, counted before the signal, and user.oomd_kill,
 * after it. Then the unit's result is oom-kill. Source: unit_check_oomd_kill() in systemd's src/core/cgroup.c.
 */
#include <stdbool.h>
#include <stdint.h>

/* Starts the thread that writes them. 0 or -errno; without it systemd is told nothing. */
int oomslice_mark_start(void);
/* Its priority; what it costs is memory of the kernel, for which a real-time thread need not wait as long. */
int oomslice_mark_arm(int priority);
/*
 * A kill of this cgroup is about to follow. True if that is written; false if it could not be, or not within a few
 * milliseconds: the kill does not wait for it.
 */
bool oomslice_mark_before(int directory_fd);
/* It was killed, with so many processes. Only after a mark; never waits. */
void oomslice_mark_after(int directory_fd, uint32_t processes);
