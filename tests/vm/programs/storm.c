/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * storm GO MODE ...: the ways of using up memory that the comparison with other daemons knows. Waits until the file GO
 * exists. All processes are called "hog", as one would name them to a daemon that chooses by name. What is written is
 * random throughout, so that compressed swap gains nothing by it.
 *
 *   grow RATE PROCESSES    anonymous memory by RATE MiB/s, without end, shared out among children (0: in this process)
 *   static PERCENT         as fast as it can until MemAvailable is down to PERCENT of memory, or, with swap, half of the
 *                          swap is used; then keeps that and never grows again
 *   file PERCENT MIB PATH  fills as "static" does without swap, then four children read MIB of PATH, mapped, at random
 *   tmpfs RATE PATH        writes into the file PATH by RATE MiB/s, without end
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, BURST = 256 * 1024, READERS = 4 };
static const size_t MOST = (size_t) 16 << 30;

static uint64_t seed;

static uint64_t next_random(void) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        return seed;
}

static void fill(char *memory, size_t size) {
        for (size_t i = 0; i < size; i += sizeof(uint64_t))
                *(uint64_t *) (memory + i) = next_random();
}

static double now(void) {
        struct timespec time;

        clock_gettime(CLOCK_MONOTONIC, &time);
        return (double) time.tv_sec + (double) time.tv_nsec / 1e9;
}

static void pause_for(double seconds) {
        struct timespec time = { .tv_sec = (time_t) seconds };

        time.tv_nsec = (long) ((seconds - (double) time.tv_sec) * 1e9);
        nanosleep(&time, NULL);
}

static _Noreturn void stay(void) {
        for (;;)
                pause();
}

static _Noreturn void fail(const char *what) {
        perror(what);
        exit(1);
}

static void sow(void) {
        seed = (uint64_t) getpid() * 0x9e3779b97f4a7c15u + 1;
}

static void be_child(void) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sow();
}

static long field(const char *text, const char *name) {
        const char *found = strstr(text, name);

        return found == NULL ? 0 : strtol(found + strlen(name), NULL, 10);
}

/* Whether "static" has what it wants. */
static int full(int meminfo, long percent, int look_at_swap) {
        char text[4096];
        ssize_t n = pread(meminfo, text, sizeof(text) - 1, 0);

        if (n <= 0)
                fail("meminfo");
        text[n] = 0;
        if (look_at_swap && field(text, "SwapTotal:") > 0)
                return field(text, "SwapFree:") <= field(text, "SwapTotal:") / 2;
        return field(text, "MemAvailable:") <= field(text, "MemTotal:") / 100 * percent;
}

static char *memory_of(size_t size) {
        char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (memory == MAP_FAILED)
                fail("mmap");
        return memory;
}

static _Noreturn void grow(double rate) {
        char *memory = memory_of(MOST);
        double start = now();

        for (size_t done = 0; done < MOST; done += BURST) {
                double ahead = (double) done / rate - (now() - start);

                if (ahead > 0.001)
                        pause_for(ahead);
                fill(memory + done, BURST);
        }
        stay();
}

static void fill_up(long percent, int look_at_swap) {
        int meminfo = open("/proc/meminfo", O_RDONLY);
        char *memory = memory_of(MOST);

        for (size_t done = 0; done < MOST && !full(meminfo, percent, look_at_swap); done += BURST)
                fill(memory + done, BURST);
        close(meminfo);
}

static _Noreturn void read_on(size_t size, const char *path) {
        int fd = open(path, O_RDONLY);
        const volatile char *file = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);

        if (file == MAP_FAILED)
                fail(path);
        madvise((void *) file, size, MADV_RANDOM);
        for (;;)
                (void) file[next_random() % (size / PAGE) * PAGE];
}

static _Noreturn void write_on(double rate, const char *path) {
        static char burst[BURST];
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        double start = now();

        if (fd < 0)
                fail(path);
        for (size_t done = 0;; done += BURST) {
                double ahead = (double) done / rate - (now() - start);

                if (ahead > 0.001)
                        pause_for(ahead);
                fill(burst, BURST);
                if (write(fd, burst, BURST) != BURST)
                        stay(); /* the file system is full */
        }
}

static void start(char **arguments, int count) {
        if (count == 3 && strcmp(arguments[0], "grow") == 0) {
                double rate = atof(arguments[1]) * (1 << 20);
                int processes = atoi(arguments[2]);

                if (processes == 0)
                        grow(rate);
                for (int i = 0; i < processes; i++)
                        if (fork() == 0) {
                                be_child();
                                grow(rate / processes);
                        }
        } else if (count == 2 && strcmp(arguments[0], "static") == 0) {
                fill_up(atol(arguments[1]), 1);
        } else if (count == 4 && strcmp(arguments[0], "file") == 0) {
                fill_up(atol(arguments[1]), 0);
                for (int i = 0; i < READERS; i++)
                        if (fork() == 0) {
                                be_child();
                                read_on(strtoull(arguments[2], NULL, 10) << 20, arguments[3]);
                        }
        } else if (count == 3 && strcmp(arguments[0], "tmpfs") == 0) {
                write_on(atof(arguments[1]) * (1 << 20), arguments[2]);
        } else {
                fprintf(stderr, "storm: no such mode\n");
                exit(2);
        }
}

int main(int argc, char **argv) {
        if (argc < 4) {
                fprintf(stderr, "usage: storm GO MODE ...\n");
                return 2;
        }
        prctl(PR_SET_NAME, "hog");
        sow();
        while (access(argv[1], F_OK) < 0)
                pause_for(0.02);
        start(argv + 2, argc - 2);
        if (wait(NULL) < 0)
                stay(); /* no children: it is this process that holds the memory */
        while (wait(NULL) > 0)
                ;
        return 0;
}
