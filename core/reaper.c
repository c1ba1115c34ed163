/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns process_mrelease and the threads that call it. The deciding thread never reaps: it has real-time priority
 * and would keep others from a processor for the whole of it (Android's lmkd learnt that, 0431b65). The threads get
 * one as well only when a victim does not get on without: its own end is not in real time either. The queue has
 * one writer, needs no lock, and if it is full the pidfd is closed: reaping only hastens what happens anyway.
 */
#define _GNU_SOURCE
#include "reaper.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "kill.h"
#include "thread.h"

/* Sanitizers need more. */
#ifndef OOMSLICE_REAPER_STACK
#define OOMSLICE_REAPER_STACK 16384
#endif

enum { RETRIES = 5 };

static _Alignas(4096) char stacks[OOMSLICE_REAPER_THREADS][OOMSLICE_REAPER_STACK];
static struct {
        atomic_bool full; /* set by the writer, cleared by the thread that has copied the entry */
        int pidfd;
        uint32_t serial;
} queue[OOMSLICE_REAPER_QUEUE];
static atomic_uint popped;
static uint32_t pushed; /* the deciding thread's alone */
static atomic_uint counters[OOMSLICE_REAPER_COUNTERS];
static int wake_fd = -1;
static pthread_t threads[OOMSLICE_REAPER_THREADS];
static int threads_count;
static bool hurried;

static void reap(int pidfd, uint32_t serial) {
        static const struct timespec pause = {.tv_nsec = 2000000};

        for (int i = 0; i < RETRIES; i++) {
                int r = oomslice_process_mrelease(pidfd);

                if (r == 0)
                        atomic_fetch_add(&counters[serial % OOMSLICE_REAPER_COUNTERS], 1);
                /* EAGAIN: someone holds the address space's lock. EINVAL may mean that a thread of it has not yet
                 * seen its SIGKILL. Anything else (ESRCH above all) will not change. */
                if (r != -EAGAIN && r != -EINVAL)
                        break;
                (void)nanosleep(&pause, NULL);
        }
        close(pidfd);
}

static void *run(void *unused) {
        (void)unused;
        for (;;) {
                uint64_t one;
                uint32_t at, serial;
                int pidfd;

                /* EFD_SEMAPHORE: one entry for each successful read. Any other answer means the descriptor is no
                 * longer there, and with it the reason to live. */
                if (read(wake_fd, &one, sizeof(one)) < 0) {
                        if (errno == EINTR)
                                continue;
                        return NULL;
                }
                at = atomic_fetch_add(&popped, 1) % OOMSLICE_REAPER_QUEUE;
                pidfd = queue[at].pidfd;
                serial = queue[at].serial;
                atomic_store(&queue[at].full, false);
                reap(pidfd, serial);
        }
}

int oomslice_reaper_start(void) {
        int r = 0;

        wake_fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
        if (wake_fd < 0)
                return -errno;
        for (int i = 0; i < OOMSLICE_REAPER_THREADS && r == 0; i++) {
                r = oomslice_thread_start(&threads[i], stacks[i], sizeof(stacks[i]), run, NULL);
                if (r == 0)
                        threads_count++;
        }
        return r;
}

void oomslice_reaper_push(int pidfd, uint32_t serial) {
        uint32_t at = pushed % OOMSLICE_REAPER_QUEUE;
        uint64_t one = 1;

        if (wake_fd < 0 || atomic_load(&queue[at].full)) {
                close(pidfd);
                return;
        }
        queue[at].pidfd = pidfd;
        queue[at].serial = serial;
        atomic_store(&queue[at].full, true);
        pushed++;
        /* Cannot block: the counter would have to reach 2^64. */
        (void)!write(wake_fd, &one, sizeof(one));
}

void oomslice_reaper_hurry(bool wanted) {
        const struct sched_param priority = {.sched_priority = wanted ? OOMSLICE_REAPER_HURRIED : 0};

        if (wanted == hurried)
                return;
        hurried = wanted;
        /* Refused where the deciding thread was refused its own: then everybody goes by turns. */
        for (int i = 0; i < threads_count; i++)
                (void)pthread_setschedparam(threads[i], wanted ? SCHED_FIFO : SCHED_OTHER, &priority);
}

void oomslice_reaper_count_start(uint32_t serial) {
        atomic_store(&counters[serial % OOMSLICE_REAPER_COUNTERS], 0);
}

uint32_t oomslice_reaper_count(uint32_t serial) {
        return atomic_load(&counters[serial % OOMSLICE_REAPER_COUNTERS]);
}
