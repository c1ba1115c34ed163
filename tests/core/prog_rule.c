/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whoever keeps the best by rule.h, one entry after the other and in any order, as the BPF programs do, keeps the one that
 * oomslice_select() puts first. */
#include <string.h>

#include "plan.h"
#include "program.h"
#include "rule.h"
#include "select.h"

enum { COUNT_MAX = 64 };

static uint64_t seed = 88172645463325252;

static void make(struct oomslice_candidate *candidates, uint32_t count) {
        static const uint64_t metrics[] = {0, 4096, 8192, UINT64_MAX};
        static const int32_t priorities[] = {-1000, -1, 0, 1, 1000};

        for (uint32_t i = 0; i < count; i++)
                candidates[i] = (struct oomslice_candidate){
                        .cgroup_id = 1 + i, /* one cgroup is there once */
                        .metric = metrics[random_below(&seed, 4)],
                        .unit = (int32_t)i,
                        .priority = priorities[random_below(&seed, 5)],
                        .flags = random_below(&seed, 3) ? OOMSLICE_UNIT_CANDIDATE : random_below(&seed, 64),
                        .state = random_below(&seed, 3)
                                         ? OOMSLICE_CANDIDATE_BELOW | OOMSLICE_CANDIDATE_POPULATED
                                         : random_below(&seed, 16),
                };
}

/* NULL: nobody may be chosen. */
static const struct oomslice_candidate *best_of(const struct oomslice_candidate *candidates, uint32_t count) {
        uint32_t first = random_below(&seed, count);
        const struct oomslice_candidate *best = NULL;

        for (uint32_t i = 0; i < count; i++) {
                const struct oomslice_candidate *c = &candidates[(first + i) % count];

                if (oomslice_rule_verdict(c->flags, c->state) != OOMSLICE_VERDICT_ELIGIBLE)
                        continue;
                if (!best || oomslice_rule_order(c->priority, c->metric, c->cgroup_id, best->priority,
                                                 best->metric, best->cgroup_id) < 0)
                        best = c;
        }
        return best;
}

int main(void) {
        for (int round = 0; round < 20000; round++) {
                struct oomslice_candidate candidates[COUNT_MAX], ranked[COUNT_MAX];
                const struct oomslice_candidate *best;
                uint32_t count = 1 + random_below(&seed, COUNT_MAX), eligible;

                make(candidates, count);
                memcpy(ranked, candidates, sizeof(ranked));
                best = best_of(candidates, count);
                eligible = oomslice_select(ranked, count);
                CHECK((best != NULL) == (eligible > 0));
                if (best)
                        CHECK(best->cgroup_id == ranked[0].cgroup_id);
        }
        return 0;
}
