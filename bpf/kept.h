/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The policy that is to be in force whenever programs are loaded: one file in a directory of root's. */
#include <limits.h>
#include <stdbool.h>

#include "policyfile.h"
#include "refuse.h"

enum oomslice_kept {
        OOMSLICE_KEPT_NONE,
        OOMSLICE_KEPT_ONE,
        OOMSLICE_KEPT_BAD, /* `why` says what is wrong */
};

/* Writes the path of the one that is kept, or the directory's if there is none. */
enum oomslice_kept oomslice_kept_find(const char *directory, char path[static PATH_MAX],
                                      char why[static OOMSLICE_WHY_MAX]);
/* Writes the file beside the one that is kept; and puts it in the place of that. */
bool oomslice_kept_write(const char *directory, const struct oomslice_policy_file *file,
                         char why[static OOMSLICE_WHY_MAX]);
bool oomslice_kept_replace(const char *directory, const struct oomslice_policy_file *file,
                           char why[static OOMSLICE_WHY_MAX]);
/* Forgets what was written. */
void oomslice_kept_forget(const char *directory);
/* Removes what is kept, and what was written; then the directory. */
bool oomslice_kept_remove(const char *directory, char why[static OOMSLICE_WHY_MAX]);
