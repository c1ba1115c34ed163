/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What has to be undone, in a file of its own: there before it is done, so that whoever comes after can undo it. */
#include <stdint.h>

#include "table.h"

/* Writes all, in place of what was there; *fdp is then open to append to. 0 or -errno. */
int oomslice_state_write(const char *path, const struct oomslice_scores *scores, int *fdp);
/* Append what is known of a unit, or one line. 0 or -errno; nothing is done with -1 for a descriptor. */
int oomslice_state_append_unit(int fd, const struct oomslice_scored_unit *unit);
int oomslice_state_append_process(int fd, const struct oomslice_scored_process *process);
int oomslice_state_append_group(int fd, uint64_t id);
/* Reads it. 0; -ENOENT if there is none; any other -errno, -EBADMSG if it is none of ours. */
int oomslice_state_read(const char *path, struct oomslice_scores *scoresp);
void oomslice_state_remove(const char *path, int *fdp);
/* Drops processes that have ended. */
void oomslice_state_forget(int proc_fd, struct oomslice_scores *scores);
