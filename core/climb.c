/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the order and the times of a ladder's steps. What each step does is in steps.c. A climb has its own copies of
 * descriptors and of the ladder, so a plan that comes meanwhile takes nothing from it; but it is asked before each
 * step whether the victim may still be touched.
 */
#define _GNU_SOURCE
#include "climb.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "force.h"
#include "killing.h"
#include "moment.h"
#include "record.h"
#include "steps.h"
#include "undo.h"
#include "victim.h"

#define STEP_US UINT64_C(10000000)       /* the last step of a ladder has this long */
#define CHECKPOINT_US UINT64_C(30000000) /* a checkpoint writes all of a unit to disk */
#define ANSWER_US UINT64_C(1000000)      /* and every other at least this, until it is late */
#define GRACE_US UINT64_C(10000000)      /* from SIGTERM to SIGKILL, where the ladder says nothing */
#define LOOK_MIN_US UINT64_C(2000)
#define LOOK_MAX_US UINT64_C(50000)

struct climb {
        bool busy, gentle, urgent, asked, committed, running;
        uint64_t trigger_us, sign_us, lasts_us;
        uint64_t step_deadline_us, next_us;
        uint32_t count, at;   /* steps of the ladder, and which one is next or running */
        uint32_t recorded;    /* steps in the record */
        uint32_t last_result; /* of the step before */
        struct oomslice_step_run run;
        struct oomslice_plan_step steps[OOMSLICE_LADDER_STEPS_MAX];
        char texts[OOMSLICE_LADDER_STEPS_MAX][OOMSLICE_REQUEST_TEXT];
};

static struct climb climbs[OOMSLICE_CLIMBS_MAX];

static const struct oomslice_plan_step *step_of(const struct oomslice_plan *plan,
                                                const struct oomslice_plan_unit *settings, uint32_t index) {
        return &plan->steps[settings->steps_first + index];
}

bool oomslice_climb_has_steps(const struct oomslice_plan *plan, const struct oomslice_plan_unit *settings,
                              bool urgent) {
        const struct oomslice_plan_step *first, *last;

        if (settings->steps_count == 0)
                return false;
        first = step_of(plan, settings, 0);
        last = step_of(plan, settings, settings->steps_count - 1U);
        if (urgent)
                return last->kind == OOMSLICE_STEP_FREEZE;
        return first->kind != OOMSLICE_STEP_KILL || first->delay_us > 0;
}

bool oomslice_climb_is_gentle(const struct oomslice_plan *plan, const struct oomslice_plan_unit *settings) {
        return settings->steps_count > 0 && !oomslice_plan_is_harsh(step_of(plan, settings, 0)->kind);
}

/* A ladder must lead somewhere: where it does not, a kill is its end. */
static void add_end(struct climb *climb) {
        const struct oomslice_plan_step *last = &climb->steps[climb->count - 1];
        struct oomslice_plan_step end = {
                .delay_us = last->delay_us + (last->kind == OOMSLICE_STEP_TERMINATE ? GRACE_US : 0),
                .kind = OOMSLICE_STEP_KILL,
                .text = OOMSLICE_PLAN_NO_TEXT,
        };

        if (last->kind == OOMSLICE_STEP_KILL || last->kind == OOMSLICE_STEP_FREEZE)
                return;
        if (climb->count == OOMSLICE_LADDER_STEPS_MAX)
                climb->count--;
        climb->steps[climb->count] = end;
        climb->texts[climb->count++][0] = '\0';
}

bool oomslice_climb_begin(const struct oomslice_climb_start *start) {
        struct climb *climb = NULL;

        for (int i = 0; i < OOMSLICE_CLIMBS_MAX && !climb; i++)
                if (!climbs[i].busy)
                        climb = &climbs[i];
        if (!climb)
                return false;

        climb->busy = true;
        climb->gentle = start->gentle;
        climb->urgent = start->urgent;
        climb->asked = start->asked;
        climb->committed = climb->running = false;
        climb->trigger_us = climb->sign_us = start->trigger_us;
        climb->lasts_us = start->lasts_us;
        climb->next_us = 0;
        climb->at = climb->recorded = climb->last_result = 0;
        climb->count = start->settings->steps_count;
        for (uint32_t i = 0; i < climb->count; i++) {
                const struct oomslice_plan_step *step = step_of(start->plan, start->settings, i);
                const char *text = oomslice_plan_step_text(start->plan, step);
                size_t length = strnlen(text, OOMSLICE_REQUEST_TEXT - 1);

                climb->steps[i] = *step;
                memcpy(climb->texts[i], text, length);
                climb->texts[i][length] = '\0';
        }
        if (!climb->asked)
                add_end(climb);
        oomslice_step_start(&climb->run, start);
        return true;
}

