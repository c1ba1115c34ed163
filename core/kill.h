/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Signals by pidfd, never by number alone, and the release of a dying process's memory. */
#include <stdint.h>

/* cffi: begin */
/* A pidfd, or -errno; ESRCH: no such process, EINVAL: a thread that leads no group. */
int oomslice_pidfd_open(int32_t pid);
/* 0 or -errno; ESRCH: it has died. */
int oomslice_pidfd_send_signal(int pidfd, int signal);
/* Frees the memory of a process that is already being killed, in the caller's context. 0 or -errno; ESRCH: gone,
 * EINVAL: not dying, EAGAIN: could not take the lock, ENOSYS: kernel < 5.15. */
int oomslice_process_mrelease(int pidfd);
/* cffi: end */
