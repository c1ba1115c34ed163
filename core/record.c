/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns what is written into the ring. The reader has the same memory and is less privileged, so the core writes
 * there and never reads back: everything a decision goes on with is kept elsewhere.
 */
#define _GNU_SOURCE
#include "record.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "moment.h"
#include "psi.h"

static void *ring;
static int event = -1;
static atomic_uint_least64_t finished;
static uint64_t ring_id;

static uint64_t pressed[OOMSLICE_RING_PRESSED]; /* as it was written: nothing is read back */

static void publish(int index, uint64_t domain_id) {
        struct oomslice_ring_header *header = ring;

        pressed[index] = domain_id;
        __atomic_store_n(&header->pressed[index], domain_id, __ATOMIC_RELEASE);
}

void oomslice_record_init(void *ring_map, int event_fd) {
        ring = ring_map;
        ring_id = ((const struct oomslice_ring_header *)ring_map)->ring_id;
        event = event_fd;
        /* Of a predecessor: what is short now says so again. */
        for (int i = 0; i < OOMSLICE_RING_PRESSED; i++)
                publish(i, 0);
}

/* The target is zeroed and larger than any name, so it stays terminated. */
static void copy_name(char target[static OOMSLICE_UNIT_NAME_MAX], const char *name) {
        size_t length = strnlen(name, OOMSLICE_UNIT_NAME_MAX - 1);

        memset(target, 0, OOMSLICE_UNIT_NAME_MAX);
        memcpy(target, name, length);
}

static void set_pressure(struct oomslice_record *record, const struct oomslice_force *force, uint32_t domain,
                         uint32_t trigger) {
        const struct oomslice_psi_trigger *fired = NULL;

        if (force->domains[domain].figures_fd >= 0)
                (void)oomslice_psi_read(force->domains[domain].figures_fd, &record->pressure);
        if (trigger == OOMSLICE_TRIGGER_PRESSURE)
                fired = &force->plan.domains[domain].trigger;
        else if (trigger == OOMSLICE_TRIGGER_THRASH)
                fired = &force->plan.header->machine.thrash;
        if (fired) {
                record->pressure.kind = fired->kind;
                record->pressure.stall_us = fired->stall_us;
                record->pressure.window_us = fired->window_us;
        }
}

/* Which of the machine's limits its figures are to be read by. */
static void set_limits(struct oomslice_record *record, const struct oomslice_machine *machine) {
        record->mem_available_limit = machine->available_min;
        record->swap_free_limit = machine->swap_free_min;
        if (record->trigger == OOMSLICE_TRIGGER_THRASH) {
                record->mem_available_limit = machine->available_thrash;
        } else if (record->trigger == OOMSLICE_TRIGGER_LOW) {
                record->mem_available_limit = machine->available_ladder;
                record->swap_free_limit = machine->swap_free_ladder;
        }
}

struct oomslice_record *oomslice_record_new_bare(const struct oomslice_force *force, uint32_t domain,
                                                 const struct oomslice_cause *cause,
                                                 struct oomslice_record *nowhere) {
        const struct oomslice_plan_header *header = force->plan.header;
        const struct oomslice_plan_domain *planned = &force->plan.domains[domain];
        struct oomslice_record *record;
        uint64_t now = oomslice_moment_now();

        record = oomslice_ring_take(ring);
        if (!record) {
                memset(nowhere, 0, sizeof(*nowhere));
                record = nowhere;
        }
        record->plan_generation = header->generation;
        record->trigger = cause->trigger;
        record->trigger_us = cause->trigger_us;
        record->trigger_realtime_us = oomslice_moment_of(CLOCK_REALTIME) - (now - cause->trigger_us);
        record->decision_us = now;
        record->rank_by = planned->rank_by;
        record->mem_total = cause->meminfo.total;
        record->mem_available = cause->meminfo.available;
        record->swap_total = cause->meminfo.swap_total;
        record->swap_free = cause->meminfo.swap_free;
        set_limits(record, &header->machine);
        record->domain_cgroup_id = force->plan.units[planned->unit].cgroup_id;
        copy_name(record->domain_name, oomslice_plan_name(&force->plan, planned->unit));
        return record;
}

struct oomslice_record *oomslice_record_new(const struct oomslice_force *force, uint32_t domain,
                                            const struct oomslice_cause *cause) {
        static struct oomslice_record nowhere;
        struct oomslice_record *record = oomslice_record_new_bare(force, domain, cause, &nowhere);

        set_pressure(record, force, domain, cause->trigger);
        return record;
}

