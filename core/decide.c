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
#include "force.h"
#include "moment.h"
#include "processes.h"
#include "sample.h"
#include "victim.h"

enum {
        TRIED_MAX = 16,
        CHOICES_MAX = 16, /* in one decision: more would keep other domains waiting */
};

#define TRIED_US UINT64_C(30000000) /* how long a victim without effect is left alone */
#define REST_DRY_RUN_US UINT64_C(10000000)
#define REST_NOBODY_US UINT64_C(100000)    /* until candidates are looked for again */
#define QUIET_NOBODY_US UINT64_C(10000000) /* between two records of "nobody" */
#define REST_FAILED_US UINT64_C(20000)

struct domain {
        uint64_t cgroup_id;
        uint64_t rest_us;     /* nothing is decided before */
        uint64_t cooldown_us; /* nothing is decided before for a stall, which lags behind the memory */
        uint64_t quiet_us;    /* no record of NO_CANDIDATE before */
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
                        if (before[j].cgroup_id == id)
                                domains[i] = before[j];
        }
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
                if (domain->tried[i].cgroup_id == cgroup_id && domain->tried[i].until_us > now)
                        return true;
        return oomslice_action_of_victim(cgroup_id);
}

static void rest(struct domain *domain, uint64_t pause_us) {
        domain->rest_us = oomslice_moment_now() + pause_us;
}

/* Nobody may be chosen: says so, but not at every look. */
static void decide_nobody(uint32_t index, const struct oomslice_cause *cause,
                          const struct oomslice_sample *sample) {
        struct domain *domain = &domains[index];
        struct oomslice_record *record;
        uint64_t now = oomslice_moment_now();

        rest(domain, REST_NOBODY_US);
        if (now < domain->quiet_us)
                return;
        domain->quiet_us = now + QUIET_NOBODY_US;
        record = oomslice_record_new(sample->force, index, cause);
        oomslice_record_set_candidates(record, sample, false);
        oomslice_record_finish(record, OOMSLICE_OUTCOME_NO_CANDIDATE, 0);
}

static bool is_dry_run(const struct oomslice_sample *sample) {
        return dry_run_all || ((sample->candidates[0].flags | sample->domain->flags) & OOMSLICE_UNIT_DRY_RUN);
}

/* The signal is out: everything that can wait until now. */
static void follow_up(struct oomslice_sample *sample, struct oomslice_action *action,
                      struct oomslice_processes *processes) {
        struct oomslice_record *record = action->record;

        oomslice_victim_reap(oomslice_sample_held(sample, &sample->candidates[0]), processes, action->serial);
        oomslice_record_set_processes(record, processes);
        oomslice_sample_complete(sample, OOMSLICE_RECORD_CANDIDATES);
        oomslice_record_set_candidates(record, sample, true);
}

enum result { DONE, NEXT };

/* Acts upon the first candidate. NEXT: nothing came of it, and the one after it is now first. */
static enum result act(uint32_t index, const struct oomslice_cause *cause, struct oomslice_sample *sample) {
        static struct oomslice_processes processes;
        const struct oomslice_candidate victim = sample->candidates[0];
        const struct oomslice_held *held = oomslice_sample_held(sample, &victim);
        struct domain *domain = &domains[index];
        struct oomslice_action *action;
        struct oomslice_record *record;
        uint64_t now;
        int r, error;

        r = oomslice_victim_check(held, &processes);
        if (r == OOMSLICE_VICTIM_GONE) {
                oomslice_sample_strike(sample, OOMSLICE_CANDIDATE_GONE);
                return NEXT;
        }

        record = oomslice_record_new(sample->force, index, cause);
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
        action = oomslice_action_new(domain->cgroup_id, victim.cgroup_id, held, victim.memory);
        if (!action) {
                /* 64 victims of other domains are dying: their memory is what to wait for. */
                oomslice_record_finish(record, OOMSLICE_OUTCOME_FAILED, EBUSY);
                rest(domain, REST_FAILED_US);
                return DONE;
        }
        record->victim_memory_before = action->after;

        error = r < 0 ? r : 0; /* a list of processes that could not be read is no reason to spare them */
        r = oomslice_victim_kill(held, &processes, action->serial);
        now = oomslice_moment_now();
        if (r == OOMSLICE_VICTIM_KILLED) {
                record->signal_us = now;
                record->error = -error;
                oomslice_ring_set_state(record, OOMSLICE_RECORD_SIGNALLED);
                oomslice_action_start(action, record, now,
                                      sample->force->plan.header->machine.death_deadline_us);
                follow_up(sample, action, &processes);
                return DONE;
        }
        oomslice_action_free(action);
        if (r == OOMSLICE_VICTIM_GONE) {
                oomslice_record_finish(record, OOMSLICE_OUTCOME_GONE, 0);
                oomslice_sample_strike(sample, OOMSLICE_CANDIDATE_GONE);
        } else {
                oomslice_record_finish(record, OOMSLICE_OUTCOME_FAILED, r);
                set_tried(domain, victim.cgroup_id);
                oomslice_sample_strike(sample, OOMSLICE_CANDIDATE_TRIED);
        }
        return NEXT;
}

void oomslice_decide(uint32_t index, const struct oomslice_cause *cause) {
        const struct oomslice_force *force = oomslice_force_get();
        struct oomslice_sample *sample;
        struct domain *domain;
        uint64_t now = oomslice_moment_now();
        enum result result = NEXT;

        if (!force || index >= domains_count)
                return;
        domain = &domains[index];
        if (now < domain->rest_us || oomslice_action_of_domain(domain->cgroup_id))
                return;
        if (now < domain->cooldown_us && cause->trigger != OOMSLICE_TRIGGER_AVAILABLE)
                return;

        sample = oomslice_sample_take(force, index, is_tried, domain);
        for (int i = 0; i < CHOICES_MAX && result == NEXT && sample->eligible > 0; i++)
                result = act(index, cause, sample);
        if (result == NEXT && sample->eligible == 0)
                decide_nobody(index, cause, sample);
        oomslice_sample_end(sample);
}

void oomslice_decide_poll(uint64_t now_us, bool any, uint64_t available) {
        const struct oomslice_force *force = oomslice_force_get();
        struct oomslice_action_result result;

        while (oomslice_action_poll(now_us, any, available, &result))
                for (uint32_t i = 0; force && i < domains_count; i++) {
                        if (domains[i].cgroup_id != result.domain_id)
                                continue;
                        if (result.outcome == OOMSLICE_OUTCOME_FREED)
                                domains[i].cooldown_us = now_us + force->plan.domains[i].cooldown_us;
                        else
                                set_tried(&domains[i], result.victim_id);
                }
}

uint64_t oomslice_decide_machine_ready(void) {
        if (domains_count == 0)
                return OOMSLICE_MOMENT_NEVER;
        return oomslice_action_of_domain(domains[0].cgroup_id) ? OOMSLICE_MOMENT_NEVER : domains[0].rest_us;
}

void oomslice_decide_machine_calm(void) {
        if (domains_count == 0)
                return;
        for (int i = 0; i < TRIED_MAX; i++)
                domains[0].tried[i].until_us = 0;
}
