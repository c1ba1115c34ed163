/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * How a program asks the core: a question in the pulse, and a record that wakes the core for it. Until it has looked there
 * is no second one, so this is cheap wherever it is called, and the ring never fills. A question of a program that only
 * writes asked_nsec is as good, but waits until something wakes the core; "signs" does at its next run.
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

/* Whether the core has looked since it was last woken, so that waking it is of use. */
static __always_inline bool can_wake(struct oomslice_pulse *shared) {
        return ask_read(shared->signalled_nsec) <= ask_read(shared->beat_nsec);
}

/* Asks, unless a question is open already, and wakes the core, unless it is being woken. True if this does. */
static __always_inline bool ask(struct oomslice_pulse *shared, __u32 kind, __u64 now, __u64 available) {
        __u64 asked = ask_read(shared->asked_nsec), signalled = ask_read(shared->signalled_nsec);
        struct oomslice_sign *sign;

        /* Whoever is faster than this asks the same. */
        if (asked <= ask_read(shared->beat_nsec))
                __sync_val_compare_and_swap(&shared->asked_nsec, asked, now);
        if (signalled > ask_read(shared->beat_nsec) ||
            __sync_val_compare_and_swap(&shared->signalled_nsec, signalled, now) != signalled)
                return false;
        sign = bpf_ringbuf_reserve(&signs, sizeof(*sign), 0);
        if (!sign) {
                shared->signalled_nsec = 0; /* nobody is being woken after all */
                return false;
        }
        sign->kind = kind;
        sign->reserved = 0;
        sign->nsec = now;
        sign->available = available;
        /* By an interrupt to ourselves, so from wherever the kernel is now. */
        bpf_ringbuf_submit(sign, BPF_RB_FORCE_WAKEUP);
        return true;
}
