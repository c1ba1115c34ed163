/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The loop: wait, look, act. */

/* `timer_fd`: a CLOCK_MONOTONIC timerfd. Returns 0 when it is told to end, or -errno of the wait itself. */
int oomslice_loop_run(int epoll_fd, int timer_fd);
