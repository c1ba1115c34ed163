/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Holds an allocation that would go on to the kernel's killer, while a victim is dying: then it finds memory when it looks
 * once more. It turns round on the processor, since nothing here may sleep; not for longer than a victim has to die. One of
 * the victim's own that the walk has not come to yet is not held, but dies now: many that turn round keep the processors from
 * the walk, and whoever is let go while its unit gives memory back takes that, and brings the others to the limit again.
 */
#include "flight.h"
#include "memory.h"

enum { POLLS_MAX = 1 << 23 }; /* no loop may be longer */

enum { NEAR_PAGES = 64 }; /* an allocation is charged in batches of so many */

static __always_inline bool is_within(const struct mem_cgroup *memcg, __u64 pages) {
        __s64 usage = BPF_CORE_READ(memcg, memory.usage.counter);
        __u64 max = BPF_CORE_READ(memcg, memory.max);

        return usage > 0 && (__u64)usage + pages > max;
}

static __always_inline bool is_full(const struct mem_cgroup *memcg) {
        return is_within(memcg, NEAR_PAGES);
}

/* Several are let go at once, and what is dying takes memory beyond the limit: what is enough for one would have the next of
 * them at the limit again. */
static __always_inline __u64 enough_pages(const struct mem_cgroup *memcg) {
        __u64 share = BPF_CORE_READ(memcg, memory.max) / 16;

        return share < NEAR_PAGES ? NEAR_PAGES : share < 16 * NEAR_PAGES ? share : 16 * NEAR_PAGES;
}

struct wait {
        __u64 domain;
        __u64 until_nsec;
        __u64 memcg;  /* address, 0: the machine */
        __u64 enough; /* pages that are free, or below the limit */
};

static __always_inline bool is_dying(void) {
        struct task_struct *task = (void *)bpf_get_current_task();

        return BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT;
}

/* How long a victim that is dying is waited for. */
static __always_inline __u64 patience(const struct flight *flight) {
        __u64 shortest = flight->kill_nsec + DEADLINE_NS;

        if (flight->dry)
                return 0;
        return flight->until_nsec > shortest ? flight->until_nsec : shortest;
}

static long poll(__u32 index, void *context) {
        struct wait *wait = context;
        struct flight *flight = bpf_map_lookup_elem(&flights, &wait->domain);

        if (flight)
                wait->until_nsec = patience(flight);
        if (bpf_ktime_get_ns() > wait->until_nsec || is_dying())
                return 1;
        if (wait->memcg)
                return !is_within((const void *)wait->memcg, wait->enough);
        return OF_ZONES(NR_FREE_PAGES) > wait->enough;
}

/* Somebody is being chosen, or will be, by one who may be kept from the processor. There is a flight only after that. */
static __always_inline bool is_beginning(void) {
        return *(volatile __u32 *)&acting || *(volatile __u32 *)&judging;
}

static long poll_beginning(__u32 index, void *context) {
        struct wait *wait = context;

        return !is_beginning() || bpf_ktime_get_ns() > wait->until_nsec || is_dying() ||
               bpf_map_lookup_elem(&flights, &wait->domain);
}

/* The calling thread's process takes part in its unit's death. Not static, so that the verifier goes through it once in a
 * program, not once in every state that calls it: dozens of programs here do. */
__noinline int die_with_unit(void) {
        struct task_struct *task = bpf_get_current_task_btf();
        struct flight *flight = in_flight && !is_dying() ? flight_with(task) : NULL;

        if (flight && send(task) == 0)
                __sync_fetch_and_add(&flight->joined, 1);
        return 0;
}

/* The flight of a domain, if there is one; waits for one that is just being begun. */
static __always_inline struct flight *join(__u64 domain) {
        struct flight *flight = bpf_map_lookup_elem(&flights, &domain);
        struct wait wait = {.domain = domain};

        if (!flight && is_beginning()) {
                wait.until_nsec = bpf_ktime_get_ns() + DEADLINE_NS;
                bpf_loop(POLLS_MAX, poll_beginning, &wait, 0);
                flight = bpf_map_lookup_elem(&flights, &domain);
        }
        die_with_unit();
        return flight;
}

/* Whether the unit of the calling thread may well be the one that is just being chosen: its processes are in no danger, and
 * there are only so many programs that hold (see WAITERS); they are for others. */
static __always_inline bool is_marked(void) {
        struct task_struct *task = (void *)bpf_get_current_task();

        return BPF_CORE_READ(task, signal, oom_score_adj) > 0;
}

/* Holds the calling allocation while a victim of its domain is dying. Never one that is dying itself: it has to go on. */
static __always_inline void hold(__u64 domain, __u64 memcg) {
        struct wait wait = {.domain = domain, .memcg = memcg};
        struct memory memory = {};
        struct oomslice_pulse *beat;
        struct flight *flight;
        __u64 now, busy;

        /* At a limit it waits for the kernel's lock next, asleep, and last_call() sees to it. */
        if (memcg && is_beginning() && is_marked() && !bpf_map_lookup_elem(&flights, &domain))
                return;
        flight = join(domain);
        now = bpf_ktime_get_ns();
        if (flight)
                wait.until_nsec = patience(flight);
        else if (!memcg) {
                /* A victim of the core. */
                beat = bpf_map_lookup_elem(&pulse, &zero_key);
                busy = beat ? beat->busy_until_nsec : 0;
                wait.until_nsec = busy < now + DEADLINE_NS ? busy : now + DEADLINE_NS;
        }
        if (wait.until_nsec <= now || is_dying())
                return;
        if (!memcg) {
                if (!measure(&memory) || memory.free > memory.reserve)
                        return;
                wait.enough = memory.reserve;
        } else
                wait.enough = enough_pages((const void *)memcg);
        COUNT_UP(waits);
        bpf_loop(POLLS_MAX, poll, &wait, 0);
}
