/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
#include "load.h"

/* Each is the command `policy` in one of its forms, and returns its exit status. */

/* Makes the function in the object file `file` a part of all programs that choose, now and whenever they are loaded. */
int oomslice_policy_put(const struct oomslice_places *places, const char *file);
/* Takes it out again. */
int oomslice_policy_remove(const struct oomslice_places *places);
/* Says which one is in force, and where. */
int oomslice_policy_show(const struct oomslice_places *places);
/* The same as a member of the status as JSON. */
void oomslice_policy_print_json(const struct oomslice_places *places);
