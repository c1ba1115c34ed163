/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * database MIB HOT_MIB FILE: the service that is to be spared. Holds MIB MiB; every 5 ms a request is due that touches 64
 * pages of a hot set of HOT_MIB MiB, takes 64 KiB of new memory, writes to it and gives it back. FILE gets, for each
 * request, when it was due and when it was done: a late one is a stall that a client would have seen. A request that is
 * due while another is being served is not made, so one stall is counted once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "rounds.h"

enum { PAGE = 4096, TOUCHED = 64, FRESH = 64 * 1024 };

static uint64_t now_us(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

static void notify_ready(void) {
        const char *path = getenv("NOTIFY_SOCKET");
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;

        if (path == NULL || strlen(path) >= sizeof(address.sun_path))
                return;
        strcpy(address.sun_path, path);
        if (address.sun_path[0] == '@')
                address.sun_path[0] = 0;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd >= 0) {
                (void) !sendto(fd, "READY=1", 7, 0, (struct sockaddr *) &address,
                               (socklen_t) (sizeof(sa_family_t) + strlen(path)));
                close(fd);
        }
}

static void *map(size_t size, int flags, int fd) {
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

        if (memory == MAP_FAILED) {
                perror("database");
                exit(1);
        }
        return memory;
}

int main(int argc, char **argv) {
        uint64_t seed = 88172645463325252u, due;
        size_t size, hot, position = 0;
        struct rounds *rounds;
        char *memory, *fresh;
        int fd;

        if (argc != 4) {
                fprintf(stderr, "usage: database MIB HOT_MIB FILE\n");
                return 2;
        }
        size = strtoull(argv[1], NULL, 10) << 20;
        hot = strtoull(argv[2], NULL, 10) << 20;
        fd = open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0644);
        if (fd < 0 || ftruncate(fd, sizeof(*rounds)) < 0 || hot == 0 || hot > size) {
                perror("database");
                return 1;
        }
        /* What is measured with must not be what is measured: the records stay in memory. */
        rounds = map(sizeof(*rounds), MAP_SHARED, fd);
        if (mlock(rounds, sizeof(*rounds)) < 0)
                perror("mlock");
        memory = map(size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
        fresh = map(FRESH, MAP_PRIVATE | MAP_ANONYMOUS, -1);
        for (size_t i = 0; i < size; i += sizeof(seed)) {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                *(uint64_t *) (memory + i) = seed;
        }
        notify_ready();
        due = now_us() + ROUND_MS * 1000;
        for (;;) {
                struct timespec until = { .tv_sec = (time_t) (due / 1000000), .tv_nsec = (long) (due % 1000000) * 1000 };
                struct round *round = &rounds->at[rounds->count % ROUNDS_MAX];
                uint64_t done;

                while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
                        ;
                for (int i = 0; i < TOUCHED; i++) {
                        memory[position]++;
                        position = (position + PAGE) % hot;
                }
                for (size_t i = 0; i < FRESH; i += PAGE)
                        fresh[i] = 1;
                madvise(fresh, FRESH, MADV_DONTNEED);
                done = now_us();
                round->due_us = due;
                round->late_us = done - due;
                atomic_thread_fence(memory_order_release);
                rounds->count++;
                due += ROUND_MS * 1000;
                if (due < done)
                        due = done + ROUND_MS * 1000;
        }
}
