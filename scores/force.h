/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Which table is in force, and what of it is written down. */
#include "apply.h"

/* Puts another table in the place of the one in force, and applies it; units that are not in it get back what they
 * had, unless they are younger than it and it has a value for them. `next` is taken over. The state file has both before
 * anything is done. 0 or -errno. */
int oomslice_force_replace(struct oomslice_apply *apply, struct oomslice_scores *next);
/* Undoes everything. The state file is gone if all could be. */
void oomslice_force_undo(struct oomslice_apply *apply);
/* Writes down a unit that is younger than the table. 0 or -errno. */
int oomslice_force_note(struct oomslice_apply *apply, const struct oomslice_scored_unit *unit);
