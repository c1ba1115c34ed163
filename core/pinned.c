/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the few commands of bpf(2) that a reader of pinned maps needs, so that neither the core nor the Python module
 * links libbpf. It loads nothing and pins nothing: bpf/loader.c does, in a service of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pinned.h"

static int command(enum bpf_cmd cmd, union bpf_attr *attributes) {
        long r = syscall(SYS_bpf, cmd, attributes, sizeof(*attributes));

        return r < 0 ? -errno : (int)r;
}

static int open_pinned(const char *path, uint32_t flags) {
        union bpf_attr attributes;

        memset(&attributes, 0, sizeof(attributes));
        attributes.pathname = (uintptr_t)path;
        attributes.file_flags = flags;
        return command(BPF_OBJ_GET, &attributes);
}

/* Fills `info` with zeroes where the kernel knows less of it. 0 or -errno. */
static int read_info(int fd, void *info, uint32_t size) {
        union bpf_attr attributes;
        int r;

        memset(info, 0, size);
        memset(&attributes, 0, sizeof(attributes));
        attributes.info.bpf_fd = (uint32_t)fd;
        attributes.info.info_len = size;
        attributes.info.info = (uintptr_t)info;
        r = command(BPF_OBJ_GET_INFO_BY_FD, &attributes);
        return r < 0 ? r : 0;
}

int oomslice_pinned_open(const char *path) {
        return open_pinned(path, 0);
}

int oomslice_pinned_map(int fd, struct oomslice_pinned_map *mapp) {
        struct bpf_map_info info;
        int r = read_info(fd, &info, sizeof(info));

        if (r < 0)
                return r;
        *mapp = (struct oomslice_pinned_map){
                .type = info.type,
                .id = info.id,
                .entries = info.max_entries,
                .value_size = info.value_size,
                .flags = info.map_flags,
        };
        return 0;
}

static int element(enum bpf_cmd cmd, int fd, const void *key, const void *value) {
        union bpf_attr attributes;

        memset(&attributes, 0, sizeof(attributes));
        attributes.map_fd = (uint32_t)fd;
        attributes.key = (uintptr_t)key;
        attributes.value = (uintptr_t)value;
        return command(cmd, &attributes);
}

int oomslice_pinned_lookup(int fd, const void *key, void *value) {
        return element(BPF_MAP_LOOKUP_ELEM, fd, key, value);
}

int oomslice_pinned_update(int fd, const void *key, const void *value) {
        return element(BPF_MAP_UPDATE_ELEM, fd, key, value); /* flags 0: BPF_ANY */
}

int oomslice_pinned_delete(int fd, const void *key) {
        return element(BPF_MAP_DELETE_ELEM, fd, key, NULL);
}

/* BPF_STRUCT_OPS of enum bpf_attach_type, which headers before 6.4 do not have. */
enum { ATTACH_STRUCT_OPS = 44 };

int oomslice_pinned_attach(int map, int cgroup, uint32_t flags) {
        union bpf_attr attributes;

        memset(&attributes, 0, sizeof(attributes));
        attributes.link_create.prog_fd = (uint32_t)map; /* map_fd, where a header is young enough */
        attributes.link_create.target_fd = (uint32_t)cgroup;
        attributes.link_create.attach_type = ATTACH_STRUCT_OPS;
        attributes.link_create.flags = flags;
        return command(BPF_LINK_CREATE, &attributes);
}

int oomslice_pinned_missed(const char *path, uint64_t *missedp) {
        struct bpf_prog_info info;
        int fd, r;

        fd = open_pinned(path, BPF_F_RDONLY);
        if (fd < 0)
                return fd;
        r = read_info(fd, &info, sizeof(info));
        close(fd);
        if (r < 0)
                return r;
        *missedp = info.recursion_misses;
        return 0;
}
