/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the question "when to look at MemAvailable again". PSI stays near zero while anonymous memory grows
 * without swap, until the kernel is about to kill; so from the first sign of shortage on the margin itself is
 * watched, the more often the smaller it is. Without shortage there is no watch and no timer.
 */
#include <stddef.h>

#include "ring.h"
#include "watch.h"

/*
 * A margin is assumed to shrink by this much at any moment, whatever was measured: about what one processor
 * clears and faults in. Half of the time that leaves is slept, so that two looks fit before the limit.
 */
#define FILL_RATE (UINT64_C(2) << 30)
#define INTERVAL_MIN UINT64_C(1000)
#define INTERVAL_MAX UINT64_C(1000000)
/* Gentle steps lose less by coming late than a kill, and memory can stay for hours where they begin. */
#define INTERVAL_LADDER UINT64_C(10000)
/* What a death brings with it is no growth: a journal written, a service started that was asked for by it. */
#define HOUSEKEEPING (UINT64_C(32) << 20)

static uint64_t above(uint64_t value, uint64_t limit) {
        return value > limit ? value - limit : 0;
}

uint64_t oomslice_watch_margin(const struct oomslice_machine *machine, const struct oomslice_meminfo *info) {
        uint64_t memory = above(info->available, machine->available_min);
        uint64_t swap = above(info->swap_free, machine->swap_free_min);

        /* Both limits must be reached, so the farther one counts. A machine without swap has 0 here. */
        return memory > swap ? memory : swap;
}

uint64_t oomslice_watch_interval(uint64_t margin, uint64_t fall) {
        uint64_t rate = FILL_RATE, interval;

        if (fall > FILL_RATE)
                rate = fall;
        /* Margins beyond 2^43 would overflow, and lie far above the longest interval. */
        if (margin > UINT64_C(1) << 43)
                return INTERVAL_MAX;
        interval = margin * UINT64_C(1000000) / 2 / rate;
        if (interval < INTERVAL_MIN)
                return INTERVAL_MIN;
        return interval > INTERVAL_MAX ? INTERVAL_MAX : interval;
}

/* There are ladders before the limits, and as far as swap goes they may be climbed. */
static bool has_ladders(const struct oomslice_machine *machine, const struct oomslice_meminfo *info) {
        return machine->available_ladder > 0 && info->swap_free <= machine->swap_free_ladder;
}

uint64_t oomslice_watch_pause(const struct oomslice_machine *machine, const struct oomslice_meminfo *info,
                              uint64_t fall) {
        uint64_t pause = oomslice_watch_interval(oomslice_watch_margin(machine, info), fall), ladder;

        if (!has_ladders(machine, info))
                return pause;
        ladder = oomslice_watch_interval(above(info->available, machine->available_min), fall);
        if (ladder < INTERVAL_LADDER)
                ladder = INTERVAL_LADDER;
        return ladder < pause ? ladder : pause;
}

static void measure(struct oomslice_watch *watch, const struct oomslice_machine *machine,
                    const struct oomslice_meminfo *info, uint64_t now_us) {
        uint64_t elapsed = now_us - watch->last_us, before, now, fall = 0;

        /* Readings closer together than this say more of page batching than of growth. */
        if (watch->last_us != 0 && elapsed < 500)
                return;
        if (watch->last_us != 0) {
                before = oomslice_watch_margin(machine, &watch->last);
                now = oomslice_watch_margin(machine, info);
                if (before > now && before - now < UINT64_C(1) << 43)
                        fall = (before - now) * UINT64_C(1000000) / elapsed;
                watch->fall = fall > watch->fall ? fall : watch->fall - watch->fall / 8;
        }
        watch->last = *info;
        watch->last_us = now_us;
}

static bool is_short(const struct oomslice_machine *machine, const struct oomslice_meminfo *info) {
        return info->available <= machine->available_min && info->swap_free <= machine->swap_free_min;
}

bool oomslice_watch_update(struct oomslice_watch *watch, const struct oomslice_machine *machine,
                           const struct oomslice_meminfo *info, uint64_t now_us) {
        /* One eighth above the threshold ends it, so that a machine at the threshold does not flutter. */
        uint64_t calm = machine->available_watch + machine->available_watch / 8;

        if (!watch->active && info->available <= machine->available_watch) {
                *watch = (struct oomslice_watch){.active = true};
        } else if (watch->active && info->available > calm) {
                watch->active = false;
                return false;
        }
        if (watch->active)
                measure(watch, machine, info, now_us);
        return is_short(machine, info);
}

uint32_t oomslice_watch_judge(const struct oomslice_machine *machine, const struct oomslice_meminfo *info,
                              bool thrashing, bool waited) {
        if (is_short(machine, info))
                return OOMSLICE_TRIGGER_AVAILABLE;
        if (thrashing && info->available <= machine->available_thrash)
                return OOMSLICE_TRIGGER_THRASH;
        /*
         * Time for ladders that begin with something gentle: memory is low, and somebody has waited for it lately. Or all that
         * is left is swap: then nobody has to wait first, for those who would are not those who are to make room.
         */
        if (has_ladders(machine, info) && info->available <= machine->available_ladder &&
            (waited || info->available <= machine->available_min))
                return OOMSLICE_TRIGGER_LOW;
        return 0;
}

uint64_t oomslice_watch_floor(const struct oomslice_machine *machine, uint64_t left) {
        uint64_t share = (machine->available_min + machine->swap_free_min) / 4;
        uint64_t floor = above(left, share > HOUSEKEEPING ? share : HOUSEKEEPING);
        uint64_t least = machine->available_min / 2;

        return floor > least ? floor : least;
}
