/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * Units that are younger than the table. As in the core (core/unplanned.c) and in the kernel (bpf/young.h), one that was only
 * started anew has what the table has for its name, any other one what its slice hands down; what is inside a unit is none.
 */
#include <stddef.h>

#include "apply.h"

/* A cgroup is made in the slice of this number. */
void oomslice_young_appeared(struct oomslice_apply *apply, size_t slice, const char *name);
/* A cgroup of this name was removed in the slice of this path. */
void oomslice_young_ended(struct oomslice_apply *apply, const char *slice_path, const char *name);
/* All slices of a table that takes the place of the one in force: they are watched, and who is younger is taken into it. */
void oomslice_young_find(struct oomslice_apply *apply, struct oomslice_scores *next);
/* The same in the table in force, and who has ended is dropped. */
void oomslice_young_look_around(struct oomslice_apply *apply);
