/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What became of each carrier when it was loaded, kept in a file for whoever asks later. */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Begins a new report beside the one at `path`; NULL with errno set. */
FILE *oomslice_report_begin(const char *path);
/* Adds a line: name, "active" or "inactive", and why not, with tabs between them. */
void oomslice_report_add(FILE *report, const char *name, bool active, const char *why);
/* Puts the new report in the place of the old one. 0 or -errno. */
int oomslice_report_end(FILE *report, const char *path);
/* Why a carrier was not loaded, empty if the report does not say. False: there is no report. */
bool oomslice_report_why(const char *path, const char *name, char *why, size_t size);
