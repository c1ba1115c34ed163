/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A kill as the step of a decision: signal, record, and the wait for its outcome. */
#include <stdbool.h>
#include <stdint.h>

#include "action.h"
#include "held.h"
#include "processes.h"
#include "ring.h"

enum oomslice_killing_result {
        OOMSLICE_KILLING_SENT = 0,
        OOMSLICE_KILLING_GONE = 1,    /* nobody was there any more */
        OOMSLICE_KILLING_REFUSED = 2, /* it holds a process that is never touched */
};

struct oomslice_killing {
        uint64_t domain_id, victim_id;
        const char *victim_name;
        const struct oomslice_held *held;
        struct oomslice_processes *processes; /* as oomslice_victim_check() left them, just before */
        int check;                            /* what it said */
        uint64_t reclaimable;                 /* bytes that a kill should give back; 0: all it has */
        uint64_t available;                   /* MemAvailable before, bytes */
        uint64_t deadline_us;                 /* how long it has, from the signal on */
        uint32_t scope;                       /* enum oomslice_kill_scope */
        uint32_t step;                        /* which step of the record it is */
        bool mark;                            /* systemd is told that it was for lack of memory */
        int pidfd;                            /* with SCOPE_PROCESS: the one to kill; -1: the largest */
};

/* `proc_fd`: /proc, for the sizes of processes; -1: KillScope=process takes whole units. */
void oomslice_killing_init(int proc_fd);
/* What a kill of this process gives back: KiB of anonymous memory and swap; 0 if it cannot be read. */
uint64_t oomslice_killing_size(int32_t pid);
/*
 * With two processes or more in a unit: a pidfd of the largest, which is then the only one in `processes`, and its size
 * in bytes. -errno if there is none, or one that is never touched.
 */
int oomslice_killing_open_largest(const struct oomslice_held *held, struct oomslice_processes *processes,
                                  uint64_t *bytesp);
/*
 * Kills. SENT: an action waits for the outcome and finishes the record; until then it is still to be filled in, with
 * what there is no time for before. Any other result, enum oomslice_killing_result or -errno: nothing was done.
 */
int oomslice_killing_do(const struct oomslice_killing *killing, struct oomslice_record *record);
