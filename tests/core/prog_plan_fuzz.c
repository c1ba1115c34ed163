/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Plans from a hostile sender: whatever the bytes, checking them reads nothing outside, and a plan that is found
 * good is good. Each plan lies at the very end of its own allocation, so that the sanitizer sees one byte too many.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "plan.h"
#include "program.h"

enum {
        UNITS = 9,
        DOMAINS = 3,
        STEPS = 4,
        NAMES = 80,
        SIZE = sizeof(struct oomslice_plan_header) + UNITS * sizeof(struct oomslice_plan_unit) +
               DOMAINS * sizeof(struct oomslice_plan_domain) + STEPS * sizeof(struct oomslice_plan_step) +
               NAMES,
        ROUNDS = 60000,
};

static uint64_t seed = 88172645463325252;

static void make_good(void *data) {
        struct oomslice_plan_header *header = data;
        struct oomslice_plan_unit *units = (struct oomslice_plan_unit *)(header + 1);
        struct oomslice_plan_domain *domains = (struct oomslice_plan_domain *)(units + UNITS);
        struct oomslice_plan_step *steps = (struct oomslice_plan_step *)(domains + DOMAINS);
        char *names = (char *)(steps + STEPS);

        memset(data, 0, SIZE);
        header->generation = 1;
        header->units_count = UNITS;
        header->domains_count = DOMAINS;
        header->steps_count = STEPS;
        header->names_size = NAMES;
        header->machine.available_min = 1;
        header->machine.available_watch = 2;
        header->machine.death_deadline_us = 2000000;
        header->machine.sign = (struct oomslice_psi_trigger){OOMSLICE_PSI_SOME, 1, 500000, 0};
        header->machine.thrash = (struct oomslice_psi_trigger){OOMSLICE_PSI_FULL, 500000, 500000, 0};
        for (int i = 0; i < UNITS; i++) {
                units[i].cgroup_id = 100 + (uint64_t)i;
                units[i].parent = i == 0 ? -1 : i < 4 ? 0 : 1;
                units[i].priority = i * 100 - 300;
                units[i].flags = i > 4 ? OOMSLICE_UNIT_CANDIDATE : 0;
                units[i].name_offset = (uint32_t)(i * 8);
                units[i].steps_first = (uint32_t)i % 2;
                units[i].steps_count = (uint16_t)(STEPS - i % 2);
                units[i].kill_scope = i % 2 ? OOMSLICE_SCOPE_PROCESS : OOMSLICE_SCOPE_UNIT;
                memcpy(names + i * 8, "a.slice", 8);
        }
        steps[0] = (struct oomslice_plan_step){0, 0, OOMSLICE_STEP_WARN, OOMSLICE_PLAN_NO_TEXT};
        steps[1] = (struct oomslice_plan_step){1000, 80, OOMSLICE_STEP_THROTTLE, OOMSLICE_PLAN_NO_TEXT};
        steps[2] = (struct oomslice_plan_step){2000, 0, OOMSLICE_STEP_PURGE, 0};
        steps[3] = (struct oomslice_plan_step){2000, 0, OOMSLICE_STEP_KILL, OOMSLICE_PLAN_NO_TEXT};
        for (int i = 0; i < DOMAINS; i++) {
                domains[i].unit = i;
                domains[i].rank_by = (uint32_t)i;
        }
}

/* Every promise of a plan that was found good, read through the plan alone. */
static void check_promises(const struct oomslice_plan *plan) {
        int32_t count = (int32_t)plan->header->units_count;

        for (int32_t i = 0; i < count; i++) {
                size_t length = strlen(oomslice_plan_name(plan, i));

                CHECK(length > 0 && length < OOMSLICE_UNIT_NAME_MAX);
                CHECK(plan->units[i].priority >= -1000 && plan->units[i].priority <= 1000);
                CHECK(oomslice_plan_is_below(plan, i, 0));
                CHECK(oomslice_plan_is_below(plan, i, i));
                if (i > 0)
                        CHECK(oomslice_plan_is_below(plan, i, plan->units[i].parent));
                for (uint32_t j = 0; j < plan->units[i].steps_count; j++)
                        CHECK(strlen(oomslice_plan_step_text(plan,
                                                             &plan->steps[plan->units[i].steps_first + j])) <
                              OOMSLICE_UNIT_NAME_MAX);
        }
        for (uint32_t i = 0; i < plan->header->domains_count; i++)
                CHECK(plan->domains[i].unit >= 0 && plan->domains[i].unit < count);
        /* Indexes that no plan has, as a record could carry them. */
        CHECK(oomslice_plan_name(plan, -1)[0] == '\0');
        CHECK(oomslice_plan_name(plan, count)[0] == '\0');
        CHECK(oomslice_plan_name(plan, INT32_MIN)[0] == '\0');
        CHECK(!oomslice_plan_is_below(plan, count, 0));
        CHECK(!oomslice_plan_is_below(plan, 0, INT32_MAX));
        CHECK(!oomslice_plan_is_below(plan, -1, -1));
}

