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
struct oomslice_policy_file;

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

/* Programs that the kernel has taken and that are attached to nothing yet. */
struct oomslice_loaded {
        const struct oomslice_carrier *carrier;
        /* NULL: they were not taken. */
        struct bpf_object *object;
        /* The same without a policy, never loaded; and the bytes of it with one. Both NULL: there is none in it. */
        struct bpf_object *plain;
        void *linked;
        /* It asks a policy, if there is one. */
        bool chooses;
};

/* What programs are to be loaded with. */
struct oomslice_load {
        /* Of the running kernel, NULL if it has none. */
        const struct btf *btf;
        /* A directory on a BPF file system. */
        const char *pins;
        /* For the programs that choose; NULL: none. */
        const struct oomslice_policy_file *policy;
        /* Maps are those that are pinned, for programs that take the place of others. */
        bool keeps;
        /* Only such programs as choose. */
        bool choosers;
        /* What was loaded before for the same purpose: shared maps, and those of the policy, are those of these. */
        const struct oomslice_loaded *before;
        size_t before_count;
};

/* Loads all programs of it. False: nothing of it is left, and `why` has a sentence for people. True and no object: it is not
 * wanted. */
bool oomslice_carrier_load(const struct oomslice_carrier *carrier, const struct oomslice_load *load,
                           struct oomslice_loaded *loaded, char why[static OOMSLICE_WHY_MAX]);
/* Attaches and pins what was loaded below the directory `pins`, where nothing of this carrier is. False: nothing is. */
bool oomslice_carrier_attach(const struct oomslice_loaded *loaded, const char *pins,
                             char why[static OOMSLICE_WHY_MAX]);
/* Attaches and pins it in the place of what runs. False: of the carrier its maps are left, for another try. */
bool oomslice_carrier_exchange(const struct oomslice_loaded *loaded, const char *pins,
                               char why[static OOMSLICE_WHY_MAX]);
void oomslice_carrier_forget(struct oomslice_loaded *loaded);
/* Whether a kernel with these types has the means for it, without loading anything; if not, `why` has a sentence. What the
 * verifier would say is not known by that. */
bool oomslice_carrier_possible(const struct oomslice_carrier *carrier, const struct btf *btf,
                               char why[static OOMSLICE_WHY_MAX]);
/* Whether programs of it are pinned, and if so what they have counted. */
bool oomslice_carrier_loaded(const struct oomslice_carrier *carrier, const char *pins,
                             struct oomslice_carrier_figures *figures);
/* Removes all pins of all carriers, with which the programs end. 0 or -errno of what could not be removed. */
int oomslice_carriers_unload(const char *pins);
