/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Who was killed and is dying: one victim a domain at a time, until nobody of it is left or its deadline has passed. Tells
 * what came of it, and takes whoever came into the unit meanwhile. Entries are made and ended by whom `acting` lets; that one
 * has also the record and the choice for itself.
 */
#include "choice.h"
#include "memory.h"
#include "sigkill.h"

#define MS UINT64_C(1000000)
#define DEADLINE_NS (1000 * MS)  /* a victim has so long to give its memory back, or to get on with it */
#define PATIENCE_NS (20000 * MS) /* but no longer than this, the walk along its processes included */
#define SETTLE_NS (30 * MS)      /* after its last process: what is freed in the background */
#define SWEEP_NS (10 * MS)
#define DRY_RUN_NS (10000 * MS)
#define LEFT_ALONE_S 30 /* a victim that did not die by its deadline */
enum { DOMAINS_MAX = 64 };

/* A victim that is dying, by the domain. */
struct flight {
        __u64 kill_nsec;
        __u64 until_nsec;
        __u64 victim;
        __u64 sweep_nsec;
        __u32 level;
        __u32 scope;
        __u32 emptied;
        __u32 dry;     /* nobody was killed */
        __u32 pid;     /* with KillScope=process */
        __u32 left;    /* processes that were not gone when it was last given more time */
        __u32 dying;   /* of the last sweep: processes that have their memory yet, */
        __u32 running; /* and those of them that only need a processor for it */
        __u32 joined;  /* processes that died before the walk came to them, since they wanted memory */
        __u32 reserved;
};

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, DOMAINS_MAX);
        __type(key, __u64);
        __type(value, struct flight);
} flights SEC(".maps");

/* Victim to domain. */
struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, DOMAINS_MAX);
        __type(key, __u64);
        __type(value, __u64);
} dying SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_RINGBUF);
        __uint(max_entries, 256 * 1024);
} facts SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, struct oomslice_prekill_figures);
} figures SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, struct oomslice_prekill_control);
} control SEC(".maps");

/* One at a time acts, on all processors: so these are there once. */
__u32 acting;
__u32 judging;   /* so many are about to find out whether anybody has to die at a limit */
__u32 in_flight; /* how many victims are dying: at rest nobody looks into the maps */
struct oomslice_prekill_kill record;
struct oomslice_chosen chosen;

static const __u32 zero_key;

#define COUNT_UP(field) ADD(field, 1)
#define ADD(field, count)                                                                             \
        do {                                                                                          \
                struct oomslice_prekill_figures *figures_ = bpf_map_lookup_elem(&figures, &zero_key); \
                if (figures_)                                                                         \
                        __sync_fetch_and_add(&figures_->field, count);                                \
        } while (0)

/* The pulse, if anything is to be done at all. */
static __always_inline struct oomslice_pulse *ready(void) {
        struct oomslice_prekill_control *said = bpf_map_lookup_elem(&control, &zero_key);
        struct oomslice_pulse *now = bpf_map_lookup_elem(&pulse, &zero_key);

        return said && !said->off && now && now->generation ? now : NULL;
}

static __always_inline void tell_end(const struct flight *flight, struct cgroup *cgroup, __u32 how) {
        struct oomslice_policy_candidate left = {};
        struct oomslice_prekill_ended *end = bpf_ringbuf_reserve(&facts, sizeof(*end), 0);

        if (!end) {
                COUNT_UP(lost);
                return;
        }
        end->fact.kind = OOMSLICE_PREKILL_END;
        end->fact.reserved = 0;
        end->fact.kill_nsec = flight->kill_nsec;
        end->fact.nsec = bpf_ktime_get_ns();
        end->victim = flight->victim;
        end->how = how;
        end->reserved = 0;
        if (cgroup)
                charged(cgroup, &left);
        end->usage = left.usage;
        end->free = OF_ZONES(NR_FREE_PAGES) << MEMORY_PAGE_SHIFT;
        bpf_ringbuf_submit(end, 0);
}

/* The core chooses nobody for the machine until then. */
static __always_inline void tell_core(__u64 domain, __u64 until_nsec) {
        struct oomslice_pulse *shared = bpf_map_lookup_elem(&pulse, &zero_key);

        if (shared && domain == OOMSLICE_PREKILL_MACHINE)
                shared->killed_until_nsec = until_nsec;
}

static __always_inline void end_flight(__u64 domain, const struct flight *flight) {
        __u64 victim = flight->victim;

        bpf_map_delete_elem(&dying, &victim);
        tell_core(domain, 0);
        if (bpf_map_delete_elem(&flights, &domain) == 0)
                __sync_fetch_and_add(&in_flight, -1);
}

static __always_inline void tell_emptied(__u64 domain, struct flight *flight, struct cgroup *cgroup,
                                         __u64 now) {
        tell_end(flight, cgroup, OOMSLICE_PREKILL_EMPTY);
        flight->emptied = 1;
        flight->until_nsec = now + SETTLE_NS;
        tell_core(domain, flight->until_nsec);
}

/* The value of a unit says to every choice that it is left alone; a plan with another one forgets it. What it is for is a
 * process that cannot die; of a unit that loses one process at a time there is always another. */
static __always_inline void give_up(const struct flight *flight, __u64 now) {
        struct oomslice_slice_value *value;
        struct cgroup *cgroup = bpf_cgroup_from_id(flight->victim);

        tell_end(flight, cgroup, OOMSLICE_PREKILL_DEADLINE);
        if (!cgroup)
                return;
        value = bpf_cgrp_storage_get(&slices, cgroup, NULL, 0);
        if (value)
                value->tried_until_s = (__u32)(now / (1000 * MS)) + LEFT_ALONE_S;
        bpf_cgroup_release(cgroup);
}

