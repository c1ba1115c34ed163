/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hog [-c CHILDREN] [-a AHEAD] [-w FILE] [-h] RATE MAX: grows anonymous memory by RATE MiB/s (0: as fast as it can) up to
 * MAX MiB, then keeps it. Every page holds something of its own, so none can be shared or dropped.
 *   -c  RATE and MAX are shared out among that many processes
 *   -a  first grows as fast as it can, as long as the machine has more than AHEAD MiB available
 *   -w  goes on growing once FILE is there
 *   -h  asks for huge pages, which is the fastest way to use up memory
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, BURST = 256 * 1024 };

static struct {
        double rate;
        size_t max, ahead;
        const char *file;
        int children, huge;
} wish;

static double now(void) {
        struct timespec time;

        clock_gettime(CLOCK_MONOTONIC, &time);
        return (double) time.tv_sec + (double) time.tv_nsec / 1e9;
}

static void sleep_for(double seconds) {
        struct timespec pause = { .tv_sec = (time_t) seconds,
                                  .tv_nsec = (long) ((seconds - (double) (time_t) seconds) * 1e9) };

        nanosleep(&pause, NULL);
}

static size_t available(int meminfo) {
        char text[1024];
        ssize_t size = pread(meminfo, text, sizeof(text) - 1, 0);
        const char *found;

        text[size > 0 ? size : 0] = 0;
        found = strstr(text, "MemAvailable:");
        return found == NULL ? 0 : strtoull(found + 13, NULL, 10) << 10;
}

static size_t fill(char *memory, size_t done, size_t max) {
        static uint64_t seed;
        size_t end = done + BURST < max ? done + BURST : max;

        if (seed == 0)
                seed = (uint64_t) getpid() * 0x9e3779b97f4a7c15u + 1;
        for (; done < end; done += PAGE) {
                uint64_t *page = (uint64_t *) (memory + done);

                for (size_t i = 0; i < PAGE / sizeof(*page); i += 128) {
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        page[i] = seed;
                }
        }
        return end;
}

static void grow(double rate, size_t max) {
        char *memory = mmap(NULL, max, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        int meminfo = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
        size_t done = 0, before;
        double start;

        if (memory == MAP_FAILED || meminfo < 0) {
                perror("hog");
                exit(1);
        }
        if (wish.huge && madvise(memory, max, MADV_HUGEPAGE) < 0)
                perror("madvise");
        while (wish.ahead > 0 && done < max && available(meminfo) > wish.ahead)
                done = fill(memory, done, max);
        while (wish.file != NULL && access(wish.file, F_OK) < 0)
                sleep_for(0.1);
        start = now();
        before = done;
        while (done < max) {
                double early;

                done = fill(memory, done, max);
                early = rate > 0 ? (double) (done - before) / rate - (now() - start) : 0;
                if (early > 0.001)
                        sleep_for(early);
        }
        for (;;)
                pause();
}

int main(int argc, char **argv) {
        int option;

        while ((option = getopt(argc, argv, "c:a:w:h")) > 0)
                switch (option) {
                case 'c':
                        wish.children = atoi(optarg);
                        break;
                case 'a':
                        wish.ahead = strtoull(optarg, NULL, 10) << 20;
                        break;
                case 'w':
                        wish.file = optarg;
                        break;
                case 'h':
                        wish.huge = 1;
                        break;
                default:
                        return 2;
                }
        if (argc - optind != 2) {
                fprintf(stderr, "usage: hog [-c CHILDREN] [-a AHEAD_MIB] [-w FILE] [-h] RATE_MIB_S MAX_MIB\n");
                return 2;
        }
        wish.rate = atof(argv[optind]) * (1 << 20);
        wish.max = strtoull(argv[optind + 1], NULL, 10) << 20;
        for (int i = 0; i < wish.children; i++)
                if (fork() == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        grow(wish.rate / wish.children, wish.max / (size_t) wish.children);
                }
        if (wish.children == 0)
                grow(wish.rate, wish.max);
        for (;;)
                pause();
}
