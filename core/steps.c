/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns what each step does. None of them waits: what reclaims inside of a write is given to a hand, what needs more
 * than a descriptor to the extended part, and both are only looked at from here.
 */
#define _GNU_SOURCE
#include "steps.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "hands.h"
#include "kill.h"
#include "killing.h"
#include "number.h"
#include "processes.h"
#include "record.h"
#include "undo.h"
#include "victim.h"

#define PAGE_MASK UINT64_C(4095)

void oomslice_step_start(struct oomslice_step_run *run, const struct oomslice_climb_start *start) {
        size_t length = strnlen(start->victim_name, OOMSLICE_UNIT_NAME_MAX - 1);

        run->domain_id = start->domain_id;
        run->victim_id = start->victim_id;
        run->reclaimable = start->reclaimable;
        run->kill_scope = start->settings->kill_scope;
        run->decision = oomslice_record_sequence(start->record);
        run->record = start->record;
        run->step = (struct oomslice_record_step){0};
        run->job = 0;
        run->serial = 0;
        run->settling = false;
        run->told_fd = -1;
        memcpy(run->victim_name, start->victim_name, length);
        run->victim_name[length] = '\0';
        oomslice_held_copy(&run->held, start->held);
        start->record->victim_memory_before = oomslice_step_memory(run);
}

void oomslice_step_end(struct oomslice_step_run *run) {
        oomslice_record_forget(run->serial);
        run->serial = 0;
        if (run->told_fd >= 0)
                close(run->told_fd);
        run->told_fd = -1;
        oomslice_held_close(&run->held);
}

bool oomslice_step_is_victim_gone(const struct oomslice_step_run *run) {
        struct pollfd process = {.fd = run->told_fd, .events = POLLIN};
        int populated;

        if (run->told_fd >= 0 && poll(&process, 1, 0) > 0)
                return true;
        populated = oomslice_held_populated(run->held.events);
        return populated == 0 || populated == -ENODEV;
}

uint64_t oomslice_step_memory(const struct oomslice_step_run *run) {
        struct oomslice_usage usage = {0};

        (void)oomslice_held_usage_rough(&run->held, &usage); /* gone, or no controller: 0 */
        return usage.memory;
}

/* What a step can make less. reclaim and throttle move memory into swap: with swap in it nothing would have changed. */
static uint64_t size_for(const struct oomslice_step_run *run, uint32_t kind) {
        struct oomslice_usage usage = {0};

        (void)oomslice_held_usage_rough(&run->held, &usage);
        return kind == OOMSLICE_STEP_RECLAIM || kind == OOMSLICE_STEP_THROTTLE ? usage.current : usage.memory;
}

static void end(struct oomslice_step_run *run, uint32_t result, int error, uint64_t now_us) {
        run->step.result = result;
        run->step.error = error;
        run->step.end_us = now_us;
        run->step.memory_after = size_for(run, run->step.kind);
        run->job = 0;
        run->settling = false;
}

static int write_down(const struct oomslice_step_run *run, uint32_t kind, uint64_t old_value,
                      uint64_t new_value, int fd) {
        return oomslice_undo_add(
                &(struct oomslice_undo){
                        .cgroup_id = run->victim_id,
                        .domain_id = run->domain_id,
                        .ring_id = oomslice_record_ring_id(),
                        .sequence = run->decision,
                        .old_value = old_value,
                        .new_value = new_value,
                        .begin_us = run->step.begin_us,
                        .kind = kind,
                },
                fd);
}

