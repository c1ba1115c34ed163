/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Kills the plan's choice from inside the kernel before the kernel's own killer would act: for the machine when the core
 * does not answer or the last moment has come, and for a cgroup at its memory.max, for which nobody else acts. Whole units,
 * by the rule of the plan (choice.h).
 *
 * Promises: on a machine that is well it does nothing, however much is reclaimed. One victim at a time in a domain, until
 * its memory is back or a deadline has passed. While the core answers, and while a victim of the core is dying, it stands
 * back, but for the last moment. When in doubt it does nothing: the kernel's own killer is still there.
 *
 * Tracepoints judge, choose and kill, since an administrator's policy can be put into those and not into programs on
 * functions. Programs on functions note for whom memory is reclaimed, and hold an allocation that would go on to the
 * kernel's killer while a victim is dying. The latter are there several times: a program never runs twice at once on a
 * processor, and several allocations may have to wait there.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include "vmlinux_min.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "choice.h"
#include "sigkill.h"
#include "memory.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define MS UINT64_C(1000000)
#define GRACE_NS (200 * MS)     /* the core has so long to answer */
#define ROUND_NS (100 * MS)     /* rounds of reclaim farther apart are of different allocations */
#define DEADLINE_NS (1000 * MS) /* a victim has so long to give its memory back */
#define SETTLE_NS (30 * MS)     /* after its last process: what is freed in the background */
#define SWEEP_NS (10 * MS)
#define WAIT_NS (400 * MS) /* how long after a kill allocations are held */
#define NOBODY_NS (100 * MS)
#define DRY_RUN_NS (10000 * MS)
#define LEFT_ALONE_S 30 /* a victim that did not die by its deadline */

enum {
        ROUNDS_LIMIT = 4,   /* of the 17 that an allocation in a cgroup has before the kernel kills */
        ROUNDS_MACHINE = 8, /* of 17, while there is something that could be reclaimed */
        NEAR_PAGES = 64,    /* an allocation is charged in batches of so many */
        POLLS_MAX = 1 << 22,
        PROACTIVE = 1 << 2, /* MEMCG_RECLAIM_PROACTIVE: somebody wrote to memory.reclaim */
        DOMAINS_MAX = 64,
};

/* One thread's attempts at one allocation. */
struct rounds {
        __u64 domain;
        __u64 last_nsec;
        __u64 faults;
        __u32 zero; /* rounds in a row that gave nothing */
        __u32 reserved;
};

/* A victim that is dying, by the domain. */
struct flight {
        __u64 kill_nsec;
        __u64 until_nsec;
        __u64 victim;
        __u64 sweep_nsec;
        __u32 level;
        __u32 scope;
        __u32 emptied;
        __u32 dry; /* nobody was killed */
        __u32 pid; /* with KillScope=process */
};

struct {
        __uint(type, BPF_MAP_TYPE_LRU_HASH);
        __uint(max_entries, 1024);
        __type(key, __u32);
        __type(value, struct rounds);
} rounds SEC(".maps");

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
__u32 in_flight; /* how many victims are dying: at rest nobody looks into the maps */
struct oomslice_prekill_kill record;
struct oomslice_chosen chosen;
__u64 nobody_until_nsec;

static const __u32 zero_key;

