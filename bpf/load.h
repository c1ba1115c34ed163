/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
#include <stdbool.h>

#include "report.h"

/* Where oomslice-bpf finds and leaves what it has. */
struct oomslice_places {
        const char *pins;
        const char *report;
        /* The directory of the policy that is kept. */
        const char *policies;
};

/* The commands `load` and `unload`; each returns its exit status. `is_left_out` says by name which programs are not wanted. */
int oomslice_load(const struct oomslice_places *places, bool (*is_left_out)(const char *name));
int oomslice_unload(const struct oomslice_places *places);

/* In the journal a warning, elsewhere a line. */
__attribute__((format(printf, 1, 2))) void oomslice_load_warn(const char *format, ...);
/* Notes that a carrier has the policy; and that it is so now. */
void oomslice_load_note_carrier(struct oomslice_report_policy *policy, const char *carrier);
void oomslice_load_note_time(struct oomslice_report_policy *policy);
