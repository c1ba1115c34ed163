/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The carrier oom_ops: which of its objects fits the running kernel, and how it is attached (carrier.h). */
#include <stdbool.h>
#include <stddef.h>

#include "refuse.h"

struct bpf_object;
struct btf;

extern const char *const oomslice_ops_calls[];

bool oomslice_ops_fits(const struct btf *btf, const void *(**objectp)(size_t *sizep),
                       char why[static OOMSLICE_WHY_MAX]);
bool oomslice_ops_attach(struct bpf_object *object, const char *directory, char why[static OOMSLICE_WHY_MAX]);
