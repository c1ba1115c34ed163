/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linked into a test build of oomslice-core with --wrap: the deciding thread gets stuck in a call as a thread can in the
 * kernel, where the test says so, until the test lets it go. The test says it through a file that both map
 * (environment variable OOMSLICE_TEST_STUCK): whether at all, and in which files, by the ends of their paths, each
 * followed by a newline. After a '*' it is for every thread. As in the kernel, other threads then get stuck in the same
 * open file too, be it by another descriptor.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "number.h"

ssize_t __real_pread(int fd, void *data, size_t size, off_t at);
ssize_t __real_pwrite(int fd, const void *data, size_t size, off_t at);
int __real_openat(int directory, const char *path, int flags, ...);

static struct control {
        atomic_uint wanted;
        atomic_uint reached; /* counts */
        char ends[248];      /* NUL-terminated */
} *control;
static atomic_int stuck_fd = -1; /* the open file in which somebody is stuck */

static __attribute__((constructor)) void map(void) {
        const char *path = getenv("OOMSLICE_TEST_STUCK");
        int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

        if (fd < 0)
                return;
        control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
}

static bool is_meant(const char *path) {
        size_t length = strlen(path);

        for (const char *end = control->ends; *end; end = strchr(end, '\n') + 1) {
                bool anyone = *end == '*';
                size_t size = strcspn(end += anyone, "\n");

                if ((anyone || gettid() == getpid()) && length >= size &&
                    strncmp(path + length - size, end, size) == 0)
                        return true;
        }
        return false;
}

static void wait_for_release(void) {
        static const struct timespec pause = {.tv_nsec = 1000000};

        while (atomic_load(&control->wanted))
                nanosleep(&pause, NULL);
}

/* Called by guard.c as well, where both are linked. */
void oomslice_test_get_stuck(const char *path, int fd);

void oomslice_test_get_stuck(const char *path, int fd) {
        if (!control || !atomic_load(&control->wanted) || !is_meant(path))
                return;
        atomic_store(&stuck_fd, fd);
        atomic_fetch_add(&control->reached, 1);
        wait_for_release();
        atomic_store(&stuck_fd, -1);
}

static void get_stuck_in(int fd) {
        char link[64] = "/proc/self/fd/", path[1024];
        int other;
        ssize_t n;

        if (!control || !atomic_load(&control->wanted))
                return;
        other = atomic_load(&stuck_fd);
        if (other >= 0 && syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, fd, other) == 0)
                wait_for_release();
        (void)oomslice_number_format(link + strlen(link), (uint64_t)fd);
        n = readlink(link, path, sizeof(path) - 1);
        path[n < 0 ? 0 : n] = '\0';
        oomslice_test_get_stuck(path, fd);
}

ssize_t __wrap_pread(int fd, void *data, size_t size, off_t at) {
        get_stuck_in(fd);
        return __real_pread(fd, data, size, at);
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t size, off_t at) {
        get_stuck_in(fd);
        return __real_pwrite(fd, data, size, at);
}

__attribute__((weak)) int __wrap_openat(int directory, const char *path, int flags, ...) {
        oomslice_test_get_stuck(path, -1);
        return __real_openat(directory, path, flags);
}
