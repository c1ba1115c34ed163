/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the state of each domain: one act at a time, rest after it, and memory of whom it tried in vain. The steps
 * of a decision are in oomslice_decide(), in the order of the design: candidates, choice, record, last check, act.
 * Domains do not know of one another, except that nobody is chosen who is already dying for another domain.
 */
#define _GNU_SOURCE
#include "decide.h"

#include <errno.h>
#include <stddef.h>

#include "action.h"
#include "channel.h"
#include "climb.h"
#include "force.h"
#include "killing.h"
#include "moment.h"
#include "processes.h"
#include "pulse.h"
#include "restarts.h"
#include "sample.h"
#include "token.h"
#include "trail.h"
#include "undo.h"
#include "victim.h"
#include "watch.h"

enum {
        TRIED_MAX = 16,
        CHOICES_MAX = 16, /* in one decision: more would keep other domains waiting */
        RELAPSES_MAX = 6,
        RESTARTS = 3, /* killed so often within a minute, a unit is one that always comes back */
};

#define TRIED_US UINT64_C(30000000) /* how long a victim without effect is left alone */
#define REST_DRY_RUN_US UINT64_C(10000000)
#define REST_NOBODY_US UINT64_C(100000)    /* until candidates are looked for again */
#define QUIET_NOBODY_US UINT64_C(10000000) /* between two records of "nobody" */
#define REST_FAILED_US UINT64_C(20000)
#define REST_LOW_US UINT64_C(1000000)
#define LASTS_LOW_US UINT64_C(2500000) /* a watch looks every second at least */
#define COARSE_US UINT64_C(2000000)    /* PSI_FREQ of the kernel */
#define RELAPSE_US UINT64_C(60000000)

struct domain {
        uint64_t cgroup_id;
        uint64_t rest_us;     /* nothing is decided before */
        uint64_t cooling_us;  /* since when no stall decides, for it lags behind the memory; 0: never */
        uint64_t quiet_us;    /* no record of NO_CANDIDATE before */
        uint64_t low_rest_us; /* nothing is decided before for memory that is low */
        uint64_t lasts_us;    /* how long one sign of its pressure counts */
        uint64_t pressed_us;  /* short of memory until then, unless it says so again; 0: it is not */
        uint64_t relieved_us; /* when its last act was over */
        bool left_behind;     /* the last one is dead, and its memory is still charged */
        uint64_t floor;       /* memory and swap above which nobody pays for that; 0: not known yet */
        uint32_t relapses;    /* how often pressure came back soon after, up to 6 */
        struct {
                uint64_t cgroup_id;
                uint64_t until_us;
        } tried[TRIED_MAX];
        uint32_t tried_next;
};

static struct domain domains[OOMSLICE_PLAN_DOMAINS_MAX];
static uint32_t domains_count;
static bool dry_run_all;

void oomslice_decide_init(bool dry_run) {
        dry_run_all = dry_run;
}

bool oomslice_decide_is_dry_run(void) {
        return dry_run_all;
}

static void end_pressure(struct domain *domain) {
        oomslice_record_pressed(domain->cgroup_id, false);
        domain->pressed_us = 0;
}

void oomslice_decide_plan_taken(void) {
        const struct oomslice_plan *plan = &oomslice_force_get()->plan;
        static struct domain before[OOMSLICE_PLAN_DOMAINS_MAX];
        uint32_t before_count = domains_count;

        for (uint32_t i = 0; i < before_count; i++)
                before[i] = domains[i];
        domains_count = plan->header->domains_count;
        for (uint32_t i = 0; i < domains_count; i++) {
                uint64_t id = plan->units[plan->domains[i].unit].cgroup_id;

                domains[i] = (struct domain){.cgroup_id = id};
                for (uint32_t j = 0; j < before_count; j++)
                        if (before[j].cgroup_id == id) {
                                domains[i] = before[j];
                                before[j].pressed_us = 0;
                        }
        }
        for (uint32_t j = 0; j < before_count; j++)
                if (before[j].pressed_us != 0)
                        end_pressure(&before[j]);
}

