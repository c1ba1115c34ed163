/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* An administrator's own policy (policy.h) as a file, and what the linker makes of it and of our programs. */
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "refuse.h"

struct oomslice_policy_file {
        /* Without its directory. */
        char name[NAME_MAX + 1];
        unsigned char *bytes;
        size_t size;
        /* For the linker. */
        int object;
};

/* The name of the function that a policy is. */
extern const char oomslice_policy_function[];

/* Reads and checks it. False: it is no policy, and `why` has a sentence. True: it has to be forgotten in the end. */
bool oomslice_policy_file_read(struct oomslice_policy_file *file, const char *path,
                               char why[static OOMSLICE_WHY_MAX]);
void oomslice_policy_file_forget(struct oomslice_policy_file *file);
/* Makes one object of the programs of `carrier` and of the policy, whose function is in the place of the programs' own one.
 * `*linkedp` is the caller's to free. */
bool oomslice_policy_file_link(const struct oomslice_policy_file *file, const char *carrier,
                               const void *bytes, size_t size, void **linkedp, size_t *sizep,
                               char why[static OOMSLICE_WHY_MAX]);
