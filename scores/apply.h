/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* From a unit to its processes, and from a table of units to what is in force. */
#include <stdbool.h>
#include <stdint.h>

#include "table.h"

struct oomslice_apply {
        int root;  /* the cgroup hierarchy */
        int proc;  /* /proc */
        int state; /* the state file, to append to; -1 while nothing new is to be noted */
        bool undo; /* every unit gets what it had before */
        struct oomslice_scores scores;
        uint64_t hits;   /* values written */
        uint64_t missed; /* that could not be */
        char error[192]; /* the last failure, empty if there was none */
};

/* What a process of this unit is to have; false if it keeps what it has. */
bool oomslice_apply_wanted(const struct oomslice_apply *apply, const struct oomslice_scored_unit *unit,
                           int adj, bool *ours, int *wantedp);
/* Gives all processes of a unit their value. */
void oomslice_apply_unit(struct oomslice_apply *apply, struct oomslice_scored_unit *unit);
/* Gives all units theirs that do not have it. */
void oomslice_apply_all(struct oomslice_apply *apply);
/* Puts another table in the place of the one in force, and applies it; units that are not in it get back what they
 * had. `next` is taken over. The state file has both before anything is done. 0 or -errno. */
int oomslice_apply_replace(struct oomslice_apply *apply, const char *state_path,
                           struct oomslice_scores *next);
/* Undoes everything. The state file is gone if all could be. */
void oomslice_apply_undo(struct oomslice_apply *apply, const char *state_path);
