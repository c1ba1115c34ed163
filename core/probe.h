/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Finds out what swap in compressed memory (zram) gains while there is room: see probe.c. The deciding thread's. */
#include <stdint.h>

#include "force.h"
#include "meminfo.h"

/* Memory was looked at, and nobody has to die yet: begins a probe if one is due. */
void oomslice_probe_look(const struct oomslice_force *force, const struct oomslice_meminfo *info,
                         uint64_t now_us);
/* Microseconds to the next look, at most `pause_us`: a probe must not come too late. `fall`: as of oomslice_watch_pause(). */
uint64_t oomslice_probe_pause(const struct oomslice_machine *machine, const struct oomslice_meminfo *info,
                              uint64_t fall, uint64_t pause_us);
