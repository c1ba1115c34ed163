/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* One set of BPF programs that oomslice-bpf loads or leaves, all or nothing. */
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "refuse.h"

struct bpf_object;
struct btf;

struct oomslice_carrier {
        const char *name;
        /* What it is there for, in a few words. */
        const char *summary;
        /* The compiled programs, part of this executable. */
        const void *(*object)(size_t *sizep);
        /* Functions that the programs call in the kernel (kfuncs), beside those that they are attached to; ends with NULL. */
        const char *const *calls;
        /* Where one object does not do for all kernels: the one for this, by its types. False: none does. */
        bool (*fits)(const struct btf *btf, const void *(**objectp)(size_t *sizep),
                     char why[static OOMSLICE_WHY_MAX]);
        /* Attaches and pins what is no program of its own; may be NULL. */
        bool (*attach)(struct bpf_object *object, const char *directory, char why[static OOMSLICE_WHY_MAX]);
};

/* What is known of a loaded one from its pins. */
struct oomslice_carrier_figures {
        uint64_t hits;
        uint64_t missed;
        uint64_t lost;
};

/* The carriers in the order in which they are loaded; ends with a name of NULL. */
extern const struct oomslice_carrier oomslice_carriers[];

/* Loads, attaches and pins all programs of it below the directory `pins`. False: nothing of it is left, and `why` has a
 * sentence for people. `btf` are the types of the running kernel, NULL if it has none. */
bool oomslice_carrier_load(const struct oomslice_carrier *carrier, const struct btf *btf, const char *pins,
                           char why[static OOMSLICE_WHY_MAX]);
/* Whether a kernel with these types has the means for it, without loading anything; if not, `why` has a sentence. What the
 * verifier would say is not known by that. */
bool oomslice_carrier_possible(const struct oomslice_carrier *carrier, const struct btf *btf,
                               char why[static OOMSLICE_WHY_MAX]);
/* Whether programs of it are pinned, and if so what they have counted. */
bool oomslice_carrier_loaded(const struct oomslice_carrier *carrier, const char *pins,
                             struct oomslice_carrier_figures *figures);
/* Removes all pins of all carriers, with which the programs end. 0 or -errno of what could not be removed. */
int oomslice_carriers_unload(const char *pins);
