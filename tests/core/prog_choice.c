/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sampling: who is read exactly, what each ranking uses, and that priorities come before sizes. Units are
 * directories with files as the kernel writes them. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"
#include "sample.h"

enum { UNITS = 5 };

static char top_path[] = "/tmp/oomslice-choice-XXXXXX";
static struct oomslice_plan_unit units[UNITS];
static struct oomslice_plan_domain domain;
static struct oomslice_plan_header header = {.units_count = UNITS, .domains_count = 1};
static struct oomslice_held held[UNITS];
static uint16_t order[UNITS] = {0, 1, 2, 3, 4};
static const char names[] = "-.slice\0a.service\0b.service\0c.service\0d.service";
static struct oomslice_force force = {
        .plan = {.header = &header, .units = units, .domains = &domain, .names = names},
        .held = held,
        .order = order,
};
static uint64_t tried_id;

static bool tried(uint64_t cgroup_id, void *context) {
        CHECK(context == &tried_id);
        return cgroup_id == tried_id;
}

static void put(int directory, const char *name, const char *text) {
        int fd = openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
        close(fd);
}

static void set(uint32_t unit, int32_t priority, uint64_t current, uint64_t file, uint64_t swap,
                uint64_t refaults) {
        char path[64], text[128];
        int directory;

        (void)snprintf(path, sizeof(path), "%s/%u", top_path, unit);
        (void)mkdir(path, 0700);
        directory = open(path, O_RDONLY | O_DIRECTORY);
        CHECK(directory >= 0);
        put(directory, "cgroup.events", "populated 1\n");
        put(directory, "cgroup.procs", "");
        put(directory, "cgroup.kill", "");
        (void)snprintf(text, sizeof(text), "%llu\n", (unsigned long long)current);
        put(directory, "memory.current", text);
        (void)snprintf(text, sizeof(text), "%llu\n", (unsigned long long)swap);
        put(directory, "memory.swap.current", text);
        (void)snprintf(text, sizeof(text),
                       "inactive_file %llu\nactive_file 0\nworkingset_refault_file %llu\n",
                       (unsigned long long)file, (unsigned long long)refaults);
        put(directory, "memory.stat", text);
        oomslice_held_close(&held[unit]);
        CHECK(oomslice_held_open(&held[unit], directory, true) == 0);
        close(directory);
        units[unit].priority = priority;
}

static struct oomslice_sample *take(uint32_t rank_by) {
        domain.rank_by = rank_by;
        return oomslice_sample_take(&force, 0, tried, &tried_id);
}

static int32_t first(uint32_t rank_by) {
        struct oomslice_sample *sample = take(rank_by);
        int32_t unit = sample->eligible > 0 ? sample->candidates[0].unit : -1;

        oomslice_sample_end(sample);
        return unit;
}

static void test_rankings(void) {
        set(1, 0, 900, 800, 0, 50); /* most memory, but it is page cache */
        set(2, 0, 500, 0, 10, 60);
        set(3, 0, 300, 0, 90, 5);
        set(4, 1, 99999, 0, 99999, 99999);
        CHECK(first(OOMSLICE_RANK_MEMORY) == 2);
        CHECK(first(OOMSLICE_RANK_SWAP) == 3);
        CHECK(first(OOMSLICE_RANK_REFAULT) == 2);
        units[2].baseline_memory = 505;
        units[2].baseline_refaults = 59;
        CHECK(first(OOMSLICE_RANK_GROWTH) == 3);
        CHECK(first(OOMSLICE_RANK_REFAULT) == 1);
        units[2].baseline_memory = 1000; /* it has shrunk since: that is no growth */
        CHECK(first(OOMSLICE_RANK_GROWTH) == 3);
}

static void test_priority_comes_before_size(void) {
        set(1, 5, 1000000, 0, 0, 0);
        set(2, 5, 2000000, 0, 0, 0);
        set(3, -7, 1, 0, 0, 0);
        set(4, 1000, 90000000, 0, 0, 0);
        CHECK(first(OOMSLICE_RANK_MEMORY) == 3);
        tried_id = units[3].cgroup_id;
        CHECK(first(OOMSLICE_RANK_MEMORY) == 2);
        tried_id = 0;
}

static void test_nobody_without_processes(void) {
        put(held[3].directory, "cgroup.events", "populated 0\n");
        CHECK(first(OOMSLICE_RANK_MEMORY) == 2);
        set(3, -7, 1, 0, 0, 0);
}

static void test_others_are_exact_for_the_record(void) {
        struct oomslice_sample *sample;

        set(4, 1000, 90000000, 80000000, 0, 0);
        sample = take(OOMSLICE_RANK_MEMORY);
        CHECK(sample->count == 4 && sample->eligible == 4);
        CHECK(sample->candidates[0].unit == 3 && sample->candidates[0].metric == 1);
        CHECK(sample->candidates[3].unit == 4 && sample->candidates[3].metric == 90000000);
        oomslice_sample_complete(sample, 256);
        CHECK(sample->candidates[0].unit == 3 && sample->candidates[0].metric == 1);
        CHECK(sample->candidates[3].unit == 4 && sample->candidates[3].metric == 10000000);
        CHECK(strcmp(oomslice_sample_name(sample, &sample->candidates[3]), "d.service") == 0);
        CHECK(oomslice_sample_held(sample, &sample->candidates[3]) == &held[4]);
        oomslice_sample_end(sample);
}

static void test_strike(void) {
        struct oomslice_sample *sample = take(OOMSLICE_RANK_MEMORY);

        oomslice_sample_strike(sample, OOMSLICE_CANDIDATE_GONE);
        CHECK(sample->eligible == 3 && sample->candidates[0].unit == 2);
        /* The next priority was read exactly before it was ranked. */
        CHECK(sample->candidates[0].metric == 2000000 && sample->candidates[1].metric == 1000000);
        CHECK(sample->candidates[3].verdict == OOMSLICE_VERDICT_GONE && sample->candidates[3].unit == 3);
        oomslice_sample_end(sample);
}

static void test_unreadable_figures_excuse_nobody(void) {
        struct oomslice_sample *sample;

        /* A directory where a file should be: EISDIR, and not the ENODEV of a removed cgroup. */
        close(held[3].current);
        held[3].current = dup(held[3].directory);
        sample = take(OOMSLICE_RANK_MEMORY);
        CHECK(sample->eligible == 4 && sample->candidates[0].unit == 3 && sample->candidates[0].metric == 0);
        oomslice_sample_end(sample);
        set(3, -7, 1, 0, 0, 0);
}

int main(void) {
        char command[64];

        CHECK(mkdtemp(top_path));
        for (uint32_t i = 0; i < UNITS; i++) {
                units[i] = (struct oomslice_plan_unit){
                        .cgroup_id = 100 + i,
                        .parent = i == 0 ? -1 : 0,
                        .flags = i == 0 ? 0 : OOMSLICE_UNIT_CANDIDATE,
                        .name_offset = i == 0 ? 0 : 8 + (i - 1) * 10,
                };
                oomslice_held_init(&held[i]);
        }
        test_rankings();
        test_priority_comes_before_size();
        test_nobody_without_processes();
        test_others_are_exact_for_the_record();
        test_strike();
        test_unreadable_figures_excuse_nobody();
        (void)snprintf(command, sizeof(command), "rm -r %s", top_path);
        CHECK(system(command) == 0);
        return 0;
}