static void set_tried(struct domain *domain, uint64_t cgroup_id) {
        uint32_t at = domain->tried_next++ % TRIED_MAX;

        domain->tried[at].cgroup_id = cgroup_id;
        domain->tried[at].until_us = oomslice_moment_now() + TRIED_US;
}

/* As oomslice_sample_tried_fn. Who is dying for another domain is nobody to choose either. */
static bool is_tried(uint64_t cgroup_id, void *context) {
        const struct domain *domain = context;
        uint64_t now = oomslice_moment_now();

        for (int i = 0; i < TRIED_MAX; i++)
                /* Who stands still until it is calm has nothing more to give. */
                if (domain->tried[i].cgroup_id == cgroup_id &&
                    (domain->tried[i].until_us > now || oomslice_undo_has(cgroup_id, OOMSLICE_STEP_FREEZE)))
                        return true;
        return oomslice_action_of_victim(cgroup_id);
}

bool oomslice_decide_was_tried(uint64_t cgroup_id) {
        return is_tried(cgroup_id, &domains[0]);
}

static void rest(struct domain *domain, uint64_t pause_us) {
        domain->rest_us = oomslice_moment_now() + pause_us;
}

static void rest_from_low(struct domain *domain) {
        domain->low_rest_us = oomslice_moment_now() + REST_LOW_US;
}

/* Nobody may be chosen: says so, but not at every look. */
static void decide_nobody(uint32_t index, const struct oomslice_cause *cause,
                          const struct oomslice_sample *sample) {
        struct domain *domain = &domains[index];
        struct oomslice_record *record;
        uint64_t now = oomslice_moment_now();

        rest(domain, REST_NOBODY_US);
        if (now < domain->quiet_us || cause->trigger == OOMSLICE_TRIGGER_LOW)
                return;
        domain->quiet_us = now + QUIET_NOBODY_US;
        record = oomslice_record_new(sample->force, index, cause);
        oomslice_record_set_candidates(record, sample, false);
        oomslice_record_finish(record, OOMSLICE_OUTCOME_NO_CANDIDATE, 0);
}

static bool is_dry_run(const struct oomslice_sample *sample) {
        return dry_run_all || (sample->candidates[0].flags & OOMSLICE_UNIT_DRY_RUN) ||
               (sample->domain->flags & OOMSLICE_DOMAIN_DRY_RUN);
}

enum result { DONE, NEXT };

/* How long one firing of a trigger is taken as pressure: triggers fire once per window at most. */
static uint64_t lasts(const struct oomslice_plan *plan, uint32_t index, uint32_t why) {
        const struct oomslice_psi_trigger *trigger = &plan->domains[index].trigger;

        if (why == OOMSLICE_TRIGGER_THRASH)
                trigger = &plan->header->machine.thrash;
        else if (why != OOMSLICE_TRIGGER_PRESSURE)
                return LASTS_LOW_US;
        /* Windows that are multiples of 2 s need no privilege; then the kernel only looks every 2 s, and may miss one. */
        return trigger->window_us + trigger->window_us / 2 +
               (trigger->window_us % COARSE_US == 0 ? COARSE_US : 0);
}

/* Climbs the first candidate's ladder. False if it cannot, and the kill comes at once. */
static bool climb(struct domain *domain, const struct oomslice_cause *cause, struct oomslice_sample *sample,
                  const struct oomslice_plan_unit *settings, struct oomslice_record *record) {
        const struct oomslice_candidate *victim = &sample->candidates[0];
        bool urgent = cause->trigger == OOMSLICE_TRIGGER_AVAILABLE;

        if (!oomslice_climb_begin(&(struct oomslice_climb_start){
                    .domain_id = domain->cgroup_id,
                    .victim_id = victim->cgroup_id,
                    .victim_name = oomslice_sample_name(sample, victim),
                    .held = oomslice_sample_held(sample, victim),
                    .plan = &sample->force->plan,
                    .settings = settings,
                    .reclaimable = victim->memory,
                    .trigger_us = cause->trigger_us,
                    .lasts_us = domain->lasts_us,
                    .gentle = cause->trigger == OOMSLICE_TRIGGER_LOW,
                    .urgent = urgent,
                    .record = record,
            }))
                return false;
        if (!urgent) {
                oomslice_sample_complete(sample, OOMSLICE_RECORD_CANDIDATES);
                oomslice_record_set_candidates(record, sample, true);
        }
        return true;
}

