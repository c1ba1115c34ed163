/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * The last minutes of figures, behind the slots of the ring: what was read while memory was short or decided about. The
 * newest goes over the oldest, and nobody has to collect it.
 */
#include <stdint.h>

#include "ring.h"

/* cffi: begin */
/* Times and sizes as in a record. */
struct oomslice_history_sample {
        uint64_t at_us;
        uint64_t available;
        uint64_t swap_free;
        uint64_t some_total_us; /* stalls of the machine; both 0: not read */
        uint64_t full_total_us;
};

struct oomslice_history_unit {
        uint64_t at_us;
        uint64_t cgroup_id;
        uint64_t memory; /* memory.current + memory.swap.current */
};

/* Core: adds an entry. One thread only. */
void oomslice_history_add_sample(void *map, const struct oomslice_history_sample *sample);
void oomslice_history_add_unit(void *map, const struct oomslice_history_unit *unit);
/*
 * Reader: copies what is not older than `since_us`, oldest first; `samples` and `units` have room for all there can be.
 * Returns how many. What is overwritten meanwhile is left out.
 */
uint32_t oomslice_history_samples(const void *map, uint64_t since_us,
                                  struct oomslice_history_sample *samples);
uint32_t oomslice_history_units(const void *map, uint64_t since_us, struct oomslice_history_unit *units);
/* cffi: end */

_Static_assert(OOMSLICE_RING_SIZE ==
                       OOMSLICE_HISTORY_OFFSET +
                               OOMSLICE_HISTORY_SAMPLES * sizeof(struct oomslice_history_sample) +
                               OOMSLICE_HISTORY_UNITS * sizeof(struct oomslice_history_unit),
               "header, slots and history");
