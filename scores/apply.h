/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* From a unit to its processes. */
#include <stdbool.h>
#include <stdint.h>

#include "table.h"

struct oomslice_apply {
        int root;  /* the cgroup hierarchy */
        int proc;  /* /proc */
        int state; /* the state file, to append to; -1 while nothing new is to be noted */
        const char *state_path;
        int events;     /* inotify; -1 where nothing is watched */
        uint32_t noted; /* young units that were appended to the state file */
        bool undo;      /* every unit gets what it had before */
        struct oomslice_scores scores;
        uint64_t hits;   /* values written */
        uint64_t missed; /* that could not be */
        char error[192]; /* the last failure, empty if there was none */
};

/* What a process of this unit is to have; false if it keeps what it has. */
bool oomslice_apply_wanted(const struct oomslice_apply *apply, const struct oomslice_scored_unit *unit,
                           int adj, bool *ours, int *wantedp);
/* A unit's directory, if it is still the one that was meant. A descriptor or -errno. */
int oomslice_apply_open(const struct oomslice_apply *apply, const struct oomslice_scored_unit *unit);
/* Gives all processes of a unit their value. Whether there are any, and they are not left alone. */
bool oomslice_apply_unit(struct oomslice_apply *apply, struct oomslice_scored_unit *unit);
/* Sets memory.oom.group again where it is to be set: systemd writes it, too. */
void oomslice_apply_groups(struct oomslice_apply *apply);
/* Gives all units theirs that do not have it. */
void oomslice_apply_all(struct oomslice_apply *apply);