static enum result kill(struct domain *domain, const struct oomslice_cause *cause,
                        struct oomslice_sample *sample, const struct oomslice_plan_unit *settings,
                        struct oomslice_processes *processes, int check, struct oomslice_record *record) {
        const struct oomslice_candidate victim = sample->candidates[0];
        int r;

        r = oomslice_killing_do(
                &(struct oomslice_killing){
                        .domain_id = domain->cgroup_id,
                        .victim_id = victim.cgroup_id,
                        .victim_name = oomslice_sample_name(sample, &victim),
                        .held = oomslice_sample_held(sample, &victim),
                        .processes = processes,
                        .check = check,
                        .reclaimable = victim.memory,
                        .available = cause->meminfo.available,
                        .deadline_us = sample->force->plan.header->machine.death_deadline_us,
                        .scope = settings->kill_scope,
                        .mark = sample->force->plan.header->machine.mark_kills,
                        .pidfd = -1,
                },
                record);
        switch (r) {
        case OOMSLICE_KILLING_SENT:
                oomslice_sample_complete(sample, OOMSLICE_RECORD_CANDIDATES);
                oomslice_record_set_candidates(record, sample, true);
                return DONE;
        case OOMSLICE_KILLING_GONE:
                oomslice_record_finish(record, OOMSLICE_OUTCOME_GONE, 0);
                oomslice_sample_strike(sample, OOMSLICE_CANDIDATE_GONE);
                return NEXT;
        case -EBUSY:
                oomslice_record_finish(record, OOMSLICE_OUTCOME_FAILED, EBUSY);
                rest(domain, REST_FAILED_US);
                return DONE;
        default:
                oomslice_record_finish(record,
                                       r == OOMSLICE_KILLING_REFUSED ? OOMSLICE_OUTCOME_REFUSED
                                                                     : OOMSLICE_OUTCOME_FAILED,
                                       r == OOMSLICE_KILLING_REFUSED ? EPERM : r);
                set_tried(domain, victim.cgroup_id);
                oomslice_sample_strike(sample, OOMSLICE_CANDIDATE_TRIED);
                return NEXT;
        }
}

/* Acts upon the first candidate. NEXT: nothing came of it, and the one after it is now first. */
static enum result act(uint32_t index, const struct oomslice_cause *cause, struct oomslice_sample *sample) {
        static struct oomslice_processes processes;
        const struct oomslice_candidate victim = sample->candidates[0];
        const struct oomslice_plan_unit *settings = oomslice_sample_settings(sample, &victim);
        const char *name = oomslice_sample_name(sample, &victim);
        const bool is_low = cause->trigger == OOMSLICE_TRIGGER_LOW;
        struct domain *domain = &domains[index];
        struct oomslice_record *record;
        bool restarting;
        int r;

        r = oomslice_victim_check(oomslice_sample_held(sample, &victim), &processes);
        if (r == OOMSLICE_VICTIM_GONE) {
                oomslice_sample_strike(sample, OOMSLICE_CANDIDATE_GONE);
                return NEXT;
        }
        restarting = oomslice_restarts_count(name, oomslice_moment_now()) >= RESTARTS;
        /* Memory is low, but nobody is short of it yet: whose ladder begins with a kill is left alone. */
        if (is_low && (restarting || !oomslice_climb_is_gentle(&sample->force->plan, settings))) {
                rest_from_low(domain);
                return DONE;
        }

