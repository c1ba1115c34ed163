/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Signals that arrive late: those who have one die while those behind them are being counted. Linked into kill_each.c
 * in place of two of the core's functions, for units of 600 processes; see test_core_kill.py.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kill.h"
#include "processes.h"

int __real_oomslice_pidfd_send_signal(int pidfd, int signal);
int __wrap_oomslice_pidfd_send_signal(int pidfd, int signal);
int __real_oomslice_processes_list(int procs, struct oomslice_processes *processes);
int __wrap_oomslice_processes_list(int procs, struct oomslice_processes *processes);

enum { MAX = 4096 };

static int late[MAX], count, arrived;

static void arrive(int more) {
        for (; more > 0 && arrived < count; more--, arrived++) {
                struct pollfd one = {.fd = late[arrived], .events = POLLIN};

                (void)__real_oomslice_pidfd_send_signal(late[arrived], SIGKILL);
                (void)poll(&one, 1, 10000);
        }
}

int __wrap_oomslice_pidfd_send_signal(int pidfd, int signal) {
        if (signal != SIGKILL || count == MAX)
                return __real_oomslice_pidfd_send_signal(pidfd, signal);
        late[count] = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
        count += late[count] >= 0;
        return 0;
}

int __wrap_oomslice_processes_list(int procs, struct oomslice_processes *processes) {
        static int calls;

        /* One call checks. Then each round has two: who is there, and who still is once the pidfds are open. */
        calls++;
        if (calls == 7) /* the third round's second: of its 88, the last of 600, none is where they were */
                arrive(88);
        if (calls == 11) /* of 512 that are left 256 have gone when the second half is looked at again */
                arrive(256);
        return __real_oomslice_processes_list(procs, processes);
}

__attribute__((constructor)) static void start(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
                limit.rlim_cur = limit.rlim_max; /* each late signal keeps a descriptor */
                (void)setrlimit(RLIMIT_NOFILE, &limit);
        }
}

__attribute__((destructor)) static void end(void) {
        arrive(count);
}
