/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What MemAvailable counts, and nobody can have: see withheld.c. */
#include <stdint.h>

#include "force.h"
#include "meminfo.h"
#include "zones.h"

/* `zoneinfo_fd`: /proc/zoneinfo, `factor_fd`: /proc/sys/vm/watermark_boost_factor; -1: not there. */
void oomslice_withheld_init(int zoneinfo_fd, int factor_fd);
/* A plan is in force: looks how far the watermarks may be raised here. */
void oomslice_withheld_plan(void);
/* Bytes of info->available that nobody can have, as of now or of a few milliseconds ago. The deciding thread's. */
uint64_t oomslice_withheld_look(const struct oomslice_force *force, const struct oomslice_meminfo *info,
                                uint64_t now_us);
/* What that said last; for other threads. */
uint64_t oomslice_withheld_last(void);
/* Pure: bytes of MemAvailable that are no more there if the watermarks are raised by zones->boost, and `kept` bytes of
 * the page cache cannot be reclaimed. */
uint64_t oomslice_withheld(const struct oomslice_meminfo *info, const struct oomslice_zones *zones,
                           uint64_t kept);
/* Pure: microseconds from one look at the protected page cache to the next, if that may be `most` bytes: long ones where
 * the watch could not begin for it. */
uint64_t oomslice_withheld_pause(const struct oomslice_machine *machine, const struct oomslice_meminfo *info,
                                 uint64_t most);
/* Pure: page cache of a cgroup below the root that its memory.min keeps. Bytes. */
uint64_t oomslice_withheld_cache(uint64_t min, uint64_t current, uint64_t file);