        record = oomslice_record_new(sample->force, index, cause);
        record->flags = restarting ? OOMSLICE_RECORD_RESTARTING : 0;
        oomslice_record_set_candidates(record, sample, true);
        oomslice_record_set_processes(record, &processes);
        if (r == OOMSLICE_VICTIM_REFUSED) {
                oomslice_record_finish(record, OOMSLICE_OUTCOME_REFUSED, EPERM);
                set_tried(domain, victim.cgroup_id);
                oomslice_sample_strike(sample, OOMSLICE_CANDIDATE_TRIED);
                return NEXT;
        }
        if (is_dry_run(sample)) {
                oomslice_sample_complete(sample, OOMSLICE_RECORD_CANDIDATES);
                oomslice_record_set_candidates(record, sample, true);
                oomslice_record_finish(record, OOMSLICE_OUTCOME_DRY_RUN, 0);
                rest(domain, sample->domain->cooldown_us > REST_DRY_RUN_US ? sample->domain->cooldown_us
                                                                           : REST_DRY_RUN_US);
                return DONE;
        }
        if (!restarting &&
            oomslice_climb_has_steps(&sample->force->plan, settings,
                                     cause->trigger == OOMSLICE_TRIGGER_AVAILABLE) &&
            climb(domain, cause, sample, settings, record))
                return DONE;
        /* Too many are under way. That is no reason to die for memory that is low. */
        if (is_low) {
                oomslice_record_finish(record, OOMSLICE_OUTCOME_FAILED, EBUSY);
                rest_from_low(domain);
                return DONE;
        }
        return kill(domain, cause, sample, settings, &processes, r, record);
}

/* How long a domain has to be calm until what was done in it is undone: longer the sooner its pressure came back. */
static uint64_t calm(const struct domain *domain, uint64_t cooldown_us) {
        return domain->lasts_us + (cooldown_us << domain->relapses);
}

/* By the plan in force: a rest that has begun ends earlier if it is made shorter. */
static bool is_cooling(const struct domain *domain, uint64_t cooldown_us, uint64_t now_us) {
        return domain->cooling_us != 0 && now_us - domain->cooling_us < cooldown_us << domain->relapses;
}

/* Pressure again within a minute of its end: it is given longer to prove that it is over. */
static void count_relapse(struct domain *domain, uint64_t now_us) {
        if (domain->relieved_us == 0)
                return;
        if (now_us - domain->relieved_us > RELAPSE_US)
                domain->relapses = 0;
        else if (domain->relapses < RELAPSES_MAX)
                domain->relapses++;
        domain->relieved_us = 0;
}

/*
 * Its writer is dead, and a file on a tmpfs is still there: killing others would not remove it. As long as memory gets no
 * less, and nobody stalls for want of it, there is nothing that somebody would have to die for.
 */
static bool stands_still(struct domain *domain, const struct oomslice_machine *machine,
                         const struct oomslice_meminfo *meminfo) {
        /* What is on its way to swap takes both for a moment: that is no loss. */
        uint64_t left = meminfo->available + meminfo->swap_free + meminfo->swap_cached;

        if (!domain->left_behind)
                return false;
        if (domain->floor == 0)
                domain->floor = oomslice_watch_floor(machine, left);
        domain->left_behind = left > domain->floor;
        if (domain->left_behind)
                rest(domain, oomslice_watch_interval(left - domain->floor, 0));
        return domain->left_behind;
}

