/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* From a shortage to an act: who is chosen in a domain, and when a domain rests. */
#include <stdbool.h>
#include <stdint.h>

#include "record.h"

/* `dry_run`: decide and record everywhere, do nothing. */
void oomslice_decide_init(bool dry_run);
bool oomslice_decide_is_dry_run(void);
/* True if this cgroup was tried in vain in the machine's shortage; any thread may ask. */
bool oomslice_decide_was_tried(uint64_t cgroup_id);
/* A new plan is in force: domains keep their rest and what they have tried, by their cgroup. */
void oomslice_decide_plan_taken(void);
/* Handles a shortage of this domain now, unless it rests or still waits for a victim. */
void oomslice_decide(uint32_t domain, const struct oomslice_cause *cause);
/* Looks at what is under way (all of it if `any`), and draws the consequences of what has ended. */
void oomslice_decide_poll(uint64_t now_us, bool any, uint64_t available);
/* When domain 0 could act again: now or earlier, the end of its rest, or NEVER while it waits for a victim. */
uint64_t oomslice_decide_machine_ready(void);
/* When something is due that was begun: a step, a look at a victim, the end of what has to be undone. */
uint64_t oomslice_decide_next(void);
/* The machine's shortage is over: what was tried in it may be chosen again in the next. */
void oomslice_decide_machine_calm(void);
/* MemAvailable is well above its limit: what a dead one has left behind concerns nobody any more. */
void oomslice_decide_machine_enough(void);
