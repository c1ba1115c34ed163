/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns what a cgroup is known by. A path can be reused and a descriptor cannot be stored over a restart; the
 * id can do both jobs. Everything takes a descriptor, nothing takes a path.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cgroup.h"

/* include/linux/exportfs.h, FILEID_KERNFS: a handle whose 8 bytes are the kernfs node's id (since 5.5). */
enum { FILEID_KERNFS = 0xfe };

int oomslice_cgroup_kill(int cgroup_fd) {
        int fd, r = 0;

        fd = openat(cgroup_fd, "cgroup.kill", O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        if (write(fd, "1", 1) < 0)
                r = -errno;
        close(fd);
        return r;
}

int oomslice_cgroup_id(int cgroup_fd, uint64_t *idp) {
        struct statfs fs;
        struct stat st;

        if (fstatfs(cgroup_fd, &fs) < 0 || fstat(cgroup_fd, &st) < 0)
                return -errno;
        if (fs.f_type != CGROUP2_SUPER_MAGIC)
                return -ENOTSUP;
        if (!S_ISDIR(st.st_mode))
                return -ENOTDIR;
        *idp = st.st_ino;
        return 0;
}

int oomslice_cgroup_open_by_id(int root_fd, uint64_t id) {
        union {
                struct file_handle handle;
                char space[sizeof(struct file_handle) + sizeof(uint64_t)];
        } u = {.handle = {.handle_bytes = sizeof(id), .handle_type = FILEID_KERNFS}};
        uint64_t found;
        int fd, r;

        memcpy(u.space + sizeof(struct file_handle), &id, sizeof(id));
        fd = open_by_handle_at(root_fd, &u.handle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        /* Belt and braces: on another file system the same eight bytes could mean anything. */
        r = oomslice_cgroup_id(fd, &found);
        if (r == 0 && found != id)
                r = -ESTALE;
        if (r < 0) {
                close(fd);
                return r;
        }
        return fd;
}
