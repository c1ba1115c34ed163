/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The choice. One pass gives every entry its verdict, one sort brings them into the order of the ranking.
 *
 * Promises: never allocates (qsort of some C libraries does), never recurses, and orders by a total order, so the
 * result is the same whatever the order of the input.
 */
#include "select.h"

#include "rule.h"

/* Negative if `a` is ranked before `b`. */
static int compare(const struct oomslice_candidate *a, const struct oomslice_candidate *b) {
        int order;

        order = OOMSLICE_COMPARE(a->verdict, b->verdict); /* ELIGIBLE is the smallest */
        if (order == 0 && a->verdict == OOMSLICE_VERDICT_ELIGIBLE)
                order = oomslice_rule_order(a->priority, a->metric, a->cgroup_id, b->priority, b->metric,
                                            b->cgroup_id);
        if (order == 0)
                order = OOMSLICE_COMPARE(a->priority, b->priority);
        /* No two entries of one plan are equal up to here, but the order must not hang on that. */
        if (order == 0)
                order = OOMSLICE_COMPARE(a->cgroup_id, b->cgroup_id);
        if (order == 0)
                order = OOMSLICE_COMPARE(a->unit, b->unit);
        if (order == 0)
                order = OOMSLICE_COMPARE(b->metric, a->metric);
        if (order == 0)
                order = OOMSLICE_COMPARE(b->memory, a->memory);
        if (order == 0)
                order = OOMSLICE_COMPARE(a->flags, b->flags);
        if (order == 0)
                order = OOMSLICE_COMPARE(a->state, b->state);
        return order;
}

static void swap(struct oomslice_candidate *a, struct oomslice_candidate *b) {
        struct oomslice_candidate copy = *a;

        *a = *b;
        *b = copy;
}

/* Brings heap[root] down until no child of it is ranked after it. */
static void sift_down(struct oomslice_candidate *heap, uint32_t root, uint32_t count) {
        while (root < count / 2) {
                uint32_t child = 2 * root + 1;

                if (child + 1 < count && compare(&heap[child], &heap[child + 1]) < 0)
                        child++;
                if (compare(&heap[root], &heap[child]) >= 0)
                        return;
                swap(&heap[root], &heap[child]);
                root = child;
        }
}

/* Heapsort: in place, and n log n whatever the input. */
static void sort(struct oomslice_candidate *candidates, uint32_t count) {
        for (uint32_t root = count / 2; root > 0; root--)
                sift_down(candidates, root - 1, count);
        for (uint32_t last = count; last > 1; last--) {
                swap(&candidates[0], &candidates[last - 1]);
                sift_down(candidates, 0, last - 1);
        }
}

uint32_t oomslice_select(struct oomslice_candidate *candidates, uint32_t count) {
        uint32_t eligible = 0;

        for (uint32_t i = 0; i < count; i++) {
                candidates[i].verdict = oomslice_rule_verdict(candidates[i].flags, candidates[i].state);
                eligible += candidates[i].verdict == OOMSLICE_VERDICT_ELIGIBLE;
        }
        sort(candidates, count);
        return eligible;
}

const char *oomslice_verdict_text(uint32_t verdict) {
        switch ((enum oomslice_verdict)verdict) {
        case OOMSLICE_VERDICT_ELIGIBLE:
                return "eligible";
        case OOMSLICE_VERDICT_CHOSEN:
                return "chosen";
        case OOMSLICE_VERDICT_EMPTY:
                return "empty";
        case OOMSLICE_VERDICT_TRIED:
                return "tried";
        case OOMSLICE_VERDICT_GONE:
                return "gone";
        case OOMSLICE_VERDICT_LEFT_TO_OOMD:
                return "left-to-oomd";
        case OOMSLICE_VERDICT_PROTECTED:
                return "protected";
        case OOMSLICE_VERDICT_SELF:
                return "self";
        case OOMSLICE_VERDICT_CONTAINER:
                return "container";
        case OOMSLICE_VERDICT_OUTSIDE:
                return "outside";
        }
        return "unknown";
}
