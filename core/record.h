/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Filling in the record of a decision, in the ring. */
#include <stdint.h>

#include "force.h"
#include "meminfo.h"
#include "processes.h"
#include "ring.h"
#include "sample.h"

/* What made a domain's decision necessary. */
struct oomslice_cause {
        uint32_t trigger; /* enum oomslice_trigger */
        uint64_t trigger_us;
        struct oomslice_meminfo meminfo;
};

/* `ring_map` and the eventfd that tells the reader of it. */
void oomslice_record_init(void *ring_map, int event_fd);
/* A record in state CHOSEN with all that is known before the choice. Never NULL: if the ring is full, what is
 * written goes nowhere. */
struct oomslice_record *oomslice_record_new(const struct oomslice_force *force, uint32_t domain,
                                            const struct oomslice_cause *cause);
/* The same without pressure figures, for the watchdog: what is written goes to `nowhere` if the ring is full. */
struct oomslice_record *oomslice_record_new_bare(const struct oomslice_force *force, uint32_t domain,
                                                 const struct oomslice_cause *cause,
                                                 struct oomslice_record *nowhere);
/* The candidates, best first; the first one as CHOSEN and as the victim if `chosen`. */
void oomslice_record_set_candidates(struct oomslice_record *record, const struct oomslice_sample *sample,
                                    bool chosen);
void oomslice_record_set_processes(struct oomslice_record *record,
                                   const struct oomslice_processes *processes);
/* Complete: the reader may have it, and it is never written again. */
void oomslice_record_finish(struct oomslice_record *record, uint32_t outcome, int error);
/* Records finished since the start. */
uint64_t oomslice_record_count(void);
uint64_t oomslice_record_dropped(void);
