/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * glutton pids | files: takes all the process numbers, or all the open files, that there are, and takes at once what
 * becomes free. Nothing of it is memory to speak of.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void nap(void) {
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
}

static void take_pids(void) {
        struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };

        (void) setrlimit(RLIMIT_NPROC, &unlimited);
        for (;;) {
                pid_t pid = fork();

                if (pid == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        for (;;)
                                pause();
                }
                if (pid < 0)
                        nap();
        }
}

static void take_files(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
                limit.rlim_cur = limit.rlim_max;
                (void) setrlimit(RLIMIT_NOFILE, &limit);
        }
        for (;;)
                if (open("/dev/null", O_RDONLY | O_CLOEXEC) < 0)
                        nap();
}

int main(int argc, char **argv) {
        if (argc == 2 && strcmp(argv[1], "pids") == 0)
                take_pids();
        if (argc == 2 && strcmp(argv[1], "files") == 0)
                take_files();
        fprintf(stderr, "usage: glutton pids | files\n");
        return 2;
}
