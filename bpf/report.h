/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What became of each carrier when it was loaded, kept in a file for whoever asks later. */
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "refuse.h"

/* What became of the policy that is to be in force. */
struct oomslice_report_policy {
        char name[NAME_MAX + 1];
        bool in_force;
        char why[OOMSLICE_WHY_MAX];
        /* Of the real clock, when that was so. */
        uint64_t usec;
        /* Names of the carriers that have it, with spaces between them. */
        char carriers[128];
};

/* Begins a new report beside the one at `path`; NULL with errno set. */
FILE *oomslice_report_begin(const char *path);
/* Adds a line: name, "active" or "inactive", and why not, with tabs between them. */
void oomslice_report_add(FILE *report, const char *name, bool active, const char *why);
/* Adds a line: "policy", "active" or "inactive", why not, the name of its file, when, and who has it. */
void oomslice_report_add_policy(FILE *report, const struct oomslice_report_policy *policy);
/* Adds what an earlier report says of carriers, but those of which `why_not` has a sentence why they run no more (else NULL). */
void oomslice_report_add_carriers(FILE *report, const char *path, const char *(*why_not)(const char *name));
/* Puts the new report in the place of the old one. 0 or -errno. */
int oomslice_report_end(FILE *report, const char *path);
/* Why a carrier was not loaded, empty if the report does not say. False: there is no report. */
bool oomslice_report_why(const char *path, const char *name, char *why, size_t size);
/* False: there is no policy, or no report. */
bool oomslice_report_find_policy(const char *path, struct oomslice_report_policy *policy);
