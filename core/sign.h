/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What wakes the core from inside the kernel: records of the ring buffer "signs" (bpf/maps.h), one for each question that a
 * program asks in the pulse (bpf/ask.h), so never more than one that has no answer.
 */
#include <stdint.h>

enum oomslice_sign_kind {
        OOMSLICE_SIGN_KSWAPD = 1, /* free pages are below the low watermark, and little could be reclaimed */
        OOMSLICE_SIGN_STUCK = 2,  /* somebody tried to reclaim, and there was nothing */
        OOMSLICE_SIGN_ASKED =
                3, /* a program that would act by itself wants to know first whether the core lives */
};

struct oomslice_sign {
        uint32_t kind;
        uint32_t reserved;
        /* CLOCK_MONOTONIC, as in pulse.asked_nsec. */
        uint64_t nsec;
        /* Bytes: what the program takes for available; 0 where it does not know. */
        uint64_t available;
};
