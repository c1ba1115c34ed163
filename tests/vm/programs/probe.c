/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * probe SECONDS TRIGGER...: how early does a PSI trigger warn? Arms each TRIGGER ("some 2000 500000" on the machine's
 * pressure, or "CPU:GROUP/EVENT", a tracepoint),
 * samples MemAvailable, MemFree and the kernel's OOM kill count every 2 ms, and prints, with times relative to the
 * kernel's first kill: when each trigger fired first, with how much memory left, and when MemAvailable went below some
 * marks. Locked in memory and SCHED_FIFO, as the clock of everyone else stops when the machine stalls.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { TRIGGERS = 16, MARKS = 7 };

/* A tracepoint as a trigger, "0:vmscan/mm_vmscan_kswapd_wake": readable when it was hit on the given processor. */
static int tracepoint(const char *name, int cpu) {
        char path[256], text[32] = { 0 };
        struct perf_event_attr attr = { .type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr), .sample_period = 1,
                                        .sample_type = PERF_SAMPLE_TIME, .wakeup_events = 1 };
        int fd;

        snprintf(path, sizeof(path), "/sys/kernel/tracing/events/%s/id", name);
        fd = open(path, O_RDONLY);
        if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
                return -1;
        close(fd);
        attr.config = strtoull(text, NULL, 10);
        fd = (int) syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
        if (fd >= 0 && mmap(NULL, 2 * 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED)
                return -1;
        return fd;
}

static long long now_us(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static long field(const char *text, const char *name) {
        const char *found = strstr(text, name);

        return found == NULL ? -1 : strtol(found + strlen(name), NULL, 10);
}

static void slurp(int fd, char *text, size_t size) {
        ssize_t n = pread(fd, text, size - 1, 0);

        text[n > 0 ? n : 0] = 0;
}

struct fired {
        long long at;
        long available, free;
};

int main(int argc, char **argv) {
        static char text[32768], vmstat[65536];
        static const int permille[MARKS] = { 250, 100, 50, 40, 20, 10, 5 };
        struct pollfd polled[TRIGGERS];
        struct fired first[TRIGGERS] = { 0 }, mark[MARKS] = { 0 }, killed = { 0 };
        long events[TRIGGERS] = { 0 }, total, kills;
        long long end, worst = 0, last, start;
        struct sched_param priority = { .sched_priority = 50 };
        int meminfo = open("/proc/meminfo", O_RDONLY), stat = open("/proc/vmstat", O_RDONLY), count = argc - 2;

        if (argc < 2 || count > TRIGGERS)
                return 2;
        for (int i = 0; i < count; i++) {
                const char *event = strchr(argv[i + 2], ':');

                if (event != NULL) {
                        polled[i].fd = tracepoint(event + 1, argv[i + 2][0] - '0');
                        polled[i].events = POLLIN;
                        if (polled[i].fd < 0) {
                                perror(argv[i + 2]);
                                return 1;
                        }
                        continue;
                }
                polled[i].fd = open("/proc/pressure/memory", O_RDWR | O_NONBLOCK);
                polled[i].events = POLLPRI;
                if (write(polled[i].fd, argv[i + 2], strlen(argv[i + 2]) + 1) < 0) {
                        perror(argv[i + 2]);
                        return 1;
                }
        }
        if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0 || sched_setscheduler(0, SCHED_FIFO, &priority) < 0)
                perror("lock or schedule");
        slurp(meminfo, text, sizeof(text));
        slurp(stat, vmstat, sizeof(vmstat));
        total = field(text, "MemTotal:");
        kills = field(vmstat, "\noom_kill ");
        printf("armed: total %ld MiB available %ld MiB kills %ld\n", total / 1024, field(text, "MemAvailable:") / 1024, kills);
        fflush(stdout);
        last = start = now_us();
        end = last + atoll(argv[1]) * 1000000;
        while (now_us() < end && killed.at == 0) {
                struct timespec pause = { .tv_nsec = 2000000 };
                long available, free;
                long long at;

                ppoll(polled, (nfds_t) count, &pause, NULL);
                slurp(meminfo, text, sizeof(text));
                slurp(stat, vmstat, sizeof(vmstat));
                at = now_us();
                if (at - last > worst)
                        worst = at - last;
                last = at;
                available = field(text, "MemAvailable:");
                free = field(text, "MemFree:");
                for (int i = 0; i < count; i++)
                        if (polled[i].revents & (POLLPRI | POLLIN)) {
                                events[i]++;
                                if (first[i].at == 0)
                                        first[i] = (struct fired){ at, available, free };
                        }
                for (int i = 0; i < MARKS; i++)
                        if (mark[i].at == 0 && available < total / 1000 * permille[i])
                                mark[i] = (struct fired){ at, available, free };
                if (field(vmstat, "\noom_kill ") > kills)
                        killed = (struct fired){ at, available, free };
                /* With triggers pending ppoll returns at once: keep the sampling interval all the same. */
                nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        }
        if (killed.at == 0) {
                printf("no kill by the kernel\n");
                killed = (struct fired){ now_us(), field(text, "MemAvailable:"), field(text, "MemFree:") };
        }
        printf("kernel kill: %lld ms after start, available %ld MiB free %ld MiB, worst gap of the probe %lld us\n",
               (killed.at - start) / 1000, killed.available / 1024, killed.free / 1024, worst);
        for (int i = 0; i < count; i++)
                if (first[i].at == 0)
                        printf("trigger %-22s never fired\n", argv[i + 2]);
                else
                        printf("trigger %-22s %6.1f ms ahead, available %ld KiB (%.1f%%) free %ld KiB, %ld events\n",
                               argv[i + 2], (double) (killed.at - first[i].at) / 1000, first[i].available,
                               100.0 * (double) first[i].available / (double) total, first[i].free, events[i]);
        for (int i = 0; i < MARKS; i++)
                if (mark[i].at != 0)
                        printf("available below %4.1f%%: %6.1f ms ahead\n", permille[i] / 10.0,
                               (double) (killed.at - mark[i].at) / 1000);
        return 0;
}
