/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The choice on arrays of every small size and of the largest, with few different values so that ties are common. */
#include <string.h>

#include "plan.h"
#include "program.h"
#include "select.h"

static uint64_t seed = 362436069362436069;

static void make(struct oomslice_candidate *candidates, uint32_t count) {
        static const uint64_t metrics[] = {0, 1, 4096, UINT64_MAX - 1, UINT64_MAX};
        static const int32_t priorities[] = {-1000, -1, 0, 1, 1000, INT32_MIN, INT32_MAX};

        for (uint32_t i = 0; i < count; i++)
                candidates[i] = (struct oomslice_candidate){
                        .cgroup_id = 1 + random_below(&seed, count), /* twins too */
                        .metric = metrics[random_below(&seed, 5)],
                        .unit = (int32_t)i,
                        .priority = priorities[random_below(&seed, 7)],
                        .flags = random_below(&seed, 4) ? OOMSLICE_UNIT_CANDIDATE : random_below(&seed, 32),
                        .state = random_below(&seed, 4)
                                         ? OOMSLICE_CANDIDATE_BELOW | OOMSLICE_CANDIDATE_POPULATED
                                         : random_below(&seed, 16),
                        .verdict = (uint32_t)random_next(&seed), /* what was there does not matter */
                };
}

static void shuffle(struct oomslice_candidate *candidates, uint32_t count) {
        for (uint32_t i = count; i > 1; i--) {
                uint32_t other = random_below(&seed, i);
                struct oomslice_candidate copy = candidates[other];

                candidates[other] = candidates[i - 1];
                candidates[i - 1] = copy;
        }
}

static void check_ranking(const struct oomslice_candidate *candidates, uint32_t count, uint32_t eligible) {
        for (uint32_t i = 0; i < count; i++) {
                const struct oomslice_candidate *c = &candidates[i], *next = c + 1;
                int may = (c->flags & ~(uint32_t)OOMSLICE_UNIT_DRY_RUN) == OOMSLICE_UNIT_CANDIDATE &&
                          c->state == (OOMSLICE_CANDIDATE_BELOW | OOMSLICE_CANDIDATE_POPULATED);

                CHECK((c->verdict == OOMSLICE_VERDICT_ELIGIBLE) == may);
                CHECK((i < eligible) == may);
                CHECK(strcmp(oomslice_verdict_text(c->verdict), "unknown") != 0);
                if (i + 1 == count)
                        break;
                if (i + 1 < eligible) {
                        CHECK(c->priority <= next->priority);
                        if (c->priority == next->priority)
                                CHECK(c->metric >= next->metric);
                        if (c->priority == next->priority && c->metric == next->metric)
                                CHECK(c->cgroup_id >= next->cgroup_id);
                } else {
                        CHECK(c->verdict <= next->verdict);
                        if (c->verdict == next->verdict)
                                CHECK(c->priority <= next->priority);
                }
        }
}

static void run(uint32_t count) {
        size_t size = count * sizeof(struct oomslice_candidate);
        struct oomslice_candidate *first = malloc(size ? size : 1), *second = malloc(size ? size : 1);
        uint32_t eligible;

        make(first, count);
        memcpy(second, first, size);
        shuffle(second, count);
        eligible = oomslice_select(first, count);
        CHECK(eligible <= count);
        check_ranking(first, count, eligible);
        CHECK(oomslice_select(second, count) == eligible);
        CHECK(memcmp(first, second, size) == 0);
        free(first);
        free(second);
}

int main(void) {
        for (uint32_t count = 0; count <= 40; count++)
                for (int round = 0; round < 60; round++)
                        run(count);
        for (int round = 0; round < 5; round++)
                run(OOMSLICE_PLAN_UNITS_MAX);
        CHECK(oomslice_select(NULL, 0) == 0);
        CHECK(strcmp(oomslice_verdict_text(UINT32_MAX), "unknown") == 0);
        return 0;
}
