/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the reserve. Taking it faults pages in, which may wait for reclaim: a thread of normal priority does that,
 * only while memory is plentiful. Giving it back is one madvise() by whoever decides; it frees pages, and must wait
 * for nobody:
 *
 * - It takes the lock of the address space for reading. The writers of that lock are plans that are taken (by the
 *   deciding thread itself) and a reserve that changes its size, which frees or locks nothing while it holds the
 *   lock. The filling is page faults, which are readers too, however long one of them waits for memory.
 * - The addresses stay the same for good, so a late madvise() never hits the memory of somebody else.
 * - The locks on the range stay as well (MADV_DONTNEED_LOCKED, since Linux 5.18, 9457056ac426). Before that it takes
 *   munlock(), which writes; such a kernel gets its memory by that way, a little later at the worst.
 *
 * To free a MiB of 4 KiB pages takes some 0.1 ms, so 64 MiB would put the kill off by 8 ms. Hence in two parts: what
 * the kernel may need to open files and read lists goes when the decision begins; the rest when the signal is out,
 * in time for the victim's own end, for which the memory is meant.
 */
#define _GNU_SOURCE
#include "reserve.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "lock.h"
#include "meminfo.h"
#include "moment.h"
#include "thread.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* Sanitizers need more. */
#ifndef OOMSLICE_RESERVE_STACK
#define OOMSLICE_RESERVE_STACK 16384
#endif

#define STEP (UINT64_C(1) << 20)
#define FIRST (UINT64_C(1) << 20)
#define CALM_US UINT64_C(5000000)

static _Alignas(OOMSLICE_LOCK_PAGE) char stack[OOMSLICE_RESERVE_STACK];
static char *base; /* NULL: no addresses, no reserve */
static uint64_t space;
static int meminfo = -1, wake_fd = -1;

/* Set by the deciding thread, read by the other. */
static atomic_uint_least64_t planned, watch_limit, ready_us;
/* Counts the decisions: whoever is filling stops when it changes. */
static atomic_uint gives;
/* The first `held` bytes are taken. Grows before the pages are touched, so that a decision misses none. */
static atomic_uint_least64_t held;
/* The first `locked` bytes are usable and locked as they come: the taking thread's, others only read it. */
static atomic_uint_least64_t locked;
static atomic_bool idle;
static bool opened;          /* the deciding thread's: the first piece has gone */
static uint64_t restless_us; /* the last turn that was not calm */

/* More than a quarter of the machine is a mistake, and none at all is better than a part of it. */
static uint64_t target(void) {
        uint64_t size = atomic_load(&planned);

        return base && size <= space ? size : 0;
}

/* Gives the pages back and keeps the addresses. */
static void give_pages(uint64_t from, uint64_t size) {
        if (size == 0 || madvise(base + from, size, MADV_DONTNEED_LOCKED) == 0 || errno != EINVAL)
                return;
        (void)munlock(base + from, size);
        (void)madvise(base + from, size, MADV_DONTNEED);
}

static void give(uint64_t limit) {
        uint64_t have = atomic_load(&held), part;

        atomic_fetch_add(&gives, 1);
        do
                part = have < limit ? have : limit;
        while (!atomic_compare_exchange_weak(&held, &have, have - part));
        give_pages(have - part, part);
}

void oomslice_reserve_open(void) {
        if (!opened)
                give(FIRST);
        opened = true;
}

void oomslice_reserve_give(void) {
        give(UINT64_MAX);
}

/* Makes `size` bytes of the addresses usable, or fewer. Nothing is taken by it. False: refused by the kernel. */
static bool resize(uint64_t size) {
        uint64_t have = atomic_load(&locked);

        if (size > have) {
                /* In this order: a range that becomes writable while it is locked at once would be filled at once. */
                if (mlock2(base, size, MLOCK_ONFAULT) < 0)
                        return false;
                atomic_store(&locked, size);
                return mprotect(base, size, PROT_READ | PROT_WRITE) == 0; /* ENOMEM: overcommit_memory=2 */
        }
        if (size < have) {
                give_pages(size, have - size);
                (void)munlock(base + size, have - size);
                atomic_store(&locked, size);
        }
        return true;
}