#define COUNT_UP(field)                                                                                      \
        do {                                                                                                 \
                struct oomslice_prekill_figures *figures_ = bpf_map_lookup_elem(&figures, &zero_key);       \
                if (figures_)                                                                                \
                        __sync_fetch_and_add(&figures_->field, 1);                                           \
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

static __always_inline void end_flight(__u64 domain, const struct flight *flight) {
        __u64 victim = flight->victim;

        bpf_map_delete_elem(&dying, &victim);
        if (bpf_map_delete_elem(&flights, &domain) == 0)
                __sync_fetch_and_add(&in_flight, -1);
}

static __always_inline void tell_emptied(struct flight *flight, struct cgroup *cgroup, __u64 now) {
        tell_end(flight, cgroup, OOMSLICE_PREKILL_EMPTY);
        flight->emptied = 1;
        flight->until_nsec = now + SETTLE_NS;
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

/* Whether the one process that was killed has given its memory back. */
static __always_inline bool is_gone(__u32 pid) {
        struct task_struct *task = bpf_task_from_pid(pid);
        bool gone;

        if (!task)
                return true;
        gone = !BPF_CORE_READ(task, mm);
        bpf_task_release(task);
        return gone;
}

static __always_inline void sweep(struct flight *flight, __u64 now) {
        flight->sweep_nsec = now;
        record.victim = flight->victim;
        record.scope = flight->scope;
        record.signalled = record.failed = record.pids_count = 0;
        record.levels_count = 1; /* its names are told */
        kill_unit(&record, flight->level);
}

/* Is somebody dying for this domain? Ends what is over. */
static __always_inline bool is_flying(__u64 domain, __u64 now) {
        struct flight *flight = bpf_map_lookup_elem(&flights, &domain);

        if (!flight)
                return false;
        if (!flight->emptied && flight->pid && is_gone(flight->pid)) {
                struct cgroup *cgroup = bpf_cgroup_from_id(flight->victim);

                tell_emptied(flight, cgroup, now);
                if (cgroup)
                        bpf_cgroup_release(cgroup);
        }
        if (now < flight->until_nsec) {
                /* Whoever came into the unit since. */
                if (!flight->emptied && !flight->pid && !flight->dry && now > flight->sweep_nsec + SWEEP_NS)
                        sweep(flight, now);
                return true;
        }
        if (!flight->emptied && !flight->dry)
                give_up(flight, now);
        end_flight(domain, flight);
        return false;
}

static __always_inline void describe(__u64 domain, __u32 reason, const struct memory *memory,
                                     const struct oomslice_pulse *beat, __u64 now) {
        record.fact.kind = OOMSLICE_PREKILL_KILL;
        record.fact.reserved = 0;
        record.fact.kill_nsec = now;
        record.fact.nsec = now;
        record.domain = domain;
        record.victim = chosen.cgroup_id;
        record.usage = chosen.usage;
        record.priority = chosen.priority;
        record.scope = chosen.scope;
        record.flags = chosen.flags;
        record.reason = reason;
        record.generation = beat->generation;
        record.free = memory->free << MEMORY_PAGE_SHIFT;
        record.available = memory->available << MEMORY_PAGE_SHIFT;
        record.swap_free = memory->swap_free << MEMORY_PAGE_SHIFT;
        record.available_limit = beat->available_min;
        record.swap_free_limit = beat->swap_free_min;
        record.asked_nsec = beat->asked_nsec;
        record.beat_nsec = beat->beat_nsec;
        record.eligible = chosen.eligible;
        record.wanted = chosen.wanted;
        record.signalled = record.failed = record.pids_count = 0;
        record.depth = record.levels_count = 0;
        record.asking_pid = bpf_get_current_pid_tgid() >> 32;
        bpf_get_current_comm(record.asking_task, sizeof(record.asking_task));
}

static __always_inline bool take_off(__u64 domain, __u64 now) {
        bool dry = chosen.flags & OOMSLICE_UNIT_DRY_RUN;
        struct flight flight = {
                .kill_nsec = now,
                .until_nsec = now + (dry ? DRY_RUN_NS : DEADLINE_NS),
                .dry = dry,
                .victim = record.victim,
                .sweep_nsec = now,
                .level = chosen.level,
                .scope = record.scope,
        };

        if (bpf_map_update_elem(&flights, &domain, &flight, BPF_NOEXIST) < 0)
                return false;
        __sync_fetch_and_add(&in_flight, 1);
        /* One who is not really dying must not be in the way of others. */
        if (!dry)
                bpf_map_update_elem(&dying, &record.victim, &domain, BPF_ANY);
        return true;
}

static __always_inline void choose_and_kill(__u64 domain, __u32 reason, const struct memory *memory,
                                            const struct oomslice_pulse *beat, __u64 now) {
        struct flight *flight;

        choose(domain, 0, &chosen);
        if (chosen.result != OOMSLICE_CHOSEN_ONE) {
                if (chosen.result == OOMSLICE_CHOSEN_UNSURE)
                        COUNT_UP(unsure);
                else {
                        COUNT_UP(nobody);
                        nobody_until_nsec = now + NOBODY_NS;
                }
                return;
        }
        /* For another domain; its memory counts for this one, too. */
        if (bpf_map_lookup_elem(&dying, &chosen.cgroup_id))
                return;
        describe(domain, reason, memory, beat, now);
        /* Too many domains are short at once. */
        if (!take_off(domain, now))
                return;
        flight = bpf_map_lookup_elem(&flights, &domain);
        if (flight && flight->dry)
                COUNT_UP(dry_runs);
        else {
                kill_unit(&record, chosen.level);
                COUNT_UP(kills);
                if (flight && record.scope == OOMSLICE_SCOPE_PROCESS)
                        flight->pid = hunt.largest_pid;
        }
        record.signal_nsec = bpf_ktime_get_ns();
        if (bpf_ringbuf_output(&facts, &record, sizeof(record), 0) < 0)
                COUNT_UP(lost);
}

/* Somebody has to die below `domain`, unless somebody does. */
static __always_inline void act(__u64 domain, __u32 reason, const struct memory *memory,
                                const struct oomslice_pulse *beat, __u64 now) {
        if (__sync_val_compare_and_swap(&acting, 0, 1) != 0)
                return;
        if (now >= nobody_until_nsec && !is_flying(domain, now))
                choose_and_kill(domain, reason, memory, beat, now);
        __sync_lock_test_and_set(&acting, 0);
}

/* True: the core had its time to answer, and did not. */
static __always_inline bool is_silent(struct oomslice_pulse *beat, __u64 now) {
        __u64 asked = beat->asked_nsec;

        if (asked == 0 || beat->beat_nsec >= asked) {
                if (__sync_val_compare_and_swap(&beat->asked_nsec, asked, now) == asked)
                        COUNT_UP(asked);
                return false;
        }
        return now > asked && now - asked > GRACE_NS;
}

static __always_inline void judge_machine(bool last) {
        struct oomslice_pulse *beat = ready();
        struct memory memory = {};
        __u64 now;

        if (!beat || !measure(&memory))
                return;
        now = bpf_ktime_get_ns();
        if (!last) {
                if (memory.available << MEMORY_PAGE_SHIFT > beat->available_min ||
                    memory.swap_free << MEMORY_PAGE_SHIFT > beat->swap_free_min || !is_silent(beat, now))
                        return;
        }
        /* It has killed; who comes too early takes a second one. */
        if (now < beat->busy_until_nsec) {
                COUNT_UP(stood_back);
                return;
        }
        act(OOMSLICE_PREKILL_MACHINE, last ? OOMSLICE_PREKILL_LAST : OOMSLICE_PREKILL_SILENT, &memory, beat,
            now);
}

/* What a thread has got done since its last attempt. */
static __always_inline __u64 faults_of(struct task_struct *task) {
        return BPF_CORE_READ(task, min_flt) + BPF_CORE_READ(task, maj_flt);
}

/* Counts a round that gave nothing: how many in a row. */
static __always_inline __u32 count_round(__u64 domain, __u64 now) {
        struct task_struct *task = (void *)bpf_get_current_task();
        __u64 faults = faults_of(task);
        __u32 id = bpf_get_current_pid_tgid();
        struct rounds *known = bpf_map_lookup_elem(&rounds, &id);

        if (known && known->domain == domain && known->faults == faults &&
            now < known->last_nsec + ROUND_NS) {
                known->last_nsec = now;
                return ++known->zero;
        }
        struct rounds fresh = {.domain = domain, .last_nsec = now, .faults = faults, .zero = 1};

        bpf_map_update_elem(&rounds, &id, &fresh, BPF_ANY);
        return 1;
}

static __always_inline void forget_rounds(void) {
        __u32 id = bpf_get_current_pid_tgid();

        bpf_map_delete_elem(&rounds, &id);
}

/* The machine */

SEC("fentry/wakeup_kswapd")
int BPF_PROG(note_node, struct zone *zone) {
        remember_node(zone);
        return 0;
}

SEC("tp_btf/mm_vmscan_wakeup_kswapd")
int BPF_PROG(judge_early) {
        judge_machine(false);
        return 0;
}

SEC("tp_btf/mm_vmscan_direct_reclaim_begin")
int BPF_PROG(judge_begin) {
        judge_machine(false);
        return 0;
}

/* Nothing that the kernel could reclaim is left, or it has tried in vain too often: it will kill next. */
static __always_inline bool is_last(void) {
        struct memory memory = {};
        __u64 swappable;
        __u32 count;

        if (!measure(&memory) || memory.free > memory.reserve) {
                forget_rounds();
                return false;
        }
        count = count_round(OOMSLICE_PREKILL_MACHINE, bpf_ktime_get_ns());
        swappable = memory.swap_free < memory.anonymous ? memory.swap_free : memory.anonymous;
        return memory.free + memory.file + swappable <= memory.reserve || count >= ROUNDS_MACHINE;
}

SEC("tp_btf/mm_vmscan_direct_reclaim_end")
int BPF_PROG(judge_end, unsigned long reclaimed) {
        bool last = false;

        if (!ready())
                return 0;
        if (reclaimed)
                forget_rounds();
        else
                last = is_last();
        judge_machine(last);
        return 0;
}

/* Cgroups at their limit */

static __always_inline bool is_full(const struct mem_cgroup *memcg) {
        __s64 usage = BPF_CORE_READ(memcg, memory.usage.counter);
        __u64 max = BPF_CORE_READ(memcg, memory.max);

        return usage > 0 && (__u64)usage + NEAR_PAGES > max;
}

struct here {
        __u64 memcg;
};

/* By thread: for which cgroup it reclaims now, if that is at its limit. */
struct {
        __uint(type, BPF_MAP_TYPE_LRU_HASH);
        __uint(max_entries, 1024);
        __type(key, __u32);
        __type(value, struct here);
} reclaims SEC(".maps");

SEC("fentry/try_to_free_mem_cgroup_pages")
int BPF_PROG(note_limit, struct mem_cgroup *memcg, unsigned long pages, unsigned int gfp_mask,
             unsigned int options) {
        __u32 id = bpf_get_current_pid_tgid();
        struct here here = {.memcg = (__u64)memcg};

        if (options & PROACTIVE || !is_full(memcg) || !ready())
                bpf_map_delete_elem(&reclaims, &id);
        else
                bpf_map_update_elem(&reclaims, &id, &here, BPF_ANY);
        return 0;
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_end")
int BPF_PROG(judge_limit, unsigned long reclaimed) {
        __u32 id = bpf_get_current_pid_tgid();
        struct here *here = bpf_map_lookup_elem(&reclaims, &id);
        const struct mem_cgroup *memcg;
        struct oomslice_pulse *beat;
        struct memory memory = {};
        __u64 domain, now;

        if (!here)
                return 0;
        memcg = (const void *)here->memcg;
        bpf_map_delete_elem(&reclaims, &id);
        /* It was reclaimed, or somebody gave something back. */
        if (reclaimed || !is_full(memcg)) {
                forget_rounds();
                return 0;
        }
        domain = BPF_CORE_READ(memcg, css.cgroup, kn, id);
        now = bpf_ktime_get_ns();
        beat = ready();
        /* The core was told to do nothing, and so are we. */
        if (!beat || beat->busy_until_nsec == UINT64_MAX || count_round(domain, now) < ROUNDS_LIMIT)
                return 0;
        measure(&memory);
        act(domain, OOMSLICE_PREKILL_LIMIT, &memory, beat, now);
        return 0;
}

/* Who died */

SEC("tp_btf/cgroup_notify_populated")
int BPF_PROG(see_emptied, struct cgroup *cgroup, const char *path, int populated) {
        struct flight *flight;
        __u64 id, *domain;

        if (!in_flight || populated)
                return 0;
        id = cgroup->kn->id;
        domain = bpf_map_lookup_elem(&dying, &id);
        flight = domain ? bpf_map_lookup_elem(&flights, domain) : NULL;
        if (flight && !flight->emptied)
                tell_emptied(flight, cgroup, bpf_ktime_get_ns());
        return 0;
}

/* Allocations that wait */

struct wait {
        __u64 domain;
        __u64 until_nsec;
        __u64 memcg; /* address, 0: the machine */
        __u64 enough; /* free pages */
};

static __always_inline bool is_dying(void) {
        struct task_struct *task = (void *)bpf_get_current_task();

        return BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT;
}

static long poll(__u32 index, void *context) {
        struct wait *wait = context;

        if (bpf_ktime_get_ns() > wait->until_nsec || is_dying())
                return 1;
        if (wait->memcg)
                return !is_full((const void *)wait->memcg);
        return OF_ZONES(NR_FREE_PAGES) > wait->enough;
}

/* Holds the calling allocation while a victim of its domain is dying. Never one that is dying itself: it has to go on. */
static __always_inline void hold(__u64 domain, __u64 memcg) {
        struct flight *flight;
        struct wait wait = {.domain = domain, .memcg = memcg};
        struct memory memory = {};
        __u64 now = bpf_ktime_get_ns(), busy;
        struct oomslice_pulse *beat;

        flight = bpf_map_lookup_elem(&flights, &domain);
        if (flight)
                wait.until_nsec = flight->dry ? 0 : flight->kill_nsec + WAIT_NS;
        else if (!memcg) {
                /* A victim of the core. */
                beat = bpf_map_lookup_elem(&pulse, &zero_key);
                busy = beat ? beat->busy_until_nsec : 0;
                wait.until_nsec = busy < now + WAIT_NS ? busy : now + WAIT_NS;
        }
        if (wait.until_nsec <= now || is_dying())
                return;
        if (!memcg) {
                if (!measure(&memory) || memory.free > memory.reserve)
                        return;
                wait.enough = memory.reserve;
        }
        COUNT_UP(waits);
        bpf_loop(POLLS_MAX, poll, &wait, 0);
}

#define WAITERS(number)                                                                                      \
        SEC("fentry/unreserve_highatomic_pageblock")                                                         \
        int BPF_PROG(wait_machine_##number) {                                                                \
                if (ready())                                                                                 \
                        hold(OOMSLICE_PREKILL_MACHINE, 0);                                                   \
                return 0;                                                                                    \
        }                                                                                                    \
        SEC("fentry/mem_cgroup_out_of_memory")                                                               \
        int BPF_PROG(wait_limit_##number, struct mem_cgroup *memcg) {                                        \
                if (in_flight)                                                                               \
                        hold(BPF_CORE_READ(memcg, css.cgroup, kn, id), (__u64)memcg);                        \
                return 0;                                                                                    \
        }

WAITERS(1)
WAITERS(2)
WAITERS(3)
WAITERS(4)
WAITERS(5)
WAITERS(6)
WAITERS(7)
WAITERS(8)
