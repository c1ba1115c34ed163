/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * How often in a row one thread's allocation has found nothing to reclaim. The kernel counts the same, for each allocation,
 * and kills after seventeen; so a thread that has got anything done in between begins anew.
 */
#include "flight.h"

/* Rounds of reclaim farther apart are of different allocations. One may take long where the processors have much to do. */
#define ROUND_NS (1000 * MS)

/* One thread's attempts at one allocation. */
struct rounds {
        __u64 domain;
        __u64 last_nsec;
        __u64 faults;
        __u32 zero; /* rounds in a row that gave nothing */
        __u32 reserved;
};

struct {
        __uint(type, BPF_MAP_TYPE_LRU_HASH);
        __uint(max_entries, 1024);
        __type(key, __u32);
        __type(value, struct rounds);
} rounds SEC(".maps");

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
