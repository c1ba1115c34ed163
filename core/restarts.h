/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Units that are killed and come back at once: the same name, another cgroup each time. */
#include <stdint.h>

/* A unit of this name is killed now. */
void oomslice_restarts_note(const char *name, uint64_t now_us);
/* How often one was within the last minute, up to 8. */
uint32_t oomslice_restarts_count(const char *name, uint64_t now_us);
