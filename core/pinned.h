/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Maps of BPF programs that oomslice-bpf has pinned. Opening one needs rights to its file and nothing else (since 5.19). */
#include <stdint.h>

/* cffi: begin */
/* Opens the map that is pinned at `path`. A descriptor or -errno; ENOENT: nothing is pinned there, EPERM: the kernel
 * lets nobody without CAP_BPF do this. */
int oomslice_pinned_open(const char *path);
struct oomslice_pinned_map {
        uint32_t type; /* enum bpf_map_type */
        uint32_t id;   /* of this map since the machine was booted; never 0 */
        uint32_t entries;
        uint32_t value_size;
        uint32_t flags; /* those it was made with */
};
/* What a map is. 0 or -errno; EINVAL: the descriptor is not of BPF. Of a program or a link it says something else. */
int oomslice_pinned_map(int fd, struct oomslice_pinned_map *mapp);
/* Copies out what a map has for a key. 0 or -errno; ENOENT: nothing. */
int oomslice_pinned_lookup(int fd, const void *key, void *value);
/* Sets what a map has for a key, or forgets it. 0 or -errno. Of cgroups the key is a descriptor, as int. */
int oomslice_pinned_update(int fd, const void *key, const void *value);
int oomslice_pinned_delete(int fd, const void *key);
/* Attaches a struct_ops map to a cgroup, both by their descriptors, for as long as what it returns is open. A descriptor or
 * -errno. Flags: see bpf/ops.c. */
int oomslice_pinned_attach(int map, int cgroup, uint32_t flags);
/* How often the program that is pinned at `path` should have run and did not, since it was running on that processor
 * already. 0 or -errno. */
int oomslice_pinned_missed(const char *path, uint64_t *missedp);
/* cffi: end */
