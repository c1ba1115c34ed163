/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The machine's candidates by rough figures, for a choice that may wait for nobody. */
#include <stdint.h>

#include "force.h"
#include "sample.h"

/* Registers its table with lock.h. */
void oomslice_rough_init(void);
/* Lets the locked part of the table fit a plan of so many units. */
void oomslice_rough_fit(uint32_t units);
/* All candidates of the machine, ranked. There is one such sample at a time; nothing has to be ended. */
void oomslice_rough_take(const struct oomslice_force *force, struct oomslice_sample *samplep);
/* A kill of this one came to nothing: it is passed over for a while. */
void oomslice_rough_set_vain(uint64_t cgroup_id);
/* Copies of the descriptors that a kill needs. What the deciding thread is inside of is opened anew, or left out. */
void oomslice_rough_copy(struct oomslice_held *to, const struct oomslice_held *from);
