/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What database.c leaves in its file and witness.c reads: when each request was due, and how long it then took. */
#pragma once

#include <stdint.h>

enum { ROUND_MS = 5, ROUNDS_MAX = 1 << 16 }; /* more than five minutes */

struct round {
        uint64_t due_us; /* CLOCK_MONOTONIC */
        uint64_t late_us; /* from then to the answer */
};

struct rounds {
        uint64_t count; /* all so far; the newest is at (count - 1) % ROUNDS_MAX */
        struct round at[ROUNDS_MAX];
};
