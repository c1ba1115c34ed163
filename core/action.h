/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A kill that is under way: from the signal until the memory is back, or until it is too late. */
#include <stdbool.h>
#include <stdint.h>

#include "held.h"
#include "ring.h"

enum { OOMSLICE_ACTIONS_MAX = 64 };

struct oomslice_action {
        bool busy;
        uint32_t serial; /* for the reapers' count */
        uint64_t domain_id;
        uint64_t victim_id;
        struct oomslice_held held; /* own descriptors: a new plan may close the plan's */
        struct oomslice_record *record;
        uint64_t target; /* bytes: the memory is back at this or less */
        uint64_t start_us, deadline_us, poll_us;
        bool dead, back;
        int pidfd;       /* of the one process that was killed; -1: all of the cgroup */
        uint64_t after;  /* bytes the victim still has */
        uint64_t before; /* bytes it had */
        uint64_t shared; /* bytes of it that a tmpfs may keep */
        uint64_t available_before;
        struct oomslice_record_step step;
        uint32_t step_index;
};

struct oomslice_killing;

/* A finished action, as the domain needs to know it. */
struct oomslice_action_result {
        uint64_t domain_id;
        uint64_t victim_id;
        uint32_t outcome;
};

void oomslice_action_init(int epoll_fd);
/* Reserves an action and the victim's descriptors, before the kill. NULL if there are too many under way. */
struct oomslice_action *oomslice_action_new(uint64_t domain_id, uint64_t victim_id,
                                            const struct oomslice_held *held, uint64_t reclaimable);
/* Nothing was killed after all. */
void oomslice_action_free(struct oomslice_action *action);
/* Only one process of the victim is killed, which has `bytes`. The pidfd stays the caller's. */
void oomslice_action_of_process(struct oomslice_action *action, int pidfd, uint64_t bytes);
/* The signal is sent: waits from now on. */
void oomslice_action_start(struct oomslice_action *action, struct oomslice_record *record,
                           const struct oomslice_killing *killing, uint64_t now_us);
/* Looks at those that are due (all if `any`). True with a result for each that has ended; call until false. */
bool oomslice_action_poll(uint64_t now_us, bool any, uint64_t available,
                          struct oomslice_action_result *resultp);
/* When the next look is due; OOMSLICE_MOMENT_NEVER if nothing is under way. */
uint64_t oomslice_action_next(void);
/* Until when the last of those that are dying has time; 0: nobody is. */
uint64_t oomslice_action_deadline(void);
bool oomslice_action_of_domain(uint64_t domain_id);
bool oomslice_action_of_victim(uint64_t victim_id);