static void freeze(struct oomslice_step_run *run, uint64_t now_us) {
        uint64_t already = 0;
        int r;

        if (run->held.freeze < 0) {
                end(run, OOMSLICE_RESULT_UNAVAILABLE, ENOENT, now_us);
                return;
        }
        /* By us in an earlier decision, or by somebody else, who will thaw it. */
        if (oomslice_file_number(run->held.freeze, &already) == 0 && already == 1) {
                end(run, OOMSLICE_RESULT_NEEDLESS, 0, now_us);
                return;
        }
        r = write_down(run, OOMSLICE_STEP_FREEZE, 0, 1, run->held.freeze);
        if (r < 0) {
                end(run, OOMSLICE_RESULT_UNAVAILABLE, -r, now_us);
                return;
        }
        if (pwrite(run->held.freeze, "1", 1, 0) < 0) {
                r = errno;
                oomslice_undo_forget(run->victim_id, OOMSLICE_STEP_FREEZE);
                end(run, OOMSLICE_RESULT_FAILED, r, now_us);
                return;
        }
        run->settling = true;
}

/* Whether it may be swapped out is only known once some of it was: see machine.c. Without room for that it may. */
static void prepare_swap(const struct oomslice_step_run *run) {
        uint64_t before;

        if (run->held.swap_max < 0 || oomslice_file_number(run->held.swap_max, &before) < 0 || before == 0)
                return;
        (void)write_down(run, OOMSLICE_UNDO_SWAP, before, 0, run->held.swap_max);
}

/* The limit is put at a part of what it has now, so from here on its own growth is what it pays for. */
static void throttle(struct oomslice_step_run *run, uint64_t percent, uint64_t now_us) {
        char text[OOMSLICE_NUMBER_SIZE];
        uint64_t current, before, limit;
        size_t size;
        int r;

        if (run->held.high < 0 || oomslice_file_number(run->held.current, &current) < 0 ||
            oomslice_file_number(run->held.high, &before) < 0) {
                end(run, OOMSLICE_RESULT_UNAVAILABLE, ENOENT, now_us);
                return;
        }
        limit = current / 100 * percent & ~PAGE_MASK;
        if (before <= limit || oomslice_undo_has(run->victim_id, OOMSLICE_STEP_THROTTLE)) {
                end(run, OOMSLICE_RESULT_NEEDLESS, 0, now_us);
                return;
        }
        r = write_down(run, OOMSLICE_STEP_THROTTLE, before, limit, run->held.high);
        if (r < 0) {
                end(run, OOMSLICE_RESULT_UNAVAILABLE, -r, now_us);
                return;
        }
        prepare_swap(run);
        size = oomslice_number_format(text, limit);
        run->job = oomslice_hands_write(run->held.high, text, size);
        if (run->job == 0) {
                oomslice_undo_forget(run->victim_id, OOMSLICE_STEP_THROTTLE);
                oomslice_undo_forget(run->victim_id, OOMSLICE_UNDO_SWAP);
                end(run, OOMSLICE_RESULT_UNAVAILABLE, EBUSY, now_us);
        } else
                run->step.amount = limit;
}

static void reclaim(struct oomslice_step_run *run, uint64_t bytes, uint64_t now_us) {
        char text[OOMSLICE_NUMBER_SIZE];

        if (run->held.reclaim < 0) {
                end(run, OOMSLICE_RESULT_UNAVAILABLE, ENOENT, now_us);
                return;
        }
        if (bytes == 0)
                bytes = run->step.memory_before / 8;
        run->step.amount = bytes;
        run->job = oomslice_hands_write(run->held.reclaim, text, oomslice_number_format(text, bytes));
        if (run->job == 0)
                end(run, OOMSLICE_RESULT_UNAVAILABLE, EBUSY, now_us);
}

/* SIGTERM to each process. Who stands still, or is throttled, could not end: that is undone first. */
static void terminate(struct oomslice_step_run *run, uint64_t now_us) {
        static struct oomslice_processes processes;
        int told = -EINVAL;

        oomslice_undo_unit(run->victim_id, now_us);
        processes.total = processes.count = 0;
        if (run->kill_scope == OOMSLICE_SCOPE_PROCESS) {
                run->told_fd = oomslice_killing_open_largest(&run->held, &processes, NULL);
                if (run->told_fd >= 0)
                        told = oomslice_pidfd_send_signal(run->told_fd, SIGTERM) == 0;
        }
        if (run->told_fd < 0)
                told = oomslice_victim_tell(&run->held, &processes, SIGTERM);
        oomslice_record_set_processes(run->record, &processes);
        if (told > 0) {
                run->record->signal_us = now_us;
                end(run, OOMSLICE_RESULT_DONE, 0, now_us);
        } else
                end(run, OOMSLICE_RESULT_FAILED, told < 0 ? -told : ESRCH, now_us);
}