void oomslice_record_set_candidates(struct oomslice_record *record, const struct oomslice_sample *sample,
                                    bool chosen) {
        const struct oomslice_candidate *victim = &sample->candidates[0];
        uint32_t count =
                sample->count < OOMSLICE_RECORD_CANDIDATES ? sample->count : OOMSLICE_RECORD_CANDIDATES;

        record->candidates_total = sample->count;
        record->candidates_count = count;
        for (uint32_t i = 0; i < count; i++)
                record->candidates[i] = (struct oomslice_record_candidate){
                        .cgroup_id = sample->candidates[i].cgroup_id,
                        .metric = sample->candidates[i].metric,
                        .priority = sample->candidates[i].priority,
                        .verdict = sample->candidates[i].verdict,
                };
        if (!chosen)
                return;
        record->candidates[0].verdict = OOMSLICE_VERDICT_CHOSEN;
        record->victim_cgroup_id = victim->cgroup_id;
        record->victim_metric = victim->metric;
        record->victim_priority = victim->priority;
        copy_name(record->victim_name, oomslice_sample_name(sample, victim));
}

void oomslice_record_set_asked(struct oomslice_record *record, const struct oomslice_force *force,
                               int32_t unit, uint32_t user) {
        record->victim_cgroup_id = force->plan.units[unit].cgroup_id;
        record->victim_priority = force->plan.units[unit].priority;
        record->asked_user = user;
        copy_name(record->victim_name, oomslice_plan_name(&force->plan, unit));
}

void oomslice_record_set_processes(struct oomslice_record *record,
                                   const struct oomslice_processes *processes) {
        uint32_t count = processes->count < OOMSLICE_RECORD_PIDS ? processes->count : OOMSLICE_RECORD_PIDS;

        record->processes_total = processes->total;
        record->pids_count = count;
        memcpy(record->pids, processes->pids, count * sizeof(record->pids[0]));
}

void oomslice_record_set_step(struct oomslice_record *record, uint32_t index,
                              const struct oomslice_record_step *step) {
        if (index >= OOMSLICE_RECORD_STEPS)
                return;
        record->steps[index] = *step;
        record->steps_count = index + 1;
}

static void tell(void) {
        uint64_t one = 1;

        /* EAGAIN: the reader has filled the counter up; it then has enough reason to look. */
        (void)!write(event, &one, sizeof(one));
}

void oomslice_record_tell(void) {
        tell();
}

void oomslice_record_pressed(uint64_t domain_id, bool begins) {
        uint64_t wanted = begins ? 0 : domain_id;

        for (int i = 0; ring && i < OOMSLICE_RING_PRESSED; i++) {
                if (pressed[i] != wanted)
                        continue;
                publish(i, begins ? domain_id : 0);
                tell();
                return;
        }
}

bool oomslice_record_undone(const struct oomslice_undo *entry) {
        struct oomslice_record *record = ring ? oomslice_ring_take(ring) : NULL;
        uint64_t now = oomslice_moment_now();

        if (!record)
                return false;
        record->trigger = OOMSLICE_TRIGGER_CALM;
        record->trigger_us = record->decision_us = entry->undone_us;
        record->trigger_realtime_us = oomslice_moment_of(CLOCK_REALTIME) - (now - entry->undone_us);
        record->domain_cgroup_id = entry->domain_id;
        record->victim_cgroup_id = entry->cgroup_id;
        record->undoes_ring = entry->ring_id;
        record->undoes_sequence = entry->sequence;
        record->steps_count = 1;
        record->steps[0] = (struct oomslice_record_step){
                .kind = entry->kind,
                .result = entry->error ? OOMSLICE_RESULT_FAILED : OOMSLICE_RESULT_DONE,
                .error = entry->error,
                .amount = entry->old_value,
                .begin_us = entry->begin_us,
                .end_us = entry->undone_us,
        };
        oomslice_record_finish(record, entry->error ? OOMSLICE_OUTCOME_FAILED : OOMSLICE_OUTCOME_UNDONE,
                               entry->error);
        return true;
}

uint64_t oomslice_record_ring_id(void) {
        return ring_id;
}

uint64_t oomslice_record_sequence(const struct oomslice_record *record) {
        return record->sequence;
}

uint64_t oomslice_record_ask(const struct oomslice_request *request) {
        uint64_t serial = oomslice_ring_ask(ring, request);

        if (serial != 0)
                tell();
        return serial;
}

bool oomslice_record_answered(uint64_t serial, uint32_t *resultp, int32_t *errorp) {
        return oomslice_ring_answered(ring, serial, resultp, errorp);
}

void oomslice_record_forget(uint64_t serial) {
        oomslice_ring_forget(ring, serial);
}

void oomslice_record_finish(struct oomslice_record *record, uint32_t outcome, int error) {
        record->outcome = outcome;
        record->error = error < 0 ? -error : error;
        oomslice_ring_set_state(record, OOMSLICE_RECORD_FINAL);
        atomic_fetch_add(&finished, 1);
        tell();
}

uint64_t oomslice_record_count(void) {
        return atomic_load(&finished);
}

uint64_t oomslice_record_dropped(void) {
        return ring ? ((const struct oomslice_ring_header *)ring)->dropped : 0;
}
