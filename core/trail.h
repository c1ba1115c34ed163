/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What goes into the history, and when: for whoever wants to know afterwards. */
#include <stdbool.h>
#include <stdint.h>

#include "force.h"
#include "meminfo.h"

void oomslice_trail_init(void *ring_map);
/* MemAvailable was looked at. `is_short`: a kill is near, nothing more is read for this. */
void oomslice_trail_look(const struct oomslice_force *force, const struct oomslice_meminfo *info,
                         bool watching, bool is_short, uint64_t now_us);
/* Something was decided, with these figures. */
void oomslice_trail_decided(const struct oomslice_force *force, const struct oomslice_meminfo *info);