/* What a number is changed to: small ones, limits, and what comes right after them. */
static uint32_t odd_number(void) {
        static const uint32_t numbers[] = {
                0,       1,       2,          3,          4,          8,          16,         31,     32,
                64,      65,      79,         80,         81,         1000,       1001,       4096,   4097,
                1048576, 0x10001, 0x7fffffff, 0x80000000, 0xfffffc18, 0xfffffc17, 0xffffffff, 500000,
        };

        return random_below(&seed, 4) == 0
                       ? (uint32_t)random_next(&seed)
                       : numbers[random_below(&seed, sizeof(numbers) / sizeof(numbers[0]))];
}

static int check(const void *data, size_t size) {
        struct oomslice_plan plan;
        uint32_t detail = UINT32_MAX;
        int result = oomslice_plan_check(data, size, &plan, &detail);

        CHECK(result >= OOMSLICE_PLAN_OK && result <= OOMSLICE_PLAN_E_LADDER);
        CHECK(detail < OOMSLICE_PLAN_UNITS_MAX);
        CHECK(strlen(oomslice_plan_result_text(result)) > 0);
        if (result == OOMSLICE_PLAN_OK)
                check_promises(&plan);
        return result;
}

int main(void) {
        unsigned good = 0, seen[OOMSLICE_PLAN_E_LADDER + 1] = {0};
        struct oomslice_plan plan;
        uint32_t detail;
        char *data;

        /* The plan that everything starts from. */
        data = malloc(SIZE);
        make_good(data);
        CHECK(oomslice_plan_finish(data, SIZE) == OOMSLICE_PLAN_OK);
        CHECK(check(data, SIZE) == OOMSLICE_PLAN_OK);

        /* One byte changed, each in turn, in every bit. */
        for (size_t i = 0; i < SIZE; i++)
                for (int bit = 0; bit < 8; bit++) {
                        data[i] = (char)(data[i] ^ (1 << bit));
                        CHECK(check(data, SIZE) != OOMSLICE_PLAN_OK);
                        data[i] = (char)(data[i] ^ (1 << bit));
                }

        /* Torn: every shorter length, at the end of an allocation of just that length. */
        for (size_t size = 0; size < SIZE; size++) {
                char *torn = malloc(size ? size : 1);

                memcpy(torn, data, size);
                CHECK(check(torn, size) != OOMSLICE_PLAN_OK);
                free(torn);
        }

        /* Addresses that no mapping has. */
        for (size_t shift = 1; shift < 8; shift++) {
                char *shifted = malloc(SIZE + shift);

                memcpy(shifted + shift, data, SIZE);
                CHECK(oomslice_plan_check(shifted + shift, SIZE, &plan, &detail) == -EINVAL);
                CHECK(oomslice_plan_finish(shifted + shift, SIZE) == -EINVAL);
                free(shifted);
        }
        CHECK(oomslice_plan_check(NULL, SIZE, &plan, &detail) == -EINVAL);
        CHECK(oomslice_plan_finish(data, sizeof(struct oomslice_plan_header) - 1) == OOMSLICE_PLAN_E_SIZE);
        CHECK(oomslice_plan_finish(data, (size_t)OOMSLICE_PLAN_SIZE_MAX + 1) == OOMSLICE_PLAN_E_SIZE);
        CHECK(check(data, (size_t)OOMSLICE_PLAN_SIZE_MAX + 1) == OOMSLICE_PLAN_E_SIZE);
        free(data);

        /* A sender that computes the checksum of its nonsense. */
        for (int round = 0; round < ROUNDS; round++) {
                struct oomslice_plan_header *header;
                unsigned changes = 1 + random_below(&seed, 3);
                int result;

                data = malloc(SIZE);
                header = (struct oomslice_plan_header *)data;
                make_good(data);
                for (unsigned i = 0; i < changes; i++) {
                        uint32_t number = odd_number();

                        if (random_below(&seed, 8) == 0)
                                data[random_below(&seed, SIZE)] = (char)number;
                        else
                                memcpy(data + random_below(&seed, (SIZE - 4) / 4) * 4, &number,
                                       sizeof(number));
                }
                result = oomslice_plan_finish(data, SIZE);
                if (result != OOMSLICE_PLAN_OK) {
                        /* Counts that do not add up: what the sender would send then is stamped by hand. */
                        CHECK(result == OOMSLICE_PLAN_E_SIZE);
                        seen[check(data, SIZE)]++;
                        header->units_count = UNITS;
                        header->domains_count = DOMAINS;
                        header->steps_count = STEPS;
                        header->names_size = NAMES;
                        CHECK(oomslice_plan_finish(data, SIZE) == OOMSLICE_PLAN_OK);
                }
                result = check(data, SIZE);
                seen[result]++;
                good += result == OOMSLICE_PLAN_OK;
                free(data);
        }
        /* The test tests something: plans were found good, and bad for each reason that there is. */
        CHECK(good > ROUNDS / 100);
        CHECK(seen[OOMSLICE_PLAN_E_BOUNDS] && seen[OOMSLICE_PLAN_E_PARENT] && seen[OOMSLICE_PLAN_E_NAME] &&
              seen[OOMSLICE_PLAN_E_DOMAIN] && seen[OOMSLICE_PLAN_E_LADDER]);
        return 0;
}
