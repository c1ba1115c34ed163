/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
#include <stdbool.h>

enum { OOMSLICE_WHY_MAX = 512 };

/* All that libbpf says goes to standard error, too. */
extern bool oomslice_refuse_verbose;

/* From now on what libbpf complains of is remembered, and what it said before is forgotten. */
void oomslice_refuse_listen(void);
/* A sentence. Always false. */
__attribute__((format(printf, 2, 3))) bool oomslice_refuse(char why[static OOMSLICE_WHY_MAX],
                                                           const char *format, ...);
/* The kernel has no system call for it. Always false. */
bool oomslice_refuse_no_bpf(char why[static OOMSLICE_WHY_MAX]);
/* A step of loading that failed, with its errno (of either sign) and what libbpf said. Always false. */
bool oomslice_refuse_step(char why[static OOMSLICE_WHY_MAX], const char *what, const char *name, int error);
