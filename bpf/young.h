/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * Gives a value to cgroups that are younger than the plan: a unit must not be out of the programs' sight until oomsliced has
 * made the next plan, least of all when oomsliced stands still. As in the core (core/unplanned.c, settings_of in
 * core/sample.c) a unit that was only started anew has what it had, and any other one what its slice hands down. What
 * oomsliced writes later takes its place.
 *
 * Never gives one to what is inside a unit, nor where nobody may be chosen.
 */
#include "choice.h"
#include "flight.h"

enum { NAME_SIZE = 256, REMEMBERED_MAX = 512 };

/* BPF_LOCAL_STORAGE_GET_F_CREATE, an enumerator of the newer headers. */
enum { CREATE = 1 };

/* A unit's place: the cgroup that it is in, and its name there. */
struct place {
        __u64 parent;
        __u64 name_hash; /* FNV-1a */
};

/* The values of cgroups that were removed: systemd makes another one when the unit starts again. */
struct {
        __uint(type, BPF_MAP_TYPE_LRU_HASH);
        __uint(max_entries, REMEMBERED_MAX);
        __type(key, struct place);
        __type(value, struct oomslice_slice_value);
} remembered SEC(".maps");

struct name {
        char text[NAME_SIZE];
        __u32 length;
        __u64 hash;
};

/* Cgroups are made and removed one at a time, under the kernel's lock: so this is there once. */
static struct name young_name;

/* The length comes from the kernel: one that is counted here would be verified anew for every name there could be. */
static __always_inline void read_name(struct cgroup *cgroup, struct name *name) {
        long size =
                bpf_probe_read_kernel_str(name->text, sizeof(name->text), BPF_CORE_READ(cgroup, kn, name));

        name->length = size > 0 ? size - 1 : 0;
        name->hash = UINT64_C(0xcbf29ce484222325);
        for (__u32 i = 0; i < NAME_SIZE && i < name->length; i++)
                name->hash = (name->hash ^ (__u8)name->text[i]) * UINT64_C(0x100000001b3);
}

/* `end` with its final NUL. */
#define ENDS_WITH(name, end) ends_with(name, end, sizeof(end) - 1)

static __always_inline bool ends_with(const struct name *name, const char *end, __u32 size) {
        __u32 start = name->length - size;

        if (name->length <= size)
                return false;
        for (__u32 i = 0; i < size; i++)
                if (name->text[(start + i) & (NAME_SIZE - 1)] != end[i])
                        return false;
        return true;
}

/* As in core/unplanned.c: systemd's units that have a cgroup and, but for helpers, no process. */
static __always_inline bool is_no_unit(const struct name *name) {
        return name->text[0] == '.' || ENDS_WITH(name, ".mount") || ENDS_WITH(name, ".socket") ||
               ENDS_WITH(name, ".swap") || ENDS_WITH(name, "init.scope");
}

static __always_inline bool is_container(const struct name *name) {
        static const char manager[] = "user@";

        if (ENDS_WITH(name, ".slice"))
                return true;
        for (__u32 i = 0; i < sizeof(manager) - 1; i++)
                if (name->text[i] != manager[i])
                        return false;
        return ENDS_WITH(name, ".service");
}

static __always_inline void give(struct cgroup *cgroup, const struct oomslice_slice_value *value) {
        struct oomslice_slice_value *own = bpf_cgrp_storage_get(&slices, cgroup, NULL, CREATE);

        /* Without memory for it the cgroup has none, as before this program was there. */
        if (!own)
                return;
        *own = *value;
        own->tried_until_s = 0;
}

/* What its slice hands down, if that is one in which somebody may be chosen. */
static __always_inline void inherit(struct cgroup *cgroup, const struct oomslice_slice_value *above) {
        const __u32 never = OOMSLICE_UNIT_CANDIDATE | OOMSLICE_UNIT_TAKEN | OOMSLICE_UNIT_PROTECTED |
                            OOMSLICE_UNIT_SELF | OOMSLICE_UNIT_LEFT_TO_OOMD;
        struct oomslice_slice_value value = *above;

        if (above->flags & never || is_no_unit(&young_name))
                return;
        if (!is_container(&young_name))
                value.flags |= OOMSLICE_UNIT_CANDIDATE;
        value.scope = OOMSLICE_SCOPE_UNIT;
        give(cgroup, &value);
}

/* The cgroup that it is in, to be released, with its place there; its name is in young_name then. NULL: the root. */
static __always_inline struct cgroup *place_of(struct cgroup *cgroup, struct place *place) {
        struct cgroup *parent = cgroup->level < 1 ? NULL : bpf_cgroup_ancestor(cgroup, cgroup->level - 1);

        if (!parent)
                return NULL;
        read_name(cgroup, &young_name);
        place->parent = parent->kn->id;
        place->name_hash = young_name.hash;
        return parent;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(note_young, struct cgroup *cgroup) {
        struct oomslice_slice_value *known;
        struct cgroup *parent;
        struct place place;

        if (!ready())
                return 0;
        parent = place_of(cgroup, &place);
        if (!parent)
                return 0;
        known = bpf_map_lookup_elem(&remembered, &place);
        if (known)
                give(cgroup, known);
        else {
                known = bpf_cgrp_storage_get(&slices, parent, NULL, 0);
                if (known)
                        inherit(cgroup, known);
        }
        bpf_cgroup_release(parent);
        return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(note_removed, struct cgroup *cgroup) {
        struct oomslice_slice_value *value = bpf_cgrp_storage_get(&slices, cgroup, NULL, 0);
        struct cgroup *parent;
        struct place place;

        if (!value)
                return 0;
        parent = place_of(cgroup, &place);
        if (!parent)
                return 0;
        bpf_map_update_elem(&remembered, &place, value, BPF_ANY);
        bpf_cgroup_release(parent);
        return 0;
}
