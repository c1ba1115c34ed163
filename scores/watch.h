/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the kernel tells of cgroups: one is populated anew, one is made or removed in a slice. */
#include "apply.h"

/* Watches cgroup.events of a unit, or the directory of a slice, unless it is watched already. `directory` is its own. */
void oomslice_watch_unit(const struct oomslice_apply *apply, struct oomslice_scored_unit *unit,
                         int directory);
void oomslice_watch_slice(const struct oomslice_apply *apply, struct oomslice_scored_unit *slice,
                          int directory);
void oomslice_watch_end(const struct oomslice_apply *apply, struct oomslice_scored_unit *unit);
/* Watches all units that are not. */
void oomslice_watch_all(struct oomslice_apply *apply);
/* Takes what there is to be told, and does what follows from it. */
void oomslice_watch_read(struct oomslice_apply *apply);
