/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From a margin to how many faults are worth a look, and how long nobody has to look; and what is read of /sys. */
#include <errno.h>
#include <stdint.h>

#include "faults.h"
#include "program.h"

#define MIB (UINT64_C(1) << 20)
#define HUGE_PAGE (2 * MIB)

static void test_period(void) {
        for (uint32_t processors = 1; processors <= 256; processors *= 4)
                for (uint64_t bytes = 4096; bytes <= HUGE_PAGE; bytes *= 8) {
                        uint64_t before = 0;

                        for (uint64_t margin = 0; margin < 65536 * MIB; margin += 97 * MIB) {
                                uint64_t period = oomslice_faults_period(margin, processors, bytes);

                                CHECK(period >= 16 && (period & (period - 1)) == 0);
                                CHECK(period >= before); /* the more there is, the more may happen */
                                /* When the first processor says so, half of the margin is left whatever the others did. */
                                CHECK(period == 16 || period * bytes * processors <= margin / 2);
                                CHECK(period == 16 || period * 2 * bytes * processors > margin / 4);
                                before = period;
                        }
                }
        CHECK(oomslice_faults_period(UINT64_MAX, 1, 4096) <= UINT64_C(1) << 60);
}

static void test_pause(void) {
        CHECK(oomslice_faults_pause(0, 8) == 1000);
        CHECK(oomslice_faults_pause(UINT64_MAX, 8) == 1000000);
        CHECK(oomslice_faults_pause(4096 * MIB, 1) == 1000000);
        CHECK(oomslice_faults_pause(4096 * MIB, 4) == 250000);
        CHECK(oomslice_faults_pause(1024 * MIB, 2) == 125000);
}

static void test_bytes(void) {
        CHECK(oomslice_faults_bytes("[always] madvise never\n", HUGE_PAGE) == HUGE_PAGE);
        CHECK(oomslice_faults_bytes("always [madvise] never\n", HUGE_PAGE) == HUGE_PAGE);
        CHECK(oomslice_faults_bytes("always madvise [never]\n", HUGE_PAGE) == 4096);
        CHECK(oomslice_faults_bytes("", HUGE_PAGE) == 4096); /* a kernel without huge pages has no such file */
        CHECK(oomslice_faults_bytes("[always] madvise never\n", 0) == 4096);
}

static uint64_t seen;

static int see(int processor) {
        if (processor > 63)
                return -E2BIG;
        seen |= UINT64_C(1) << processor;
        return 0;
}

static void test_processors(void) {
        CHECK(oomslice_faults_processors("0\n", see) == 1 && seen == 1);
        seen = 0;
        CHECK(oomslice_faults_processors("0-2,5,8-9\n", see) == 6 && seen == 0x327);
        CHECK(oomslice_faults_processors("\n", see) == 0);
        CHECK(oomslice_faults_processors("", see) == 0);
        CHECK(oomslice_faults_processors("0-99\n", see) == -E2BIG); /* what the call says ends it */
        CHECK(oomslice_faults_processors("3-1\n", see) == -EBADMSG);
        CHECK(oomslice_faults_processors("all\n", see) == -EBADMSG);
        CHECK(oomslice_faults_processors("0-99999999999999999999\n", see) == -EBADMSG);
}

int main(void) {
        test_period();
        test_pause();
        test_bytes();
        test_processors();
        return 0;
}
