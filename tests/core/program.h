/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the test programs share: a check that says where it failed, and numbers that are the same in every run. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                          \
        do {                                                                                      \
                if (!(condition)) {                                                               \
                        fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
                        abort();                                                                  \
                }                                                                                 \
        } while (0)

/* xorshift64*, Vigna 2014 */
static inline uint64_t random_next(uint64_t *state) {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        return *state * UINT64_C(2685821657736338717);
}

/* 0 to limit - 1 */
static inline uint32_t random_below(uint64_t *state, uint32_t limit) {
        return (uint32_t)((random_next(state) >> 32) % limit);
}
