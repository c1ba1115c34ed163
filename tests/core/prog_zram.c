/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What free swap in compressed memory is worth: by what was swapped out last, of devices in a directory like /sys/block. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"
#include "zram.h"

#define MIB (UINT64_C(1) << 20)
#define SECOND UINT64_C(1000000)

static char directory[] = "/tmp/oomslice-zram-XXXXXX";
static int block;

static void put(const char *path, const char *text) {
        int fd = openat(block, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
        close(fd);
}

/* The file as the kernel writes it, with `taken` as the third number. */
static void store(const char *path, uint64_t swapped, uint64_t taken) {
        char text[128];

        snprintf(text, sizeof(text), " %llu %llu %llu        0 %llu        0        0        0        0\n",
                 (unsigned long long)(swapped * MIB), (unsigned long long)(taken * MIB - 1),
                 (unsigned long long)(taken * MIB), (unsigned long long)(taken * MIB));
        put(path, text);
}

static uint64_t look(uint64_t swap_total, uint64_t swap_free, uint64_t now_us) {
        const struct oomslice_meminfo info = {.swap_total = swap_total * MIB, .swap_free = swap_free * MIB};

        return oomslice_zram_look(&info, now_us) / MIB;
}

static void test_lost(void) {
        const struct oomslice_zram_stored none = {0}, before = {100 * MIB, 30 * MIB};

        CHECK(oomslice_zram_lost(500 * MIB, &none, &none) == 0);
        CHECK(oomslice_zram_lost(500 * MIB, &before, &(struct oomslice_zram_stored){200 * MIB, 130 * MIB}) ==
              500 * MIB);
        CHECK(oomslice_zram_lost(500 * MIB, &before, &(struct oomslice_zram_stored){200 * MIB, 140 * MIB}) ==
              500 * MIB);
        CHECK(oomslice_zram_lost(500 * MIB, &before, &(struct oomslice_zram_stored){200 * MIB, 20 * MIB}) ==
              0);
        /* A quarter of it is kept, a page more or less for each of them. */
        CHECK(oomslice_zram_lost(400 * MIB, &before, &(struct oomslice_zram_stored){200 * MIB, 55 * MIB}) /
                      MIB ==
              99);
        CHECK(oomslice_zram_lost(UINT64_C(1) << 43, &none,
                                 &(struct oomslice_zram_stored){UINT64_C(1) << 42, UINT64_C(1) << 41}) >>
                      42 ==
              0);
}

static void test_devices(void) {
        int swaps;

        CHECK(mkdtemp(directory));
        block = open(directory, O_RDONLY | O_DIRECTORY);
        CHECK(block >= 0 && mkdirat(block, "zram0", 0700) == 0 && mkdirat(block, "zram1", 0700) == 0);
        put("zram0/disksize", "536870912\n");
        put("zram1/disksize", "536870912\n");
        put("swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/zram1      partition\t524284\t0\t100\n");
        store("zram0/mm_stat", 400, 400); /* a file system */
        store("zram1/mm_stat", 100, 33);
        swaps = openat(block, "swaps", O_RDONLY);

        oomslice_zram_init(-1, -1);
        CHECK(look(600, 600, SECOND) == 0);
        CHECK(!oomslice_zram_is_unproven());
        oomslice_zram_init(block, swaps);
        CHECK(look(512, 412, 100 * SECOND) == 0);
        CHECK(!oomslice_zram_is_vain());
        CHECK(oomslice_zram_is_unproven());
        /* Too little came to judge by, and then enough, which gained nothing. */
        store("zram1/mm_stat", 101, 34);
        CHECK(look(512, 411, 101 * SECOND) == 0);
        CHECK(oomslice_zram_is_unproven());
        store("zram1/mm_stat", 132, 66);
        CHECK(look(512, 380, 102 * SECOND) == 380);
        CHECK(oomslice_zram_last() / MIB == 380);
        CHECK(oomslice_zram_is_vain());
        CHECK(!oomslice_zram_is_unproven());
        /* Never more than there is free, and not read again at once. */
        CHECK(look(512, 300, 102 * SECOND + 1) == 300);
        /* What comes now can be compressed. */
        store("zram1/mm_stat", 232, 76);
        CHECK(look(512, 280, 103 * SECOND) >= 24 && oomslice_zram_last() / MIB <= 28);
        CHECK(!oomslice_zram_is_vain());
        CHECK(!oomslice_zram_is_unproven());
        /* Most of what is free is on a disk. */
        store("zram1/mm_stat", 262, 106);
        CHECK(look(512, 250, 103 * SECOND + 10000) == 250 && oomslice_zram_is_vain());
        CHECK(look(512, 501, 103 * SECOND + 20000) == 250 && !oomslice_zram_is_vain());
        /* Then nothing again, until whoever it was is gone. */
        store("zram1/mm_stat", 332, 176);
        CHECK(look(512, 180, 104 * SECOND) == 180);
        store("zram1/mm_stat", 50, 20);
        CHECK(look(512, 462, 105 * SECOND) == 0);
        CHECK(oomslice_zram_is_unproven());
        /* Another shortage begins without a judgement. */
        store("zram1/mm_stat", 80, 50);
        CHECK(look(512, 432, 106 * SECOND) == 432);
        CHECK(look(512, 432, 200 * SECOND) == 0);
        CHECK(oomslice_zram_is_unproven());
        /* Nor is it worth a question how much of next to nothing would be gained. */
        store("zram1/mm_stat", 510, 480);
        CHECK(look(512, 2, 300 * SECOND) == 0);
        CHECK(!oomslice_zram_is_unproven());
        /* It is no swap any more. */
        put("swaps", "Filename\tType\tSize\tUsed\tPriority\n");
        store("zram1/mm_stat", 180, 150);
        CHECK(look(1024, 1024, 301 * SECOND) == 0);
        CHECK(!oomslice_zram_is_unproven() && !oomslice_zram_is_vain());
}

static void remove_all(void) {
        static const char *const files[] = {"zram0/disksize", "zram1/disksize", "zram0/mm_stat",
                                            "zram1/mm_stat", "swaps"};

        for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
                CHECK(unlinkat(block, files[i], 0) == 0);
        CHECK(unlinkat(block, "zram0", AT_REMOVEDIR) == 0 && unlinkat(block, "zram1", AT_REMOVEDIR) == 0);
        CHECK(rmdir(directory) == 0);
}

int main(void) {
        test_lost();
        test_devices();
        remove_all();
        return 0;
}
