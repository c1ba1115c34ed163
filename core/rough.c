/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the choice of the watchdog, made while the deciding thread may be stuck anywhere. Open files of the plan are used
 * only where that thread is not inside of them: the kernel has a lock for each (oomslice_file_is_busy()). memory.stat
 * is not read at all, for its sums over all processors are what a reader waits for; so page cache counts as memory.
 * Strict priorities; nobody who is protected, was tried in vain, or is meant to stand still at the end of its ladder.
 */
#define _GNU_SOURCE
#include "rough.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>

#include "decide.h"
#include "file.h"
#include "lock.h"
#include "moment.h"
#include "select.h"

enum { VAIN_MAX = 16 };

#define VAIN_US UINT64_C(30000000) /* how long a victim without effect is left alone */

static _Alignas(OOMSLICE_LOCK_PAGE) struct oomslice_candidate candidates[OOMSLICE_PLAN_UNITS_MAX];
static struct {
        uint64_t cgroup_id;
        uint64_t until_us;
} vain[VAIN_MAX];
static uint32_t vain_next;

void oomslice_rough_init(void) {
        oomslice_lock_table(candidates, sizeof(candidates));
}

void oomslice_rough_fit(uint32_t units) {
        oomslice_lock_used(candidates, sizeof(candidates), units * sizeof(candidates[0]));
}

void oomslice_rough_set_vain(uint64_t cgroup_id) {
        vain[vain_next % VAIN_MAX].cgroup_id = cgroup_id;
        vain[vain_next++ % VAIN_MAX].until_us = oomslice_moment_now() + VAIN_US;
}

static bool is_excused(const struct oomslice_plan *plan, const struct oomslice_plan_unit *unit) {
        uint64_t now = oomslice_moment_now();

        for (int i = 0; i < VAIN_MAX; i++)
                if (vain[i].cgroup_id == unit->cgroup_id && vain[i].until_us > now)
                        return true;
        if (oomslice_decide_was_tried(unit->cgroup_id))
                return true;
        return unit->steps_count > 0 &&
               plan->steps[unit->steps_first + unit->steps_count - 1U].kind == OOMSLICE_STEP_FREEZE;
}

/* A file that the deciding thread is in says nothing; then the unit is taken to be populated, and small. */
static void measure(const struct oomslice_force *force, struct oomslice_candidate *candidate) {
        const struct oomslice_plan_unit *unit = &force->plan.units[candidate->unit];
        struct oomslice_held held = force->held[candidate->unit];
        struct oomslice_usage usage = {0};
        int populated = 1;

        if (!oomslice_file_is_busy(held.events))
                populated = oomslice_held_populated(held.events);
        if (populated < 0)
                candidate->state |= OOMSLICE_CANDIDATE_GONE;
        else if (populated)
                candidate->state |= OOMSLICE_CANDIDATE_POPULATED;
        if (oomslice_file_is_busy(held.current))
                held.current = -1;
        if (oomslice_file_is_busy(held.swap))
                held.swap = -1;
        (void)oomslice_held_usage_rough(&held, &usage);
        candidate->memory = candidate->metric = usage.memory;
        if (force->plan.domains[0].rank_by == OOMSLICE_RANK_SWAP)
                candidate->metric = usage.swap;
        else if (force->plan.domains[0].rank_by == OOMSLICE_RANK_GROWTH)
                candidate->metric =
                        usage.memory > unit->baseline_memory ? usage.memory - unit->baseline_memory : 0;
}

void oomslice_rough_take(const struct oomslice_force *force, struct oomslice_sample *sample) {
        const struct oomslice_plan *plan = &force->plan;

        *sample = (struct oomslice_sample){
                .force = force, .domain = &plan->domains[0], .candidates = candidates};
        for (uint32_t i = 0; i < plan->header->units_count; i++) {
                const struct oomslice_plan_unit *unit = &plan->units[i];
                struct oomslice_candidate *candidate = &candidates[sample->count];

                if (!(unit->flags & OOMSLICE_UNIT_CANDIDATE))
                        continue;
                sample->count++;
                *candidate = (struct oomslice_candidate){
                        .cgroup_id = unit->cgroup_id,
                        .unit = (int32_t)i,
                        .priority = unit->priority,
                        .flags = unit->flags,
                        .state = OOMSLICE_CANDIDATE_BELOW,
                };
                if (is_excused(plan, unit))
                        candidate->state |= OOMSLICE_CANDIDATE_TRIED;
                measure(force, candidate);
        }
        sample->eligible = oomslice_select(candidates, sample->count);
}

static int copy(int fd) {
        return fd < 0 || oomslice_file_is_busy(fd) ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static int copy_or_open(int fd, int directory, const char *name) {
        int copied = copy(fd);

        return copied < 0 && fd >= 0 ? openat(directory, name, O_RDONLY | O_CLOEXEC) : copied;
}

void oomslice_rough_copy(struct oomslice_held *to, const struct oomslice_held *from) {
        oomslice_held_init(to);
        to->directory = openat(from->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        to->kill = copy(from->kill);
        to->procs = copy_or_open(from->procs, from->directory, "cgroup.procs");
        to->events = copy_or_open(from->events, from->directory, "cgroup.events");
        to->current = copy(from->current);
        to->swap = copy(from->swap);
}
