/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What MemAvailable counts and nobody can have: watermarks as /proc/zoneinfo has them, and protected page cache. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "program.h"
#include "withheld.h"
#include "zones.h"

#define MIB (UINT64_C(1) << 20)
#define PAGES_PER_MIB 256

/* A zone as Linux 6.12 prints it, shortened; `processors` of them make it long. */
static void add_zone(FILE *file, const char *name, unsigned boost, unsigned low, unsigned high,
                     int processors) {
        fprintf(file,
                "Node 0, zone %8s\n  per-node stats\n      nr_inactive_anon 583\n      workingset_nodes 0\n",
                name);
        fprintf(file, "  pages free     %u\n        boost    %u\n        min      %u\n        low      %u\n",
                high * 3, boost, low / 2, low);
        fprintf(file,
                "        high     %u\n        promo    %u\n        spanned  4095\n        present  3998\n",
                high, high);
        fprintf(file, "        protection: (0, 946, 946, 946, 946)\n      nr_free_pages 3840\n  pagesets\n");
        for (int i = 0; i < processors; i++)
                fprintf(file,
                        "    cpu: %i\n              count:    0\n              high:     14\n              batch:    1\n"
                        "              high_min: 14\n              high_max: 448\n  vm stats threshold: 4\n",
                        i);
        fprintf(file, "  node_unreclaimable:  0\n  start_pfn:           1\n");
}

static int made(int processors) {
        int fd = memfd_create("zoneinfo", MFD_CLOEXEC);
        FILE *file = fdopen(dup(fd), "w");

        CHECK(fd >= 0 && file);
        add_zone(file, "DMA", 0, 223, 267, processors);
        add_zone(file, "DMA32", 16384, 30239, 33010, processors);
        CHECK(fclose(file) == 0);
        return fd;
}

static void test_zones(void) {
        static const int processors[] = {0, 2, 64, 2000};
        struct oomslice_zones zones;

        for (size_t i = 0; i < sizeof(processors) / sizeof(processors[0]); i++) {
                int fd = made(processors[i]);

                CHECK(oomslice_zones_read(fd, &zones) == 0);
                CHECK(zones.boost == 64 * MIB);
                CHECK(zones.low == (UINT64_C(223) + 30239 - 16384) * 4096);
                CHECK(zones.high == (UINT64_C(267) + 33010 - 16384) * 4096);
                close(fd);
        }
}

static void test_no_zones(void) {
        static const char text[] = "low 7\nhigh 8\n";
        struct oomslice_zones zones = {1, 2, 3};
        int fd = memfd_create("zoneinfo", MFD_CLOEXEC);

        CHECK(oomslice_zones_read(-1, &zones) == -EBADF);
        CHECK(oomslice_zones_read(fd, &zones) == -EBADMSG && zones.boost == 1);
        for (int i = 0; i < 5000; i++) /* without an end of line */
                CHECK(write(fd, "low 123", 7) == 7);
        CHECK(oomslice_zones_read(fd, &zones) == -EBADMSG && zones.low == 2);
        CHECK(write(fd, "\n", 1) == 1 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
        CHECK(oomslice_zones_read(fd, &zones) == 0 && zones.low == UINT64_C(7) * 4096);
        close(fd);
}

/* si_mem_available() of the kernel, but for what does not change here. */
static uint64_t available(uint64_t free, uint64_t cache, uint64_t low, uint64_t boost) {
        uint64_t left_out = cache / 2 < low + boost ? cache / 2 : low + boost;

        return free + cache - left_out;
}

static void test_raised_watermarks(void) {
        for (uint64_t cache = 0; cache < 2000 * MIB; cache += 9 * MIB)
                for (uint64_t boost = 0; boost < 200 * MIB; boost += 16 * MIB) {
                        const struct oomslice_zones zones = {
                                .boost = boost, .low = 56 * MIB, .high = 66 * MIB};
                        const struct oomslice_meminfo info = {.file = cache};
                        uint64_t said = available(300 * MIB, cache, 56 * MIB, boost);

                        /* As if the free memory were less by it, and nothing else had changed. */
                        CHECK(said - oomslice_withheld(&info, &zones, 0) ==
                              available(300 * MIB - boost, cache, 56 * MIB, 0));
                }
}

static void test_protected_cache(void) {
        const struct oomslice_zones zones = {.low = 56 * MIB, .high = 66 * MIB};

        for (uint64_t cache = 0; cache < 2000 * MIB; cache += 9 * MIB)
                for (uint64_t kept = 0; kept <= cache; kept += 40 * MIB) {
                        const struct oomslice_meminfo info = {.file = cache};

                        CHECK(available(100 * MIB, cache, 56 * MIB, 0) -
                                      oomslice_withheld(&info, &zones, kept) ==
                              available(100 * MIB, cache - kept, 56 * MIB, 0));
                }
        /* The sum of many files is not of one moment: more than there is is all of it. */
        CHECK(oomslice_withheld(&(struct oomslice_meminfo){.file = 10 * MIB}, &zones, 99 * MIB) == 5 * MIB);
        CHECK(oomslice_withheld(&(struct oomslice_meminfo){0}, &(struct oomslice_zones){0}, 0) == 0);
}

static void test_cache_of_a_cgroup(void) {
        CHECK(oomslice_withheld_cache(0, 500, 400) == 0);            /* nothing is granted */
        CHECK(oomslice_withheld_cache(600, 500, 400) == 400);        /* all of it is */
        CHECK(oomslice_withheld_cache(UINT64_MAX, 500, 400) == 400); /* "max" */
        CHECK(oomslice_withheld_cache(300, 500, 400) == 200);        /* 200 can be taken, of the cache */
        CHECK(oomslice_withheld_cache(300, 800, 400) == 0);          /* so can all cache */
        CHECK(oomslice_withheld_cache(100, 500, 600) ==
              100); /* figures of two moments: no more than is granted */
}

static void test_far_from_the_watch_it_is_looked_at_less_often(void) {
        const struct oomslice_machine machine = {.available_min = 40 * MIB, .available_watch = 160 * MIB};
        struct oomslice_meminfo info = {.available = 700 * MIB, .file = 600 * MIB};

        CHECK(oomslice_withheld_pause(&machine, &info, 0) == 1000000);
        CHECK(oomslice_withheld_pause(&machine, &info, 539 * MIB) == 1000000);
        /* All of that kept, the watch begins. */
        CHECK(oomslice_withheld_pause(&machine, &info, 540 * MIB) == 100000);
        CHECK(oomslice_withheld_pause(&machine, &info, UINT64_MAX) == 100000);
        /* More than there is of it cannot be kept. */
        info.file = 100 * MIB;
        CHECK(oomslice_withheld_pause(&machine, &info, UINT64_MAX) == 1000000);
        info.available = 90 * MIB;
        CHECK(oomslice_withheld_pause(&machine, &info, 0) == 100000);
        CHECK(oomslice_withheld_pause(&machine, &info, UINT64_MAX) == 100000);
}

int main(void) {
        CHECK(sysconf(_SC_PAGESIZE) == 4096 && PAGES_PER_MIB * 4096 == MIB);
        test_zones();
        test_no_zones();
        test_raised_watermarks();
        test_protected_cache();
        test_cache_of_a_cgroup();
        test_far_from_the_watch_it_is_looked_at_less_often();
        return 0;
}
