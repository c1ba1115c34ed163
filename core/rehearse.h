/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The dry run of the kill path, before it is needed. */
#include "force.h"

/*
 * All of it that needs no plan, in the threads that will do it; once, when they are started and nothing is locked yet.
 * `root_fd`: the root of the cgroups. Takes some milliseconds.
 */
void oomslice_rehearse(int root_fd);
/* What a decision by this plan begins with. The plan is in force. */
void oomslice_rehearse_plan(const struct oomslice_force *force);
