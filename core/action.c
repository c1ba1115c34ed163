/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns what happens between the signal and the outcome. The cgroup itself is the witness: cgroup.events says when
 * nobody is left in it, memory.current when its memory is back. Nothing here waits; each action is looked at when
 * it is due, so a victim that does not die holds up nobody but its own domain.
 */
#define _GNU_SOURCE
#include "action.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "event.h"
#include "killing.h"
#include "moment.h"
#include "reaper.h"
#include "record.h"

/* After this part of the time that a victim has, the reapers hurry. */
enum { LATE_PART = 4 };

static struct oomslice_action actions[OOMSLICE_ACTIONS_MAX];
static int epoll = -1;

void oomslice_action_init(int epoll_fd) {
        epoll = epoll_fd;
}

static int duplicate(int fd) {
        return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static uint64_t remaining(const struct oomslice_action *action, int *errorp) {
        struct oomslice_usage usage = {0};

        *errorp = oomslice_held_usage_rough(&action->held, &usage);
        return usage.memory;
}

struct oomslice_action *oomslice_action_new(uint64_t domain_id, uint64_t victim_id,
                                            const struct oomslice_held *held, uint64_t reclaimable) {
        static uint32_t serial;
        struct oomslice_action *action = NULL;
        int error;

        for (int i = 0; i < OOMSLICE_ACTIONS_MAX && !action; i++)
                if (!actions[i].busy)
                        action = &actions[i];
        if (!action)
                return NULL;

        *action = (struct oomslice_action){
                .busy = true,
                .serial = ++serial,
                .domain_id = domain_id,
                .victim_id = victim_id,
                .poll_us = OOMSLICE_MOMENT_NEVER,
                .pidfd = -1,
        };
        oomslice_held_init(&action->held);
        action->held.events = duplicate(held->events);
        action->held.current = duplicate(held->current);
        action->held.swap = duplicate(held->swap);
        action->before = action->after = remaining(action, &error);
        /* Page cache stays charged to the cgroup until that is removed; so what counts is the part a kill gives
         * back, and of that 95 %. */
        if (reclaimable == 0 || reclaimable > action->after)
                reclaimable = action->after;
        action->target = action->after - reclaimable + reclaimable / 20;
        oomslice_reaper_count_start(action->serial);
        return action;
}

void oomslice_action_free(struct oomslice_action *action) {
        /* Closing does not take it out of epoll: the plan's descriptor is of the same open file. */
        if (action->record && action->held.events >= 0)
                (void)epoll_ctl(epoll, EPOLL_CTL_DEL, action->held.events, NULL);
        oomslice_held_close(&action->held);
        if (action->pidfd >= 0)
                close(action->pidfd);
        action->pidfd = -1;
        action->record = NULL;
        action->busy = false;
}

void oomslice_action_of_process(struct oomslice_action *action, int pidfd, uint64_t bytes) {
        action->pidfd = duplicate(pidfd);
        if (bytes > action->after)
                bytes = action->after;
        action->target = action->after - bytes + bytes / 20;
}

void oomslice_action_start(struct oomslice_action *action, struct oomslice_record *record,
                           const struct oomslice_killing *killing, uint64_t now_us) {
        const struct oomslice_event event = {OOMSLICE_EVENT_VICTIM, 0, (uint32_t)(action - actions)};
        struct oomslice_usage usage;

        action->available_before = killing->available;
        action->step_index = killing->step;
        action->step = (struct oomslice_record_step){
                .kind = OOMSLICE_STEP_KILL,
                .begin_us = now_us,
                .memory_before = action->before,
        };
        oomslice_record_set_step(record, killing->step, &action->step);
        if (oomslice_held_usage(killing->held, &usage) == 0)
                action->shared = usage.shared;

        action->record = record;
        action->start_us = now_us;
        action->deadline_us = now_us + killing->deadline_us;
        action->poll_us = now_us;
        /* Without the event (ENOMEM) the looks by timer find the same, a little later. */
        if (action->held.events >= 0 && action->pidfd < 0)
                (void)oomslice_event_set(epoll, action->held.events, EPOLLPRI, event);
}

static void look(struct oomslice_action *action, uint64_t now_us) {
        bool removed = false;
        int populated, error;

        if (!action->dead && action->pidfd >= 0) {
                struct pollfd process = {.fd = action->pidfd, .events = POLLIN};

                action->dead = poll(&process, 1, 0) > 0;
                if (action->dead)
                        action->record->death_us = now_us;
        } else if (!action->dead) {
                populated = oomslice_held_populated(action->held.events);
                /* EBADF: no descriptor to ask, so nothing is known until the deadline. */
                removed = populated == -ENODEV;
                action->dead = populated == 0 || removed;
                if (action->dead)
                        action->record->death_us = now_us;
        }
        if (!action->back) {
                uint64_t after = remaining(action, &error);

                if (error == -ENODEV)
                        removed = true;
                action->after = removed ? 0 : after;
                /* Without the memory controller there are no figures: then death has to do. */
                if (action->held.current < 0)
                        action->back = action->dead;
                else
                        action->back = removed || (error == 0 && after <= action->target);
                if (action->back)
                        action->record->memory_back_us = now_us;
        }
}

/*
 * A cgroup that is removed takes its figures with it, but files on a tmpfs stay and are charged to the one above. So
 * where most of a victim was shared memory, MemAvailable has to show that it came back.
 */
static bool is_kept(struct oomslice_action *action, uint64_t available) {
        uint64_t freed = available > action->available_before ? available - action->available_before : 0;

        if (action->pidfd >= 0 || action->after > 0 || action->shared < action->before / 2 ||
            freed >= action->before / 4)
                return false;
        action->after = action->before - freed;
        return true;
}

static uint64_t next_look(const struct oomslice_action *action, uint64_t now_us) {
        uint64_t elapsed = now_us - action->start_us, pause = 50000, next;

        if (elapsed < 200000)
                pause = 1000;
        else if (elapsed < 1000000)
                pause = 10000;
        next = now_us + pause;
        return next < action->deadline_us ? next : action->deadline_us;
}

bool oomslice_action_poll(uint64_t now_us, bool any, uint64_t available,
                          struct oomslice_action_result *resultp) {
        for (int i = 0; i < OOMSLICE_ACTIONS_MAX; i++) {
                struct oomslice_action *action = &actions[i];
                uint32_t outcome;

                if (!action->busy || (!any && now_us < action->poll_us))
                        continue;
                look(action, now_us);
                if (action->dead && action->back)
                        outcome = is_kept(action, available) ? OOMSLICE_OUTCOME_KEPT : OOMSLICE_OUTCOME_FREED;
                else if (now_us >= action->deadline_us)
                        outcome = action->dead ? OOMSLICE_OUTCOME_KEPT : OOMSLICE_OUTCOME_DEADLINE;
                else {
                        if (!action->back &&
                            now_us - action->start_us >= (action->deadline_us - action->start_us) / LATE_PART)
                                oomslice_reaper_hurry(true);
                        action->poll_us = next_look(action, now_us);
                        continue;
                }
                action->record->victim_memory_after = action->after;
                action->record->mem_available_after = available;
                action->record->reaped_count = oomslice_reaper_count(action->serial);
                action->step.end_us = now_us;
                action->step.memory_after = action->after;
                action->step.result =
                        outcome == OOMSLICE_OUTCOME_DEADLINE ? OOMSLICE_RESULT_LATE : OOMSLICE_RESULT_DONE;
                oomslice_record_set_step(action->record, action->step_index, &action->step);
                oomslice_record_finish(action->record, outcome, 0);
                *resultp = (struct oomslice_action_result){action->domain_id, action->victim_id, outcome};
                oomslice_action_free(action);
                if (oomslice_action_next() == OOMSLICE_MOMENT_NEVER)
                        oomslice_reaper_hurry(false);
                return true;
        }
        return false;
}

uint64_t oomslice_action_next(void) {
        uint64_t next = OOMSLICE_MOMENT_NEVER;

        for (int i = 0; i < OOMSLICE_ACTIONS_MAX; i++)
                if (actions[i].busy && actions[i].poll_us < next)
                        next = actions[i].poll_us;
        return next;
}

uint64_t oomslice_action_deadline(void) {
        uint64_t last = 0;

        for (int i = 0; i < OOMSLICE_ACTIONS_MAX; i++)
                if (actions[i].busy && actions[i].deadline_us > last)
                        last = actions[i].deadline_us;
        return last;
}

bool oomslice_action_of_domain(uint64_t domain_id) {
        for (int i = 0; i < OOMSLICE_ACTIONS_MAX; i++)
                if (actions[i].busy && actions[i].domain_id == domain_id)
                        return true;
        return false;
}

bool oomslice_action_of_victim(uint64_t victim_id) {
        for (int i = 0; i < OOMSLICE_ACTIONS_MAX; i++)
                if (actions[i].busy && actions[i].victim_id == victim_id)
                        return true;
        return false;
}
