/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the difference between MemAvailable and what a process can still get before the kernel calls its own killer. Two
 * things are counted in MemAvailable (si_mem_available() in mm/show_mem.c) though nobody can have them:
 *
 * - What the watermarks are raised by. When the kernel has to take a block of pages for another use than the one it was
 *   set aside for, it raises them for a while (vm.watermark_boost_factor, up to half as much again as the high one); no
 *   allocation gets below the raised one. On a machine of 1 GiB that may be 65 MiB, more than what is kept free here.
 * - Page cache of cgroups that memory.min protects. Half of a machine may be the cache of a database.
 *
 * With either of them the kernel would kill while MemAvailable is still far above its limit. The rules followed are those
 * of the kernel's "Memory Resource Controller" for a mount with memory_recursiveprot, as systemd has it: what a cgroup
 * below the root is granted holds for all that is in it, whoever of them uses it. What it has above that can be reclaimed,
 * and it is taken to be cache.
 *
 * Read along with every wakeup, but neither file more often than it can matter; at rest nothing is read, and on a busy
 * machine with memory to spare hardly anything.
 */
#define _GNU_SOURCE
#include "withheld.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "file.h"

enum {
        ZONES_US = 5000,
        CACHE_US = 100000,
        CACHE_FAR_US = 1000000,
        FACTOR_UNIT = 10000, /* of vm.watermark_boost_factor */
        FACTOR_DEFAULT = 15000,
};

static int zoneinfo = -1, factor = -1;
static struct oomslice_zones zones;
static uint64_t zones_us, cache_us; /* when each was read; 0: never */
static bool may_be_raised;
static uint64_t kept, granted; /* page cache that nobody else can have, and the most that it could be */
static atomic_uint_least64_t last;

void oomslice_withheld_init(int zoneinfo_fd, int factor_fd) {
        zoneinfo = zoneinfo_fd;
        factor = factor_fd;
}

void oomslice_withheld_plan(void) {
        uint64_t tenthousandths = FACTOR_DEFAULT;

        cache_us = zones_us = 0;
        (void)oomslice_file_number(factor, &tenthousandths);
        may_be_raised = tenthousandths > 0 && oomslice_zones_read(zoneinfo, &zones) == 0;
        if (!may_be_raised)
                zones = (struct oomslice_zones){0};
}

static uint64_t smaller(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

/* What the kernel leaves out of the page cache: it "cannot all be freed". */
static uint64_t left_out(uint64_t cache, uint64_t low) {
        return smaller(cache / 2, low);
}

uint64_t oomslice_withheld(const struct oomslice_meminfo *info, const struct oomslice_zones *marks,
                           uint64_t unreclaimable) {
        uint64_t cache = info->file, rest = cache > unreclaimable ? cache - unreclaimable : 0;
        /* A raised low watermark has already been left out of the cache once more than it would have been. */
        uint64_t raised = left_out(cache, marks->low + marks->boost) - left_out(cache, marks->low);
        uint64_t counted = cache - left_out(cache, marks->low), there = rest - left_out(rest, marks->low);

        return marks->boost - smaller(raised, marks->boost) + counted - there;
}

uint64_t oomslice_withheld_cache(uint64_t min, uint64_t current, uint64_t file) {
        uint64_t above = current > min ? current - min : 0;

        return min == 0 || file <= above ? 0 : smaller(file - above, min);
}

uint64_t oomslice_withheld_pause(const struct oomslice_machine *machine, const struct oomslice_meminfo *info,
                                 uint64_t most) {
        uint64_t cache = smaller(most, info->file);

        return info->available > cache && info->available - cache > machine->available_watch ? CACHE_FAR_US
                                                                                             : CACHE_US;
}

/* Page cache that is kept below the root. A file that cannot be read says nothing: its cgroup is gone. */
static void read_cache(const struct oomslice_force *force) {
        kept = granted = 0;
        for (uint32_t i = 1; i < force->plan.header->units_count; i++) {
                const struct oomslice_held *held = &force->held[i];
                struct oomslice_usage usage;
                uint64_t min = 0;

                if (force->plan.units[i].parent != 0 || held->min < 0)
                        continue;
                if (oomslice_file_number(held->min, &min) < 0 || min == 0)
                        continue;
                granted = min < UINT64_MAX - granted ? granted + min : UINT64_MAX;
                if (oomslice_held_usage(held, &usage) == 0)
                        kept += oomslice_withheld_cache(min, usage.current, usage.file);
        }
}

uint64_t oomslice_withheld_look(const struct oomslice_force *force, const struct oomslice_meminfo *info,
                                uint64_t now_us) {
        const struct oomslice_machine *machine = &force->plan.header->machine;
        /* Below the limit nothing depends on it any more, and a kill may be due: nothing is read then. */
        bool matters = info->available > machine->available_min;
        uint64_t value;

        if (matters &&
            (cache_us == 0 || now_us - cache_us >= oomslice_withheld_pause(machine, info, granted))) {
                read_cache(force);
                cache_us = now_us;
        }
        if (matters && may_be_raised && info->available <= machine->available_watch &&
            (zones_us == 0 || now_us - zones_us >= ZONES_US)) {
                (void)oomslice_zones_read(zoneinfo, &zones); /* else as it was */
                zones_us = now_us;
        }
        value = smaller(oomslice_withheld(info, &zones, kept), info->available);
        atomic_store_explicit(&last, value, memory_order_relaxed);
        return value;
}

uint64_t oomslice_withheld_last(void) {
        return atomic_load_explicit(&last, memory_order_relaxed);
}
