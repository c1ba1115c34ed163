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
#include <stddef.h>
#include <sys/epoll.h>

#include "event.h"
#include "moment.h"
#include "reaper.h"
#include "record.h"

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
        };
        oomslice_held_init(&action->held);
        action->held.events = duplicate(held->events);
        action->held.current = duplicate(held->current);
        action->held.swap = duplicate(held->swap);
        action->after = remaining(action, &error);
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
        action->record = NULL;
        action->busy = false;
}

void oomslice_action_start(struct oomslice_action *action, struct oomslice_record *record, uint64_t now_us,
                           uint64_t deadline_us) {
        const struct oomslice_event event = {OOMSLICE_EVENT_VICTIM, 0, (uint32_t)(action - actions)};

        action->record = record;
        action->start_us = now_us;
        action->deadline_us = now_us + deadline_us;
        action->poll_us = now_us;
        /* Without the event (ENOMEM) the looks by timer find the same, a little later. */
        if (action->held.events >= 0)
                (void)oomslice_event_set(epoll, action->held.events, EPOLLPRI, event);
}

static void look(struct oomslice_action *action, uint64_t now_us) {
        bool removed = false;
        int populated, error;

        if (!action->dead) {
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
                        outcome = OOMSLICE_OUTCOME_FREED;
                else if (now_us >= action->deadline_us)
                        outcome = OOMSLICE_OUTCOME_DEADLINE;
                else {
                        action->poll_us = next_look(action, now_us);
                        continue;
                }
                action->record->victim_memory_after = action->after;
                action->record->mem_available_after = available;
                action->record->reaped_count = oomslice_reaper_count(action->serial);
                oomslice_record_finish(action->record, outcome, 0);
                *resultp = (struct oomslice_action_result){action->domain_id, action->victim_id, outcome};
                oomslice_action_free(action);
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
