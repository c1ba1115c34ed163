/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The candidates of one domain with their figures: the input of the choice, and its result. */
#include <stdbool.h>
#include <stdint.h>

#include "force.h"
#include "select.h"
#include "unplanned.h"

struct oomslice_sample {
        const struct oomslice_force *force;
        const struct oomslice_plan_domain *domain;
        uint32_t count;
        uint32_t eligible;
        uint32_t unplanned_count;
        struct oomslice_candidate *candidates; /* ranked, best first, once taken */
        struct oomslice_unplanned *unplanned;
};

/* True if this cgroup was tried already. */
typedef bool (*oomslice_sample_tried_fn)(uint64_t cgroup_id, void *context);

/* Registers the table of candidates with lock.h. */
void oomslice_sample_init(void);
/* Lets the table's locked part fit a plan of so many units. */
void oomslice_sample_fit(uint32_t units);
/*
 * Takes the sample of a domain: exact figures for those who can be chosen now (the smallest priority that is not
 * empty), rough ones for the rest, all ranked. There is one sample at a time; it ends with oomslice_sample_end().
 */
struct oomslice_sample *oomslice_sample_take(const struct oomslice_force *force, uint32_t domain,
                                             oomslice_sample_tried_fn tried, void *context);
/* The first choice turned out to be gone or untouchable: marks it (enum oomslice_candidate_state), ranks again. */
void oomslice_sample_strike(struct oomslice_sample *sample, uint32_t state);
/* Exact figures for the first `limit` others too: for the record, when the kill is under way. */
void oomslice_sample_complete(struct oomslice_sample *sample, uint32_t limit);
void oomslice_sample_end(struct oomslice_sample *sample);

const struct oomslice_held *oomslice_sample_held(const struct oomslice_sample *sample,
                                                 const struct oomslice_candidate *candidate);
/* The unit of the plan whose settings the candidate has: its own, or whose it inherits. */
const struct oomslice_plan_unit *oomslice_sample_settings(const struct oomslice_sample *sample,
                                                          const struct oomslice_candidate *candidate);
const char *oomslice_sample_name(const struct oomslice_sample *sample,
                                 const struct oomslice_candidate *candidate);
