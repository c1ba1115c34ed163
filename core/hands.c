/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the writes that make the kernel reclaim on the spot: memory.reclaim, and memory.high when it is lowered.
 * The deciding thread must never be inside of one. A hand that does not come back is given up: its job's step
 * is late, and there is another hand; when none is left, such steps are unavailable and the ladder goes on.
 */
#define _GNU_SOURCE
#include "hands.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "thread.h"

/* Sanitizers need more. */
#ifndef OOMSLICE_REAPER_STACK
#define OOMSLICE_REAPER_STACK 16384
#endif

enum state { FREE, GIVEN };

struct hand {
        atomic_uint state;    /* GIVEN by the deciding thread, FREE by the hand when it is done */
        atomic_uint finished; /* number of the last job it has done */
        atomic_int error;
        uint32_t job;
        int fd, wake_fd;
        const char *name; /* of a file in `fd`; NULL: `fd` itself */
        size_t size;
        char text[OOMSLICE_HANDS_TEXT];
};

static _Alignas(4096) char stacks[OOMSLICE_HANDS_COUNT][OOMSLICE_REAPER_STACK];
static struct hand hands[OOMSLICE_HANDS_COUNT];
static uint32_t jobs;
static int started;

/* 0 or an errno. */
static int put(const struct hand *hand) {
        int fd = hand->name ? openat(hand->fd, hand->name, O_WRONLY | O_CLOEXEC) : hand->fd;
        int error = fd < 0 || pwrite(fd, hand->text, hand->size, 0) < 0 ? errno : 0;

        if (hand->name && fd >= 0)
                close(fd);
        return error;
}

static void *run(void *argument) {
        struct hand *hand = argument;

        for (;;) {
                uint64_t one;

                if (read(hand->wake_fd, &one, sizeof(one)) < 0) {
                        if (errno == EINTR)
                                continue;
                        return NULL; /* its descriptor is gone, and with it the reason to live */
                }
                if (atomic_load(&hand->state) != GIVEN)
                        continue;
                atomic_store(&hand->error, put(hand));
                close(hand->fd);
                atomic_store(&hand->finished, hand->job);
                atomic_store(&hand->state, FREE);
        }
}

int oomslice_hands_start(void) {
        for (int i = 0; i < OOMSLICE_HANDS_COUNT; i++) {
                int r;

                hands[i].wake_fd = eventfd(0, EFD_CLOEXEC);
                if (hands[i].wake_fd < 0)
                        return -errno;
                r = oomslice_thread_start(NULL, stacks[i], sizeof(stacks[i]), run, &hands[i]);
                if (r < 0)
                        return r;
                started++;
        }
        return 0;
}

uint32_t oomslice_hands_write_file(int fd, const char *name, const char *text, size_t size) {
        uint64_t one = 1;

        if (fd < 0 || size > OOMSLICE_HANDS_TEXT)
                return 0;
        for (int i = 0; i < started; i++) {
                struct hand *hand = &hands[i];

                if (atomic_load(&hand->state) != FREE)
                        continue;
                hand->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
                if (hand->fd < 0)
                        return 0;
                hand->name = name;
                memcpy(hand->text, text, size);
                hand->size = size;
                hand->job = ++jobs == 0 ? ++jobs : jobs;
                atomic_store(&hand->state, GIVEN);
                /* Cannot fail: the counter of an eventfd that is read each time never fills up. */
                (void)!write(hand->wake_fd, &one, sizeof(one));
                return hand->job;
        }
        return 0;
}

uint32_t oomslice_hands_write(int fd, const char *text, size_t size) {
        return oomslice_hands_write_file(fd, NULL, text, size);
}

bool oomslice_hands_done(uint32_t job, int *errorp) {
        for (int i = 0; i < started; i++)
                if (atomic_load(&hands[i].finished) == job) {
                        *errorp = atomic_load(&hands[i].error);
                        return true;
                }
        return false;
}
