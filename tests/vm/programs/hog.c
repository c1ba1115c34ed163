/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hog RATE MAX [CHILDREN [huge]]: grows anonymous memory by RATE MiB/s (0: as fast as it can) up to MAX MiB, then keeps it.
 * With CHILDREN (0: none), RATE and MAX are shared out among that many processes. With "huge" it asks for huge pages,
 * which is the fastest way to use up memory. Every page holds something of its own, so none can be shared or dropped.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, BURST = 256 * 1024 };

static double now(void) {
        struct timespec time;

        clock_gettime(CLOCK_MONOTONIC, &time);
        return (double) time.tv_sec + (double) time.tv_nsec / 1e9;
}

static void grow(double rate, size_t max, int huge) {
        uint64_t seed = (uint64_t) getpid() * 0x9e3779b97f4a7c15u + 1;
        double start = now();
        char *memory = mmap(NULL, max, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (memory == MAP_FAILED) {
                perror("mmap");
                exit(1);
        }
        if (huge && madvise(memory, max, MADV_HUGEPAGE) < 0)
                perror("madvise");
        for (size_t done = 0; done < max;) {
                size_t end = done + BURST < max ? done + BURST : max;

                for (; done < end; done += PAGE) {
                        uint64_t *page = (uint64_t *) (memory + done);

                        for (size_t i = 0; i < PAGE / sizeof(*page); i += 128) {
                                seed ^= seed << 13;
                                seed ^= seed >> 7;
                                seed ^= seed << 17;
                                page[i] = seed;
                        }
                }
                if (rate > 0) {
                        double ahead = (double) done / rate - (now() - start);

                        if (ahead > 0.001) {
                                struct timespec pause = { .tv_sec = (time_t) ahead,
                                                          .tv_nsec = (long) ((ahead - (double) (time_t) ahead) * 1e9) };
                                nanosleep(&pause, NULL);
                        }
                }
        }
        for (;;)
                pause();
}

int main(int argc, char **argv) {
        double rate;
        size_t max;
        int children, huge;

        if (argc < 3) {
                fprintf(stderr, "usage: hog RATE_MIB_S MAX_MIB [CHILDREN]\n");
                return 2;
        }
        rate = atof(argv[1]) * (1 << 20);
        max = strtoull(argv[2], NULL, 10) << 20;
        children = argc > 3 ? atoi(argv[3]) : 0;
        huge = argc > 4;
        for (int i = 0; i < children; i++)
                if (fork() == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        grow(rate / children, max / (size_t) children, huge);
                }
        if (children == 0)
                grow(rate, max, huge);
        for (;;)
                pause();
}
