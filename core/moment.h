/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Time, in microseconds where nothing else is said. */
#include <stdint.h>
#include <time.h>

#define OOMSLICE_MOMENT_NEVER UINT64_MAX

static inline uint64_t oomslice_moment_of(clockid_t clock) {
        struct timespec now;

        /* Cannot fail for these two clocks, and enters no kernel. */
        (void)clock_gettime(clock, &now);
        return (uint64_t)now.tv_sec * UINT64_C(1000000) + (uint64_t)now.tv_nsec / 1000;
}

/* The clock of BPF programs, as they see it. */
static inline uint64_t oomslice_moment_nsec(void) {
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static inline uint64_t oomslice_moment_now(void) {
        return oomslice_moment_of(CLOCK_MONOTONIC);
}
