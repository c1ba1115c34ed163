/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Cgroups that are younger than the plan: looked up at the moment of a decision. */
#include <stdint.h>

#include "force.h"
#include "held.h"
#include "plan.h"

enum oomslice_unplanned_limit {
        OOMSLICE_UNPLANNED_MAX = 64,
        OOMSLICE_UNPLANNED_DEPTH = 4, /* slices within slices that the plan does not know either */
};

struct oomslice_unplanned {
        uint64_t cgroup_id;
        int32_t heir_of; /* unit whose priority and flags it has: the nearest ancestor in the plan */
        struct oomslice_held held;
        char name[OOMSLICE_UNIT_NAME_MAX]; /* of its directory */
};

/*
 * Looks below every container of the plan that is in or below `top` for cgroups the plan does not have, and opens
 * them. A directory ending in .slice, or a user manager's, is searched; anything else is taken whole, as a unit.
 * Returns how many were found; the caller closes them. What cannot be read is left out.
 */
uint32_t oomslice_unplanned_find(const struct oomslice_force *force, int32_t top,
                                 struct oomslice_unplanned found[static OOMSLICE_UNPLANNED_MAX]);
void oomslice_unplanned_close(struct oomslice_unplanned *found, uint32_t count);
