/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * How the BPF programs and the core know of each other: the one element of the map "pulse" (BPF_MAP_TYPE_ARRAY that can be
 * mapped, bpf/maps.h). At rest nobody writes it. A program that sees memory run short asks; the core, woken by that, answers
 * with its next turn. Who asked and had no answer in time knows that the core is stuck, and acts by itself.
 */
#include <stdint.h>

/* cffi: begin */
struct oomslice_pulse {
        /* CLOCK_MONOTONIC of the first question that has no answer yet; 0: there is none. Written by programs when
         * beat_nsec is younger than it, or it is 0. */
        uint64_t asked_nsec;
        /* CLOCK_MONOTONIC of the end of the core's last turn. Written by the core only. */
        uint64_t beat_nsec;
        /* CLOCK_MONOTONIC until which the core has a victim that is dying, and programs leave it that time; 0: none. */
        uint64_t busy_until_nsec;
        /* Bytes: the limits of the plan in force, by the core. Free swap and MemAvailable at or below both: it would kill. */
        uint64_t available_min;
        uint64_t swap_free_min;
        /* Of the newest plan whose values are all in "slices", by oomsliced; 0: there is none, and no program acts. */
        uint64_t generation;
};
/* cffi: end */
