/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns what is done on command. It goes the same way as a decision's own act, with the same last check and a record
 * before anything is done, but belongs to no domain: no pressure ends it, no calm undoes it, and nobody is chosen.
 * Whom the plan protects is not touched for anybody who asks. The file that a step needs and no ladder did is opened
 * for it, which may have to wait for memory; so may taking a plan.
 */
#define _GNU_SOURCE
#include "asked.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "action.h"
#include "climb.h"
#include "decide.h"
#include "force.h"
#include "killing.h"
#include "moment.h"
#include "processes.h"
#include "record.h"
#include "token.h"
#include "undo.h"
#include "victim.h"

#define FOR_EVER_US (UINT64_MAX / 4)

static bool is_step(const struct oomslice_message *asked) {
        if (asked->step < OOMSLICE_STEP_KILL || asked->step > OOMSLICE_STEP_START)
                return false;
        if (asked->step == OOMSLICE_STEP_THROTTLE && (asked->amount < 1 || asked->amount > 100))
                return false;
        return memchr(asked->text, '\0', sizeof(asked->text));
}

static int begin_climb(const struct oomslice_message *asked, const struct oomslice_force *force, int32_t unit,
                       struct oomslice_record *record) {
        const struct oomslice_plan_step step = {
                .kind = asked->step,
                .amount = asked->amount,
                .text = asked->text[0] ? 0 : OOMSLICE_PLAN_NO_TEXT,
        };
        const struct oomslice_plan ladder = {
                .header = force->plan.header, .steps = &step, .names = asked->text};
        struct oomslice_plan_unit settings = force->plan.units[unit];
        struct oomslice_held held;
        bool begun;

        oomslice_held_copy(&held, &force->held[unit]);
        oomslice_held_open_more(&held, oomslice_held_files_of_step(asked->step));
        settings.steps_first = 0;
        settings.steps_count = 1;
        begun = oomslice_climb_begin(&(struct oomslice_climb_start){
                .victim_id = asked->cgroup_id,
                .victim_name = oomslice_plan_name(&force->plan, unit),
                .held = &held,
                .plan = &ladder,
                .settings = &settings,
                .trigger_us = oomslice_moment_now(),
                .lasts_us = FOR_EVER_US,
                .asked = true,
                .record = record,
        });
        oomslice_held_close(&held); /* the climb has copies */
        return begun ? 0 : -EBUSY;
}

static int kill_unit(const struct oomslice_message *asked, const struct oomslice_force *force, int32_t unit,
                     uint64_t available, struct oomslice_processes *processes, int check,
                     struct oomslice_record *record) {
        struct oomslice_usage usage = {0};
        int r;

        (void)oomslice_held_usage(&force->held[unit], &usage);
        r = oomslice_killing_do(
                &(struct oomslice_killing){
                        .victim_id = asked->cgroup_id,
                        .victim_name = oomslice_plan_name(&force->plan, unit),
                        .held = &force->held[unit],
                        .processes = processes,
                        .check = check,
                        .reclaimable = usage.memory,
                        .available = available,
                        .deadline_us = force->plan.header->machine.death_deadline_us,
                        .scope = force->plan.units[unit].kill_scope,
                        .pidfd = -1,
                },
                record);
        return r == OOMSLICE_KILLING_SENT      ? 0
               : r == OOMSLICE_KILLING_GONE    ? -ESRCH
               : r == OOMSLICE_KILLING_REFUSED ? -EPERM
                                               : r;
}

int oomslice_asked_act(const struct oomslice_message *asked, const struct oomslice_meminfo *meminfo,
                       uint64_t *sequencep) {
        const uint32_t never = OOMSLICE_UNIT_PROTECTED | OOMSLICE_UNIT_SELF | OOMSLICE_UNIT_LEFT_TO_OOMD;
        static struct oomslice_processes processes;
        const struct oomslice_force *force = oomslice_force_get();
        struct oomslice_record *record;
        uint64_t now = oomslice_moment_now();
        int32_t unit;
        int r;

        if (!is_step(asked))
                return -EINVAL;
        unit = force ? oomslice_force_find(force, asked->cgroup_id) : -1;
        if (unit < 0)
                return -ESRCH;
        if (force->plan.units[unit].flags & never)
                return -EPERM;
        if (!(force->plan.units[unit].flags & OOMSLICE_UNIT_CANDIDATE))
                return -EISDIR;
        if (oomslice_token_is_taken() || oomslice_action_of_victim(asked->cgroup_id) ||
            oomslice_climb_of_victim(asked->cgroup_id))
                return -EBUSY;
        r = oomslice_victim_check(&force->held[unit], &processes);
        if (r == OOMSLICE_VICTIM_GONE || (r >= 0 && oomslice_held_populated(force->held[unit].events) == 0))
                return -ESRCH;
        if (r == OOMSLICE_VICTIM_REFUSED)
                return -EPERM;

        record = oomslice_record_new(force, 0,
                                     &(struct oomslice_cause){.trigger = OOMSLICE_TRIGGER_ASKED,
                                                              .trigger_us = now,
                                                              .meminfo = *meminfo});
        *sequencep = oomslice_record_sequence(record);
        oomslice_record_set_asked(record, force, unit, asked->user);
        oomslice_record_set_processes(record, &processes);
        if (*sequencep == 0) {
                oomslice_record_finish(record, OOMSLICE_OUTCOME_FAILED, ENOBUFS);
                return -ENOBUFS;
        }
        if (oomslice_decide_is_dry_run() || (force->plan.units[unit].flags & OOMSLICE_UNIT_DRY_RUN)) {
                oomslice_record_finish(record, OOMSLICE_OUTCOME_DRY_RUN, 0);
                return 0;
        }
        r = asked->step == OOMSLICE_STEP_KILL
                    ? kill_unit(asked, force, unit, meminfo->available, &processes, r, record)
                    : begin_climb(asked, force, unit, record);
        if (r < 0)
                oomslice_record_finish(record,
                                       r == -EPERM ? OOMSLICE_OUTCOME_REFUSED : OOMSLICE_OUTCOME_FAILED, -r);
        return r;
}

int oomslice_asked_release(uint64_t cgroup_id) {
        if (!oomslice_undo_has(cgroup_id, OOMSLICE_STEP_FREEZE) &&
            !oomslice_undo_has(cgroup_id, OOMSLICE_STEP_THROTTLE))
                return -ENODATA;
        oomslice_undo_unit(cgroup_id, oomslice_moment_now());
        return 0;
}
