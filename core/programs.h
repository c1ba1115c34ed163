/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The maps of the BPF programs that are loaded, as oomsliced or the service manager hands them over. */
#include <stdint.h>

#include "notify.h"

/* The maps that the programs have now, in the order of OOMSLICE_MESSAGE_PROGRAMS; they stay the caller's. 0 or -errno. */
int oomslice_programs_take(const int *fds, uint32_t fds_count);
/* Those that a predecessor had, and closes them. 0 or -errno; then it is as if there were none. */
int oomslice_programs_restore(const struct oomslice_inherited *inherited);
