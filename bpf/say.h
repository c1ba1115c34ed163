/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the commands of oomslice-bpf say, on standard output and on standard error. */

/* An error, as one line. Returns the exit status 1. */
__attribute__((format(printf, 1, 2))) int oomslice_say_failed(const char *format, ...);
/* A text as a string of JSON. */
void oomslice_say_json(const char *text);
/* Ends the output. The exit status: 1 and an error if not all of it could be written. */
int oomslice_say_all(void);
