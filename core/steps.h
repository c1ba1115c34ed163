/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* One step of a ladder, but the kill: begun, looked at until it is over, given up. */
#include <stdbool.h>
#include <stdint.h>

#include "climb.h"
#include "held.h"
#include "plan.h"
#include "ring.h"

/* The step that is running, and whom it is about. */
struct oomslice_step_run {
        uint64_t domain_id, victim_id;
        uint64_t reclaimable;
        uint32_t kill_scope;
        uint64_t decision; /* sequence of the record */
        struct oomslice_record *record;
        struct oomslice_held held; /* own copies */
        struct oomslice_record_step step;
        uint32_t job;    /* of a hand, 0: none */
        uint64_t serial; /* of a request, 0: none */
        bool settling;   /* frozen: until all of it stands still */
        int told_fd;     /* KillScope=process: the one that was told to end; -1: none */
        char victim_name[OOMSLICE_UNIT_NAME_MAX];
};

void oomslice_step_start(struct oomslice_step_run *run, const struct oomslice_climb_start *start);
/* Lets go of the descriptors, and of whatever is still waited for. */
void oomslice_step_end(struct oomslice_step_run *run);
/* Begins a step; `index` is its number in the record. What fails at once is over at the next poll. */
void oomslice_step_begin(struct oomslice_step_run *run, const struct oomslice_plan_step *planned,
                         const char *text, uint32_t index, uint64_t deadline_us,
                         const struct oomslice_climb_view *view);
/* True if it is over: run->step then says how. */
bool oomslice_step_poll(struct oomslice_step_run *run, uint64_t now_us);
/* It is late. */
void oomslice_step_give_up(struct oomslice_step_run *run, uint64_t now_us);
/* True if nobody is left to act upon. */
bool oomslice_step_is_victim_gone(const struct oomslice_step_run *run);
/* Memory and swap that the victim has now, bytes. */
uint64_t oomslice_step_memory(const struct oomslice_step_run *run);
