/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns what free swap is worth where that is memory itself, compressed (zram). What is swapped out there takes memory again:
 * a third of its size mostly, but all of it if it cannot be compressed. Then a machine is out of memory while most of its
 * swap is free. So of the free swap of such a device that part is taken off which what was swapped out last has not gained.
 *
 * A device is asked while memory is short only, and only once it holds enough to judge by. Which devices are swap is looked
 * up when the size of all swap has changed, or one of them is gone: there may be another of the same name and size by now.
 * mm_stat is that of the kernel's zram documentation: the first number is the size of what is stored, the third the memory
 * that it takes.
 */
#define _GNU_SOURCE
#include "zram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "file.h"

enum {
        DEVICES_MAX = 8,
        LOOK_US = 5000,
        ANEW_US = 10000000,
};

#define JUDGED (UINT64_C(2) << 20) /* bytes swapped out that say something of what is to come */
#define UNIT 4096

static struct device {
        int stat; /* -1: none */
        uint64_t size;
        uint64_t share; /* what was lost of `UNIT` bytes last */
        bool judged;    /* else `share` is a guess */
        struct oomslice_zram_stored before;
} devices[DEVICES_MAX];
static int block = -1, swaps = -1;
static uint64_t known_total, looked_us;
static bool unproven, vain;
static atomic_uint_least64_t last;

void oomslice_zram_init(int block_fd, int swaps_fd) {
        block = block_fd;
        swaps = swaps_fd;
        for (int i = 0; i < DEVICES_MAX; i++)
                devices[i].stat = -1;
}

uint64_t oomslice_zram_lost(uint64_t free, const struct oomslice_zram_stored *before,
                            const struct oomslice_zram_stored *now) {
        uint64_t swapped = now->swapped > before->swapped ? now->swapped - before->swapped : 0;
        uint64_t taken = now->taken > before->taken ? now->taken - before->taken : 0;

        if (swapped == 0)
                return 0;
        if (taken >= swapped)
                return free;
        /* Both below 2^44 here: a page is the least that is swapped. */
        return free / UNIT * (taken / UNIT) / (swapped / UNIT + 1) * UNIT;
}

/* "/dev/zram3 " of /proc/swaps, which stands at the start of a line. */
static bool is_swap(const char *text, char digit) {
        char name[] = "/dev/zram? ";

        name[sizeof(name) - 3] = digit;
        return strstr(text, name) != NULL;
}

static int open_below(char digit, const char *file) {
        char path[32] = "zram?/";

        path[4] = digit;
        return openat(block, strcat(path, file), O_RDONLY | O_CLOEXEC);
}

static void open_device(struct device *device, char digit) {
        int size = open_below(digit, "disksize");

        *device = (struct device){.stat = open_below(digit, "mm_stat")};
        if (size < 0 || oomslice_file_number(size, &device->size) < 0)
                device->size = 0;
        if (size >= 0)
                close(size);
}

/* A list that cannot be read, or whose end does not fit, has none: free swap is then what it says. */
static void find_devices(void) {
        char text[4096];
        ssize_t n = oomslice_file_read(swaps, text, sizeof(text));

        for (int i = 0; i < DEVICES_MAX; i++) {
                if (devices[i].stat >= 0)
                        close(devices[i].stat);
                devices[i].stat = -1;
                if (n > 0 && is_swap(text, (char)('0' + i)))
                        open_device(&devices[i], (char)('0' + i));
        }
}

/* 0 or -errno. */
static int read_stored(int fd, struct oomslice_zram_stored *storedp) {
        char text[256];
        const char *at = text;
        ssize_t n = oomslice_file_read(fd, text, sizeof(text));

        if (n < 0)
                return (int)n;
        storedp->swapped = oomslice_file_parse_number(at);
        for (int field = 0; field < 2; field++) {
                at += strspn(at, " ");
                at += strcspn(at, " \n");
        }
        storedp->taken = oomslice_file_parse_number(at);
        return 0;
}

/* What it gains is not known before more is swapped out. */
static void forget(struct device *device, const struct oomslice_zram_stored *now) {
        device->before = *now;
        device->share = 0;
        device->judged = false;
}

static uint64_t lost_of(struct device *device, bool anew) {
        struct oomslice_zram_stored now;
        uint64_t free;
        int r;

        if (device->stat < 0)
                return 0;
        r = read_stored(device->stat, &now);
        if (r == -ENODEV)
                known_total = 0; /* looked up at the next look */
        if (r < 0)
                return 0;
        if (anew)
                forget(device, &now);
        free = device->size > now.swapped ? device->size - now.swapped : 0;
        if (now.swapped + JUDGED < device->before.swapped) {
                forget(device, &now); /* whoever was judged by is gone from it */
        } else if (now.swapped >= device->before.swapped + JUDGED) {
                device->share = oomslice_zram_lost(UNIT * UNIT, &device->before, &now) / UNIT;
                device->before = now;
                device->judged = true;
        }
        if (!device->judged && free >= 2 * JUDGED)
                unproven = true;
        return free / UNIT * device->share;
}

static void measure(uint64_t now_us) {
        /* Another shortage, with other programs perhaps. */
        bool anew = now_us - looked_us > ANEW_US;
        uint64_t sum = 0;

        looked_us = now_us;
        unproven = false;
        for (int i = 0; i < DEVICES_MAX; i++)
                sum += lost_of(&devices[i], anew);
        atomic_store_explicit(&last, sum, memory_order_relaxed);
}

uint64_t oomslice_zram_look(const struct oomslice_meminfo *info, uint64_t now_us) {
        bool other_swap = info->swap_total != known_total;
        uint64_t sum;

        if (other_swap) {
                known_total = info->swap_total;
                find_devices();
        }
        if (other_swap || now_us - looked_us >= LOOK_US)
                measure(now_us);
        sum = oomslice_zram_last();
        vain = info->swap_free > 0 && sum > info->swap_free / 2;
        return sum < info->swap_free ? sum : info->swap_free;
}

bool oomslice_zram_is_unproven(void) {
        return unproven;
}

bool oomslice_zram_is_vain(void) {
        return vain;
}

uint64_t oomslice_zram_last(void) {
        return atomic_load_explicit(&last, memory_order_relaxed);
}
