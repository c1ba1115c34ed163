/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the reading of all candidates below a domain. memory.stat makes the kernel sum up over all processors
 * (some 50 us for each cgroup), so before the kill only those are read exactly whose priority makes them the
 * choice: the smallest one that holds a process. Strict priority needs no figures of the others.
 */
#define _GNU_SOURCE
#include "sample.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>

#include "held.h"
#include "lock.h"

enum { CANDIDATES_MAX = OOMSLICE_PLAN_UNITS_MAX + OOMSLICE_UNPLANNED_MAX };

/* Set beside enum oomslice_candidate_state, which select.c looks at bit by bit. */
enum { STATE_EXACT = 1U << 31 };

static _Alignas(OOMSLICE_LOCK_PAGE) struct oomslice_candidate candidates[CANDIDATES_MAX];
static struct oomslice_unplanned unplanned[OOMSLICE_UNPLANNED_MAX];

void oomslice_sample_init(void) {
        oomslice_lock_table(candidates, sizeof(candidates));
}

void oomslice_sample_fit(uint32_t units) {
        oomslice_lock_used(candidates, sizeof(candidates),
                           (units + OOMSLICE_UNPLANNED_MAX) * sizeof(candidates[0]));
}

/* Beyond the plan's units, `unit` counts on into the unplanned ones. */
static const struct oomslice_unplanned *unplanned_of(const struct oomslice_sample *sample,
                                                     const struct oomslice_candidate *candidate) {
        uint32_t units = sample->force->plan.header->units_count;

        return (uint32_t)candidate->unit < units ? NULL
                                                 : &sample->unplanned[(uint32_t)candidate->unit - units];
}

const struct oomslice_held *oomslice_sample_held(const struct oomslice_sample *sample,
                                                 const struct oomslice_candidate *candidate) {
        const struct oomslice_unplanned *extra = unplanned_of(sample, candidate);

        return extra ? &extra->held : &sample->force->held[candidate->unit];
}

const char *oomslice_sample_name(const struct oomslice_sample *sample,
                                 const struct oomslice_candidate *candidate) {
        const struct oomslice_unplanned *extra = unplanned_of(sample, candidate);

        return extra ? extra->name : oomslice_plan_name(&sample->force->plan, candidate->unit);
}

static uint64_t grown(uint64_t now, uint64_t before) {
        return now > before ? now - before : 0;
}

static void set_figures(const struct oomslice_sample *sample, struct oomslice_candidate *candidate,
                        const struct oomslice_usage *usage) {
        /* Whoever is younger than the plan has grown from nothing. */
        static const struct oomslice_plan_unit newborn;
        const struct oomslice_plan_unit *unit = &newborn;

        if (!unplanned_of(sample, candidate))
                unit = &sample->force->plan.units[candidate->unit];
        candidate->memory = usage->memory;
        switch (sample->domain->rank_by) {
        case OOMSLICE_RANK_SWAP:
                candidate->metric = usage->swap;
                break;
        case OOMSLICE_RANK_GROWTH:
                candidate->metric = grown(usage->memory, unit->baseline_memory);
                break;
        case OOMSLICE_RANK_REFAULT:
                candidate->metric = grown(usage->refaults, unit->baseline_refaults);
                break;
        default:
                candidate->metric = usage->memory;
        }
}

/* What select.c will call ELIGIBLE. */
static bool is_open(const struct oomslice_candidate *candidate) {
        const uint32_t flags = OOMSLICE_UNIT_PROTECTED | OOMSLICE_UNIT_SELF | OOMSLICE_UNIT_LEFT_TO_OOMD;
        const uint32_t against = OOMSLICE_CANDIDATE_GONE | OOMSLICE_CANDIDATE_TRIED;

        return !(candidate->flags & flags) && !(candidate->state & against) &&
               (candidate->state & OOMSLICE_CANDIDATE_POPULATED);
}

/* An answer that is not there: ENODEV says that the cgroup is removed, anything else that it cannot be judged. */
static void mark_unreadable(struct oomslice_candidate *candidate) {
        candidate->state |= OOMSLICE_CANDIDATE_GONE;
        candidate->state &= ~(uint32_t)OOMSLICE_CANDIDATE_POPULATED;
}

static void measure(const struct oomslice_sample *sample, struct oomslice_candidate *candidate, bool exact) {
        const struct oomslice_held *held = oomslice_sample_held(sample, candidate);
        struct oomslice_usage usage;
        int r;

        if (candidate->state & OOMSLICE_CANDIDATE_GONE)
                return;
        r = exact ? oomslice_held_usage(held, &usage) : oomslice_held_usage_rough(held, &usage);
        if (r == -ENODEV) {
                mark_unreadable(candidate);
                return;
        }
        /* Figures that cannot be read do not excuse anybody: the unit stays, with the smallest metric. */
        if (r < 0)
                usage = (struct oomslice_usage){0};
        set_figures(sample, candidate, &usage);
        if (exact)
                candidate->state |= STATE_EXACT;
}

