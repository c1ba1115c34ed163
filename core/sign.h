/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What wakes the core from inside the kernel: records of the ring buffer "signs" (bpf/maps.h), none before the core has
 * looked at the memory since the one before (bpf/ask.h).
 */
#include <stdint.h>

enum oomslice_sign_kind {
        OOMSLICE_SIGN_KSWAPD = 1, /* free pages are below the low watermark, and little could be reclaimed */
        OOMSLICE_SIGN_STUCK = 2,  /* somebody tried to reclaim, and there was nothing */
        OOMSLICE_SIGN_ASKED = 3, /* a program that would act by itself wants to know whether the core lives */
};

struct oomslice_sign {
        uint32_t kind;
        uint32_t reserved;
        /* CLOCK_MONOTONIC, as in pulse.signalled_nsec. */
        uint64_t nsec;
        /* Bytes: what the program takes for available; 0 where it does not know. */
        uint64_t available;
};
