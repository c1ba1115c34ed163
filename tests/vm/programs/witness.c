/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * witness SECONDS CALM GO ROUNDS CGROUP...: what the comparison with other daemons is measured with. Samples memory, swap,
 * the kernel's OOM kills and processes and memory of each CGROUP every 10 ms; after one second creates the file GO, which
 * the storm waits for; ends after SECONDS, or CALM seconds after a CGROUP has lost its last process. CALM 0: always
 * SECONDS. Prints all samples then, with the requests that database.c recorded in ROUNDS meanwhile, as lines of JSON.
 *
 * Locked in memory, real-time, and nothing is allocated or printed while it samples. A second process, locked as well,
 * says every half second how things stand: if even that is not heard any more, the machine hangs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
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

#include "rounds.h"

enum { SAMPLE_US = 10000, KILLS_EVERY = 5, SAMPLES_MAX = 1 << 15, CGROUPS_MAX = 2, BEFORE_US = 1000000 };

struct sample {
        uint64_t at_us;
        int32_t available_kb, free_kb, swap_free_kb, kills;
        int32_t processes[CGROUPS_MAX], used_kb[CGROUPS_MAX];
};

struct samples {
        volatile uint32_t count;
        struct sample at[SAMPLES_MAX];
};

static struct samples *samples;
static char text[1 << 16];
static int cgroups;

static uint64_t now_us(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

static void wait_until(uint64_t at_us) {
        struct timespec until = { .tv_sec = (time_t) (at_us / 1000000), .tv_nsec = (long) (at_us % 1000000) * 1000 };

        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
                ;
}

/* A file that is gone, as those of a cgroup that was removed, reads as empty. */
static const char *slurp(int fd) {
        ssize_t n = fd < 0 ? 0 : pread(fd, text, sizeof(text) - 1, 0);

        text[n > 0 ? n : 0] = 0;
        return text;
}

static long field(const char *where, const char *name) {
        const char *found = strstr(where, name);

        return found == NULL ? -1 : strtol(found + strlen(name), NULL, 10);
}

static int open_in(const char *directory, const char *name) {
        char path[512];
        int fd;

        snprintf(path, sizeof(path), "%s/%s", directory, name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
                perror(path);
                exit(1);
        }
        return fd;
}

static void be_steady(int priority) {
        struct sched_param parameters = { .sched_priority = priority };

        if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0 || sched_setscheduler(0, SCHED_FIFO, &parameters) < 0) {
                perror("witness: lock or schedule");
                exit(1);
        }
}

static void print_sample(const char *kind, const struct sample *sample) {
        printf("[\"%s\",%llu,%d,%d,%d,%d", kind, (unsigned long long) sample->at_us, sample->available_kb, sample->free_kb,
               sample->swap_free_kb, sample->kills);
        for (int i = 0; i < cgroups; i++)
                printf(",%d,%d", sample->processes[i], sample->used_kb[i]);
        printf("]\n");
}

static pid_t start_herald(void) {
        pid_t pid = fork();

        if (pid != 0)
                return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        be_steady(40);
        for (;;) {
                uint32_t count = samples->count;

                if (count > 0)
                        print_sample("h", &samples->at[count - 1]);
                fflush(stdout);
                wait_until(now_us() + 500000);
        }
}

int main(int argc, char **argv) {
        int meminfo = open("/proc/meminfo", O_RDONLY), vmstat = open("/proc/vmstat", O_RDONLY), rounds_fd, status;
        int processes[CGROUPS_MAX], used[CGROUPS_MAX], seen[CGROUPS_MAX] = { 0 }, started = 0, kills = 0;
        uint64_t begin, due, end, calm, calm_at = 0, go_at = 0, first_round;
        struct rounds *rounds;
        pid_t herald;

        if (argc < 6 || argc - 5 > CGROUPS_MAX) {
                fprintf(stderr, "usage: witness SECONDS CALM GO ROUNDS CGROUP...\n");
                return 2;
        }
        cgroups = argc - 5;
        for (int i = 0; i < cgroups; i++) {
                processes[i] = open_in(argv[i + 5], "pids.current");
                used[i] = open_in(argv[i + 5], "memory.current");
        }
        rounds_fd = open(argv[4], O_RDONLY | O_CLOEXEC);
        rounds = rounds_fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*rounds), PROT_READ, MAP_SHARED, rounds_fd, 0);
        samples = mmap(NULL, sizeof(*samples), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (rounds == MAP_FAILED || samples == MAP_FAILED) {
                perror("witness");
                return 1;
        }
        slurp(meminfo);
        printf("{\"total_kb\":%ld,\"swap_total_kb\":%ld}\n", field(text, "MemTotal:"), field(text, "SwapTotal:"));
        fflush(stdout);
        herald = start_herald();
        be_steady(60);

        first_round = rounds->count;
        begin = due = now_us();
        end = begin + strtoull(argv[1], NULL, 10) * 1000000;
        calm = strtoull(argv[2], NULL, 10) * 1000000;
        for (uint32_t i = 0; i < SAMPLES_MAX && due < end; i++) {
                struct sample *sample = &samples->at[i];

                wait_until(due);
                if (!started && due - begin >= BEFORE_US) {
                        int fd = open(argv[3], O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

                        if (fd < 0)
                                return 1;
                        close(fd);
                        started = 1;
                        go_at = now_us();
                }
                slurp(meminfo);
                sample->available_kb = (int32_t) field(text, "MemAvailable:");
                sample->free_kb = (int32_t) field(text, "MemFree:");
                sample->swap_free_kb = (int32_t) field(text, "SwapFree:");
                if (i % KILLS_EVERY == 0)
                        kills = (int) field(slurp(vmstat), "\noom_kill ");
                sample->kills = kills;
                for (int k = 0; k < cgroups; k++) {
                        sample->processes[k] = (int32_t) strtol(slurp(processes[k]), NULL, 10);
                        sample->used_kb[k] = (int32_t) (strtoll(slurp(used[k]), NULL, 10) / 1024);
                        if (sample->processes[k] > 0)
                                seen[k] = 1;
                        else if (seen[k] && calm > 0 && calm_at == 0)
                                calm_at = now_us();
                }
                sample->at_us = now_us();
                samples->count = i + 1;
                if (calm_at != 0 && sample->at_us > calm_at + calm)
                        break;
                due += SAMPLE_US;
                if (due < sample->at_us)
                        due = sample->at_us;
        }
        end = now_us();
        kill(herald, SIGKILL);
        while (waitpid(herald, &status, 0) < 0 && errno == EINTR)
                ;
        /* Printing megabytes must not hold up the rest of the machine. */
        sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){ 0 });
        printf("\n{\"go_us\":%llu,\"end_us\":%llu}\n", (unsigned long long) go_at, (unsigned long long) end);
        for (uint32_t i = 0; i < samples->count; i++)
                print_sample("s", &samples->at[i]);
        for (uint64_t i = first_round; i < rounds->count; i++) {
                const struct round *round = &rounds->at[i % ROUNDS_MAX];

                if (round->due_us < end)
                        printf("[\"r\",%llu,%llu]\n", (unsigned long long) round->due_us,
                               (unsigned long long) round->late_us);
        }
        printf("{\"complete\":true}\n");
        return 0;
}
