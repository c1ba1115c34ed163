/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the counters and features that are reported. A feature that is missing is said here and nowhere else: the
 * core does not log.
 */
#include "state.h"

#include <stdbool.h>

#include "force.h"
#include "lock.h"
#include "machine.h"
#include "pulse.h"
#include "record.h"
#include "reserve.h"

static uint32_t fixed_features;
static uint64_t wakeups;
static int status = -1;

void oomslice_state_init(int status_fd) {
        status = status_fd;
}

void oomslice_state_add_features(uint32_t features) {
        fixed_features |= features;
}

void oomslice_state_count_wakeup(void) {
        wakeups++;
}

/* True if the trigger is armed, or is not wanted. */
static bool is_met(const struct oomslice_psi_trigger *trigger, int fd) {
        return trigger->kind == OOMSLICE_PSI_NONE || fd >= 0;
}

static uint32_t plan_features(const struct oomslice_force *force) {
        const struct oomslice_machine *machine = &force->plan.header->machine;
        uint32_t features = OOMSLICE_FEATURE_PSI_DOMAINS;

        for (uint32_t i = 0; i < force->plan.header->domains_count; i++)
                if (!is_met(&force->plan.domains[i].trigger, force->domains[i].trigger_fd))
                        features = 0;
        if (is_met(&machine->sign, force->sign_fd) && is_met(&machine->thrash, force->thrash.trigger_fd))
                features |= OOMSLICE_FEATURE_PSI_MACHINE;
        for (uint32_t i = 0; i < force->plan.header->units_count; i++)
                if (force->held[i].kill >= 0)
                        features |= OOMSLICE_FEATURE_CGROUP_KILL;
        if (oomslice_force_has_memory(force))
                features |= OOMSLICE_FEATURE_MEMORY;
        return features;
}

static uint32_t program_features(void) {
        return oomslice_pulse_is_there() ? OOMSLICE_FEATURE_PULSE : 0;
}

static uint64_t locked_bytes(void) {
        uint64_t all = oomslice_lock_bytes(status), reserve = oomslice_reserve_locked();

        return all > reserve ? all - reserve : 0;
}

void oomslice_state_get(struct oomslice_core_state *statep) {
        const struct oomslice_force *force = oomslice_force_get();

        *statep = (struct oomslice_core_state){
                .features = fixed_features | (force ? plan_features(force) : 0) | program_features(),
                .units = force ? force->plan.header->units_count : 0,
                .domains = force ? force->plan.header->domains_count : 0,
                .watching = oomslice_machine_watching(),
                .wakeups = wakeups,
                .decisions = oomslice_record_count(),
                .dropped = oomslice_record_dropped(),
                .locked_bytes = locked_bytes(),
                .available = oomslice_machine_available(),
                .reserve_bytes = oomslice_reserve_held(),
        };
}