void oomslice_decide(uint32_t index, const struct oomslice_cause *cause) {
        const struct oomslice_force *force = oomslice_force_get();
        struct oomslice_sample *sample;
        struct domain *domain;
        uint64_t now = oomslice_moment_now();
        enum result result = NEXT;
        uint64_t killed_until;
        bool urgent;

        if (!force || index >= domains_count || oomslice_token_is_taken())
                return;
        domain = &domains[index];
        urgent = cause->trigger == OOMSLICE_TRIGGER_AVAILABLE;
        domain->lasts_us = lasts(&force->plan, index, cause->trigger);
        if (domain->pressed_us == 0)
                oomslice_record_pressed(domain->cgroup_id, true);
        domain->pressed_us = now + domain->lasts_us;
        oomslice_undo_pressure(domain->cgroup_id, now, calm(domain, force->plan.domains[index].cooldown_us));
        if (oomslice_climb_pressure(domain->cgroup_id, now, cause->trigger != OOMSLICE_TRIGGER_LOW, urgent))
                return;
        if (now < domain->rest_us || oomslice_action_of_domain(domain->cgroup_id))
                return;
        if (!urgent && is_cooling(domain, force->plan.domains[index].cooldown_us, now))
                return;
        if (cause->trigger == OOMSLICE_TRIGGER_LOW && now < domain->low_rest_us)
                return;
        killed_until = index == 0 ? oomslice_pulse_killed_until(now) : 0;
        if (killed_until != 0) {
                rest(domain, killed_until - now);
                return;
        }
        if (urgent && stands_still(domain, &force->plan.header->machine, &cause->meminfo))
                return;
        count_relapse(domain, now);

        sample = oomslice_sample_take(force, index, is_tried, domain);
        /* That took so long that the watchdog has acted: these figures are from before. */
        if (oomslice_token_is_taken()) {
                oomslice_sample_end(sample);
                return;
        }
        for (int i = 0; i < CHOICES_MAX && result == NEXT && sample->eligible > 0; i++)
                result = act(index, cause, sample);
        if (result == NEXT && sample->eligible == 0)
                decide_nobody(index, cause, sample);
        oomslice_sample_end(sample);
        if (result == DONE)
                oomslice_trail_decided(force, &cause->meminfo);
}

static void draw_consequences(struct domain *domain, uint64_t now_us,
                              const struct oomslice_action_result *result) {
        domain->left_behind = result->outcome == OOMSLICE_OUTCOME_KEPT;
        domain->floor = 0;
        switch (result->outcome) {
        case OOMSLICE_OUTCOME_FREED:
        case OOMSLICE_OUTCOME_RELIEVED:
        case OOMSLICE_OUTCOME_GONE:
                domain->cooling_us = now_us;
                break;
        default:
                set_tried(domain, result->victim_id);
        }
        domain->relieved_us = now_us;
}

void oomslice_decide_poll(uint64_t now_us, bool any, uint64_t available) {
        const struct oomslice_climb_view view = {
                .now_us = now_us,
                .available = available,
                .answerable = oomslice_channel_has_client(),
        };
        const struct oomslice_force *force = oomslice_force_get();
        struct oomslice_action_result result;

        while (oomslice_climb_poll(&view, &result) || oomslice_action_poll(now_us, any, available, &result)) {
                uint64_t calm_us = LASTS_LOW_US;

                for (uint32_t i = 0; force && i < domains_count; i++) {
                        if (domains[i].cgroup_id != result.domain_id)
                                continue;
                        draw_consequences(&domains[i], now_us, &result);
                        calm_us = calm(&domains[i], force->plan.domains[i].cooldown_us);
                }
                /* What was asked for belongs to no domain, and stays until it is released. */
                if (result.domain_id != 0)
                        oomslice_undo_pressure(result.domain_id, now_us, calm_us);
        }
        oomslice_undo_poll(now_us);
        for (uint32_t i = 0; i < domains_count; i++)
                if (domains[i].pressed_us != 0 && domains[i].pressed_us <= now_us)
                        end_pressure(&domains[i]);
}

uint64_t oomslice_decide_next(void) {
        uint64_t next = oomslice_action_next(), climb_us = oomslice_climb_next(),
                 undo_us = oomslice_undo_next();

        for (uint32_t i = 0; i < domains_count; i++)
                if (domains[i].pressed_us != 0 && domains[i].pressed_us < next)
                        next = domains[i].pressed_us;
        next = climb_us < next ? climb_us : next;
        return undo_us < next ? undo_us : next;
}

uint64_t oomslice_decide_machine_ready(void) {
        if (domains_count == 0)
                return OOMSLICE_MOMENT_NEVER;
        return oomslice_action_of_domain(domains[0].cgroup_id) ? OOMSLICE_MOMENT_NEVER : domains[0].rest_us;
}

void oomslice_decide_machine_enough(void) {
        if (domains_count > 0)
                domains[0].left_behind = false;
}

void oomslice_decide_machine_calm(void) {
        if (domains_count == 0)
                return;
        for (int i = 0; i < TRIED_MAX; i++)
                domains[0].tried[i].until_us = 0;
}
