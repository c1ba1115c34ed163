/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the counters of page faults. Anonymous memory grows by faults, and pressure figures stay near zero while it does,
 * until the kernel is at its last reserves. So the kernel counts them: an event of perf for each processor, without a
 * buffer, whose overflow is a signal (SIGIO), which is blocked everywhere and read from a descriptor.
 *
 * Two rules keep the wakeups few, and both come from the margin, the memory above the limit:
 *
 * - The period. Every processor may count up to it before one of them says so, and a fault may bring a huge page. What
 *   all of them could bring by then is half of the margin at the most.
 * - The pause. After a look nobody looks again before half of the margin could be gone at the rate at which all
 *   processors together fill memory. Signals that come meanwhile are one signal, which costs no wakeup: the descriptor
 *   reports once (EPOLLONESHOT). If there was one, the end of the pause is the next look and begins the next pause.
 *
 * So many faults cost one turn for each pause, few cost none. When the watch over MemAvailable has begun all of this
 * stands still. What does not come by faults (tmpfs, the kernel's own) is left to the pressure figures; so are
 * processors that come online after the start.
 */
#define _GNU_SOURCE
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "event.h"
#include "file.h"
#include "moment.h"

enum {
        PROCESSORS_MAX = 1024,
        PERIOD_MIN = 16,
        PAUSE_MIN_US = 1000,
        PAUSE_MAX_US = 1000000,
        PAGE = 4096,
};

/* What one processor clears and faults in, as in watch.c. */
#define FILL_RATE (UINT64_C(2) << 30)
/* So many faults do not happen. */
#define PERIOD_MAX (UINT64_C(1) << 40)

static int counters[PROCESSORS_MAX];
static uint32_t count;
static int epoll = -1, signals = -1;
static uint64_t fault_bytes;
static uint64_t period = PERIOD_MAX;
static bool listening; /* the descriptor will report the next signal */
static uint64_t pause_until_us = OOMSLICE_MOMENT_NEVER;

uint64_t oomslice_faults_period(uint64_t margin, uint32_t processors, uint64_t bytes) {
        uint64_t faults = margin / 2 / bytes / processors, power = PERIOD_MIN;

        while (power <= faults / 2 && power < PERIOD_MAX)
                power *= 2;
        return power;
}

uint64_t oomslice_faults_pause(uint64_t margin, uint32_t processors) {
        uint64_t pause;

        if (margin > UINT64_C(1) << 43) /* would overflow */
                return PAUSE_MAX_US;
        pause = margin * UINT64_C(1000000) / 2 / FILL_RATE / processors;
        if (pause < PAUSE_MIN_US)
                return PAUSE_MIN_US;
        return pause > PAUSE_MAX_US ? PAUSE_MAX_US : pause;
}

uint64_t oomslice_faults_bytes(const char *enabled, uint64_t huge_bytes) {
        /* Also with "madvise": whoever takes memory fast may well have asked for it. */
        if (*enabled == '\0' || strstr(enabled, "[never]") || huge_bytes < PAGE)
                return PAGE;
        return huge_bytes;
}

int oomslice_faults_processors(const char *list, int (*each)(int processor)) {
        int found = 0, r;

        while (*list != '\0' && *list != '\n') {
                uint64_t first, last;

                if (*list < '0' || *list > '9')
                        return -EBADMSG;
                first = last = oomslice_file_parse_number(list);
                list += strspn(list, "0123456789");
                if (*list == '-') {
                        last = oomslice_file_parse_number(++list);
                        list += strspn(list, "0123456789");
                }
                if (last < first || last >= INT32_MAX)
                        return -EBADMSG;
                for (uint64_t processor = first; processor <= last; processor++, found++) {
                        r = each((int)processor);
                        if (r < 0)
                                return r;
                }
                if (*list == ',')
                        list++;
        }
        return found;
}

/* A counter of one processor that signals this process, silent until it is given a period. */
static int open_counter(int processor) {
        struct perf_event_attr attributes = {
                .type = PERF_TYPE_SOFTWARE,
                .size = sizeof(attributes),
                .config = PERF_COUNT_SW_PAGE_FAULTS,
                .sample_period = PERIOD_MAX,
        };
        int fd, r;

        if (count == PROCESSORS_MAX)
                return -E2BIG;
        fd = (int)syscall(SYS_perf_event_open, &attributes, -1, processor, -1, PERF_FLAG_FD_CLOEXEC);
        if (fd < 0)
                return -errno;
        if (fcntl(fd, F_SETOWN, getpid()) < 0 || fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        counters[count++] = fd;
        return 0;
}

static int read_below(int directory, const char *path, char *text, size_t size) {
        int fd, r;

        fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = (int)oomslice_file_read(fd, text, size);
        close(fd);
        return r < 0 ? r : 0;
}

static uint64_t read_fault_bytes(int sys_fd) {
        char enabled[64] = "", huge[32] = "";

        (void)read_below(sys_fd, "kernel/mm/transparent_hugepage/enabled", enabled, sizeof(enabled));
        (void)read_below(sys_fd, "kernel/mm/transparent_hugepage/hpage_pmd_size", huge, sizeof(huge));
        return oomslice_faults_bytes(enabled, oomslice_file_parse_number(huge));
}

static void close_counters(void) {
        while (count > 0)
                close(counters[--count]);
}

int oomslice_faults_open(int epoll_fd, int sys_fd) {
        char online[1024];
        sigset_t set;
        int r;

        sigemptyset(&set);
        sigaddset(&set, SIGIO);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        epoll = epoll_fd;
        fault_bytes = read_fault_bytes(sys_fd);
        r = read_below(sys_fd, "devices/system/cpu/online", online, sizeof(online));
        if (r < 0)
                return r;
        r = oomslice_faults_processors(online, open_counter);
        if (r <= 0)
                goto fail;
        signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (signals >= 0)
                return 0;
        r = -errno;
fail:
        close_counters();
        return r < 0 ? r : -ENODEV;
}

/*
 * A counter goes on with its old period after a change, once; so it is switched off for it. Each call is carried out on
 * the processor concerned: not for a small difference, and not while memory is short.
 */
static void set_period(uint64_t wanted) {
        if (wanted == period || (wanted > period && wanted / 4 < period))
                return;
        period = wanted;
        for (uint32_t i = 0; i < count; i++) {
                /* Cannot fail for a counter that is open, unless its processor is gone. */
                (void)ioctl(counters[i], PERF_EVENT_IOC_DISABLE, 0);
                (void)ioctl(counters[i], PERF_EVENT_IOC_PERIOD, &wanted);
                (void)ioctl(counters[i], PERF_EVENT_IOC_ENABLE, 0);
        }
}

/* True if there was a signal since the last time. */
static bool take_signal(void) {
        struct signalfd_siginfo information;

        return read(signals, &information, sizeof(information)) > 0;
}

static void listen_again(void) {
        const struct oomslice_event event = {OOMSLICE_EVENT_FAULTS, 0, 0};

        listening = oomslice_event_set(epoll, signals, EPOLLIN | EPOLLONESHOT, event) == 0;
}

void oomslice_faults_fired(void) {
        listening = false;
}

void oomslice_faults_turn(uint64_t margin, bool watching, uint64_t now_us) {
        if (count == 0)
                return;
        if (watching) {
                pause_until_us = OOMSLICE_MOMENT_NEVER;
                return;
        }
        if (margin != UINT64_MAX)
                set_period(oomslice_faults_period(margin, count, fault_bytes));
        if (listening || (pause_until_us != OOMSLICE_MOMENT_NEVER && now_us < pause_until_us))
                return;
        if (take_signal()) {
                pause_until_us = now_us + oomslice_faults_pause(margin, count);
                return;
        }
        pause_until_us = OOMSLICE_MOMENT_NEVER;
        listen_again();
}

uint64_t oomslice_faults_next(void) {
        return pause_until_us;
}