static void add(struct oomslice_sample *sample, int32_t unit, uint64_t cgroup_id, int32_t priority,
                uint32_t flags, bool tried) {
        struct oomslice_candidate *candidate = &sample->candidates[sample->count++];
        int r;

        *candidate = (struct oomslice_candidate){
                .cgroup_id = cgroup_id,
                .unit = unit,
                .priority = priority,
                .flags = flags,
                .state = OOMSLICE_CANDIDATE_BELOW | (tried ? OOMSLICE_CANDIDATE_TRIED : 0),
        };
        r = oomslice_held_populated(oomslice_sample_held(sample, candidate)->events);
        if (r < 0)
                mark_unreadable(candidate);
        else if (r > 0)
                candidate->state |= OOMSLICE_CANDIDATE_POPULATED;
        measure(sample, candidate, false);
}

/*
 * Whose settings a unit has that is younger than the plan: its own, if it ran when the plan was made and was only
 * started anew since; else those of the slice that it is in.
 */
static const struct oomslice_plan_unit *settings_of(const struct oomslice_plan *plan,
                                                    const struct oomslice_unplanned *extra) {
        for (int32_t i = extra->heir_of + 1; i < (int32_t)plan->header->units_count; i++)
                if (plan->units[i].parent == extra->heir_of &&
                    strcmp(oomslice_plan_name(plan, i), extra->name) == 0)
                        return &plan->units[i];
        return &plan->units[extra->heir_of];
}

const struct oomslice_plan_unit *oomslice_sample_settings(const struct oomslice_sample *sample,
                                                          const struct oomslice_candidate *candidate) {
        const struct oomslice_unplanned *extra = unplanned_of(sample, candidate);

        return extra ? settings_of(&sample->force->plan, extra) : &sample->force->plan.units[candidate->unit];
}

static void collect(struct oomslice_sample *sample, oomslice_sample_tried_fn tried, void *context) {
        const struct oomslice_plan *plan = &sample->force->plan;
        int32_t top = sample->domain->flags & OOMSLICE_DOMAIN_LOWER ? 0 : sample->domain->unit;

        for (int32_t i = top; i < (int32_t)plan->header->units_count; i++) {
                const struct oomslice_plan_unit *unit = &plan->units[i];

                if ((unit->flags & OOMSLICE_UNIT_CANDIDATE) &&
                    oomslice_plan_pays_for(plan, sample->domain, i, unit->priority))
                        add(sample, i, unit->cgroup_id, unit->priority, unit->flags,
                            tried(unit->cgroup_id, context));
        }
        sample->unplanned_count = oomslice_unplanned_find(sample->force, top, sample->unplanned);
        for (uint32_t i = 0; i < sample->unplanned_count; i++) {
                const struct oomslice_unplanned *extra = &sample->unplanned[i];
                const struct oomslice_plan_unit *settings = settings_of(plan, extra);

                /* A slice that holds the domain holds others as well: only what is in the domain is not asked. */
                if ((sample->domain->flags & OOMSLICE_DOMAIN_LOWER) &&
                    (settings->priority >= plan->units[sample->domain->unit].priority ||
                     oomslice_plan_is_below(plan, extra->heir_of, sample->domain->unit)))
                        continue;
                add(sample, (int32_t)(plan->header->units_count + i), extra->cgroup_id, settings->priority,
                    settings->flags | OOMSLICE_UNIT_CANDIDATE, tried(extra->cgroup_id, context));
        }
}

/* Exact figures for the smallest priority that can be chosen from, then the ranking. */
static void rank(struct oomslice_sample *sample) {
        bool again = true;

        /* A reading may find the last one of a priority gone; then the next priority has to be read. */
        while (again) {
                int32_t smallest = INT32_MAX;

                again = false;
                for (uint32_t i = 0; i < sample->count; i++)
                        if (is_open(&sample->candidates[i]) && sample->candidates[i].priority < smallest)
                                smallest = sample->candidates[i].priority;
                for (uint32_t i = 0; i < sample->count; i++) {
                        struct oomslice_candidate *candidate = &sample->candidates[i];

                        if (!is_open(candidate) || candidate->priority != smallest ||
                            (candidate->state & STATE_EXACT))
                                continue;
                        measure(sample, candidate, true);
                        again = true;
                }
        }
        sample->eligible = oomslice_select(sample->candidates, sample->count);
}

struct oomslice_sample *oomslice_sample_take(const struct oomslice_force *force, uint32_t domain,
                                             oomslice_sample_tried_fn tried, void *context) {
        static struct oomslice_sample sample;

        sample = (struct oomslice_sample){
                .force = force,
                .domain = &force->plan.domains[domain],
                .candidates = candidates,
                .unplanned = unplanned,
        };
        collect(&sample, tried, context);
        rank(&sample);
        return &sample;
}

void oomslice_sample_strike(struct oomslice_sample *sample, uint32_t state) {
        sample->candidates[0].state |= state;
        rank(sample);
}

void oomslice_sample_complete(struct oomslice_sample *sample, uint32_t limit) {
        for (uint32_t i = 0; i < sample->count && i < limit; i++) {
                struct oomslice_candidate *candidate = &sample->candidates[i];
                uint32_t state = candidate->state;

                if (state & STATE_EXACT)
                        continue;
                measure(sample, candidate, true);
                /* Gone only now: that is not why it was not chosen. */
                candidate->state = state | STATE_EXACT;
        }
        sample->eligible = oomslice_select(sample->candidates, sample->count);
}

void oomslice_sample_end(struct oomslice_sample *sample) {
        oomslice_unplanned_close(sample->unplanned, sample->unplanned_count);
        sample->unplanned_count = 0;
}
