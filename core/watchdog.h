/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A second thread that acts by the plan when the deciding one does not come back from its turn. */
#include <stdbool.h>
#include <stdint.h>

/* `meminfo_fd`: /proc/meminfo, opened for this alone. Starts the threads. 0 or -errno. `dry_run`: never acts. */
int oomslice_watchdog_start(int meminfo_fd, bool dry_run);
/* Gives the threads this real-time priority: above the deciding one's. 0 or -errno. */
int oomslice_watchdog_arm(int priority);
/* A dry run in the threads, and waits for it, half a second at most; before they are armed. */
void oomslice_watchdog_rehearse(void);
/* The deciding thread has woken; it has gone back to sleep. In between it is watched. */
void oomslice_watchdog_turn_begin(uint64_t now_us);
void oomslice_watchdog_turn_end(void);
