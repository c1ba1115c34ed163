/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The maps of programs that are being loaded: which of them are there already, and where the others are pinned. */
#include <stdbool.h>

#include "carrier.h"
#include "refuse.h"

/* Directories below that of the pins, for the maps that carriers share (maps.h) and those of the policy. */
extern const char oomslice_reuse_shared[], oomslice_reuse_policy[];

/* Before they are loaded: gives them the maps that are there. `load` says which. */
bool oomslice_reuse_maps(const struct oomslice_loaded *loaded, const struct oomslice_load *load,
                         char why[static OOMSLICE_WHY_MAX]);
/* After it: pins what is not pinned yet. Shared maps first, and the programs' own when everything runs. */
bool oomslice_reuse_pin_shared(const struct oomslice_loaded *loaded, const char *pins,
                               char why[static OOMSLICE_WHY_MAX]);
bool oomslice_reuse_pin_own(const struct oomslice_loaded *loaded, const char *pins,
                            char why[static OOMSLICE_WHY_MAX]);
/* Before they are attached in the place of others: prekill has a variable with the number of entries in a map that it goes on
 * with (flight.h). */
void oomslice_reuse_count(const struct oomslice_loaded *loaded);
