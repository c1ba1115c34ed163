/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Memory that never leaves RAM, as little of it as the plan in force needs. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OOMSLICE_LOCK_PAGE = 4096 };

/* Registers a page-aligned table of which only the start is in use; before oomslice_lock_all(). */
void oomslice_lock_table(void *table, size_t size);
/* Locks everything there is and will be, but the tables. 0 or -errno. */
int oomslice_lock_all(void);
/* Locks the first `used` bytes of a table of `size` bytes, and lets go of the rest. */
void oomslice_lock_used(void *table, size_t size, size_t used);
/* Locked bytes as the kernel counts them (VmLck); `status_fd`: /proc/self/status. */
uint64_t oomslice_lock_bytes(int status_fd);
