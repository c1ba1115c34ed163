/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hold THREAD NUMBER: lets a thread run until it enters the system call of that number, keeps it there, as a lock that
 * is never released would, and says so. When this ends the thread goes on. The other threads of its process are left alone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what) {
        perror(what);
        exit(1);
}

int main(int argc, char **argv) {
        struct __ptrace_syscall_info info;
        pid_t thread = argc == 3 ? atoi(argv[1]) : 0;
        unsigned long wanted = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
        int status;

        if (thread <= 0) {
                fputs("usage: hold THREAD NUMBER\n", stderr);
                return 2;
        }
        if (ptrace(PTRACE_SEIZE, thread, 0, PTRACE_O_TRACESYSGOOD) < 0 || ptrace(PTRACE_INTERRUPT, thread, 0, 0) < 0)
                fail("cannot trace it");
        for (;;) {
                if (waitpid(thread, &status, __WALL) < 0 || !WIFSTOPPED(status))
                        fail("it has ended");
                if (WSTOPSIG(status) == (SIGTRAP | 0x80) &&
                    ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(info), &info) > 0 &&
                    info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == wanted)
                        break;
                if (ptrace(PTRACE_SYSCALL, thread, 0, 0) < 0)
                        fail("cannot let it run");
        }
        puts("held");
        fflush(stdout);
        for (;;)
                pause();
}
