/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * When a unit is looked at again. The kernel tells that a cgroup has its first process and that it has none any more, not
 * of one that is moved in between: so a unit is looked at a few times in its first second, and then no more.
 */
#include <stdint.h>

#include "apply.h"

void oomslice_looks_arm(struct oomslice_scored_unit *unit);
/* Looks now, and again if there is anybody. */
void oomslice_looks_begin(struct oomslice_apply *apply, struct oomslice_scored_unit *unit);
/* How long to sleep until the next one, in milliseconds; -1: nobody is to be looked at. */
int oomslice_looks_timeout(const struct oomslice_scores *scores);
/* Looks at those whose time has come. */
void oomslice_looks_take(struct oomslice_apply *apply);
