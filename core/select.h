/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * The choice, as a pure function: no clock, no file, no allocation. The kill path and the library's
 * explain() run this same code.
 */
#include <stdint.h>

/* cffi: begin */
enum oomslice_verdict {
        OOMSLICE_VERDICT_ELIGIBLE = 0, /* may be chosen; the first eligible one of a ranking is the choice */
        OOMSLICE_VERDICT_CHOSEN = 1,
        OOMSLICE_VERDICT_EMPTY = 2, /* no process in it */
        OOMSLICE_VERDICT_TRIED = 3, /* acted upon in this shortage, without effect by the deadline */
        OOMSLICE_VERDICT_GONE = 4,  /* cgroup removed or unreadable since the plan was made */
        OOMSLICE_VERDICT_LEFT_TO_OOMD = 5,
        OOMSLICE_VERDICT_PROTECTED = 6,
        OOMSLICE_VERDICT_SELF = 7,
        OOMSLICE_VERDICT_CONTAINER = 8, /* holds other units, which are the candidates */
        OOMSLICE_VERDICT_OUTSIDE = 9,   /* not below the domain */
};

enum oomslice_candidate_state {
        OOMSLICE_CANDIDATE_POPULATED = 1, /* cgroup.events says populated 1 */
        OOMSLICE_CANDIDATE_GONE = 2,
        OOMSLICE_CANDIDATE_TRIED = 4,
        OOMSLICE_CANDIDATE_BELOW = 8, /* below the domain, or in it */
};

struct oomslice_candidate {
        uint64_t cgroup_id;
        uint64_t metric; /* by the domain's rank_by */
        uint64_t memory; /* OOMSLICE_RANK_MEMORY bytes, whatever rank_by is */
        int32_t unit;    /* index in the plan */
        int32_t priority;
        uint32_t flags;   /* enum oomslice_unit_flag, from the plan */
        uint32_t state;   /* enum oomslice_candidate_state, as sampled */
        uint32_t verdict; /* out */
        uint32_t reserved;
};

/*
 * Gives every entry its verdict and sorts them: eligible ones first, smaller priority first, inside one
 * priority larger metric first, then the younger cgroup (larger id); the rest by verdict, then priority, then
 * id. Returns how many are eligible. The result does not depend on the order of the input.
 */
uint32_t oomslice_select(struct oomslice_candidate *candidates, uint32_t count);
const char *oomslice_verdict_text(uint32_t verdict);
/* cffi: end */