static void ask(struct oomslice_step_run *run, const struct oomslice_plan_step *planned, const char *text,
                uint32_t index, uint64_t deadline_us, const struct oomslice_climb_view *view) {
        static struct oomslice_request request;

        if (!view->answerable) {
                end(run, OOMSLICE_RESULT_UNAVAILABLE, ENOTCONN, view->now_us);
                return;
        }
        request = (struct oomslice_request){
                .sequence = run->decision,
                .deadline_us = deadline_us,
                .cgroup_id = run->victim_id,
                .amount = planned->amount,
                .kind = planned->kind,
                .step = index,
        };
        memcpy(request.victim, run->victim_name, sizeof(run->victim_name));
        memcpy(request.text, text, strnlen(text, sizeof(request.text) - 1));
        run->serial = oomslice_record_ask(&request);
        if (run->serial == 0)
                end(run, OOMSLICE_RESULT_UNAVAILABLE, EBUSY, view->now_us);
}

void oomslice_step_begin(struct oomslice_step_run *run, const struct oomslice_plan_step *planned,
                         const char *text, uint32_t index, uint64_t deadline_us,
                         const struct oomslice_climb_view *view) {
        run->step = (struct oomslice_record_step){
                .kind = planned->kind,
                .amount = planned->amount,
                .begin_us = view->now_us,
                .memory_before = size_for(run, planned->kind),
        };
        switch (planned->kind) {
        case OOMSLICE_STEP_FREEZE:
                freeze(run, view->now_us);
                break;
        case OOMSLICE_STEP_THROTTLE:
                throttle(run, planned->amount, view->now_us);
                break;
        case OOMSLICE_STEP_RECLAIM:
                reclaim(run, planned->amount, view->now_us);
                break;
        case OOMSLICE_STEP_TERMINATE:
                terminate(run, view->now_us);
                break;
        case OOMSLICE_STEP_CHECKPOINT:
                /* The dump stops and starts processes itself, which it cannot do with those that are frozen. */
                oomslice_undo_unit(run->victim_id, view->now_us);
                ask(run, planned, text, index, deadline_us, view);
                break;
        default:
                ask(run, planned, text, index, deadline_us, view);
        }
}

bool oomslice_step_poll(struct oomslice_step_run *run, uint64_t now_us) {
        uint32_t result;
        int32_t answer;
        int error;

        if (run->step.result != OOMSLICE_RESULT_PENDING)
                return true;
        if (run->settling) {
                int frozen = oomslice_held_frozen(run->held.events);

                if (frozen == 0)
                        return false;
                end(run, frozen > 0 ? OOMSLICE_RESULT_DONE : OOMSLICE_RESULT_FAILED, frozen > 0 ? 0 : -frozen,
                    now_us);
        } else if (run->job != 0) {
                if (!oomslice_hands_done(run->job, &error))
                        return false;
                /* EAGAIN: not as much as was asked for, which the figures show. */
                end(run, error == 0 || error == EAGAIN ? OOMSLICE_RESULT_DONE : OOMSLICE_RESULT_FAILED, error,
                    now_us);
        } else {
                if (!oomslice_record_answered(run->serial, &result, &answer))
                        return false;
                oomslice_record_forget(run->serial);
                run->serial = 0;
                end(run, result, answer, now_us);
        }
        return true;
}

void oomslice_step_give_up(struct oomslice_step_run *run, uint64_t now_us) {
        oomslice_record_forget(run->serial);
        run->serial = 0;
        end(run, OOMSLICE_RESULT_LATE, 0, now_us);
}
