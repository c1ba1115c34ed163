/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the three system calls that act upon a process. glibc 2.36 knows two of them, 2.31 none; syscall() knows
 * all, so no build depends on the C library's age.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kill.h"

/* The same number on every architecture (asm-generic since 5.15), missing from older headers. */
#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif

int oomslice_pidfd_open(int32_t pid) {
        long fd = syscall(SYS_pidfd_open, pid, 0U);

        return fd < 0 ? -errno : (int)fd;
}

int oomslice_pidfd_send_signal(int pidfd, int signal) {
        return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0U) < 0 ? -errno : 0;
}

int oomslice_process_mrelease(int pidfd) {
        return syscall(SYS_process_mrelease, pidfd, 0U) < 0 ? -errno : 0;
}
