/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * How a program asks the core: a question in the pulse, and a record that wakes the core for it. While a question has no
 * answer there is no other, so this is cheap wherever it is called, and the ring never fills.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "sign.h"

#define ask_read(field) (*(volatile __u64 *)&(field))

static __always_inline struct oomslice_pulse *pulse_of_core(void) {
        __u32 zero = 0;

        return bpf_map_lookup_elem(&pulse, &zero);
}

/* Whether the core has looked at the memory since the last question, or nobody has asked yet. */
static __always_inline bool is_answered(struct oomslice_pulse *shared) {
        return ask_read(shared->asked_nsec) <= ask_read(shared->beat_nsec);
}

/* For how long, by `now`, a question has had no answer; 0: there is none that has none. */
static __always_inline __u64 unanswered_nsec(struct oomslice_pulse *shared, __u64 now) {
        __u64 asked = ask_read(shared->asked_nsec);

        return asked <= ask_read(shared->beat_nsec) || now < asked ? 0 : now - asked;
}

/* Asks, unless a question is open already. True if the core is being woken by this. */
static __always_inline bool ask(struct oomslice_pulse *shared, __u32 kind, __u64 now, __u64 available) {
        __u64 asked = ask_read(shared->asked_nsec);
        struct oomslice_sign *sign;

        if (asked > ask_read(shared->beat_nsec) ||
            __sync_val_compare_and_swap(&shared->asked_nsec, asked, now) != asked)
                return false;
        sign = bpf_ringbuf_reserve(&signs, sizeof(*sign), 0);
        if (!sign)
                return false;
        sign->kind = kind;
        sign->reserved = 0;
        sign->nsec = now;
        sign->available = available;
        /* By an interrupt to ourselves, so from wherever the kernel is now. */
        bpf_ringbuf_submit(sign, BPF_RB_FORCE_WAKEUP);
        return true;
}
