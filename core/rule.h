/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * The rule of the choice, for one entry and for two: who may be chosen, and who comes before whom. select.c sorts by it, and
 * the BPF programs, which cannot sort, keep the best by it (bpf/choice.h). Compiled for the kernel, too: no call, no loop.
 */
#include "plan.h"
#include "select.h"

#define OOMSLICE_COMPARE(x, y) (((x) > (y)) - ((x) < (y)))

/* The strongest reason against an entry wins: what never changes comes before what was only sampled. */
static inline uint32_t oomslice_rule_verdict(uint32_t flags, uint32_t state) {
        if (!(state & OOMSLICE_CANDIDATE_BELOW))
                return OOMSLICE_VERDICT_OUTSIDE;
        if (!(flags & OOMSLICE_UNIT_CANDIDATE))
                return OOMSLICE_VERDICT_CONTAINER;
        if (flags & OOMSLICE_UNIT_SELF)
                return OOMSLICE_VERDICT_SELF;
        if (flags & OOMSLICE_UNIT_PROTECTED)
                return OOMSLICE_VERDICT_PROTECTED;
        if (flags & OOMSLICE_UNIT_LEFT_TO_OOMD)
                return OOMSLICE_VERDICT_LEFT_TO_OOMD;
        if (state & OOMSLICE_CANDIDATE_GONE)
                return OOMSLICE_VERDICT_GONE;
        if (state & OOMSLICE_CANDIDATE_TRIED)
                return OOMSLICE_VERDICT_TRIED;
        if (!(state & OOMSLICE_CANDIDATE_POPULATED))
                return OOMSLICE_VERDICT_EMPTY;
        return OOMSLICE_VERDICT_ELIGIBLE;
}

/* Of two that are both eligible. Negative if the first one is chosen before the second, 0 only for one with itself. */
static inline int oomslice_rule_order(int32_t priority, uint64_t metric, uint64_t cgroup_id,
                                      int32_t other_priority, uint64_t other_metric,
                                      uint64_t other_cgroup_id) {
        if (priority != other_priority)
                return OOMSLICE_COMPARE(priority, other_priority);
        if (metric != other_metric)
                return OOMSLICE_COMPARE(other_metric, metric);
        return OOMSLICE_COMPARE(other_cgroup_id, cgroup_id);
}
