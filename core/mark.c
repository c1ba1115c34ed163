/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the two attributes. Setting one allocates memory in the kernel, in the moment when there is none, so the
 * deciding thread never does it: it has another thread do it and looks for its end for a few milliseconds. A thread that
 * does not come back is left to itself, and kills go on without marks.
 */
#define _GNU_SOURCE
#include "mark.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "moment.h"
#include "number.h"
#include "thread.h"

/* Sanitizers need more. */
#ifndef OOMSLICE_REAPER_STACK
#define OOMSLICE_REAPER_STACK 16384
#endif

#define PATIENCE_US UINT64_C(5000)
#define LOOK_NS 50000

enum state { FREE, GIVEN };

static struct {
        atomic_uint state; /* GIVEN by the deciding thread, FREE by the other when it is done */
        bool written;
        bool after;
        int fd;
        uint32_t processes;
} job;
static _Alignas(4096) char stack[OOMSLICE_REAPER_STACK];
static pthread_t thread;
static bool started;
static int wake_fd = -1;

static bool add(int fd, const char *name, uint64_t amount) {
        char text[OOMSLICE_NUMBER_SIZE];
        uint64_t value = 0;
        ssize_t n;

        n = fgetxattr(fd, name, text, sizeof(text));
        if (n < 0 && errno != ENODATA)
                return false;
        for (ssize_t i = 0; i < n; i++) {
                /* Whoever owns a delegated cgroup may have written anything. */
                if (text[i] < '0' || text[i] > '9' || value > UINT32_MAX)
                        return false;
                value = value * 10 + (uint64_t)(text[i] - '0');
        }
        return fsetxattr(fd, name, text, oomslice_number_format(text, value + amount), 0) == 0;
}

static void *run(void *unused) {
        uint64_t one;

        (void)unused;
        for (;;) {
                if (read(wake_fd, &one, sizeof(one)) < 0) {
                        if (errno == EINTR)
                                continue;
                        return NULL;
                }
                if (atomic_load(&job.state) != GIVEN)
                        continue;
                job.written = job.after ? add(job.fd, "user.oomd_kill", job.processes)
                                        : add(job.fd, "user.oomd_ooms", 1);
                close(job.fd);
                atomic_store(&job.state, FREE);
        }
}

int oomslice_mark_start(void) {
        int r;

        wake_fd = eventfd(0, EFD_CLOEXEC);
        if (wake_fd < 0)
                return -errno;
        r = oomslice_thread_start(&thread, stack, sizeof(stack), run, NULL);
        started = r == 0;
        return r;
}

int oomslice_mark_arm(int priority) {
        const struct sched_param parameters = {.sched_priority = priority};

        return started ? -pthread_setschedparam(thread, SCHED_FIFO, &parameters) : 0;
}

/* Waits until the thread has nothing to do. False: it takes too long. */
static bool is_free_soon(void) {
        const struct timespec pause = {.tv_nsec = LOOK_NS};
        uint64_t end_us = oomslice_moment_now() + PATIENCE_US;

        while (atomic_load(&job.state) != FREE) {
                if (oomslice_moment_now() >= end_us)
                        return false;
                (void)nanosleep(&pause, NULL);
        }
        return true;
}

static bool give(int directory_fd) {
        uint64_t one = 1;

        job.fd = fcntl(directory_fd, F_DUPFD_CLOEXEC, 0);
        if (job.fd < 0)
                return false;
        atomic_store(&job.state, GIVEN);
        /* Cannot fail: the counter of an eventfd that is read each time never fills up. */
        (void)!write(wake_fd, &one, sizeof(one));
        return true;
}

bool oomslice_mark_before(int directory_fd) {
        if (!started || directory_fd < 0 || !is_free_soon())
                return false;
        job.after = false;
        return give(directory_fd) && is_free_soon() && job.written;
}

void oomslice_mark_after(int directory_fd, uint32_t processes) {
        if (!started || directory_fd < 0 || processes == 0 || atomic_load(&job.state) != FREE)
                return;
        job.after = true;
        job.processes = processes;
        (void)give(directory_fd);
}
