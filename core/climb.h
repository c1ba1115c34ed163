/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A ladder that is being climbed: one victim of one domain, step after step while the pressure lasts. */
#include <stdbool.h>
#include <stdint.h>

#include "action.h"
#include "held.h"
#include "plan.h"
#include "ring.h"

enum { OOMSLICE_CLIMBS_MAX = 8 };

struct oomslice_climb_start {
        uint64_t domain_id, victim_id;
        const char *victim_name;
        const struct oomslice_held *held;
        const struct oomslice_plan *plan;
        const struct oomslice_plan_unit *settings; /* whose ladder it is */
        uint64_t reclaimable;                      /* bytes that a kill should give back */
        uint64_t trigger_us;
        uint64_t lasts_us; /* how long a sign of pressure counts */
        bool gentle;       /* only what can be undone or harms nobody, until it is urgent */
        bool urgent;
        bool asked; /* one step and no more, whatever comes of it */
        struct oomslice_record *record;
};

/* How a shortage looks to a ladder now. */
struct oomslice_climb_view {
        uint64_t now_us;
        uint64_t available; /* MemAvailable, bytes */
        bool answerable;    /* the extended part is connected */
};

/* True if this ladder has steps to climb; else it is a kill at once. `urgent`: the machine is at its limits. */
bool oomslice_climb_has_steps(const struct oomslice_plan *plan, const struct oomslice_plan_unit *settings,
                              bool urgent);
/* True if there is a first step that a gentle climb takes. */
bool oomslice_climb_is_gentle(const struct oomslice_plan *plan, const struct oomslice_plan_unit *settings);
/* Begins. False: too many are under way. */
bool oomslice_climb_begin(const struct oomslice_climb_start *start);
/*
 * Another sign of pressure in this domain. `urgent`: nobody waits any longer; `earnest`: it is more than memory
 * being low. True if a ladder is being climbed there.
 */
bool oomslice_climb_pressure(uint64_t domain_id, uint64_t now_us, bool earnest, bool urgent);
/* Takes what steps are due. True with a result for each climb that has ended; call until false. */
bool oomslice_climb_poll(const struct oomslice_climb_view *view, struct oomslice_action_result *resultp);
/* When the next look is due; OOMSLICE_MOMENT_NEVER if nothing is under way. */
uint64_t oomslice_climb_next(void);
bool oomslice_climb_of_victim(uint64_t victim_id);
