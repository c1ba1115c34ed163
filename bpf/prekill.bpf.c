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

#include "ask.h"
#include "choice.h"
#include "flight.h"
#include "hold.h"
#include "memory.h"
#include "newborn.h"
#include "rounds.h"
#include "sigkill.h"
#include "young.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define GRACE_NS (200 * MS)  /* the core has so long to answer */
#define NOBODY_NS (100 * MS) /* until somebody is looked for again */

enum {
        ROUNDS_LIMIT = 4,   /* of the 17 that an allocation in a cgroup has before the kernel kills */
        ROUNDS_MACHINE = 8, /* of 17, while there is something that could be reclaimed */
        PROACTIVE = 1 << 2, /* MEMCG_RECLAIM_PROACTIVE: somebody wrote to memory.reclaim */
        /* __GFP_RETRY_MAYFAIL and __GFP_NORETRY: who may fail is nobody that the kernel kills for. Read ahead and huge pages
         * are among them. */
        MAY_FAIL = 1 << 14 | 1 << 16,
        ORDER_MAX = 3, /* PAGE_ALLOC_COSTLY_ORDER: nor does it kill for more pages in one piece */
};

/* Where nobody may be chosen, and until when that is taken as known. */
struct {
        __u64 domain;
        __u64 until_nsec;
} nobody;

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

