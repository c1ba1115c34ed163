/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the core says of itself. */
#include <stdint.h>

#include "channel.h"

/* `status_fd`: /proc/self/status. */
void oomslice_state_init(int status_fd);
/* Adds to the features that hold whatever the plan (enum oomslice_core_feature). */
void oomslice_state_add_features(uint32_t features);
void oomslice_state_count_wakeup(void);
void oomslice_state_get(struct oomslice_core_state *statep);