/* Whether the one process that was killed has given its memory back; if not, what it is about. */
static __always_inline bool is_gone(struct flight *flight) {
        struct task_struct *task = bpf_task_from_pid(flight->pid);

        if (!task)
                return true;
        flight->dying = BPF_CORE_READ(task, mm) != NULL;
        flight->running = flight->dying && BPF_CORE_READ(task, __state) == TASK_RUNNING;
        bpf_task_release(task);
        return !flight->dying;
}

static __always_inline void sweep(struct flight *flight, __u64 now) {
        flight->sweep_nsec = now;
        record.victim = flight->victim;
        record.scope = flight->scope;
        record.signalled = record.failed = record.pids_count = 0;
        record.levels_count = 1; /* its names are told */
        kill_unit(&record, flight->level);
        flight->dying = hunt.left;
        flight->running = hunt.running;
}

/* More time for those that die as fast as they get a processor: hundreds of processes on a busy machine take longer than one
 * that is stuck may, and whoever was killed in their place would die no sooner. */
static __always_inline bool is_given_time(__u64 domain, struct flight *flight, __u64 now) {
        if (flight->emptied || flight->dry || now >= flight->kill_nsec + PATIENCE_NS || !flight->dying ||
            (!flight->running && flight->dying >= flight->left))
                return false;
        flight->left = flight->dying;
        flight->until_nsec = now + DEADLINE_NS;
        tell_core(domain, flight->until_nsec);
        return true;
}

/* Is somebody dying for this domain? Ends what is over. */
static __always_inline bool is_flying(__u64 domain, __u64 now) {
        struct flight *flight = bpf_map_lookup_elem(&flights, &domain);

        if (!flight)
                return false;
        if (!flight->emptied && flight->pid && is_gone(flight)) {
                struct cgroup *cgroup = bpf_cgroup_from_id(flight->victim);

                tell_emptied(domain, flight, cgroup, now);
                if (cgroup)
                        bpf_cgroup_release(cgroup);
        }
        /* Whoever came into the unit since. */
        if (!flight->emptied && !flight->pid && !flight->dry && now > flight->sweep_nsec + SWEEP_NS)
                sweep(flight, now);
        if (now < flight->until_nsec || is_given_time(domain, flight, now))
                return true;
        if (!flight->emptied && !flight->dry)
                give_up(flight, now);
        end_flight(domain, flight);
        return false;
}

struct bpf_map;

static long clear(struct bpf_map *map, const __u64 *domain, struct flight *flight, __u64 *now) {
        __u64 key = *domain;

        if (*now >= flight->until_nsec && (flight->emptied || flight->dry))
                end_flight(key, flight);
        return 0;
}

/* False: too many domains are short at once. Those that are short no more are nobody else's to remove. */
static __always_inline bool take_off(__u64 domain, __u64 now) {
        bool dry = chosen.flags & OOMSLICE_UNIT_DRY_RUN;
        struct flight flight = {
                .kill_nsec = now,
                .until_nsec = now + (dry ? DRY_RUN_NS : PATIENCE_NS),
                .dry = dry,
                .victim = record.victim,
                .sweep_nsec = now,
                .level = chosen.level,
                .scope = record.scope,
        };

        bpf_for_each_map_elem(&flights, clear, &now, 0);
        /* One who is not really dying must not be in the way of others. Whoever sees the flight finds its victim. */
        if (!dry)
                bpf_map_update_elem(&dying, &record.victim, &domain, BPF_ANY);
        __sync_fetch_and_add(&in_flight, 1);
        if (bpf_map_update_elem(&flights, &domain, &flight, BPF_NOEXIST) < 0) {
                __sync_fetch_and_add(&in_flight, -1);
                if (!dry)
                        bpf_map_delete_elem(&dying, &record.victim);
                return false;
        }
        if (!dry)
                tell_core(domain, now + DEADLINE_NS);
        return true;
}

/* All have their signal: from now on the victim has time to die. What walks may have been kept from the processor for long. */
static __always_inline void begin_deadline(__u64 domain, struct flight *flight) {
        if (flight->emptied)
                return;
        flight->until_nsec = bpf_ktime_get_ns() + DEADLINE_NS;
        tell_core(domain, flight->until_nsec);
}

/* Whether it was killed for whatever domain, and is dying yet. */
static __always_inline bool is_victim(__u64 id, __u64 now) {
        __u64 *domain = bpf_map_lookup_elem(&dying, &id);
        struct flight *flight = domain ? bpf_map_lookup_elem(&flights, domain) : NULL;

        return flight && flight->victim == id && now < flight->until_nsec;
}

enum { UNIT_LEVELS = 16 }; /* no unit is as deep */

/* In which all of the unit that it belongs to is dying, if it is. */
static __always_inline struct flight *flight_with(struct task_struct *task) {
        const struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);
        int level = BPF_CORE_READ(cgroup, level);

        for (int i = 1; i <= UNIT_LEVELS; i++) {
                struct flight *flight;
                __u64 id, *domain;

                if (i > level)
                        return NULL;
                id = id_at_level(cgroup, i);
                domain = bpf_map_lookup_elem(&dying, &id);
                flight = domain ? bpf_map_lookup_elem(&flights, domain) : NULL;
                /* Of a unit that loses one process the others live on. */
                if (flight && flight->victim == id && !flight->emptied &&
                    flight->scope != OOMSLICE_SCOPE_PROCESS)
                        return flight;
        }
        return NULL;
}
