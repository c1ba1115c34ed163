/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When to look again: the interval, the margin, the start and the end of the watch. And what meminfo is read as. */
#include <errno.h>
#include <stdint.h>

#include "meminfo.h"
#include "program.h"
#include "watch.h"

#define MIB (UINT64_C(1) << 20)

static const struct oomslice_machine machine = {
        .available_min = 100 * MIB,
        .available_watch = 1000 * MIB,
        .swap_free_min = 50 * MIB,
};

static struct oomslice_meminfo info(uint64_t available, uint64_t swap_free) {
        return (struct oomslice_meminfo){
                .total = 8000 * MIB,
                .available = available * MIB,
                .swap_total = 500 * MIB,
                .swap_free = swap_free * MIB,
        };
}

static void test_interval(void) {
        uint64_t before = 0;

        CHECK(oomslice_watch_interval(0, 0) == 1000);
        CHECK(oomslice_watch_interval(UINT64_MAX, 0) == 1000000);
        CHECK(oomslice_watch_interval(UINT64_MAX, UINT64_MAX) == 1000000);
        for (uint64_t margin = 0; margin < 16384 * MIB; margin += 7 * MIB) {
                uint64_t interval = oomslice_watch_interval(margin, 0);

                CHECK(interval >= before); /* shortens with the distance */
                CHECK(interval >= 1000 && interval <= 1000000);
                /* Even 2 GiB/s do not use up the margin while nobody looks. */
                CHECK(interval == 1000 || interval * 2048 * MIB / 1000000 <= margin);
                CHECK(oomslice_watch_interval(margin, 8192 * MIB) <= interval); /* and with the speed */
                before = interval;
        }
}

static void test_margin(void) {
        struct oomslice_meminfo now;

        now = info(400, 0);
        CHECK(oomslice_watch_margin(&machine, &now) == 300 * MIB);
        now = info(50, 450);
        CHECK(oomslice_watch_margin(&machine, &now) == 400 * MIB);
        now = info(150, 450); /* both limits have to be reached: the farther one counts */
        CHECK(oomslice_watch_margin(&machine, &now) == 400 * MIB);
        now = info(100, 50);
        CHECK(oomslice_watch_margin(&machine, &now) == 0);
}

static void test_pause(void) {
        struct oomslice_machine with_ladders = machine;
        struct oomslice_meminfo now = info(100, 450);

        /* Without ladders only what is left until both limits counts, and that is swap. */
        CHECK(oomslice_watch_pause(&machine, &now, 0) == oomslice_watch_interval(400 * MIB, 0));
        with_ladders.available_ladder = 200 * MIB;
        with_ladders.swap_free_ladder = 450 * MIB;
        CHECK(oomslice_watch_pause(&with_ladders, &now, 0) == 10000);
        now = info(140, 450);
        CHECK(oomslice_watch_pause(&with_ladders, &now, 0) == 10000);
        now = info(180, 450); /* on the way there, as often as towards a limit */
        CHECK(oomslice_watch_pause(&with_ladders, &now, 0) == oomslice_watch_interval(80 * MIB, 0));
        now = info(100, 451); /* too much swap for a ladder */
        CHECK(oomslice_watch_pause(&with_ladders, &now, 0) == oomslice_watch_interval(401 * MIB, 0));
        now = info(100, 51); /* the end is nearer than the next look for a ladder would be */
        CHECK(oomslice_watch_pause(&with_ladders, &now, 0) == 1000);
}

static void test_floor(void) {
        struct oomslice_machine without_swap = machine;

        /* A quarter of the limits less than there was, but not below half of that of memory. */
        CHECK(oomslice_watch_floor(&machine, 150 * MIB) == UINT64_C(225) * MIB / 2);
        CHECK(oomslice_watch_floor(&machine, 80 * MIB) == 50 * MIB);
        CHECK(oomslice_watch_floor(&machine, 10 * MIB) == 50 * MIB);
        /* On a small machine that is less than what it may use to handle a death. */
        without_swap.swap_free_min = 0;
        CHECK(oomslice_watch_floor(&without_swap, 99 * MIB) == 67 * MIB);
        without_swap.available_min = 200 * MIB;
        CHECK(oomslice_watch_floor(&without_swap, 199 * MIB) == 149 * MIB);
}

static void test_watch(void) {
        struct oomslice_watch watch = {0};
        struct oomslice_meminfo now;

        now = info(1001, 0);
        CHECK(!oomslice_watch_update(&watch, &machine, &now, 1000000) && !watch.active);
        now = info(1000, 0);
        CHECK(!oomslice_watch_update(&watch, &machine, &now, 2000000) && watch.active && watch.fall == 0);
        now = info(800, 0);
        CHECK(!oomslice_watch_update(&watch, &machine, &now, 2100000) && watch.fall == 2000 * MIB);
        now = info(1050, 0); /* a little above the threshold is not yet the end */
        CHECK(!oomslice_watch_update(&watch, &machine, &now, 2200000) && watch.active);
        CHECK(watch.fall < 2000 * MIB && watch.fall > 1000 * MIB);
        now = info(100, 51);
        CHECK(!oomslice_watch_update(&watch, &machine, &now, 2300000));
        now = info(100, 50);
        CHECK(oomslice_watch_update(&watch, &machine, &now, 2400000));
        now = info(1126, 0);
        CHECK(!oomslice_watch_update(&watch, &machine, &now, 2500000) && !watch.active);
        /* A fall from one step to the other side of both limits is short at once. */
        now = info(10, 0);
        CHECK(oomslice_watch_update(&watch, &machine, &now, 2600000) && watch.active && watch.fall == 0);
}

static void test_meminfo(void) {
        struct oomslice_meminfo now = {0};

        CHECK(oomslice_meminfo_parse(
                      "MemTotal:       16 kB\nMemFree: 1 kB\nMemAvailable:    8 kB\nSwapTotal: 4 kB\n"
                      "SwapFree:  2 kB\n",
                      &now) == 0);
        CHECK(now.total == 16384 && now.available == 8192 && now.swap_total == 4096 && now.swap_free == 2048);
        CHECK(now.swap_cached == 0);
        CHECK(oomslice_meminfo_parse("MemTotal: 16 kB\nMemAvailable: 8 kB\nSwapCached: 3 kB\n", &now) == 0);
        CHECK(now.swap_cached == 3072);
        CHECK(oomslice_meminfo_parse("MemTotal: 16 kB\nMemAvailable: 0 kB\n", &now) == 0);
        CHECK(now.available == 0 && now.swap_free == 0);
        /* Nothing where a figure should be must never look like no memory. */
        now.available = 7;
        CHECK(oomslice_meminfo_parse("", &now) == -EBADMSG && now.available == 7);
        CHECK(oomslice_meminfo_parse("MemTotal: 16 kB\nXMemAvailable: 1 kB\n", &now) == -EBADMSG);
        CHECK(oomslice_meminfo_parse("MemAvailable: 1 kB\n", &now) == -EBADMSG);
        CHECK(oomslice_meminfo_read(-1, &now) == -EBADF && now.available == 7);
}

int main(void) {
        test_interval();
        test_margin();
        test_pause();
        test_floor();
        test_watch();
        test_meminfo();
        return 0;
}
