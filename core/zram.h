/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Swap in compressed memory (zram) is worth what it gains: see zram.c. */
#include <stdbool.h>
#include <stdint.h>

#include "meminfo.h"

/* `block_fd`: /sys/block, `swaps_fd`: /proc/swaps; -1: not there, and all swap is taken for what it says. */
void oomslice_zram_init(int block_fd, int swaps_fd);
/* Bytes of info->swap_free that would give no memory, as of now or of a few milliseconds ago. The deciding thread's. */
uint64_t oomslice_zram_look(const struct oomslice_meminfo *info, uint64_t now_us);
/* A device that is swap has room, and nothing is known of what it gains: it was taken for what it says. As of that look. */
bool oomslice_zram_is_unproven(void);
/* More than half of the swap that is free would give no memory. As of that look. */
bool oomslice_zram_is_vain(void);
/* What oomslice_zram_look() said last, for other threads: it may be more than the swap that is free by now. */
uint64_t oomslice_zram_last(void);

/* What one device holds, from mm_stat: bytes swapped out, and what they take in memory all the same. */
struct oomslice_zram_stored {
        uint64_t swapped, taken;
};

/*
 * Pure: of `free` bytes of a device those that would gain nothing, if what comes is like what came between `before` and
 * `now`.
 */
uint64_t oomslice_zram_lost(uint64_t free, const struct oomslice_zram_stored *before,
                            const struct oomslice_zram_stored *now);