static __always_inline void choose_and_kill(__u64 domain, __u32 reason, const struct memory *memory,
                                            const struct oomslice_pulse *beat, __u64 now) {
        struct flight *flight;

        choose(domain, 0, &chosen);
        if (chosen.result != OOMSLICE_CHOSEN_ONE) {
                if (chosen.result == OOMSLICE_CHOSEN_UNSURE)
                        COUNT_UP(unsure);
                else {
                        COUNT_UP(nobody);
                        nobody.domain = domain;
                        nobody.until_nsec = now + NOBODY_NS;
                }
                return;
        }
        /* For another domain; its memory counts for this one, too. */
        if (is_victim(chosen.cgroup_id, now))
                return;
        describe(domain, reason, memory, beat, now);
        if (!take_off(domain, now))
                return;
        flight = bpf_map_lookup_elem(&flights, &domain);
        if (flight && flight->dry)
                COUNT_UP(dry_runs);
        else {
                kill_unit(&record, chosen.level);
                /* Some may be gone before the walk comes to them, or all. */
                if (flight && flight->joined > record.signalled)
                        record.signalled = flight->joined;
                COUNT_UP(kills);
                ADD(victims, record.signalled);
                if (flight) {
                        flight->left = record.signalled;
                        if (record.scope == OOMSLICE_SCOPE_PROCESS)
                                flight->pid = hunt.largest_pid;
                        begin_deadline(domain, flight);
                }
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
        if (!(nobody.domain == domain && now < nobody.until_nsec) && !is_flying(domain, now))
                choose_and_kill(domain, reason, memory, beat, now);
        __sync_lock_test_and_set(&acting, 0);
}

/* True: the core had its time to answer, and did not. */
static __always_inline bool is_silent(struct oomslice_pulse *beat, __u64 now) {
        if (is_answered(beat))
                COUNT_UP(asked);
        (void)ask(beat, OOMSLICE_SIGN_ASKED, now, 0);
        return unanswered_nsec(beat, now) > GRACE_NS;
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

/* By thread: it allocates what it may do without, so the kernel kills nobody for it. */
struct {
        __uint(type, BPF_MAP_TYPE_LRU_HASH);
        __uint(max_entries, 1024);
        __type(key, __u32);
        __type(value, __u8);
} lenient SEC(".maps");

SEC("tp_btf/mm_vmscan_direct_reclaim_begin")
int BPF_PROG(judge_begin, unsigned int one, unsigned int other) {
        /* Kernels differ in which comes first. Flags that let reclaim in are larger than any order. */
        __u32 id = bpf_get_current_pid_tgid(), order = one < other ? one : other,
              gfp_mask = one < other ? other : one;
        __u8 yes = 1;

        if (order > ORDER_MAX || gfp_mask & MAY_FAIL)
                bpf_map_update_elem(&lenient, &id, &yes, BPF_ANY);
        else if (bpf_map_lookup_elem(&lenient, &id))
                bpf_map_delete_elem(&lenient, &id);
        judge_machine(false);
        return 0;
}

/* Nothing that the kernel could reclaim is left, or it has tried in vain too often: it will kill next. It also does where a
 * little was reclaimed, if all that there is would not do. */
static __always_inline bool is_last(unsigned long reclaimed) {
        struct memory memory = {};
        __u64 swappable, left;

        if (!measure(&memory))
                return false;
        swappable = memory.swap_free < memory.anonymous ? memory.swap_free : memory.anonymous;
        left = memory.free + memory.file + swappable;
        if (reclaimed || memory.free > memory.reserve) {
                forget_rounds();
                return left <= memory.low;
        }
        return count_round(OOMSLICE_PREKILL_MACHINE, bpf_ktime_get_ns()) >= ROUNDS_MACHINE ||
               left <= memory.reserve;
}

SEC("tp_btf/mm_vmscan_direct_reclaim_end")
int BPF_PROG(judge_end, unsigned long reclaimed) {
        if (ready())
                judge_machine(is_last(reclaimed));
        return 0;
}

struct alloc_context;

/* The kernel has given up: this is the last thing that it tries before its own killer (should_reclaim_retry). Where a
 * compiler has done away with the function, the rounds that were counted have to do. */
SEC("fentry/unreserve_highatomic_pageblock")
int BPF_PROG(last_moment, const struct alloc_context *context, bool force) {
        __u32 id = bpf_get_current_pid_tgid();
        struct memory memory = {};

        if (!force || !ready() || bpf_map_lookup_elem(&lenient, &id) || is_dying() || !measure(&memory) ||
            memory.free > memory.reserve)
                return 0;
        judge_machine(true);
        hold(OOMSLICE_PREKILL_MACHINE, 0);
        return 0;
}

/* Cgroups at their limit */

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

        if (options & PROACTIVE || gfp_mask & MAY_FAIL || !is_full(memcg) || !ready())
                bpf_map_delete_elem(&reclaims, &id);
        else
                bpf_map_update_elem(&reclaims, &id, &here, BPF_ANY);
        return 0;
}

static __always_inline void judge_cgroup(const struct mem_cgroup *memcg, bool last) {
        __u64 domain = BPF_CORE_READ(memcg, css.cgroup, kn, id), now = bpf_ktime_get_ns();
        struct oomslice_pulse *beat = ready();
        struct memory memory = {};

        /* The core was told to do nothing, and so are we. */
        if (!beat || beat->busy_until_nsec == UINT64_MAX ||
            (!last && count_round(domain, now) < ROUNDS_LIMIT))
                return;
        measure(&memory);
        act(domain, OOMSLICE_PREKILL_LIMIT, &memory, beat, now);
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_end")
int BPF_PROG(judge_limit, unsigned long reclaimed) {
        __u32 id = bpf_get_current_pid_tgid();
        struct here *here = bpf_map_lookup_elem(&reclaims, &id);
        const struct mem_cgroup *memcg;

        if (!here)
                return 0;
        memcg = (const void *)here->memcg;
        bpf_map_delete_elem(&reclaims, &id);
        /* It was reclaimed, or somebody gave something back. */
        if (reclaimed || !is_full(memcg)) {
                forget_rounds();
                return 0;
        }
        judge_cgroup(memcg, false);
        return 0;
}

/* The kernel has given up: many threads may have come here together, none of them by as many rounds in a row. */
SEC("fentry/mem_cgroup_out_of_memory")
int BPF_PROG(last_moment_of_limit, struct mem_cgroup *memcg) {
        __sync_fetch_and_add(&judging, 1);
        if (!is_dying() && is_full(memcg))
                judge_cgroup(memcg, true);
        __sync_fetch_and_add(&judging, -1);
        if (is_full(memcg))
                hold(BPF_CORE_READ(memcg, css.cgroup, kn, id), (__u64)memcg);
        return 0;
}

/* Who was past all of the above, since there was room below the limit or nobody was dying yet, and was kept from the processor
 * until there was none. The kernel's killer leaves it at that if who calls it is dying: so this is in time for all but those who
 * are not the victim's. Nobody is held here, since it goes on to kill whatever comes back. */
SEC("fentry/out_of_memory")
int BPF_PROG(last_call, struct oom_control *oc) {
        struct mem_cgroup *memcg = BPF_CORE_READ(oc, memcg);

        if (is_dying())
                return 0;
        if (memcg) {
                judge_cgroup(memcg, true);
                join(BPF_CORE_READ(memcg, css.cgroup, kn, id));
        } else
                join(OOMSLICE_PREKILL_MACHINE);
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
                tell_emptied(*domain, flight, cgroup, bpf_ktime_get_ns());
        return 0;
}

#define WAITERS(number)                                                               \
        SEC("fentry/unreserve_highatomic_pageblock")                                  \
        int BPF_PROG(wait_machine_##number) {                                         \
                if (ready())                                                          \
                        hold(OOMSLICE_PREKILL_MACHINE, 0);                            \
                return 0;                                                             \
        }                                                                             \
        SEC("fentry/mem_cgroup_out_of_memory")                                        \
        int BPF_PROG(wait_limit_##number, struct mem_cgroup *memcg) {                 \
                if (in_flight || is_beginning())                                      \
                        hold(BPF_CORE_READ(memcg, css.cgroup, kn, id), (__u64)memcg); \
                return 0;                                                             \
        }

WAITERS(1)
WAITERS(2)
WAITERS(3)
WAITERS(4)
WAITERS(5)
WAITERS(6)
WAITERS(7)
WAITERS(8)
WAITERS(9)
WAITERS(10)
WAITERS(11)
WAITERS(12)
WAITERS(13)
WAITERS(14)
WAITERS(15)
WAITERS(16)
