/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Pressure stall information: triggers, and the figures of a pressure file. */
#include <stdint.h>

#include "plan.h"
#include "ring.h"

/* cffi: begin */
/*
 * Opens `path` below `dir_fd` (or AT_FDCWD) and sets the trigger. Returns the descriptor, which reports POLLPRI
 * (once per window at the most) while the stall is exceeded, or -errno: EINVAL for a window outside 500 ms to
 * 10 s, or for one that is no multiple of 2 s without CAP_SYS_RESOURCE; EOPNOTSUPP where PSI is switched off.
 */
int oomslice_psi_open(int dir_fd, const char *path, const struct oomslice_psi_trigger *trigger);
/* cffi: end */
/*
 * The same trigger as somebody without CAP_SYS_RESOURCE gets it: in whole windows of 2 s, the stall in proportion. The
 * kernel looks after those in an ordinary worker. After the others it looks in a thread of the lowest real-time
 * priority, which never runs while real-time programs keep all processors busy. EPERM before Linux 6.5.
 */
int oomslice_psi_open_plain(int dir_fd, const char *path, const struct oomslice_psi_trigger *trigger);

/* Reads averages and totals from a pressure file that is open. 0 or -errno; what is missing stays 0. */
int oomslice_psi_read(int fd, struct oomslice_psi_trigger_figures *figuresp);
/* The same from text; split off so that tests need no kernel. */
void oomslice_psi_parse(const char *text, struct oomslice_psi_trigger_figures *figuresp);
