/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the times of the looks. They belong to the unit, so a thousand events of one cost no more than one does, and where
 * nothing is started nothing wakes.
 */
#define _GNU_SOURCE
#include "looks.h"

#include <time.h>

/* Until the next look, the last one first: 10, 50, 200, 500 and 1000 ms after it began. */
static const uint16_t pauses_ms[] = {500, 300, 150, 40, 10};

enum { LOOKS = sizeof(pauses_ms) / sizeof(pauses_ms[0]) };

static uint64_t now_ms(void) {
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void oomslice_looks_arm(struct oomslice_scored_unit *unit) {
        unit->looks = LOOKS;
        unit->look_at = now_ms() + pauses_ms[LOOKS - 1];
}

void oomslice_looks_begin(struct oomslice_apply *apply, struct oomslice_scored_unit *unit) {
        oomslice_looks_arm(unit);
        if (!oomslice_apply_unit(apply, unit))
                unit->looks = 0;
}

int oomslice_looks_timeout(const struct oomslice_scores *scores) {
        uint64_t next = UINT64_MAX, now;

        for (size_t i = 0; i < scores->units_count; i++)
                if (scores->units[i].looks > 0 && scores->units[i].look_at < next)
                        next = scores->units[i].look_at;
        if (next == UINT64_MAX)
                return -1;
        now = now_ms();
        return next > now ? (int)(next - now) : 0;
}

void oomslice_looks_take(struct oomslice_apply *apply) {
        uint64_t now = now_ms();
        bool last = false;

        for (size_t i = 0; i < apply->scores.units_count; i++) {
                struct oomslice_scored_unit *unit = &apply->scores.units[i];

                if (unit->looks == 0 || unit->look_at > now)
                        continue;
                unit->looks--;
                if (unit->looks > 0)
                        unit->look_at = now + pauses_ms[unit->looks - 1];
                if (!oomslice_apply_unit(apply, unit))
                        unit->looks = 0;
                last = last || unit->looks == 0;
        }
        /* Whoever was started has made systemd write those of its siblings. */
        if (last)
                oomslice_apply_groups(apply);
}
