/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Filling in the record of a decision, in the ring. */
#include <stdbool.h>
#include <stdint.h>

#include "force.h"
#include "meminfo.h"
#include "processes.h"
#include "ring.h"
#include "sample.h"
#include "undo.h"

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
/* A unit of the plan that nobody chose: a user asked for it. */
void oomslice_record_set_asked(struct oomslice_record *record, const struct oomslice_force *force,
                               int32_t unit, uint32_t user);
void oomslice_record_set_processes(struct oomslice_record *record,
                                   const struct oomslice_processes *processes);
/* The step of this number, as it is now; the steps before it stay. */
void oomslice_record_set_step(struct oomslice_record *record, uint32_t index,
                              const struct oomslice_record_step *step);
/* A record of its own that says so. False: the ring is full, or there is none. */
bool oomslice_record_undone(const struct oomslice_undo *entry);
/* Has the reader look: something of an open record is new. */
void oomslice_record_tell(void);
/* A domain is short of memory from now on, or no longer. */
void oomslice_record_pressed(uint64_t domain_id, bool begins);
uint64_t oomslice_record_ring_id(void);
/* Its number in the ring; 0: it goes nowhere. Good for a label: the reader could have changed it. */
uint64_t oomslice_record_sequence(const struct oomslice_record *record);
/* A request to the extended part, which is told of it. Returns its serial, 0: it cannot be asked. */
uint64_t oomslice_record_ask(const struct oomslice_request *request);
bool oomslice_record_answered(uint64_t serial, uint32_t *resultp, int32_t *errorp);
void oomslice_record_forget(uint64_t serial);
/* Complete: the reader may have it, and it is never written again. */
void oomslice_record_finish(struct oomslice_record *record, uint32_t outcome, int error);
/* Records finished since the start. */
uint64_t oomslice_record_count(void);
uint64_t oomslice_record_dropped(void);