bool oomslice_climb_pressure(uint64_t domain_id, uint64_t now_us, bool earnest, bool urgent) {
        for (int i = 0; i < OOMSLICE_CLIMBS_MAX; i++) {
                struct climb *climb = &climbs[i];

                if (!climb->busy || climb->run.domain_id != domain_id)
                        continue;
                climb->sign_us = now_us;
                climb->gentle = climb->gentle && !earnest;
                if (urgent && !climb->urgent) {
                        climb->urgent = true;
                        climb->next_us = now_us;
                }
                return true;
        }
        return false;
}

static void finish(struct climb *climb, uint32_t outcome, int error, const struct oomslice_climb_view *view,
                   struct oomslice_action_result *resultp) {
        struct oomslice_record *record = climb->run.record;

        record->victim_memory_after = oomslice_step_memory(&climb->run);
        record->mem_available_after = view->available;
        oomslice_record_finish(record, outcome, error);
        *resultp = (struct oomslice_action_result){climb->run.domain_id, climb->run.victim_id, outcome};
        oomslice_step_end(&climb->run);
        climb->busy = false;
}

/* The victim is empty, by our doing if a step was there to make it so. */
static void finish_empty(struct climb *climb, const struct oomslice_climb_view *view,
                         struct oomslice_action_result *resultp) {
        if (climb->committed)
                climb->run.record->death_us = climb->run.record->memory_back_us = view->now_us;
        finish(climb, climb->committed ? OOMSLICE_OUTCOME_FREED : OOMSLICE_OUTCOME_GONE, 0, view, resultp);
}

/* The end of the ladder was reached, and it was no kill. */
static void finish_at_end(struct climb *climb, const struct oomslice_climb_view *view,
                          struct oomslice_action_result *resultp) {
        bool stands =
                climb->last_result == OOMSLICE_RESULT_DONE || climb->last_result == OOMSLICE_RESULT_NEEDLESS;

        finish(climb,
               !stands        ? OOMSLICE_OUTCOME_FAILED
               : climb->asked ? OOMSLICE_OUTCOME_DONE
                              : OOMSLICE_OUTCOME_HELD,
               stands ? 0 : climb->run.step.error, view, resultp);
}

static uint64_t due(const struct climb *climb, uint32_t index) {
        return climb->trigger_us + climb->steps[index].delay_us;
}

static uint64_t deadline_of(const struct climb *climb, uint64_t now_us) {
        uint32_t next = climb->at + 1;
        bool dumps = climb->steps[climb->at].kind == OOMSLICE_STEP_CHECKPOINT;
        uint64_t least = now_us + ANSWER_US;

        /* Nothing is scheduled after a dump but what happens if it fails. */
        if (dumps &&
            (next >= climb->count || climb->steps[next].delay_us <= climb->steps[climb->at].delay_us))
                return now_us + CHECKPOINT_US;
        if (next >= climb->count)
                return now_us + STEP_US;
        return due(climb, next) > least ? due(climb, next) : least;
}

/* In a hurry only the end counts, and a dump takes longer than there is time. */
static void hurry(struct climb *climb) {
        if (climb->at < climb->count - 1)
                climb->at = climb->count - 1;
}

/* A kill ends the climb: an action waits for its outcome. */
static bool kill_now(struct climb *climb, const struct oomslice_climb_view *view,
                     struct oomslice_action_result *resultp) {
        const struct oomslice_force *force = oomslice_force_get();
        static struct oomslice_processes processes;
        struct oomslice_step_run *run = &climb->run;
        int r;

        r = oomslice_killing_do(
                &(struct oomslice_killing){
                        .domain_id = run->domain_id,
                        .victim_id = run->victim_id,
                        .victim_name = run->victim_name,
                        .held = &run->held,
                        .processes = &processes,
                        .check = oomslice_victim_check(&run->held, &processes),
                        .reclaimable = run->reclaimable,
                        .available = view->available,
                        .deadline_us = force->plan.header->machine.death_deadline_us,
                        .scope = run->kill_scope,
                        .step = climb->recorded,
                        .mark = force->plan.header->machine.mark_kills,
                        .pidfd = run->told_fd,
                },
                run->record);
        if (r == OOMSLICE_KILLING_SENT) {
                oomslice_step_end(run);
                climb->busy = false;
                return false;
        }
        if (r == OOMSLICE_KILLING_GONE)
                finish_empty(climb, view, resultp);
        else
                finish(climb,
                       r == OOMSLICE_KILLING_REFUSED ? OOMSLICE_OUTCOME_REFUSED : OOMSLICE_OUTCOME_FAILED,
                       r == OOMSLICE_KILLING_REFUSED ? EPERM : -r, view, resultp);
        return true;
}