static bool is_plentiful(uint64_t wanted) {
        struct oomslice_meminfo info;

        return oomslice_meminfo_read(meminfo, &info) == 0 &&
               info.available > atomic_load(&watch_limit) + (wanted - atomic_load(&held));
}

/* Takes the next piece. False: not now. */
static bool take_step(uint64_t wanted, unsigned seen) {
        uint64_t at = atomic_load(&held), end = at + STEP < wanted ? at + STEP : wanted;

        if (!is_plentiful(wanted) || !atomic_compare_exchange_strong(&held, &at, end))
                return false;
        for (uint64_t page = at; page < end && atomic_load(&gives) == seen; page += OOMSLICE_LOCK_PAGE)
                ((volatile char *)base)[page] = 1;
        if (atomic_load(&gives) == seen)
                return true;
        /* A decision came in between. It has given back what it saw; these may have been touched after that. */
        give_pages(at, end - at);
        return false;
}

static void take(void) {
        unsigned seen = atomic_load(&gives);
        uint64_t wanted, have, ready, now = oomslice_moment_now();

        while ((ready = atomic_load(&ready_us)) > now) {
                const struct timespec pause = {
                        .tv_sec = (time_t)((ready - now) / 1000000),
                        .tv_nsec = (long)((ready - now) % 1000000 * 1000),
                };

                (void)nanosleep(&pause, NULL);
                now = oomslice_moment_now();
        }
        wanted = target();
        have = atomic_load(&held);
        if (atomic_load(&gives) != seen ||
            (have > wanted && !atomic_compare_exchange_strong(&held, &have, wanted)) || !resize(wanted))
                return;
        while (atomic_load(&held) < wanted && take_step(wanted, seen))
                continue;
}

static void *run(void *unused) {
        uint64_t count;

        (void)unused;
        for (;;) {
                atomic_store(&idle, true);
                if (read(wake_fd, &count, sizeof(count)) < 0) {
                        if (errno == EINTR)
                                continue;
                        return NULL;
                }
                atomic_store(&idle, false);
                take();
        }
}

int oomslice_reserve_start(int meminfo_fd) {
        meminfo = meminfo_fd;
        wake_fd = eventfd(0, EFD_CLOEXEC);
        if (wake_fd < 0)
                return -errno;
        return oomslice_thread_start(NULL, stack, sizeof(stack), run, NULL);
}

int oomslice_reserve_arm(void) {
        struct oomslice_meminfo info;
        void *map;
        int r;

        r = oomslice_meminfo_read(meminfo, &info);
        if (r < 0)
                return r;
        /* Addresses without access cost nothing. */
        space = info.total / 4 / OOMSLICE_LOCK_PAGE * OOMSLICE_LOCK_PAGE;
        map = mmap(NULL, space, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED)
                return -errno;
        (void)munlock(map, space); /* MCL_FUTURE has counted it as locked */
        base = map;
        return 0;
}

void oomslice_reserve_plan(uint64_t size, uint64_t available_watch) {
        atomic_store(&watch_limit, available_watch);
        atomic_store(&planned, size / OOMSLICE_LOCK_PAGE * OOMSLICE_LOCK_PAGE);
}

void oomslice_reserve_turn(uint64_t now_us, bool calm) {
        static const uint64_t one = 1;

        if (!calm) {
                restless_us = now_us;
                return;
        }
        if (atomic_load(&held) == target() || !atomic_load(&idle))
                return;
        opened = false;
        atomic_store(&ready_us, restless_us == 0 ? 0 : restless_us + CALM_US);
        atomic_store(&idle, false); /* until it has seen this one, one is enough */
        (void)!write(wake_fd, &one, sizeof(one));
}

uint64_t oomslice_reserve_held(void) {
        return atomic_load(&held);
}

uint64_t oomslice_reserve_locked(void) {
        return atomic_load(&locked);
}
