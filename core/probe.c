/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the question what zram gains, asked before the answer is needed. Left to itself the kernel swaps nothing out before
 * free memory is down to its watermarks. If zram gains nothing, that is too late: hardly any memory is left for whoever
 * is to be spared, and a file on a tmpfs stays when its writer is dead. So when available memory comes to its limit and
 * nothing is known of a zram device yet, a few MiB of the unit that would be chosen are swapped out, and zram.c sees what
 * they take there. It is the memory that would go there next, and losing it to swap is less than what threatens the unit.
 *
 * The kernel is told to take anonymous memory and tmpfs only, not page cache (swappiness of memory.reclaim, since 6.10);
 * one that does not know that is asked in general. A unit that gives nothing (MemorySwapMax=0) is followed by the next one.
 * What cannot be found out in a few probes stays as it was, until another shortage: zram then counts for what it says.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "action.h"
#include "decide.h"
#include "hands.h"
#include "moment.h"
#include "sample.h"
#include "watch.h"
#include "zram.h"

#define PAUSE_US UINT64_C(1000000) /* from one probe to the next */
#define ANEW_US UINT64_C(10000000) /* without a look: the next one is of another shortage */
#define LOOK_US UINT64_C(10000)    /* while none is under way */
/* Twice what zram.c judges by: some of it may be page cache after all. */
#define BYTES "4194304"
#define BYTES_ANON BYTES " swappiness=200"
#define WORTH (UINT64_C(16) << 20) /* bytes: a smaller unit is not representative */

enum { VAIN_MAX = 8 };

static uint32_t job; /* 0: none under way */
static uint64_t begun_us, looked_us;
static uint32_t vain; /* probes of this shortage that told nothing */
static bool knows_swappiness = true;

/* Whatever grows at full speed is not to be at the limit before the probe is done. */
static uint64_t limit(const struct oomslice_machine *machine) {
        return machine->available_min + machine->available_min / 4;
}

static bool is_open_question(const struct oomslice_meminfo *info) {
        return info->swap_total > 0 && oomslice_zram_is_unproven() && vain < VAIN_MAX;
}

static bool is_tried(uint64_t cgroup_id, void *unused) {
        (void)unused;
        return oomslice_decide_was_tried(cgroup_id);
}

/* One that has been told to and has not come back by now is one that is not heard of again. */
static bool is_under_way(uint64_t now_us) {
        int error;

        if (job == 0)
                return false;
        if (oomslice_hands_done(job, &error)) {
                job = 0;
                if (error == EINVAL && knows_swappiness) {
                        knows_swappiness = false;
                        begun_us = 0;
                }
        } else if (now_us - begun_us >= PAUSE_US) {
                job = 0;
        }
        return job != 0;
}

/* The first who may be chosen and has something to give; each vain probe moves on by one. NULL: nobody. */
static const struct oomslice_candidate *subject(const struct oomslice_sample *sample) {
        for (uint32_t i = 0; i < sample->eligible; i++) {
                const struct oomslice_candidate *candidate =
                        &sample->candidates[(vain + i) % sample->eligible];

                if (candidate->memory >= WORTH && !(candidate->flags & OOMSLICE_UNIT_DRY_RUN))
                        return candidate;
        }
        return NULL;
}

static void begin(const struct oomslice_force *force, uint64_t now_us) {
        const char *text = knows_swappiness ? BYTES_ANON : BYTES;
        struct oomslice_sample *sample = oomslice_sample_take(force, 0, is_tried, NULL);
        const struct oomslice_candidate *candidate = subject(sample);

        begun_us = now_us;
        if (candidate)
                job = oomslice_hands_write_file(oomslice_sample_held(sample, candidate)->directory,
                                                "memory.reclaim", text, strlen(text));
        vain++;
        oomslice_sample_end(sample);
}

void oomslice_probe_look(const struct oomslice_force *force, const struct oomslice_meminfo *info,
                         uint64_t now_us) {
        if (now_us - looked_us > ANEW_US || !oomslice_zram_is_unproven())
                vain = 0;
        looked_us = now_us;
        if (!is_open_question(info) || is_under_way(now_us) ||
            info->available > limit(&force->plan.header->machine) ||
            (begun_us != 0 && now_us - begun_us < PAUSE_US))
                return;
        /* Where nothing is to be done nothing is done; and while a victim ends its memory comes back. */
        if (oomslice_decide_is_dry_run() || (force->plan.domains[0].flags & OOMSLICE_DOMAIN_DRY_RUN) ||
            oomslice_action_next() != OOMSLICE_MOMENT_NEVER)
                return;
        begin(force, now_us);
}

uint64_t oomslice_probe_pause(const struct oomslice_machine *machine, const struct oomslice_meminfo *info,
                              uint64_t fall, uint64_t pause_us) {
        uint64_t from = limit(machine), pause;

        if (!is_open_question(info))
                return pause_us;
        pause = oomslice_watch_interval(info->available > from ? info->available - from : 0, fall);
        if (job == 0 && pause < LOOK_US)
                pause = LOOK_US;
        return pause < pause_us ? pause : pause_us;
}
