/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Threads of normal priority that free the memory of dying processes; of real-time priority only when it is late. */
#include <stdbool.h>
#include <stdint.h>

enum oomslice_reaper_limit {
        OOMSLICE_REAPER_THREADS = 2,
        OOMSLICE_REAPER_QUEUE = 512, /* pidfds waiting; a power of two */
        OOMSLICE_REAPER_COUNTERS = 128,
        OOMSLICE_REAPER_HURRIED = 49, /* real-time priority: one less than the deciding thread's */
};

/* Starts the threads. 0 or -errno; without them the kernel frees the memory alone, some 25 ms later per GiB. */
int oomslice_reaper_start(void);
/* Hands over a pidfd of a killed process, which a thread closes. `serial` is the action it is counted for. */
void oomslice_reaper_push(int pidfd, uint32_t serial);
/* Nothing came back for long, as when real-time programs keep the processors busy: the threads take one from them. */
void oomslice_reaper_hurry(bool wanted);
/* A new action: its counter starts at 0. */
void oomslice_reaper_count_start(uint32_t serial);
/* How many processes of this action were released. */
uint32_t oomslice_reaper_count(uint32_t serial);
