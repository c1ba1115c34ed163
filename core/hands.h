/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Threads of normal priority for writes that may take their time: reclaim happens inside of them. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum oomslice_hands_limit {
        OOMSLICE_HANDS_COUNT = 2,
        OOMSLICE_HANDS_TEXT = 32, /* bytes of one write */
};

/* Starts the threads. 0 or -errno; without them the steps that need one are unavailable. */
int oomslice_hands_start(void);
/* Has `text` written to a copy of `fd`. Returns the job's number, 0 if no hand is free, or none can be given it. */
uint32_t oomslice_hands_write(int fd, const char *text, size_t size);
/* The same for the file `name` in `directory_fd`, which the hand opens. `name` stays as it is for good. */
uint32_t oomslice_hands_write_file(int directory_fd, const char *name, const char *text, size_t size);
/* True if this job is done; *errorp is then 0 or its errno. A job that is never asked for is no loss. */
bool oomslice_hands_done(uint32_t job, int *errorp);
