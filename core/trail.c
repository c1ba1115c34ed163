/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the writer of the history. It adds to what is looked at anyway, ten times a second or with every half percent of
 * memory that came or went, so that a fast end has its points and a long shortage its minutes. Pressure is read along;
 * sizes of units once a second, if memory has changed, and after a decision. Never before a kill that is due, never by
 * any thread but the deciding one, and never at rest.
 */
#define _GNU_SOURCE
#include "trail.h"

#include <stddef.h>

#include "held.h"
#include "history.h"
#include "moment.h"
#include "psi.h"

enum {
        UNITS_MAX = 256, /* read in one go: 0.5 ms */
        SAMPLE_US = 100000,
        SAMPLE_MIN_US = 2000,
        UNITS_US = 1000000,
        UNITS_MIN_US = 100000,
        SMALLEST = 1 << 20, /* bytes: a smaller unit is not worth an entry */
};

static void *ring;
static bool watched;
static uint64_t sample_us, sample_available; /* of the last one */
static uint64_t units_us, units_available;

void oomslice_trail_init(void *ring_map) {
        ring = ring_map;
}

/* Whether `now` and `before` differ by so many thousandths of all memory. */
static bool differs(const struct oomslice_meminfo *info, uint64_t before, uint64_t thousandths) {
        uint64_t now = info->available, change = now > before ? now - before : before - now;

        return change >= info->total / 1000 * thousandths;
}

static void add_sample(const struct oomslice_force *force, const struct oomslice_meminfo *info,
                       bool with_pressure, uint64_t now_us) {
        struct oomslice_history_sample sample = {
                .at_us = now_us,
                .available = info->available,
                .swap_free = info->swap_free,
        };
        struct oomslice_psi_trigger_figures figures;

        if (with_pressure && force->domains[0].figures_fd >= 0 &&
            oomslice_psi_read(force->domains[0].figures_fd, &figures) == 0) {
                sample.some_total_us = figures.some_total_us;
                sample.full_total_us = figures.full_total_us;
        }
        oomslice_history_add_sample(ring, &sample);
        sample_us = now_us;
        sample_available = info->available;
}

static void add_units(const struct oomslice_force *force, const struct oomslice_meminfo *info,
                      uint64_t now_us) {
        uint32_t left = UNITS_MAX;

        for (uint32_t i = 0; i < force->plan.header->units_count && left > 0; i++) {
                struct oomslice_usage usage;

                if (!(force->plan.units[i].flags & OOMSLICE_UNIT_CANDIDATE) || force->held[i].current < 0)
                        continue;
                left--;
                if (oomslice_held_usage_rough(&force->held[i], &usage) < 0 || usage.memory < SMALLEST)
                        continue;
                oomslice_history_add_unit(ring, &(struct oomslice_history_unit){
                                                        .at_us = now_us,
                                                        .cgroup_id = force->plan.units[i].cgroup_id,
                                                        .memory = usage.memory,
                                                });
        }
        units_us = now_us;
        units_available = info->available;
}

void oomslice_trail_look(const struct oomslice_force *force, const struct oomslice_meminfo *info,
                         bool watching, bool is_short, uint64_t now_us) {
        bool ended = watched && !watching, begins = watching && !watched;
        uint64_t elapsed;

        if (!watching && !ended)
                return;
        /* What was decided in this turn came after its beginning. */
        if (now_us < sample_us)
                now_us = sample_us;
        elapsed = now_us - sample_us;
        watched = watching;
        if (begins || ended || elapsed >= SAMPLE_US ||
            (elapsed >= SAMPLE_MIN_US && differs(info, sample_available, 5)))
                add_sample(force, info, !is_short, now_us);
        if (!is_short &&
            (begins || ended || (now_us - units_us >= UNITS_US && differs(info, units_available, 10))))
                add_units(force, info, now_us);
}

void oomslice_trail_decided(const struct oomslice_force *force, const struct oomslice_meminfo *info) {
        uint64_t now_us = oomslice_moment_now();

        add_sample(force, info, true, now_us);
        if (now_us - units_us >= UNITS_MIN_US)
                add_units(force, info, now_us);
}