/* Whether the plan in force would still have it touched; a cgroup it does not know was found without it. */
static bool is_forbidden(const struct climb *climb) {
        const uint32_t never = OOMSLICE_UNIT_PROTECTED | OOMSLICE_UNIT_SELF | OOMSLICE_UNIT_LEFT_TO_OOMD;
        const struct oomslice_force *force = oomslice_force_get();
        int32_t unit = force ? oomslice_force_find(force, climb->run.victim_id) : -1;

        return unit >= 0 && (force->plan.units[unit].flags & never);
}

static void step_over(struct climb *climb) {
        uint32_t kind = climb->steps[climb->at].kind;

        climb->running = false;
        climb->last_result = climb->run.step.result;
        if ((kind == OOMSLICE_STEP_TERMINATE || kind == OOMSLICE_STEP_CHECKPOINT) &&
            climb->last_result == OOMSLICE_RESULT_DONE)
                climb->committed = true;
        climb->recorded++;
        climb->at++;
        oomslice_record_tell();
}

/* Looks at the step that is running. False: it goes on. */
static bool look_at_step(struct climb *climb, const struct oomslice_climb_view *view) {
        bool over = oomslice_step_poll(&climb->run, view->now_us);

        if (!over &&
            (view->now_us >= climb->step_deadline_us || (climb->urgent && climb->at + 1 < climb->count))) {
                oomslice_step_give_up(&climb->run, view->now_us);
                over = true;
        }
        oomslice_record_set_step(climb->run.record, climb->recorded, &climb->run.step);
        if (over)
                step_over(climb);
        return over;
}

/* True with a result if the climb has ended; else next_us says when to look again. */
static bool advance(struct climb *climb, const struct oomslice_climb_view *view,
                    struct oomslice_action_result *resultp) {
        uint64_t now = view->now_us, over_us;

        for (;;) {
                if (climb->running && !look_at_step(climb, view)) {
                        uint64_t pause = (now - climb->run.step.begin_us) / 8;

                        pause = pause < LOOK_MIN_US ? LOOK_MIN_US : pause > LOOK_MAX_US ? LOOK_MAX_US : pause;
                        climb->next_us = now + pause;
                        return false;
                }
                if (oomslice_step_is_victim_gone(&climb->run)) {
                        finish_empty(climb, view, resultp);
                        return true;
                }
                if (is_forbidden(climb)) {
                        finish(climb, OOMSLICE_OUTCOME_REFUSED, EPERM, view, resultp);
                        return true;
                }
                if (climb->at >= climb->count) {
                        finish_at_end(climb, view, resultp);
                        return true;
                }
                over_us = climb->sign_us + climb->lasts_us;
                if (!climb->committed && !climb->urgent && now >= over_us) {
                        finish(climb, OOMSLICE_OUTCOME_RELIEVED, 0, view, resultp);
                        return true;
                }
                if (climb->urgent)
                        hurry(climb);
                else if (climb->gentle && oomslice_plan_is_harsh(climb->steps[climb->at].kind)) {
                        climb->next_us = over_us;
                        return false;
                } else if (now < due(climb, climb->at)) {
                        climb->next_us = due(climb, climb->at);
                        /* Who was told to end is looked at more often: his memory is waited for. */
                        if (climb->committed && climb->next_us > now + LOOK_MAX_US)
                                climb->next_us = now + LOOK_MAX_US;
                        else if (!climb->committed && over_us < climb->next_us)
                                climb->next_us = over_us;
                        return false;
                }
                if (climb->steps[climb->at].kind == OOMSLICE_STEP_KILL)
                        return kill_now(climb, view, resultp);
                climb->step_deadline_us = deadline_of(climb, now);
                climb->running = true;
                oomslice_step_begin(&climb->run, &climb->steps[climb->at], climb->texts[climb->at],
                                    climb->recorded, climb->step_deadline_us, view);
        }
}

bool oomslice_climb_poll(const struct oomslice_climb_view *view, struct oomslice_action_result *resultp) {
        for (int i = 0; i < OOMSLICE_CLIMBS_MAX; i++)
                if (climbs[i].busy && view->now_us >= climbs[i].next_us && advance(&climbs[i], view, resultp))
                        return true;
        return false;
}

uint64_t oomslice_climb_next(void) {
        uint64_t next = OOMSLICE_MOMENT_NEVER;

        for (int i = 0; i < OOMSLICE_CLIMBS_MAX; i++)
                if (climbs[i].busy && climbs[i].next_us < next)
                        next = climbs[i].next_us;
        return next;
}

bool oomslice_climb_of_victim(uint64_t victim_id) {
        for (int i = 0; i < OOMSLICE_CLIMBS_MAX; i++)
                if (climbs[i].busy && climbs[i].run.victim_id == victim_id)
                        return true;
        return false;
}
